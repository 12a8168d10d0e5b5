"""Finds the row of ours that a published row may be compared with, or says why none may.

A nominal budget alone makes no pair: what we executed must be what the budget says, and where both count FLOPs the
same way they must agree. Rows with the paper's own counts (`schedule=paper`) come first; they are the paper's method
as published, so they are compared whatever mean their counts give, with tokens and FLOPs beside each other.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from swiftvlm_eval.leaderboard.board import Board, Row

# Published shares have three decimals: 0.333 is 1/3, 0.30 is not.
_SAME_BUDGET = 0.0005
_TOKENS = 0.5
# Beyond the rounding of two printed decimals.
_FLOPS = 0.02


@dataclass(frozen=True)
class Counterpart:
    """A row of ours for a published one.

    Attributes:
        row: Our row; None where several could be meant.
        reason: Why the two are not alike; None if they are.
    """

    row: Row | None
    reason: str | None = None


def counterpart(published: Row, board: Board, flops: str | None) -> Counterpart | None:
    """Returns our row for a published one, None if there is none at its budget.

    Args:
        published: A row of a published board.
        board: A measured board of the same checkpoint.
        flops: Attribute of our FLOPs that are counted as the paper's are; None if none are.
    """
    if published.is_vanilla:
        found = [row for row in board.rows if row.is_vanilla]
    else:
        found = [row for row in board.rows if row.method == published.method and _same_budget(row, published)]
    found = [row for row in found if is_papers_own(row)] or found
    if not found:
        return None
    if published.label != published.method and not published.is_vanilla:
        return Counterpart(None, "a variant of the method; which options of ours it stands for is not known")
    if len(found) > 1:
        labels = ", ".join(row.label for row in found)
        return Counterpart(None, f"{len(found)} rows of ours at this budget ({labels}); none is picked")
    return Counterpart(found[0], _unlike(published, found[0], flops))


def is_papers_own(row: Row) -> bool:
    """Whether a row of ours ran with the counts its method's paper published for the budget."""
    return any(record.method.schedule == "paper" for record in row.records)


def _same_budget(ours: Row, published: Row) -> bool:
    if ours.budget is None or published.budget is None:
        return False
    return abs(ours.budget - published.budget) <= _SAME_BUDGET


def _unlike(published: Row, ours: Row, flops: str | None) -> str | None:
    share, tokens = ours.figures.get("executed_share"), ours.figures.get("visual_tokens")
    if share is None or not tokens or ours.budget is None:
        return None if ours.is_vanilla else "how many visual tokens ours executed was not recorded"
    whole = 100 * tokens / share
    planned = ours.figures.get("planned_share")
    wanted = planned / 100 if is_papers_own(ours) and planned is not None else ours.budget
    if abs(tokens - wanted * whole) > _TOKENS:
        return f"ours executed {tokens:.1f} visual tokens per layer instead of {wanted * whole:.1f}"
    theirs = published.figures.get("visual_tokens")
    if theirs is not None and abs(tokens - theirs) > _TOKENS:
        return f"ours executed {tokens:.1f} visual tokens per layer, the paper's {theirs:.1f}"
    return None if is_papers_own(ours) else _other_cost(published, ours, flops)


def _other_cost(published: Row, ours: Row, flops: str | None) -> str | None:
    theirs, own = (row.figures.get(flops) if flops else None for row in (published, ours))
    if not theirs or not own or abs(own / theirs - 1) <= _FLOPS:
        return None
    return f"ours costs {own:.2f} T, the paper's {theirs:.2f} T at the same nominal budget: other counts or layers"


def first_counterpart(
    published: Row, boards: Sequence[Board], flops: str | None, key: str | None = None
) -> Counterpart | None:
    """Returns the counterpart from the first board that has one, alike before unlike.

    Args:
        published: A row of a published board.
        boards: Measured boards of the same checkpoint, by slug.
        flops: As in `counterpart`.
        key: Our column the row must have a score in.
    """
    found = [each for board in boards if (each := counterpart(published, board, flops)) is not None]
    having = [each for each in found if key is None or each.row is None or key in each.row.cells]
    return min(having, key=lambda each: each.reason is not None, default=None)
