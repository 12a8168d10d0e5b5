"""A sweep as the commands run it: loaded, followed by a bar, and told line by line."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rich.markup import escape

from swiftvlm_eval.cli.progress import RunBar, log_file, logged
from swiftvlm_eval.cli.terminal import console, quieten

if TYPE_CHECKING:
    from swiftvlm_eval.models.checkpoint import Checkpoint
    from swiftvlm_eval.models.encode_once import EncodeOnce
    from swiftvlm_eval.sweep import Configuration, Outcome, Sweep
    from swiftvlm_eval.sweep.documents import Documents
    from swiftvlm_eval.sweep.features import Wish
    from swiftvlm_eval.sweep.processes import Processes


def exit_status(outcomes: Sequence["Outcome"]) -> int:
    """0 if every configuration has its record, else 1."""
    return 1 if any(outcome.record is None for outcome in outcomes) else 0


def run_sweep(
    model: str,
    out: Path,
    grid: Sequence["Configuration"],
    tasks: list[str],
    *,
    budgets: Sequence[str] = (),
    device: str = "auto",
    limit: int | None = None,
    batch_size: int | Literal["auto"] = 1,
    look_ahead: int | None = None,
    features: "Wish | None" = None,
    **loading: Any,
) -> list["Outcome"]:
    """Loads documents, then the model, and runs the grid: a bar for the whole, a line for each configuration.

    What libraries and lmms-eval print goes to a file in `out/logs`, which is named first.

    `budgets` are those of the grid as typed: a count among them is refused, before weights are read, where the
    model's images have other numbers of visual tokens.

    `features` says whether images may be encoded once for the whole grid; what becomes of it is told in a line.

    Of several processes only the first one speaks, errors aside.

    Raises:
        ValueError, RuntimeError, TypeError, OSError: as raised by what is wrong; the message names it.
    """
    from swiftvlm_eval.results.store import make_folder
    from swiftvlm_eval.sweep import Sweep
    from swiftvlm_eval.sweep.processes import Processes

    make_folder(out)
    quieten()
    processes = Processes(device)
    console.quiet = not processes.first
    log = log_file(out)
    console.print(f"{len(grid)} configurations; what lmms-eval and libraries say: {escape(str(log))}", soft_wrap=True)
    with logged(log):
        documents, checkpoint = load(model, tasks, processes, budgets=budgets, device=device, **loading)
        asked: dict[str, Any] = {"batch_size": batch_size, "look_ahead": look_ahead}
        asked |= {"limit": limit, "processes": processes}
        once = encode_once(features, Sweep(checkpoint, documents, out, **asked), grid) if features else None
        share = sum(-(-count // processes.count) for count in documents.expected(limit).values())
        with RunBar(len(grid), share) as bar:
            sweep = Sweep(checkpoint, documents, out, on_answers=bar.answered, once=once, **asked)
            outcomes = _followed(sweep.run(grid), len(grid), bar)
        if once is not None and processes.first and exit_status(outcomes) == 0:
            once.store.clear()  # of an interrupted grid they stay
        return outcomes


def encode_once(asked: "Wish", sweep: "Sweep", grid: Sequence["Configuration"]) -> "EncodeOnce | None":
    """What encodes images once for the configurations that are still to be run, if anything does; a line says so."""
    from swiftvlm_eval.sweep.features import count_images, decide, on_this_machine, open_store

    wish = sweep.processes.told(lambda: on_this_machine(asked, sweep.out, sweep.processes.count))

    def decision() -> Any:
        to_run = [preview.configuration for preview in sweep.preview(grid) if preview.status == "run"]
        if not to_run:
            return None
        return decide(
            wish,
            sweep.checkpoint,
            to_run,
            count=lambda: count_images(sweep.documents.tasks, sweep.limit),
            documents=sum(sweep.documents.expected(sweep.limit).values()),
            batch_size=sweep.batch_size,
            processes=sweep.processes.count,
        )

    decided = sweep.processes.told(decision)
    if decided is None:
        return None
    console.print(escape(decided.said), soft_wrap=True)
    return open_store(decided, wish, sweep.checkpoint, sweep.out)


def load(
    model: str, tasks: list[str], processes: "Processes", *, budgets: Sequence[str], device: str, **loading: Any
) -> tuple["Documents", "Checkpoint"]:
    """Documents, then the model; `budgets` are said in words before weights are read.

    Raises:
        ValueError, RuntimeError, TypeError, OSError: as raised by what is wrong; the message names it.
    """
    from swiftvlm_eval.models.checkpoint import load_checkpoint
    from swiftvlm_eval.models.families import visual_tokens_per_image
    from swiftvlm_eval.sweep.documents import Documents

    with console.status(f"loading {escape(', '.join(tasks))}"):
        documents = processes.one_after_the_other(lambda: Documents(tasks))
    with console.status(f"loading {escape(model)}"):
        checkpoint = load_checkpoint(
            model,
            device=processes.device_for(device),
            before_weights=lambda config: say_budgets(budgets, visual_tokens_per_image(config)),
            **loading,
        )
    return documents, checkpoint


def _followed(running: Iterable["Outcome"], configurations: int, bar: RunBar) -> list["Outcome"]:
    """The outcomes, each told in a line as soon as it is known."""
    outcomes = []
    for number, outcome in enumerate(running, start=1):
        outcomes.append(outcome)
        colour = {"done": "green", "kept": "cyan", "claimed": "yellow", "refused": "red"}[outcome.status]
        note = f": {outcome.reason}" if outcome.reason else ""
        took = bar.finished(ran=outcome.status == "done")
        label = escape(outcome.configuration.label)
        console.print(
            f"{number}/{configurations} {label} [{colour}]{outcome.status}[/]{took}{escape(note)}", soft_wrap=True
        )
    return outcomes


def say_budgets(typed: Sequence[str], visual_tokens: int | None) -> None:
    """Prints once what each budget stands for on this model; the whole needs no words.

    Raises:
        BudgetError: a count, where the images of the model have other numbers of visual tokens.
    """
    from swiftvlm_eval.pruning.budget import budget_in_words, parse_budget

    for text in typed:
        share = parse_budget(text, visual_tokens)
        if share < 1:
            console.print(f"budget {escape(text.strip())}: {budget_in_words(share, visual_tokens)}", soft_wrap=True)
