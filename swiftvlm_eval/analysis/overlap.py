"""How much of what the unpruned model looks at a method still holds (arXiv 2602.03134, figures 2 and 8).

Pure functions of scores. Where a share of the tokens is no whole number, it is rounded, and at least one; ties go to
the lower index, at both ends of the ranking.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from swiftvlm_eval.pruning.scores import top_k


def share_count(total: int, share: float) -> int:
    """How many of `total` tokens a share is: rounded, at least one.

    Raises:
        ValueError: no token, or a share outside (0, 1].
    """
    if total < 1 or not 0 < share <= 1:
        raise ValueError(f"share={share} of {total} tokens: allowed are shares above 0, up to 1, of some tokens")
    return max(1, round(share * total))


def hits(held: Sequence[int], scores: Tensor, share: float) -> tuple[int, int]:
    """How many of the best-scored tokens are held.

    Args:
        held: visual indices, distinct.
        scores: [N].
        share: of N, that counts as best-scored.

    Returns:
        Held ones, and how many there are.

    Raises:
        ValueError: scores that are not finite, or an index that is none of 0..N-1 or stands twice.
    """
    require_finite(scores)
    own = set(held)
    if len(own) != len(held) or not own <= set(range(len(scores))):
        raise ValueError(f"held={sorted(held)[:5]}...: allowed are different indices from 0 to {len(scores) - 1}")
    best = top_k(scores, share_count(len(scores), share)).tolist()
    return len(own & set(best)), len(best)


def low_then_high(scores: Tensor, bottom: float, top: float) -> tuple[list[list[int]], int]:
    """How many of the best-scored tokens of a later layer were among the worst-scored of an earlier one.

    Args:
        scores: [L, N], one row a layer.
        bottom: share of N that counts as worst-scored.
        top: share of N that counts as best-scored.

    Returns:
        For every earlier layer e a list with one count for each later layer e + 1 .. L - 1; and how many the
        best-scored are.

    Raises:
        ValueError: scores that are not finite.
    """
    require_finite(scores)
    layers, total = scores.shape
    low, high = (torch.zeros(layers, total, dtype=torch.bool) for _ in range(2))
    count = share_count(total, top)
    for layer, row in enumerate(scores.cpu()):
        low[layer, top_k(-row, share_count(total, bottom))] = True
        high[layer, top_k(row, count)] = True
    both = (low.int() @ high.int().T).tolist()
    return [both[early][early + 1 :] for early in range(layers)], count


def require_finite(scores: Tensor) -> None:
    """Refuses scores from which no ranking follows.

    Raises:
        ValueError: one is not finite.
    """
    if not bool(scores.isfinite().all()):
        raise ValueError("scores of the unpruned model are not finite; allowed are finite ones (try --dtype float32)")
