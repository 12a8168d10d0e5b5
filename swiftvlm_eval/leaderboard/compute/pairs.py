"""Every row of a budget against every other one: corrected tests, intervals, places, and what could be seen at all.

Rows are compared on the same units, so all figures are paired. Pairs stand in the order of `pairs_of`.

**Tests.** The two-sided sign-flip test of each pair, corrected for all pairs of the column and budget by the step-down
procedure of Westfall and Young (Resampling-Based Multiple Testing, 1993) on the largest absolute standardised
difference, as the marks are. One flip applies to all rows, which keeps the dependence of pairs that share a row. The
chance that any pair of equally good rows is called different is at most 5 % in a column and budget.

**Intervals.** The bootstrap draws of the rows' ratios to vanilla, subtracted draw by draw. Each end grants one unseen
event against itself, as the intervals of the rows do. They are not corrected: each holds alone.

**Places.** Resampled places themselves make no interval: where rows are equally good they follow the accidents of
the data (P. Hall and H. Miller, Ann. Statist. 37, 2009). A place is counted instead, as in "Inference for ranks"
(M. Mogstad, J. P. Romano, A. Shaikh, D. Wilhelm, Rev. Econ. Stud. 91, 2024): one more than the rows that are better
beyond doubt, up to all but those that are worse beyond doubt. Beyond doubt is what the row's differences to all others
say at once with a confidence of 95 %, by the largest standardised deviation of the same bootstrap draws.

**Power.** `detectable_difference` has the formula.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from swiftvlm_eval.leaderboard.compute.statistics import FLIPS, LEVEL, Floats, Resampled, signs

Indices = NDArray[np.intp]
POWER = 0.8
# Differences below this come from adding in another order.
_NOTHING = 1e-12
_TIE = 1e-9


def pairs_of(rows: int) -> tuple[Indices, Indices]:
    """Returns the first and the second row of every pair [pairs]: 0 and 1, 0 and 2, ..., 1 and 2, ..."""
    first, second = np.triu_indices(rows, 1)
    return first, second


def pair_p_values(scores: Floats, *, seed: int, flips: int = FLIPS) -> Floats:
    """Tests of every pair of rows whether their expected scores differ.

    Args:
        scores: Contributions of the same units for each row [rows, units].
        seed: Seed of the sign flips; where all flips are fewer than `flips` they are enumerated instead.
        flips: Number of random sign flips.

    Returns:
        P-values [pairs], two-sided and adjusted for all pairs. With two rows of right-or-wrong answers this is
        McNemar's exact test.
    """
    first, second = pairs_of(len(scores))
    centred = scores - scores.mean(axis=0)
    centred = centred[:, np.abs(centred).max(axis=0, initial=0.0) > _NOTHING]
    units = centred.shape[1]
    if units == 0 or not first.size:
        return np.ones(first.size)
    norms = np.sqrt(_squared_distances(centred)[first, second])
    # The norm of a difference is the same for every flip, so each standardised difference has variance 1 under them.
    scale = np.divide(1, norms, out=np.zeros_like(norms), where=norms > _NOTHING)
    sums = centred.sum(axis=1)
    observed = np.abs(sums[first] - sums[second]) * scale
    order = np.argsort(-observed, kind="stable")
    one, other, weight = first[order], second[order], scale[order, None]
    everything = 2**units <= flips
    reached, count = np.zeros(order.size), 0
    for batch in signs(units, flips, everything, seed, numbers=order.size):
        flipped = centred @ batch.T
        leads = np.abs(flipped[one] - flipped[other]) * weight
        # The largest over the pair itself and all that differ less: the pairs whose hypotheses are still open.
        largest = np.maximum.accumulate(leads[::-1], axis=0)[::-1]
        reached += np.count_nonzero(largest >= observed[order, None] - _TIE, axis=1)
        count += len(batch)
    p_values = reached / count if everything else (reached + 1) / (count + 1)
    adjusted = np.empty(order.size)
    adjusted[order] = np.maximum.accumulate(p_values)
    return adjusted


def _squared_distances(rows: Floats) -> Floats:
    """Returns the sums of squared differences of all rows [rows, rows]."""
    inner = rows @ rows.T
    squares = np.diag(inner)
    distances = squares[:, None] + squares - 2 * inner
    # What cancels to nothing comes out as some rounding error of either sign.
    return np.where(distances > 1e-14 * (squares[:, None] + squares), distances, 0.0)


def pair_intervals(columns: Sequence[Resampled], level: float = LEVEL) -> tuple[Floats, Floats]:
    """Returns the ends of the intervals of first less second, in shares of vanilla, of the mean over columns [pairs].

    Args:
        columns: Draws of the same rows in each column, at least one.
        level: Confidence of each interval.
    """
    middle = np.mean([column.middle for column in columns], axis=0)
    events = np.array([_event_sizes(column) for column in columns])  # [columns, rows, rows]
    low, high = [np.empty(0)], [np.empty(0)]
    for row in range(len(middle) - 1):
        difference, later = middle[row] - middle[row + 1 :], slice(row + 1, None)
        high.append(np.quantile(difference + _unseen(columns, events[:, row, later], 0), (1 + level) / 2, axis=1))
        low.append(np.quantile(difference - _unseen(columns, events[:, later, row], 1), (1 - level) / 2, axis=1))
    return np.concatenate(low), np.concatenate(high)


def _unseen(columns: Sequence[Resampled], sizes: Floats, kind: int) -> Floats:
    """What one more unit adds to each lead [leads, resamples]: one event of the whole mean, where it weighs most.

    Args:
        columns: Draws of the columns.
        sizes: Contribution of a typical event [columns, leads].
        kind: 0 for a gain, 1 for a loss; each has draws of its own.
    """
    weights = np.array([column.unseen[kind] for column in columns])  # [columns, resamples]
    heaviest = np.argmax(sizes * weights.mean(axis=1)[:, None], axis=0)
    return np.take_along_axis(sizes, heaviest[None], axis=0)[0][:, None] * weights[heaviest] / len(columns)


def _event_sizes(column: Resampled) -> Floats:
    """Typical contribution (root mean square) of a unit on which the one row is ahead of the other [rows, rows].

    Where no such unit was seen, one on which it is behind stands for it, and a typical right unit of vanilla where
    the two rows are alike in everything.
    """
    right = column.vanilla[column.vanilla > 0]
    sizes = np.zeros((len(column.scores), len(column.scores)))
    for row, own in enumerate(column.scores):
        ahead = np.maximum(own - column.scores, 0.0)
        counts = np.count_nonzero(ahead > _NOTHING, axis=1)
        sizes[row] = np.sqrt(np.where(counts, (ahead**2).sum(axis=1), 0.0) / np.maximum(counts, 1))
    sizes = np.where(sizes > 0, sizes, sizes.T)
    return np.where(sizes > 0, sizes, np.sqrt(np.mean(right**2)))


def rank_intervals(columns: Sequence[Resampled], level: float = LEVEL) -> NDArray[np.int_]:
    """Returns the ends of the interval of each row's place by the mean over columns, 1 the best [rows, 2].

    Rows that are equally good share all the places that they take together, and an interval holds all of these with
    the given confidence. It holds for each row alone. Whatever a row leads or lags by must exceed the widest deviation
    by one unseen event.

    Args:
        columns: Draws of the same rows in each column, at least one.
        level: Confidence of each interval.
    """
    middle = np.mean([column.middle for column in columns], axis=0)
    seen = np.mean([column.scores.sum(axis=1) / column.vanilla.sum() for column in columns], axis=0)
    event = np.max([_event_sizes(column) / column.vanilla.sum() for column in columns], axis=0) / len(columns)
    count = len(middle)
    places = np.ones((count, 2), dtype=int)
    for row in range(count):
        lead, drawn = seen[row] - seen, middle[row] - middle
        spread = drawn.std(axis=1)
        certain = spread > _NOTHING
        deviation = np.abs(drawn - lead[:, None])[certain] / spread[certain, None]
        widest = np.quantile(deviation.max(axis=0), level) if certain.any() else 0.0
        better = lead + widest * spread + event[row] < 0
        worse = lead - widest * spread - event[:, row] > 0
        places[row] = 1 + np.count_nonzero(better), count - np.count_nonzero(worse)
    return places


def detectable_difference(scores: Floats, expected: Floats) -> float | None:
    """Returns the smallest true difference of two rows that their test shows with a chance of 80 % at the 5 % level.

    For a pair it is (z(0.975) + z(0.8)) s = 2.80 s, where s is the standard error of their paired difference over
    units (J. Cohen, Statistical Power Analysis for the Behavioral Sciences, 1988; E. Miller, "Adding Error Bars to
    Evals", arXiv 2411.00640, section 5), made a little larger where units are few, because the divisor of the
    sign-flip test holds the difference itself. Flips of fewer than six units that all speak for the same row cannot
    reach 5 %, so it is at least 7.9 times what a typical unit that tells the two apart contributes: so many must be
    expected for a chance of 80 % to see six (Poisson). The rows' typical figure is the median over their pairs.

    It is meant for two rows chosen beforehand (the level is not corrected) that disagree on as many units as the
    rows do here; vanilla's score is taken as given.

    Args:
        scores: Contributions of the same units for each row [rows, units].
        expected: What each unit would contribute if all documents (of its category) scored the same [rows, units].

    Returns:
        The difference in the unit of the contributions; None if no two rows differ, or if units are too few for any
        difference to be shown.
    """
    first, second = pairs_of(len(scores))
    units = scores.shape[1]
    apart = np.array([np.count_nonzero(np.abs(own - scores) > _NOTHING, axis=1) for own in scores])
    differ = apart[first, second] > 0
    # So many units, all for the same row, are the fewest with which a two-sided sign-flip test reaches the level.
    fewest = int(np.ceil(1 - np.log2(1 - LEVEL)))
    if units < fewest or not differ.any():
        return None
    pairs = first[differ], second[differ]
    errors = np.sqrt(_squared_distances(scores - expected)[pairs] * units / (units - 1))
    typical = np.sqrt(_squared_distances(scores)[pairs] / apart[pairs])
    return float(np.median(np.maximum(_errors_seen(units) * errors, stats.gamma.ppf(POWER, fewest) * typical)))


def _errors_seen(units: int) -> float:
    """Returns how many standard errors a difference must have: x = z(0.975) sqrt(1 + x * x / units) + z(0.8)."""
    level, power = float(stats.norm.ppf((1 + LEVEL) / 2)), float(stats.norm.ppf(POWER))
    share = 1 - level**2 / units
    return (power + np.sqrt(power**2 + share * (level**2 - power**2))) / share
