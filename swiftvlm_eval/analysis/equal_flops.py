"""The budget at which one method costs what another one does."""

from collections.abc import Callable

from swiftvlm_eval.pruning.budget import BudgetError

TOLERANCE = 0.02
"""Costs that differ by no more than this share are told as equal."""
_STEPS = 24


def budget_of_equal_cost(cost: Callable[[float], float], target: float, start: float) -> float:
    """The share of N at which a cost comes nearest to `target`, by bisection; the nearest one that was tried.

    Args:
        cost: share -> cost, rising; raises `BudgetError` where the method cannot meet the share.
        target: the cost to be met.
        start: a share to begin with, in (0, 1].

    Raises:
        BudgetError: no share that was tried can be met.
    """
    low, high, share = 0.0, 1.0, start
    best: tuple[float, float] | None = None
    refused: BudgetError | None = None
    for _ in range(_STEPS):
        try:
            found = cost(share)
        except BudgetError as error:  # too little for the method, or too much: where it began is the nearer end
            refused, above = error, share > start
        else:
            best = min(filter(None, (best, (abs(found - target), share))))
            above = found >= target
        low, high = (low, share) if above else (share, high)
        share = (low + high) / 2
    if best is None:
        raise refused or BudgetError("no share was tried")
    return best[1]
