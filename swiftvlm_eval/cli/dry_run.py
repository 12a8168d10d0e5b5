"""`sweep --dry-run`: what would be run, and for how long; nothing is written."""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Literal

from rich.markup import escape

from swiftvlm_eval.cli.progress import duration, logged
from swiftvlm_eval.cli.sweeping import load
from swiftvlm_eval.cli.terminal import console, folding_table, quieten

if TYPE_CHECKING:
    from swiftvlm_eval.analysis.pace import Pace
    from swiftvlm_eval.sweep import Configuration, Preview

COLOURS = {"run": "green", "stored": "cyan", "refused": "red"}


def dry_run(
    model: str,
    out: Path,
    grid: Sequence["Configuration"],
    tasks: list[str],
    *,
    budgets: Sequence[str],
    device: str,
    limit: int | None,
    batch_size: int | Literal["auto"],
    look_ahead: int | None,
    **loading: Any,
) -> bool:
    """Prints documents of each task, what would become of each configuration, and an estimate of the hours.

    Returns:
        Whether every configuration can be run or is stored.

    Raises:
        ValueError, RuntimeError, TypeError, OSError: as raised by what is wrong; the message names it.
    """
    from swiftvlm_eval.analysis.pace import measured_pace
    from swiftvlm_eval.sweep import Sweep
    from swiftvlm_eval.sweep.processes import Processes

    quieten()
    processes = Processes(device)
    if processes.count > 1:
        raise ValueError(f"dry_run: {processes.count} processes were started; allowed is one")
    with TemporaryDirectory() as folder, logged(Path(folder) / "log"):
        documents, checkpoint = load(model, tasks, processes, budgets=budgets, device=device, **loading)
        sizes: dict[str, Any] = {"batch_size": batch_size, "look_ahead": look_ahead}
        sweep = Sweep(checkpoint, documents, out, limit=limit, processes=processes, **sizes)
        expected = documents.expected(limit)
        for name, count in sorted(expected.items()):
            console.print(f"{escape(name)}: {count} of {documents.counts[name]} documents", soft_wrap=True)
        previews = sweep.preview(grid)
        say_previews(previews)
        to_run = [preview for preview in previews if preview.status == "run"]
        missing = sum(max(0, sum(expected.values()) - preview.answers) for preview in to_run)
        pace = None
        if missing:
            with console.status("measuring"):
                pace = measured_pace(checkpoint, documents, limit)
    say_hours(missing, pace, len(to_run))
    console.print("nothing was written")
    return all(preview.status != "refused" for preview in previews)


def say_previews(previews: Sequence["Preview"]) -> None:
    """One line a configuration, and how many there are of each kind."""
    table = folding_table("configuration", "would be", "note")
    for preview in previews:
        note = preview.reason or (f"{preview.answers} answers are stored" if preview.answers else "")
        status = f"[{COLOURS[preview.status]}]{preview.status}[/]"
        table.add_row(escape(preview.configuration.label), status, escape(note))
    console.print(table)
    counts = {status: sum(preview.status == status for preview in previews) for status in COLOURS}
    console.print(
        f"{len(previews)} configurations: {counts['run']} to run, {counts['stored']} stored, "
        f"{counts['refused']} refused"
    )


def say_hours(missing: int, pace: "Pace | None", configurations: int) -> None:
    """The estimate, and what it was made from."""
    if not missing:
        console.print("nothing is left to run")
    elif pace is None:
        console.print(f"{missing} answers are missing; no task has generated answers to measure")
    else:
        console.print(
            f"{missing} answers are missing in {configurations} configurations: about "
            f"{duration(3600 * pace.hours(missing))}, an ESTIMATE: {pace.documents} documents of {escape(pace.task)} "
            f"took {pace.seconds:.2g} s each, unpruned and one at a time. Other tasks have longer or shorter answers, "
            "and pruned runs are faster.",
            soft_wrap=True,
        )
