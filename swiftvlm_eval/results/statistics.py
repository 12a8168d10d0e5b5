"""Error bars and tests for paired comparisons of methods on the same documents.

Relative accuracy is the ratio of a method's score to vanilla's on the same documents. Its 95 % interval is a
percentile interval of the paired bootstrap (Efron and Tibshirani, 1993): units are drawn with replacement, the same
draw for method and vanilla. A unit is an image where several questions share one, because such questions succeed and
fail together and counting them as independent makes intervals too short. Simulated coverage is 94 % with 60 or 150
images of four questions each and 95 % with 400 independent documents.

Two methods are compared by McNemar's exact test when every unit is one right-or-wrong decision. Otherwise, and
always when units are images, by a sign-flip permutation test over whole units: McNemar's test counts discordant
questions as independent and rejects too often on clustered data, whereas swapping the two methods' labels within a
whole image is exchangeable under the null hypothesis. Several methods at one budget are corrected by Holm (1979).
"""

import warnings
import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

RESAMPLES = 2000
PERMUTATIONS = 4999
LEVEL = 0.95
# Numbers held at once while resampling: 4 million float64 are 32 MB.
_BATCH_NUMBERS = 4_000_000

Floats = NDArray[np.float64]


def seed_of(name: str) -> int:
    """Returns the fixed seed of a named resampling, so that equal names draw equal units."""
    return zlib.crc32(name.encode())


def bootstrap_ratios(scores: Floats, vanilla: Floats, *, seed: int, resamples: int = RESAMPLES) -> Floats:
    """Draws the bootstrap distribution of score sums relative to vanilla's.

    Args:
        scores: Contributions of the units for each method [methods, units].
        vanilla: Contributions of the same units for vanilla [units].
        seed: Equal seeds and unit counts draw the same units, whatever the methods: distributions can be compared
            and averaged draw by draw.
        resamples: Number of draws.

    Returns:
        Ratios [methods, resamples]; not finite where vanilla's resampled score is zero.

    Raises:
        ValueError: The shapes do not fit, or there are fewer than two units.
    """
    if scores.ndim != 2 or vanilla.ndim != 1 or scores.shape[1] != vanilla.size:
        raise ValueError(f"scores {scores.shape} and vanilla {vanilla.shape} do not cover the same units")
    if vanilla.size < 2:
        raise ValueError(f"a bootstrap needs at least 2 units, got {vanilla.size}")

    def ratio(resampled: Floats, reference: Floats, axis: int = -1) -> Floats:
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(resampled.sum(axis=axis) / reference.sum(axis=axis))

    # scipy also takes a standard deviation, which infinite ratios do not have, and warns where all draws are equal.
    with np.errstate(invalid="ignore"), warnings.catch_warnings(category=stats.DegenerateDataWarning, action="ignore"):
        result = stats.bootstrap(
            (scores, np.broadcast_to(vanilla, scores.shape)),
            ratio,
            paired=True,
            vectorized=True,
            axis=-1,
            n_resamples=resamples,
            batch=max(1, _BATCH_NUMBERS // scores.size),
            method="percentile",
            rng=np.random.default_rng(seed),
        )
    return np.asarray(result.bootstrap_distribution, dtype=np.float64).reshape(len(scores), resamples)


def percentile_interval(distribution: Floats, level: float = LEVEL) -> tuple[float, float] | None:
    """Returns the central interval of a bootstrap distribution [resamples], None if a draw is not finite."""
    if not np.isfinite(distribution).all():
        return None
    low, high = np.quantile(distribution, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def paired_p_value(first: Floats, second: Floats, *, binary: bool, clustered: bool, seed: int) -> float:
    """Tests whether two methods have the same expected score on the same units.

    Args:
        first: Contributions of the units for one method [units].
        second: Contributions of the same units for the other [units].
        binary: Every unit is one right-or-wrong decision.
        clustered: Units hold several documents.
        seed: Seed of the permutation test.

    Returns:
        The two-sided p-value; 1.0 if the methods agree on every unit, or on all but one cluster.

    Raises:
        ValueError: The arrays do not cover the same units.
    """
    if first.shape != second.shape or first.ndim != 1:
        raise ValueError(f"first {first.shape} and second {second.shape} do not cover the same units")
    difference = first - second
    if not np.any(np.abs(difference) > 1e-12):
        return 1.0
    if binary and not clustered:
        wins, losses = int(np.count_nonzero(difference > 0)), int(np.count_nonzero(difference < 0))
        return float(mcnemar([[0, wins], [losses, 0]], exact=True).pvalue)
    # Units on which the methods agree do not change under a sign flip: leaving them out changes nothing but time.
    changed = difference[np.abs(difference) > 1e-12]
    if changed.size == 1:  # both sign flips are equally far from zero
        return 1.0
    result = stats.permutation_test(
        (changed,),
        lambda sample, axis=-1: np.sum(sample, axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=PERMUTATIONS,
        batch=max(1, _BATCH_NUMBERS // changed.size),
        alternative="two-sided",
        rng=np.random.default_rng(seed),
    )
    return float(result.pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """Returns Holm-adjusted p-values in the given order (S. Holm, Scand. J. Statist. 6, 1979)."""
    if not p_values:
        return []
    return [float(value) for value in multipletests(list(p_values), method="holm")[1]]
