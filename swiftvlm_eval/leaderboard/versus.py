"""Published numbers beside ours: the difference, its interval, and `-` where nothing was measured here.

The interval is ours alone (score plus or minus 1.96 standard errors); the sampling error of the paper's number, which
was taken on the same documents, is unknown and treated as part of the number.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pandas as pd
from scipy import stats

from swiftvlm_eval.leaderboard.board import Board, Cell, Row
from swiftvlm_eval.leaderboard.markdown import table
from swiftvlm_eval.leaderboard.text import MISSING, interval, markdown, number, spreadsheet

PAGE = "published-vs-ours.md"
TITLE = "Published numbers and ours"
# A published budget such as 0.333 and our 1/3 are the same budget.
_SAME_BUDGET = 0.005
_Z = float(stats.norm.ppf(0.975))


@dataclass(frozen=True)
class Comparison:
    """One published score and ours.

    Attributes:
        source: Slug of the published board.
        budget: Nominal share of the visual tokens.
        method: Label of the published row.
        benchmark: Benchmark key.
        published: The paper's score.
        ours: Our score, None if not measured.
        difference: Ours minus published.
        low: Lower end of the 95 % interval of the difference.
        high: Upper end.
        published_relative: The paper's score in percent of the paper's vanilla.
        our_relative: Our score in percent of our vanilla.
    """

    source: str
    budget: float | None
    method: str
    benchmark: str
    published: float
    ours: float | None = None
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    published_relative: float | None = None
    our_relative: float | None = None


def compare(published: Board, boards: Sequence[Board]) -> list[Comparison]:
    """Compares every published score with ours of the same checkpoint, method and budget.

    Args:
        published: A board of published numbers.
        boards: Measured boards of complete runs; where several settings of a checkpoint were measured, the first
            (by slug) that has the score counts.
    """
    return [
        _comparison(published, row, benchmark.key, row.cells[benchmark.key], boards)
        for row in published.rows
        for benchmark in published.benchmarks
        if benchmark.key in row.cells
    ]


def _comparison(published: Board, row: Row, key: str, cell: Cell, boards: Sequence[Board]) -> Comparison:
    score = cell.score or 0.0
    found = Comparison(published.slug, row.budget, row.label, key, score, published_relative=cell.relative)
    ours = next((ours for board in boards if (ours := _ours(published, row, key, board))), None)
    if ours is None or ours.score is None:
        return found
    difference = ours.score - score
    found = replace(found, ours=ours.score, difference=difference, our_relative=ours.relative)
    half = None if ours.stderr is None else _Z * ours.stderr
    return found if half is None else replace(found, low=difference - half, high=difference + half)


def _ours(published: Board, row: Row, key: str, board: Board) -> Cell | None:
    """Finds our cell; a variant of a method (an ablation) has no counterpart among the registered methods.

    Where several variants or seeds of a method were run at one budget, none of them is picked.
    """
    if board.pretrained != published.pretrained or (row.label != row.method and not row.is_vanilla):
        return None
    found = [
        ours.cells[key]
        for ours in board.rows
        if (ours.is_vanilla if row.is_vanilla else ours.method == row.method and _close(ours.budget, row.budget))
        and key in ours.cells
    ]
    return found[0] if len(found) == 1 else None


def _close(first: float | None, second: float | None) -> bool:
    return first is not None and second is not None and abs(first - second) < _SAME_BUDGET


def versus_page(published: Sequence[Board], comparisons: Sequence[Comparison]) -> str:
    """Returns the Markdown page with one table for each published table that has scores."""
    page = [
        f"# {TITLE}",
        "",
        "A cell holds published → ours and, below, ours minus published with its 95 % interval.",
        "Where several variants of a method were run at one budget, none is picked.",
        "",
    ]
    for board in published:
        own = {(each.budget, each.method, each.benchmark): each for each in comparisons if each.source == board.slug}
        if not own:
            continue
        header = ["budget", "method", *(markdown(benchmark.title) for benchmark in board.benchmarks)]
        body = [
            [markdown(section.title), markdown(row.label)]
            + [_cell(own.get((row.budget, row.label, each.key)), each.digits) for each in board.benchmarks]
            for section in board.sections
            for row in section.rows
        ]
        page += [f"## {markdown(board.title)}", "", table(header, body, names=2), ""]
    return "\n".join(page)


def _cell(comparison: Comparison | None, digits: int) -> str:
    if comparison is None:
        return MISSING
    scores = f"{number(comparison.published, digits)} → {number(comparison.ours, digits)}"
    if comparison.difference is None:
        return scores
    sign = "+" if comparison.difference > 0 else ""
    bounds = interval(comparison.low, comparison.high, digits)
    return f"{scores}<br>{sign}{number(comparison.difference, digits)} {bounds}".rstrip()


def versus_csv(comparisons: Sequence[Comparison]) -> str:
    """Returns one line a published score."""
    inert = [replace(each, method=spreadsheet(each.method)) for each in comparisons]
    text: str = pd.DataFrame(inert).to_csv(index=False, float_format="%.10g", lineterminator="\n")
    return text
