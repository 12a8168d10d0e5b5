"""Choosing rows one after the other, as pure tensor functions: by distance, by volume; and fits by them.

Every pick is a few operations on all candidates and no step waits for the device. Everything is float32 unless the
caller gives more; ties go to the lower index, and what is not a number is never preferred.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import normalize

LEAST_RESIDUAL = 1e-12
"""Below it the square root of `greedy_volume` is not taken; without a floor, rounding makes residuals negative."""


def cosines(states: Tensor) -> Tensor:
    """Cosine similarity of all pairs of rows.

    Args:
        states: [n, D].

    Returns:
        float32, [n, n]; float64 if `states` are.
    """
    unit = normalize(states if states.dtype == torch.float64 else states.float(), dim=-1)
    return unit @ unit.T


def greedy_maxmin(
    distance_to: Callable[[Tensor], Tensor], first: Tensor, count: int, weight: Tensor | None = None
) -> Tensor:
    """Takes again and again the row whose weighted distance to the nearest chosen row is largest.

    Args:
        distance_to: a row's number, int64 [], -> [n], the distance of every row to it.
        first: int64, [], the row to begin with.
        count: rows to take, from 1 to n.
        weight: [n], a factor for each row; None is one for all.

    Returns:
        int64, [count], in the order of picking.
    """
    picks, chosen = [first], None
    nearest: Tensor | None = None
    for _ in range(count - 1):
        distance = distance_to(picks[-1])
        nearest = distance if nearest is None else torch.minimum(nearest, distance)
        if chosen is None:
            chosen = torch.zeros_like(nearest, dtype=torch.bool)
        chosen = chosen.index_fill(0, picks[-1][None], True)
        picks.append(_best(nearest if weight is None else nearest * weight, chosen))
    return torch.stack(picks)


def farthest_points(states: Tensor, first: Tensor, count: int) -> Tensor:
    """Farthest-point sampling by squared Euclidean distance.

    Args:
        states: [n, D].
        first: int64, [], the row to begin with.
        count: rows to take, from 1 to n.

    Returns:
        int64, [count], in the order of picking.
    """
    points = states if states.dtype == torch.float64 else states.float()
    return greedy_maxmin(lambda pick: ((points - points[pick]) ** 2).sum(dim=1), first, count)


def farthest_from_mean(states: Tensor) -> Tensor:
    """The row farthest from the mean of all.

    Args:
        states: float, [n, D].

    Returns:
        int64, [].
    """
    distance = ((states - states.mean(dim=0)) ** 2).sum(dim=1)
    return distance.nan_to_num(nan=-torch.inf).argmax()


def residuals(states: Tensor, basis: Tensor, ridge: float = 1e-5) -> Tensor:
    """How badly a few rows stand for each row: what is left of it after the least-squares fit by them.

    Args:
        states: float, [n, D].
        basis: int64, [m], rows of `states`.
        ridge: added to the diagonal of the basis rows' inner products.

    Returns:
        [n], lengths.
    """
    fitting = states[basis]
    inner = fitting @ states.T
    gram = inner[:, basis] + ridge * torch.eye(len(basis), dtype=states.dtype, device=states.device)
    shares, _ = torch.linalg.solve_ex(gram, inner)  # unlike `solve` it does not wait for the device
    return (states - shares.T @ fitting).norm(dim=1)


def greedy_volume(kernel: Tensor, count: int) -> Tensor:
    """Takes again and again the row that adds most to the determinant of the chosen part of a kernel.

    Incremental Cholesky decomposition: what is left of each diagonal entry is the gain of its row.

    Args:
        kernel: [n, n], positive semi-definite.
        count: rows to take, from 1 to n; more than the kernel's rank gives rows whose gain is rounding noise.

    Returns:
        int64, [count], in the order of picking.
    """
    residual = kernel.diagonal().clone()
    chosen = torch.zeros_like(residual, dtype=torch.bool)
    directions = torch.zeros(count, len(kernel), dtype=kernel.dtype, device=kernel.device)
    picks: list[Tensor] = []
    for step in range(count):
        pick = _best(residual, chosen)
        picks.append(pick)
        chosen = chosen.index_fill(0, pick[None], True)
        known = directions[:step]
        root = residual[pick].clamp(min=LEAST_RESIDUAL).sqrt()
        directions[step] = (kernel[pick] - known[:, pick] @ known) / root
        residual = residual - directions[step] ** 2
    return torch.stack(picks)


def _best(scores: Tensor, chosen: Tensor) -> Tensor:
    """int64, []: the best row that is not chosen yet."""
    open_scores = scores.nan_to_num(nan=torch.finfo(scores.dtype).min).masked_fill(chosen, -torch.inf)
    return open_scores.argmax()
