"""Options that several commands take, and how they are read."""

from typing import Annotated

import typer
from rich.markup import escape

MethodsOption = Annotated[
    str,
    typer.Option(
        # help is read as markup, which swallows what stands in brackets
        help=escape(
            "Comma-separated; `all` for every method; options as name[option=value;option=value]; a+b runs a, then b. "
            "A method of your own is path/to/file.py:ClassName or package.module:ClassName; that file's code runs."
        )
    ),
]
BudgetsOption = Annotated[
    str,
    typer.Option(
        help="Comma-separated; shares of the visual tokens (1/3, 0.333, 33%), counts of a stated whole (640/2880) or, "
        "where every image has 576 visual tokens (LLaVA-1.5), counts (192)."
    ),
]


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
