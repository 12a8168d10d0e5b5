"""The command `export-embeddings`: visual rows of a method for a serving engine."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from swiftvlm_eval.cli.options import (
    AttnOption,
    DeviceOption,
    DtypeOption,
    ImageModeOption,
    ModelOption,
    RevisionOption,
    SeedOption,
)
from swiftvlm_eval.cli.terminal import console, fail, folding_table, print_whole, quieten

if TYPE_CHECKING:
    from swiftvlm_eval.pruning.contract import PruningMethod
    from swiftvlm_eval.serving.page import Exported


def export_embeddings_command(
    model: ModelOption,
    images: Annotated[list[Path], typer.Option("--images", metavar="FILE...", help="Image files, one or more.")],
    out: Annotated[Path, typer.Option("--out", "--output_path", help="A new or empty folder.")],
    more: Annotated[list[Path] | None, typer.Argument(metavar="[FILE...]", help="Further image files.")] = None,
    method: Annotated[
        str, typer.Option(help="One that acts before the decoder alone; options as name[option=value;option=value].")
    ] = "visionzip",
    budget: Annotated[
        str, typer.Option(help="A share of the visual tokens (1/3, 33%), a count of a stated whole, or a count.")
    ] = "1/3",
    question: Annotated[
        str | None,
        typer.Option(help="What will be asked. Needed by a method that reads it; its rows are for no other question."),
    ] = None,
    seed: SeedOption = 0,
    revision: RevisionOption = None,
    dtype: DtypeOption = "auto",
    device: DeviceOption = "auto",
    attn: AttnOption = "sdpa",
    image_mode: ImageModeOption = "pad",
) -> None:
    """Write the visual rows that a method leaves of images, for a serving engine such as vLLM.

    Engines prune nothing inside the decoder, but they take the rows of an image ready made: so methods that act
    before it and renumber positions can be served (`swiftvlm-eval methods` says which). Writes one safetensors file
    an image, and a README with the lines to hand it on. Where something is wrong nothing is written.
    """
    loading = {"revision": revision, "dtype": dtype, "attn_implementation": attn, "image_mode": image_mode}
    try:
        chosen = servable_method(method)
        asked = {"budget": budget, "question": question, "seed": seed}
        exported = _export(model, chosen, [*images, *(more or ())], out, asked, device=device, **loading)
    except (ValueError, RuntimeError, TypeError, OSError) as error:
        fail(ValueError(" ".join(str(error).split())))
    table = folding_table("file", "visual tokens", "rows")
    for each in exported:
        table.add_row(escape(each.file), str(each.before), str(each.after))
    print_whole(table)
    console.print(f"how to hand them on: {escape(str(out / 'README.md'))}", soft_wrap=True)


def servable_method(text: str) -> "PruningMethod":
    """The method, if an engine can run it.

    Raises:
        ValueError: it cannot, or there is no such method.
    """
    from swiftvlm_eval.pruning.describe import not_servable
    from swiftvlm_eval.pruning.registry import known_names, make_method

    method = make_method(text)
    if reason := not_servable(method):
        allowed = ", ".join(name for name in known_names() if not not_servable(make_method(name)))
        raise ValueError(f"method={text!r}: {reason}; allowed are {allowed}")
    return method


def _export(
    model: str, method: "PruningMethod", files: Sequence[Path], out: Path, asked: dict[str, Any], **loading: Any
) -> list["Exported"]:
    """Looks at everything that was given before the weights are read, then exports."""
    from swiftvlm_eval.analysis.asking import read_image
    from swiftvlm_eval.analysis.show_files import check_folder
    from swiftvlm_eval.models.checkpoint import load_checkpoint
    from swiftvlm_eval.models.families import visual_tokens_per_image
    from swiftvlm_eval.pruning.budget import parse_budget
    from swiftvlm_eval.serving.export import Request, check_names, export

    if asked["question"] is not None and not asked["question"].strip():
        raise ValueError(f"question={asked['question']!r}: allowed is a text of at least one word, or none at all")
    check_folder(out)
    check_names([file.name for file in files])
    for file in files:
        read_image(file)
    quieten()
    with console.status(f"loading {escape(model)}"):
        checkpoint = load_checkpoint(
            model,
            before_weights=lambda config: parse_budget(asked["budget"], visual_tokens_per_image(config)),
            **loading,
        )
    share = parse_budget(asked["budget"], visual_tokens_per_image(checkpoint.model.config))
    request = Request(method, asked["budget"], share, asked["question"], asked["seed"])
    with console.status("encoding") as status:
        return export(
            checkpoint,
            request,
            ((file.name, read_image(file)) for file in files),
            out,
            lambda name: status.update(f"encoded {escape(name)}"),
        )
