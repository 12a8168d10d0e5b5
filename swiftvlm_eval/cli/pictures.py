"""Commands that draw: `show`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.markup import escape

from swiftvlm_eval.cli.options import (
    AttnOption,
    DeviceOption,
    DtypeOption,
    ImageModeOption,
    MethodsOption,
    ModelOption,
    RevisionOption,
)
from swiftvlm_eval.cli.terminal import console, fail, folding_table, print_whole, quieten

if TYPE_CHECKING:
    from swiftvlm_eval.analysis.asking import Asked
    from swiftvlm_eval.analysis.show_files import SideBySide


def show_command(
    model: ModelOption,
    out: Annotated[Path, typer.Option("--out", "--output_path", help="A new or empty folder.")],
    methods: MethodsOption = "vanilla,fastv,swiftvlm",
    budget: Annotated[
        str, typer.Option(help="A share of the visual tokens (1/3, 33%), a count of a stated whole, or a count.")
    ] = "1/3",
    task: Annotated[str | None, typer.Option(help="An lmms-eval task, for one of its documents; with --doc.")] = None,
    doc: Annotated[int | None, typer.Option(help="The document's number, from 0, as in samples files.")] = None,
    image: Annotated[Path | None, typer.Option(help="An image file of your own; with --question.")] = None,
    question: Annotated[str | None, typer.Option(help="What to ask about it, as the model is to read it.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of methods that draw at random.")] = 0,
    revision: RevisionOption = None,
    dtype: DtypeOption = "auto",
    device: DeviceOption = "auto",
    attn: AttnOption = "sdpa",
    image_mode: ImageModeOption = "pad",
    layout: Annotated[
        Literal["columns", "rows"], typer.Option(help="Of side_by_side.png: one column or row for each method.")
    ] = "columns",
) -> None:
    """Draw what methods keep of one image, stage by stage and side by side, with their answers.

    Kept patches are clear, the others dimmed; tokens that came back are framed, and grounding has the predicted and
    the true box. Writes a PNG for every method and stage, `side_by_side.png`, `index.html` (one file, pictures
    inside) and `show.json`. The exit status is 1 if a method cannot meet the budget; the others are drawn.
    """
    from swiftvlm_eval.sweep import make_grid, parse_methods

    loading = {"revision": revision, "dtype": dtype, "attn_implementation": attn, "image_mode": image_mode}
    try:
        grid = make_grid(parse_methods(methods), [budget], [seed])
        wanted = _wanted(task, doc, image, question)
        whole = _draw(model, out, grid, wanted, budget=budget, layout=layout, device=device, **loading)
    except (ValueError, RuntimeError, TypeError, OSError) as error:
        fail(ValueError(" ".join(str(error).split())))
    raise typer.Exit(0 if whole else 1)


def _wanted(task: str | None, doc: int | None, image: Path | None, question: str | None) -> tuple[Any, Any]:
    """The two options that say what is asked.

    Raises:
        ValueError: neither pair is whole, or parts of both are given.
    """
    given = {"task": task, "doc": doc, "image": image, "question": question}
    pairs = [("task", "doc"), ("image", "question")]
    whole = [pair for pair in pairs if all(given[name] is not None for name in pair)]
    named = [name for name, value in given.items() if value is not None]
    if len(whole) != 1 or len(named) != 2:
        raise ValueError(
            f"given are {', '.join(named) or 'none'} of task, doc, image, question; allowed are task with doc, or "
            "image with question"
        )
    return (task, doc) if whole == [pairs[0]] else (image, question)


def _asked(wanted: tuple[Any, Any]) -> "Asked":
    from swiftvlm_eval.analysis.asking import ask_of_image, ask_of_task

    first, second = wanted
    return ask_of_image(first, second) if isinstance(first, Path) else ask_of_task(first, second)


def _draw(
    model: str,
    out: Path,
    grid: list[Any],
    wanted: tuple[Any, Any],
    *,
    budget: str,
    layout: "SideBySide",
    **loading: Any,
) -> bool:
    """Answers, draws, writes and prints; whether every method ran."""
    from swiftvlm_eval.analysis.show_files import check_folder, write_pictures
    from swiftvlm_eval.analysis.showing import show
    from swiftvlm_eval.models.checkpoint import load_checkpoint
    from swiftvlm_eval.models.families import visual_tokens_per_image
    from swiftvlm_eval.pruning.budget import parse_budget
    from swiftvlm_eval.results.store import make_folder

    check_folder(out)
    quieten()
    with console.status("reading the question"):
        asked = _asked(wanted)
    with console.status(f"loading {escape(model)}"):
        checkpoint = load_checkpoint(
            model, before_weights=lambda config: parse_budget(budget, visual_tokens_per_image(config)), **loading
        )
    with console.status("answering") as status:
        shown = show(checkpoint, asked, grid, lambda cell: status.update(f"answering: {escape(cell.label)}"))
    make_folder(out)
    check_folder(out)
    files = write_pictures(out, checkpoint, asked, shown, layout)
    table = folding_table("method", "visual rows per layer", "answer", "worth")
    for one in shown:
        said = [f"[red]refused[/]: {escape(one.refused)}", ""] if one.refused else [_plain(one.answer), one.verdict]
        table.add_row(_plain(one.label), "" if one.refused else f"{one.mean_tokens:.1f}", *said)
    print_whole(table)
    console.print(f"{len(files)} files; the page: {escape(str(files[0]))}", soft_wrap=True)
    return not any(one.refused for one in shown)


def _plain(text: str) -> str:
    """A model's words as they may stand in a table: they control no terminal and are no markup."""
    return escape("".join(sign if sign.isprintable() else " " for sign in text))
