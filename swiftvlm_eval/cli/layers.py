"""The command `select-layers`: the layers at which a model is best pruned, found on documents."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from swiftvlm_eval.cli.options import (
    AttnOption,
    DeviceOption,
    DtypeOption,
    ImageModeOption,
    ModelOption,
    RevisionOption,
    names,
)
from swiftvlm_eval.cli.terminal import console, errors, fail, folding_table, quieten

if TYPE_CHECKING:
    from swiftvlm_eval.analysis.profile_files import Written
    from swiftvlm_eval.analysis.profile_run import ProfileRun

SHOWN = 3
"""Sets of layers listed beside the chosen one."""


def select_layers_command(
    model: ModelOption,
    tasks: Annotated[str, typer.Option(help="Comma-separated lmms-eval tasks or groups, scored by a mean.")],
    out: Annotated[
        Path,
        typer.Option(
            "--out", "--output_path", help="Folder for the profile; a second call goes on where the first stopped."
        ),
    ],
    samples: Annotated[
        int, typer.Option("--samples", "--limit", min=2, help="Documents per task, drawn at random.")
    ] = 1000,
    split: Annotated[
        str | None,
        typer.Option(help="Of the documents; one that no benchmark is scored on. Default: train; val for the demo."),
    ] = None,
    top: Annotated[float, typer.Option(help="Share of the visual tokens that a layer keeps.")] = 0.2,
    stages: Annotated[int, typer.Option(min=1, max=32, help="Most layers to choose.")] = 3,
    seed: Annotated[int, typer.Option(min=0, help="Another seed draws other documents.")] = 0,
    revision: RevisionOption = None,
    dtype: DtypeOption = "auto",
    device: DeviceOption = "auto",
    attn: AttnOption = "sdpa",
    image_mode: ImageModeOption = "pad",
) -> None:
    """Find the layers at which to prune a model (SwiftVLM's procedure, arXiv 2602.03134, equations 4 to 7).

    Every document is answered with all tokens, and once for each layer l from 2 on, where the layers from 3 on see
    only the tokens that layer l attends to most. The scores relative to all tokens are the profile; the layers are
    those that maximise the area under its rising staircase. Writes profile.json, profile.csv, layers.json and a plot;
    any method takes the layers as [layers=auto:FILE]. Scores are stored one by one, so that a killed run goes on.
    """
    loading: dict[str, Any] = {"revision": revision, "dtype": dtype, "attn_implementation": attn}
    try:
        run = _prepare(
            model, names("tasks", tasks), out, samples, split, top, seed, device, image_mode=image_mode, **loading
        )
        written, failed = _make(run, stages)
    except (ValueError, RuntimeError, TypeError, OSError) as error:
        fail(error)
    _tell(written, failed, out)


def _prepare(
    model: str,
    tasks: list[str],
    out: Path,
    samples: int,
    split: str | None,
    top: float,
    seed: int,
    device: str,
    **loading: Any,
) -> "ProfileRun":
    """Loads documents, then the model.

    Raises:
        ValueError, RuntimeError, TypeError, OSError: as raised by what is wrong; the message names it.
    """
    from swiftvlm_eval.demo import DATA_NAMES
    from swiftvlm_eval.results.store import make_folder
    from swiftvlm_eval.sweep.documents import Documents
    from swiftvlm_eval.sweep.processes import Processes

    if not 0 < top <= 1:
        raise ValueError(f"top={top}: allowed is a share of the visual tokens above 0 and at most 1")
    count = Processes(device).count
    if count > 1:
        raise ValueError(f"processes={count}: select-layers runs in one; start it without accelerate or torchrun")
    make_folder(out)
    quieten()
    with console.status(f"loading {escape(', '.join(tasks))}"):
        from swiftvlm_eval.analysis.selection_split import DEMO_SPLIT, selection_task

        found = Documents(tasks).tasks
        wanted = split or (DEMO_SPLIT if set(found) <= set(DATA_NAMES) else "train")
        drawn = [selection_task(name, task, wanted, samples, seed) for name, task in sorted(found.items())]
    from swiftvlm_eval.analysis.profile_run import ProfileRun
    from swiftvlm_eval.models.checkpoint import load_checkpoint

    with console.status(f"loading {escape(model)}"):
        checkpoint = load_checkpoint(model, device=device, **loading)
    return ProfileRun(checkpoint, drawn, out, split=wanted, seed=seed, share=top)


def _make(run: "ProfileRun", stages: int) -> tuple["Written", int]:
    """Answers what is not stored yet, saying how long it will take, and chooses.

    Returns:
        What was written, and how many answers began on logits that are not finite.
    """
    stored, layers = run.stored(), run.num_layers
    console.print(
        f"{run.total} documents, each answered {layers} times ({layers - 1} layers and all tokens); {stored} are "
        "stored. Of each document the image is encoded once and layers 1 and 2 run once in prefill.",
        soft_wrap=True,
    )
    collected, answered, begun = [], 0, time.monotonic()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=errors, transient=True) as progress:
        bar = progress.add_task("documents", total=run.total - stored)
        for sample, fresh in run.run():
            collected.append(sample)
            progress.advance(bar, int(fresh))
            answered += fresh
            if fresh and answered == 1:
                each = time.monotonic() - begun
                left = (run.total - stored - 1) * each / 60
                progress.console.print(f"the first took {each:.1f} s: about {left:.0f} min for the others")
            elif not answered:
                begun = time.monotonic()
    facts = run.shared_facts(collected)
    console.print(
        f"sharing saves {facts['decoder_prefill_flops_saved']:.0%} of the decoder's prefill FLOPs and {layers - 1} of "
        f"{layers} image encodings",
        soft_wrap=True,
    )
    return run.finish(collected, stages), sum(len(sample.not_finite) for sample in collected)


def _tell(written: "Written", failed: int, out: Path) -> None:
    """Prints the choice, the sets next to it and how stable it is."""
    table = folding_table("layers", "boundaries", "P(S)", "wins")
    share = dict(written.wins)
    for choice in [written.choice, *written.runners_up[:SHOWN]]:
        layers = ", ".join(map(str, choice.layers)) or "none"
        boundaries = ", ".join(map(str, choice.boundaries)) or "none"
        table.add_row(layers, boundaries, f"{choice.objective:.4f}", f"{share.get(choice.layers, 0.0):.0%}")
    console.print(table)
    console.print(
        "first row: the choice. Layers as in the paper, from 1; boundary b: b layers have run. wins: how often a set "
        "is best when the documents are drawn anew",
        soft_wrap=True,
    )
    if written.note:
        console.print(f"[yellow]note[/] {written.note}", soft_wrap=True)
    if failed:
        console.print(
            f"[yellow]note[/] {failed} answers began on logits that are not finite and count as they are; "
            "profile.json says of which layers",
            soft_wrap=True,
        )
    console.print(
        f"wrote {escape(', '.join(path.name for path in written.files))} to {escape(str(out))}", soft_wrap=True
    )
    if written.choice.layers:
        typed = f"swiftvlm[layers=auto:{out / 'layers.json'}]"
        console.print(f"use: --methods {escape(repr(typed))}", soft_wrap=True)
