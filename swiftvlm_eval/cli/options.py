"""Options that several commands take."""

from typing import Annotated

import typer

MethodsOption = Annotated[
    str,
    typer.Option(help="Comma-separated; `all` for every method; options as name[option=value;option=value]."),
]
BudgetsOption = Annotated[
    str, typer.Option(help="Comma-separated; counts for 576 tokens (192) or shares of the visual tokens (0.333, 1/3).")
]
