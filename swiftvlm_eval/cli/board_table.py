"""A leaderboard in the terminal, in at most 100 columns."""

from typing import TYPE_CHECKING

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from rich.text import Text

from swiftvlm_eval.cli.terminal import console

if TYPE_CHECKING:
    from swiftvlm_eval.leaderboard.board import Board
    from swiftvlm_eval.leaderboard.render.terminal import Compact

WIDEST = 100
"""Columns of the table at most."""
NARROWEST_NAME = 16
"""Columns that a method's name has at least; a longer one goes on in the next line."""
MOST = 6
"""Columns of scores at most."""
_BETWEEN, _EDGES = 3, 1
"""Columns that the box takes beside each cell, and once."""


def print_board(board: "Board") -> None:
    """Prints a board's short table whole, in no more than 100 columns, also where the terminal is narrower."""
    Console(file=console.file, width=WIDEST).print(board_table(board))


def board_table(board: "Board") -> Table:
    """A leaderboard for the terminal: as many columns of scores as fit."""
    from swiftvlm_eval.leaderboard.render.terminal import compact
    from swiftvlm_eval.leaderboard.render.text import plain

    for most in range(MOST, 0, -1):
        short = compact(board, most)
        widths = _widths(short)
        if _total(widths) <= WIDEST:
            break
    table = Table(title=Text(plain(board.title)), caption=Text(short.legend), caption_justify="left", box=SIMPLE)
    for number, (heading, width) in enumerate(zip(short.header, widths, strict=True)):
        justify = "right" if number else "left"
        table.add_column(Text(plain(heading)), justify=justify, overflow="fold", width=width)  # type: ignore[arg-type]
    for number, texts in enumerate(short.body):
        new_budget = number + 1 < len(short.body) and short.body[number + 1][1] != texts[1]
        table.add_row(*(Text(plain(text)) for text in texts), end_section=new_budget)
    return table


def _widths(short: "Compact") -> list[int]:
    """Of every column: figures in one line, headings broken between words, the name in what is left of the line."""
    figures = [
        max([*(len(text) for text in texts), *(len(word) for word in heading.split())])
        for heading, *texts in list(zip(short.header, *short.body, strict=True))[1:]
    ]
    name = max(len(texts[0]) for texts in (short.header, *short.body))
    return [max(NARROWEST_NAME, min(name, WIDEST - _total([0, *figures]))), *figures]


def _total(widths: list[int]) -> int:
    return sum(widths) + _BETWEEN * len(widths) + _EDGES
