"""Options that several commands take, and how they are read."""

from typing import Annotated, Literal

import typer

MethodsOption = Annotated[
    str,
    typer.Option(
        help="Comma-separated; `all` for every method; options as name[option=value;option=value]; a+b runs a, then "
        "b. A method of your own is path/to/file.py:ClassName or package.module:ClassName; that file's code runs."
    ),
]
BudgetsOption = Annotated[
    str,
    typer.Option(
        help="Comma-separated; shares of the visual tokens (1/3, 0.333, 33%), counts of a stated whole (640/2880) or, "
        "where every image has 576 visual tokens (LLaVA-1.5), counts (192)."
    ),
]

# names as lmms-eval has them, where they mean the same
ModelOption = Annotated[
    str, typer.Option("--model", help="Hub id or folder of a LLaVA checkpoint, or `demo` (embedded, no download).")
]
TasksOption = Annotated[
    str, typer.Option("--tasks", help="Comma-separated lmms-eval tasks or groups; `lmms_eval --tasks list` has all.")
]
LimitOption = Annotated[
    int | None,
    typer.Option("--limit", min=1, help="Documents per task, to try things out; such records are marked."),
]
BatchSizeOption = Annotated[
    str,
    typer.Option(
        "--batch-size",
        "--batch_size",
        metavar="N|auto",
        help="1 is the protocol of the published numbers, and has times; auto takes the largest that fits, up to 64.",
    ),
]
LookAheadOption = Annotated[
    int | None,
    typer.Option(
        "--look-ahead",
        "--look_ahead",
        min=0,
        help="Batches that threads prepare ahead of the model; 2 by default, but 0 at batch size 1, whose times it "
        "would disturb: with another number there they are left out.",
    ),
]
RevisionOption = Annotated[str | None, typer.Option("--revision", help="Hub revision of the checkpoint.")]
DtypeOption = Annotated[
    Literal["auto", "float16", "bfloat16", "float32"],
    typer.Option("--dtype", help="Of the weights; auto is half precision on a GPU and float32 on a CPU."),
]
DeviceOption = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, or one of several as cuda:1.")]
AttnOption = Annotated[
    Literal["sdpa", "eager", "flash_attention_2", "flash_attention_3"],
    typer.Option("--attn", "--attn_implementation", help="Attention of the decoder."),
]
ImageModeOption = Annotated[
    Literal["pad", "hf_default"],
    typer.Option(
        "--image-mode",
        "--image_mode",
        help="Of LLaVA-1.5: pad to a square (the protocol), or the centre crop of the default processor.",
    ),
]
FeaturesOption = Annotated[
    Literal["auto", "memory", "folder", "off"],
    typer.Option(
        help="Encode each image once for the whole grid: in memory, or what does not fit there in the folder "
        "`features` of --out. Answers are then not timed. auto does so for batches, where it pays and fits. Methods "
        "that change what the vision tower computes run it themselves."
    ),
]
FeaturesMemoryOption = Annotated[
    float, typer.Option("--features-memory", min=0, help="GiB of each process's memory for image features.")
]
FeaturesFolderOption = Annotated[
    float, typer.Option("--features-folder", min=0, help="GiB of the folder for image features.")
]
SeedOption = Annotated[int, typer.Option("--seed", min=0, help="Of whatever is drawn at random.")]


def whole_numbers(field: str, text: str) -> list[int]:
    """Reads `0,1,2`.

    Raises:
        ValueError: something else.
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts):
        raise ValueError(f"{field}={text!r}: allowed are comma-separated whole numbers from 0")
    return [int(part) for part in parts]


def names(field: str, text: str) -> list[str]:
    """Reads `refcoco,textvqa`; empty parts do not count.

    Raises:
        ValueError: nothing is named.
    """
    found = [part.strip() for part in text.split(",") if part.strip()]
    if not found:
        raise ValueError(f"{field}={text!r}: names at least one")
    return found
