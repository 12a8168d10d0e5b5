"""Tables before they have a format: what Markdown, HTML and the terminal all print."""

import math
from dataclasses import dataclass
from typing import Literal

from swiftvlm_eval.leaderboard.board import Board, Cell, Mark, Row
from swiftvlm_eval.leaderboard.columns import Column, TableName, column_table
from swiftvlm_eval.leaderboard.render.cost import FLOPS, flops_unit
from swiftvlm_eval.leaderboard.render.text import MISSING, interval, number

Better = Literal["higher", "lower", "none"]


@dataclass(frozen=True)
class Heading:
    """A column's heading and the direction in which its figures are better."""

    text: str
    better: Better


@dataclass(frozen=True)
class Figure:
    """One table cell.

    Attributes:
        lines: What is printed, one or two lines; unescaped.
        value: What the cell is sorted by; None where it is missing.
        mark: Whether it is the best of its budget, may still be the best, or was off its budget.
        flag: What the reader must see beside the figure; empty if nothing.
    """

    lines: tuple[str, ...]
    value: float | None = None
    mark: Mark = ""
    flag: str = ""


def headings(board: Board, *tables: TableName) -> list[Heading]:
    """Returns the headings of the figures of a row: benchmarks and group means with `cost`, then the columns."""
    columns = [Heading(_heading(board, column), column.better) for column in _columns(board, *tables)]
    if "cost" not in tables:
        return columns
    names = column_table().groups
    scores = [benchmark.title for benchmark in board.benchmarks] + [names[group] for group in board.groups]
    return [*(Heading(text, "higher") for text in scores), *columns]


def figures(board: Board, row: Row, *tables: TableName) -> list[Figure]:
    """Returns the figures of a row, in the order of `headings`."""
    columns = [
        _flops_figure(board, row, column)
        if column.attribute in FLOPS
        else _column_figure(row, column, _places(board, column))
        for column in _columns(board, *tables)
    ]
    if "cost" not in tables:
        return columns
    scores = [_score(row.cells.get(benchmark.key), benchmark.digits) for benchmark in board.benchmarks]
    return [*scores, *(_score(row.means.get(group), 0) for group in board.groups), *columns]


def _heading(board: Board, column: Column) -> str:
    """Title with its unit; operations are in the unit that fits the board."""
    return f"{column.title} ({flops_unit(board)[1]})" if column.attribute in FLOPS else column.heading


def _columns(board: Board, *tables: TableName) -> list[Column]:
    """Leaves out columns that no row fills."""
    rows = board.rows
    return [
        column
        for column in column_table().of(*tables)
        if any(row.figures.get(column.attribute) is not None for row in rows)
    ]


def _places(board: Board, column: Column) -> int:
    """Returns the decimals of a column: the declared ones, or more where a tiny model would show as zero."""
    values = [abs(value) for row in board.rows if (value := row.figures.get(column.attribute))]
    return (
        max(column.digits, 2 - math.floor(math.log10(min(values)))) if values and min(values) < 0.1 else column.digits
    )


def _column_figure(row: Row, column: Column, places: int) -> Figure:
    value = row.figures.get(column.attribute)
    low, high = (row.figures.get(name) for name in column.between or ("", ""))
    return Figure((f"{number(value, places)} {interval(low, high, places)}".strip(),), value)


def _flops_figure(board: Board, row: Row, column: Column) -> Figure:
    factor, value = flops_unit(board)[0], row.figures.get(column.attribute)
    shown = None if value is None else factor * value
    return Figure((number(shown, 1 if shown is not None and shown >= 100 else 2),), shown)


def _score(cell: Cell | None, digits: int) -> Figure:
    if cell is None or (cell.score is None and cell.relative is None):
        return Figure((MISSING,))
    places = column_table().relative_digits
    lines = [] if cell.score is None else [number(cell.score, digits)]
    if cell.relative is not None:
        lines.append(f"{number(cell.relative, places)} % {interval(cell.low, cell.high, places)}".strip())
    value = cell.relative if cell.score is None else cell.score
    return Figure(tuple(lines), value, cell.mark, budget_flag(cell))


def budget_flag(cell: Cell) -> str:
    """Says by how much a row is off its budget, in visual tokens per layer."""
    if cell.mark != "off_budget":
        return ""
    if cell.executed is None or cell.asked is None:
        return "off budget: tokens not recorded"
    return f"off budget: {number(cell.executed, 1)} for {number(cell.asked, 1)} tokens"
