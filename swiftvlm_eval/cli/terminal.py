"""What all commands share: where they print, and how they fail."""

import sys
from typing import NoReturn

import typer
from rich.box import SIMPLE
from rich.console import Console
from rich.markup import escape
from rich.measure import Measurement
from rich.table import Table

console = Console()
errors = Console(stderr=True)


def folding_table(*headings: str) -> Table:
    """A table for text: cells that are too wide for the terminal go on in the next line, words included."""
    table = Table(box=SIMPLE)
    for heading in headings:
        table.add_column(heading, overflow="fold")
    return table


def print_whole(table: Table) -> None:
    """Prints a table without cutting its cells, also where the terminal is narrower (or a file)."""
    needed = Measurement.get(console, console.options.update(max_width=1000), table).maximum
    Console(width=max(needed, console.width)).print(table, soft_wrap=True)


def fail(error: Exception) -> NoReturn:
    """Prints one clear message and ends with status 1; what it quotes (a file's name) controls no terminal."""
    errors.print(f"[red]error[/] {escape(without_controls(str(error)))}", soft_wrap=True)
    raise typer.Exit(1)


def without_controls(text: str) -> str:
    """Text that controls no terminal; its lines stay."""
    return "".join(sign if sign.isprintable() or sign == "\n" else " " for sign in text)


def quieten() -> None:
    """Leaves the terminal to progress bars and results."""
    import datasets
    import transformers
    from loguru import logger

    logger.remove()
    logger.add(sys.stderr, level="WARNING", format="{level}: {message}")
    datasets.disable_progress_bars()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
