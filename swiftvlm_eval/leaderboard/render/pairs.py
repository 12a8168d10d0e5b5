"""All comparisons of a board as CSV, with the rows that could not be compared and why."""

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import pandas as pd

from swiftvlm_eval.leaderboard.board import Board, Comparison, Row, Section
from swiftvlm_eval.leaderboard.render.text import spreadsheet

ENDING = "-pairs"
_FIELDS = ("section", "column", "first", "second", "difference", "low", "high", "p", "not compared")


def has_pairs(board: Board) -> bool:
    """Whether any two rows of the board were compared."""
    return any(section.comparisons for section in board.sections)


def pairs_csv(board: Board) -> str:
    """Returns one line a pair, and one for each row that has a score and takes no part in a column.

    `difference` is first less second in percent of vanilla with its 95 % interval, `p` is adjusted for all pairs of
    the section and column.
    """
    lines = [line for section in board.sections if section.comparisons for line in _lines(board, section)]
    frame = pd.DataFrame(lines, columns=list(_FIELDS))
    text: str = frame.to_csv(index=False, float_format="%.10g", lineterminator="\n")
    return text


def _lines(board: Board, section: Section) -> Iterator[dict[str, Any]]:
    labels = {row.key: spreadsheet(row.label) for row in section.rows}
    found: dict[str, list[Comparison]] = defaultdict(list)
    for each in section.comparisons:
        found[each.column].append(each)
    for column in (*(benchmark.key for benchmark in board.benchmarks), *board.groups):
        where = {"section": section.title, "column": column}
        for each in found[column]:
            figures = {name: getattr(each, name) for name in ("difference", "low", "high", "p")}
            yield {**where, "first": labels[each.first], "second": labels[each.second], **figures}
        compared = {key for each in found[column] for key in (each.first, each.second)}
        for row in section.rows:
            if row.key not in compared:
                yield {**where, "first": labels[row.key], "not compared": _reason(row, column, bool(compared))}


def _reason(row: Row, column: str, others: bool) -> str:
    cells = dict(row.cells)
    cells.update({str(group): mean for group, mean in row.means.items()})
    cell = cells.get(column)
    if cell is None:
        return "no score"
    if cell.mark == "off_budget":
        return "off budget"
    return "no per-sample scores on the documents of vanilla" if others else "nothing to be compared with"
