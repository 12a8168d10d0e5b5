"""A mean over documents with its interval and the spread of what it is a mean of."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.stats import bootstrap

DRAWS = 2000
_SEED = 0


def mean_interval(values: Sequence[float]) -> dict[str, Any]:
    """Mean, 95 % interval by bootstrap over the values (percentiles of 2,000 draws), quartiles and how many.

    Args:
        values: one a document.

    Returns:
        `mean`, `low`, `high`, `quartiles` (three numbers), `documents`. Of fewer than two values `low` and `high` are
        None, for one says nothing of the spread.

    Raises:
        ValueError: no value, or one that is not finite.
    """
    array = np.asarray(values, dtype=np.float64)
    if not len(array) or not np.isfinite(array).all():
        raise ValueError(f"{len(array)} values, some perhaps not finite: allowed are finite ones, at least one")
    low = high = None
    if len(array) > 1:
        drawn = bootstrap((array,), np.mean, n_resamples=DRAWS, method="percentile", rng=np.random.default_rng(_SEED))
        low, high = float(drawn.confidence_interval.low), float(drawn.confidence_interval.high)
    quartiles = [float(value) for value in np.quantile(array, (0.25, 0.5, 0.75))]
    return {"mean": float(array.mean()), "low": low, "high": high, "quartiles": quartiles, "documents": len(array)}
