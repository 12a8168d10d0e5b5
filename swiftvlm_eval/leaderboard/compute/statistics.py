"""Error bars and tests for paired comparisons of methods on the same documents.

Everything is computed on units: an image where several questions share one, because such questions succeed and fail
together and counting them as independent makes intervals too short and tests too eager; a document otherwise.

**Intervals.** Relative accuracy is the ratio of a method's score to vanilla's. Its distribution is the paired Bayesian
bootstrap (D. B. Rubin, Ann. Statist. 9, 1981): every unit gets an exponential weight, the same for method and vanilla.
A resampled set never holds an event that was not seen, so a percentile interval is too short where events are few
(hits of a weak method, disagreements of a good one). Each end therefore grants one unseen event against itself, as
the interval of Clopper and Pearson (Biometrika 26, 1934) does for a proportion: the upper end is taken with one more
gain over vanilla, the lower end with one more loss.

**Marks.** Whether a row may still be the best of its budget is tested against all other rows at once, with the
step-down procedure of Westfall and Young (Resampling-Based Multiple Testing, 1993) on the largest standardised
difference. The null distribution comes from flipping the signs of whole units, the same flip for all rows, which keeps
the dependence of rows that answered the same documents. Among rows that are equally good and better than the rest, the
chance that any is called worse is at most 5 %, also when all rows are equal and the best was picked from the data.

`docs/statistics.md` has the simulations behind both statements.
"""

import itertools
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 2000
FLIPS = 4999
LEVEL = 0.95
# Numbers held at once while resampling: 4 million float64 are 32 MB.
_BATCH_NUMBERS = 4_000_000
# Contributions are shares of a score; differences below this come from adding them in another order.
_NOTHING = 1e-12

Floats = NDArray[np.float64]


def seed_of(name: str) -> int:
    """Returns the fixed seed of a named resampling, so that equal names draw equal units."""
    return zlib.crc32(name.encode())


@dataclass(frozen=True)
class RatioDraws:
    """Resampled ratios of one method's score to vanilla's.

    Attributes:
        middle: Ratios of the units as they are [resamples].
        gain: By how much one unseen gain over vanilla would raise each ratio [resamples].
        loss: By how much one unseen loss would lower it [resamples].
    """

    middle: Floats
    gain: Floats
    loss: Floats

    def interval(self, level: float = LEVEL) -> tuple[float, float]:
        """Returns the central interval, each end with one unseen event against it."""
        low = np.quantile(self.middle - self.loss, (1 - level) / 2)
        high = np.quantile(self.middle + self.gain, (1 + level) / 2)
        return float(low), float(high)


def mean_of(columns: list[RatioDraws]) -> RatioDraws:
    """Returns the draws of a mean over columns.

    The unseen event is one event of the whole mean, taken where it would change the mean most.

    Args:
        columns: Draws of equal length, at least one.
    """
    count = len(columns)
    return RatioDraws(
        middle=np.mean([column.middle for column in columns], axis=0),
        gain=max((column.gain for column in columns), key=np.mean) / count,
        loss=max((column.loss for column in columns), key=np.mean) / count,
    )


@dataclass(frozen=True)
class Resampled:
    """Resampled score sums of methods and vanilla.

    Attributes:
        scores: Contributions of the units for each method [methods, units].
        vanilla: Contributions of the same units for vanilla [units].
        middle: Ratios of the methods' sums to vanilla's, of the units as they are [methods, resamples].
        unseen: What one unseen gain and one unseen loss of a contribution of 1 would add to a ratio [2, resamples].
    """

    scores: Floats
    vanilla: Floats
    middle: Floats
    unseen: Floats

    def ratios(self) -> list[RatioDraws]:
        """Returns the distribution of each method's ratio to vanilla."""
        draws = []
        for own, middle in zip(self.scores, self.middle, strict=True):
            gain, lost = (each * size for each, size in zip(self.unseen, _event_sizes(own, self.vanilla), strict=True))
            draws.append(RatioDraws(middle, gain=gain, loss=middle * lost / (1 + lost)))
        return draws

    def of(self, rows: list[int]) -> "Resampled":
        """Returns the same for some of the methods, in the given order."""
        return Resampled(self.scores[rows], self.vanilla, self.middle[rows], self.unseen)


def resample(scores: Floats, vanilla: Floats, *, seed: int, resamples: int = RESAMPLES) -> Resampled:
    """Draws score sums. Arguments and errors as in `ratio_draws`."""
    if scores.ndim != 2 or vanilla.ndim != 1 or scores.shape[1] != vanilla.size:
        raise ValueError(f"scores {scores.shape} and vanilla {vanilla.shape} do not cover the same units")
    if vanilla.size < 2:
        raise ValueError(f"resampling needs at least 2 units, got {vanilla.size}")
    if not vanilla.sum() > 0:
        raise ValueError("vanilla's score is 0: there is no ratio to it")
    stacked = np.vstack([vanilla, scores]).T
    rng = np.random.default_rng(seed)
    sizes = batches(resamples, vanilla.size)
    sums = np.concatenate([rng.standard_exponential((size, vanilla.size)) @ stacked for size in sizes]).T
    unseen = np.random.default_rng([seed, 1]).standard_exponential((2, resamples))
    return Resampled(scores, vanilla, middle=sums[1:] / sums[0], unseen=unseen / sums[0])


def ratio_draws(scores: Floats, vanilla: Floats, *, seed: int, resamples: int = RESAMPLES) -> list[RatioDraws]:
    """Draws the distribution of score sums relative to vanilla's.

    Args:
        scores: Contributions of the units for each method, not negative [methods, units].
        vanilla: Contributions of the same units for vanilla, not negative [units].
        seed: Equal seeds and unit counts draw the same weights, whatever the methods: distributions can be compared
            and averaged draw by draw.
        resamples: Number of draws.

    Returns:
        One distribution for each method.

    Raises:
        ValueError: The shapes do not fit, there are fewer than two units, or vanilla's score is zero.
    """
    return resample(scores, vanilla, seed=seed, resamples=resamples).ratios()


def _event_sizes(scores: Floats, vanilla: Floats) -> tuple[float, float]:
    """Typical contribution (root mean square) of a unit on which a method gains over vanilla, and of one it loses on.

    Where one kind was not seen the other stands for it, and a typical right unit of vanilla where neither was.
    """
    difference = scores - vanilla
    gains, losses = difference[difference > _NOTHING], difference[difference < -_NOTHING]
    right = vanilla[vanilla > 0]
    sizes = [float(np.sqrt(np.mean(seen**2))) for seen in (gains, losses, right) if seen.size]
    return sizes[0], sizes[1 if gains.size and losses.size else 0]


def best_p_values(scores: Floats, *, seed: int, flips: int = FLIPS) -> Floats:
    """Tests for every row whether it may be the best one: whether its expected score is not below any other row's.

    Args:
        scores: Contributions of the same units for each row [rows, units].
        seed: Seed of the sign flips; where all flips are fewer than `flips` they are enumerated instead.
        flips: Number of random sign flips.

    Returns:
        P-values [rows], adjusted for all rows and for the choice of the best. Calling every row with a value of at
        most 5 % worse than the best wrongs any of the truly best rows in at most 5 % of cases. With two rows this is
        the two-sided sign-flip test (McNemar's exact test where units are right or wrong).
    """
    centred = scores - scores.mean(axis=0)
    centred = centred[:, np.abs(centred).max(axis=0, initial=0.0) > _NOTHING]
    rows, units = centred.shape
    if units == 0 or rows < 2:
        return np.ones(rows)
    # The norm of a difference is the same for every flip, so each standardised difference has variance 1 under them.
    norms = np.array([np.linalg.norm(centred - row, axis=1) for row in centred])
    scale = np.divide(1, norms, out=np.zeros_like(norms), where=norms > _NOTHING)
    observed = _behind(centred.sum(axis=1)[:, None], scale)[:, 0]
    order = np.argsort(-observed, kind="stable")
    everything = 2**units <= flips
    reached = np.zeros(rows)
    count = 0
    for batch in signs(units, flips, everything, seed):
        flipped = _behind(centred @ batch.T, scale)[order]
        # The largest over the row itself and all that are less far behind: the rows whose hypotheses are still open.
        largest = np.maximum.accumulate(flipped[::-1], axis=0)[::-1]
        reached += np.count_nonzero(largest >= observed[order, None] - 1e-9, axis=1)
        count += len(batch)
    p_values = reached / count if everything else (reached + 1) / (count + 1)
    adjusted = np.empty(rows)
    adjusted[order] = np.maximum.accumulate(p_values)
    return adjusted


def _behind(sums: Floats, scale: Floats) -> Floats:
    """Returns by how much the row furthest ahead of each row leads it, standardised [rows, flips]."""
    return np.array([((sums - own) * scale[row][:, None]).max(axis=0) for row, own in enumerate(sums)])


def signs(units: int, flips: int, everything: bool, seed: int, numbers: int = 0) -> Iterator[Floats]:
    """Yields signs [flips, units] in batches: all of them, or random ones.

    Args:
        units: Units that are flipped as wholes.
        flips: Random flips.
        everything: Enumerate all flips instead.
        seed: Equal seeds and unit counts flip alike, however the flips are batched.
        numbers: How many numbers the caller holds for each flip, if more than units; makes batches small.
    """
    if everything:
        yield np.array(list(itertools.product((1.0, -1.0), repeat=units)))
        return
    generator = np.random.default_rng(seed).bit_generator
    for size in batches(flips, max(units, numbers)):
        words = generator.random_raw((size, -(-units // 64))).astype("<u8")
        bits = np.unpackbits(words.view(np.uint8), axis=1, count=units)
        yield np.where(bits, 1.0, -1.0)


def batches(draws: int, numbers: int) -> Iterator[int]:
    """Splits draws of so many numbers each, so that one batch stays small."""
    size = max(1, _BATCH_NUMBERS // numbers)
    for start in range(0, draws, size):
        yield min(size, draws - start)
