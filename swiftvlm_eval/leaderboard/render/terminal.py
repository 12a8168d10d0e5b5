"""A board in few columns, for a terminal: group means, visual tokens and cost; everything else is on the pages."""

from dataclasses import dataclass

from swiftvlm_eval.leaderboard.board import Board, Cell, Row
from swiftvlm_eval.leaderboard.columns import column_table
from swiftvlm_eval.leaderboard.render.text import MISSING, interval, number

MARKS = {"best": "*", "tied": "~", "untested": "?", "off_budget": "!", "": ""}
WITH_INTERVALS = 2
"""So many columns of scores have room for their intervals."""
_COSTS = ("executed_tflops", "paper_tflops")
"""What a cost ratio is made of: the first one that a row and vanilla both have."""


@dataclass(frozen=True)
class Compact:
    """A short table.

    Attributes:
        header: method, budget, columns of scores, visual tokens per decoder layer, FLOPs over vanilla's.
        body: one line a row, in the order of the board; unescaped.
        legend: what the figures and marks mean, and how many columns were left out.
    """

    header: tuple[str, ...]
    body: tuple[tuple[str, ...], ...]
    legend: str


def compact(board: Board, most: int) -> Compact:
    """Returns a board's short table.

    The columns of scores are the group means in percent of vanilla; of a board without group means its benchmarks,
    scores as they are.

    Args:
        board: The board.
        most: Columns of scores at most; how many are left out is said.
    """
    titles = column_table().groups
    means = [group for group in board.groups if any(group in row.means for row in board.rows)]
    if means:
        wide = len(means) <= WITH_INTERVALS
        columns = {titles[group]: [_mean(row.means.get(group), wide) for row in board.rows] for group in means}
    else:
        columns = {
            each.title: [_score(row.cells.get(each.key), each.digits) for row in board.rows]
            for each in board.benchmarks
        }
    shown = list(columns)[:most]
    body = tuple(
        (
            row.label,
            MISSING if row.budget is None else f"{number(100 * row.budget, 1)} %",
            *(columns[title][place] for title in shown),
            number(row.figures.get("visual_tokens"), 1),
            _cost(row, board.vanilla),
        )
        for place, row in enumerate(board.rows)
    )
    said = ["means: percent of vanilla" if means else "scores", "tokens: visual ones a layer", "FLOPs: over vanilla's"]
    said += [f"{len(columns) - most} more columns on the pages"] if len(columns) > most else []
    marks = "* best of its budget, ~ may still be the best, ? not tested, ! off its budget"
    return Compact(("method", "budget", *shown, "tokens", "FLOPs"), body, f"{'; '.join(said)}\n{marks}")


def _mean(cell: Cell | None, with_interval: bool) -> str:
    if cell is None or cell.relative is None:
        return MISSING
    places = column_table().relative_digits
    between = interval(cell.low, cell.high, places) if with_interval else ""
    return f"{number(cell.relative, places)}{MARKS[cell.mark]} {between}".strip()


def _score(cell: Cell | None, digits: int) -> str:
    return MISSING if cell is None or cell.score is None else f"{number(cell.score, digits)}{MARKS[cell.mark]}"


def _cost(row: Row, vanilla: Row | None) -> str:
    """FLOPs over vanilla's."""
    for name in _COSTS:
        own, whole = row.figures.get(name), vanilla.figures.get(name) if vanilla else None
        if own is not None and whole:
            return f"{own / whole:.2f}"
    return MISSING
