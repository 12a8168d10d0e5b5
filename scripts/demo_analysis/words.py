"""Numbers with their intervals, and what a difference says beside a paper's."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from swiftvlm_eval.leaderboard.render.text import interval, number


@dataclass(frozen=True)
class Effect:
    """A difference in points of percent of vanilla, with the ends of its 95 % interval and its p-value."""

    difference: float
    low: float
    high: float
    p: float


def told(mean: float, low: float | None, high: float | None, digits: int = 1) -> str:
    """`66.1 [60.2, 71.9]`."""
    return f"{number(mean, digits)} {interval(low, high, digits)}".strip()


def told_mean(found: Mapping[str, Any], digits: int = 3) -> str:
    """A mean of the analyses with its interval."""
    return told(found["mean"], found["low"], found["high"], digits)


def beside_the_paper(effect: Effect, printed: float) -> str:
    """Whether a difference goes the way of the printed one."""
    if effect.low <= 0 <= effect.high:
        return "not shown here"
    return "as in the paper" if (effect.low > 0) == (printed > 0) else "the other way"
