"""How the rows of one budget stand to each other in a column or group mean: pairs, places, what could be seen."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from swiftvlm_eval.leaderboard.board import Cell, Comparison
from swiftvlm_eval.leaderboard.compute import statistics as st
from swiftvlm_eval.leaderboard.compute.pairs import (
    detectable_difference,
    pair_intervals,
    pair_p_values,
    pairs_of,
    rank_intervals,
)
from swiftvlm_eval.leaderboard.compute.scores import DIGITS, ColumnScores, Resampling, mean_units, rankable


@dataclass(frozen=True)
class Standings:
    """What the rows of one budget are to each other in one column.

    Attributes:
        comparisons: Every pair, the better row first.
        ranks: Ends of the 95 % interval of the place among the rows that were compared, by entry key.
        detectable: Smallest difference that a test of two rows shows with a chance of 80 %, in percent of vanilla.
    """

    comparisons: tuple[Comparison, ...] = ()
    ranks: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    detectable: float | None = None

    def named(self, column: str) -> "Standings":
        """Returns the same for a group mean that is taken over this column alone."""
        return replace(self, comparisons=tuple(replace(each, column=column) for each in self.comparisons))


def standings(
    name: str, cells: Mapping[str, Cell], columns: Sequence[ColumnScores], resampling: Resampling
) -> Standings:
    """Compares every pair of rows of one budget.

    Rows off their budget take no part, nor do rows without per-sample scores on vanilla's units; where the best score
    is 0 nothing is compared.

    Args:
        name: Key of the column, or group.
        cells: Marked cells of the budget by entry key.
        columns: The column, or all that the group mean is taken over.
        resampling: Draws of the board's columns.
    """
    scored = rankable(cells)
    drawn = [resampling.rows(column.benchmark.key) for column in columns]
    keys = sorted(key for key in scored if all(key in rows for rows in drawn))
    if len(keys) < 2 or not max(scored.values()) > 0:
        return Standings()
    parts = [resampling.resampled(column.benchmark.key, keys) for column in columns]
    units = [mean_units(columns, key) for key in keys]
    scores, expected = (np.array([getattr(each, part) for each in units]) for part in ("contributions", "expected"))
    detectable = detectable_difference(scores, expected)
    places = rank_intervals(parts).tolist()
    return Standings(
        comparisons=_comparisons(name, cells, keys, scores, parts),
        ranks={key: _place(cells[key], low, high) for key, (low, high) in zip(keys, places, strict=True)},
        detectable=None if detectable is None else round(detectable, DIGITS),
    )


def _place(cell: Cell, low: int, high: int) -> tuple[int, int]:
    """A row that may be the best one by its mark may have the first place."""
    return (1 if cell.mark in ("best", "tied") else low), high


def _comparisons(
    name: str, cells: Mapping[str, Cell], keys: Sequence[str], scores: st.Floats, parts: Sequence[st.Resampled]
) -> tuple[Comparison, ...]:
    relative = np.array([cells[key].relative for key in keys], dtype=float)
    order = np.argsort(-relative, kind="stable")
    low, high = pair_intervals([part.of(order.tolist()) for part in parts])
    p_values = pair_p_values(scores[order], seed=st.seed_of(f"pairs {name}"))
    first, second = (order[each] for each in pairs_of(len(keys)))
    # Another processor adds in another order; so many digits are the same on all of them.
    figures = np.round([relative[first] - relative[second], 100 * low, 100 * high], DIGITS).T.tolist()
    return tuple(
        Comparison(name, keys[one], keys[other], difference, below, above, p)
        for one, other, (difference, below, above), p in zip(first, second, figures, p_values.tolist(), strict=True)
    )
