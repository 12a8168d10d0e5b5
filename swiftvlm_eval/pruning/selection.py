"""Choosing rows one after the other, as pure tensor functions: by distance, volume, coverage, conflict, or outwards.

Every pick is a few operations on all candidates and, but for `outwards`, no step waits for the device. Everything is
float32 unless the caller gives more; ties go to the lower index, and what is not a number is never preferred.
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


def row_of(matrix: Tensor, number: Tensor) -> Tensor:
    """One row of a matrix.

    A number that is a tensor of no dimension would be read by the host, which waits for the device; a list of one is
    not.

    Args:
        matrix: [n, ...].
        number: int64, [].

    Returns:
        [...].
    """
    return matrix.index_select(0, number[None])[0]


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
    return greedy_maxmin(lambda pick: ((points - row_of(points, pick)) ** 2).sum(dim=1), first, count)


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
    directions = kernel.new_zeros(count, len(kernel))
    picks: list[Tensor] = []
    for step in range(count):
        pick = _best(residual, chosen)
        picks.append(pick)
        chosen = chosen.index_fill(0, pick[None], True)
        known = directions[:step]
        root = row_of(residual, pick).clamp(min=LEAST_RESIDUAL).sqrt()
        directions[step] = (row_of(kernel, pick) - known.index_select(1, pick[None])[:, 0] @ known) / root
        residual = residual - directions[step] ** 2
    return torch.stack(picks)


def outwards(
    likeness: Tensor,
    distance_to: Callable[[Tensor], Tensor],
    first: Tensor,
    count: int,
    threshold: float,
    buffer: float,
    patient: bool,
) -> Tensor:
    """Takes rows that are not redundant, what is near the chosen ones first (VLM-Pruner, arXiv 2512.02700).

    A row's redundancy is its largest likeness to a chosen row, times 1 + `buffer` times its distance to the nearest
    one. A pass walks the rows in chunks of 16, by their redundancy at its start, and takes of each chunk those that
    are below the threshold by then; it ends early if the first chunk gives none. The next pass has a threshold that is
    higher by 0.1. How often all this happens depends on the data, so everything is on the CPU.

    Args:
        likeness: float32, [n, n], finite.
        distance_to: row numbers, int64 [r], -> [r, n], their distances to all rows.
        first: int64, the rows to begin with, no more than `count`.
        count: rows to take in all, at most n.
        threshold: of the first pass.
        buffer: see above.
        patient: go on after a pass that takes nothing; else fewer rows may be taken.

    Returns:
        bool, [n], the chosen rows.
    """
    chosen = _Outwards(likeness, distance_to, buffer)
    chosen.take(first)
    size, passes = len(first), 0
    while size < count:
        taken = chosen.one_pass(count - size, threshold + 0.1 * passes)
        if not taken and not patient:
            break
        size, passes = size + taken, passes + 1
    return chosen.mask


class _Outwards:
    """The rows that `outwards` has chosen so far."""

    def __init__(self, likeness: Tensor, distance_to: Callable[[Tensor], Tensor], buffer: float) -> None:
        self.likeness, self.distance_to, self.buffer = likeness, distance_to, buffer
        self.mask = torch.zeros(len(likeness), dtype=torch.bool)
        self.alike = torch.full((len(likeness),), -torch.inf)
        self.nearest = torch.full((len(likeness),), torch.inf)

    def take(self, rows: Tensor) -> None:
        """Chooses rows, int64 [r], r >= 1."""
        self.mask[rows] = True
        self.alike = torch.maximum(self.alike, self.likeness[rows].amax(dim=0))
        self.nearest = torch.minimum(self.nearest, self.distance_to(rows).amin(dim=0))

    def redundancy(self, rows: Tensor) -> Tensor:
        """Of rows, by what is chosen now."""
        return self.alike[rows] * (1 + self.buffer * self.nearest[rows])

    def one_pass(self, wanted: int, threshold: float) -> int:
        """Chooses at most `wanted` rows; returns how many."""
        rest, taken = (~self.mask).nonzero()[:, 0], 0
        for chunk in rest[self.redundancy(rest).argsort(stable=True)].split(16):
            redundancy = self.redundancy(chunk)
            fitting = chunk[redundancy < threshold]
            if len(fitting) > wanted - taken:
                fitting = chunk[redundancy.argsort(stable=True)[: wanted - taken]]
            if len(fitting):
                self.take(fitting)
            taken += len(fitting)
            if taken in (0, wanted):
                break
        return taken


def greedy_coverage(similarity: Tensor, count: int, score: Callable[[Tensor], Tensor] = lambda gain: gain) -> Tensor:
    """Takes again and again the row that adds most to how well the chosen rows stand for all.

    A row is covered as well as the chosen row that is most similar to it covers it, and at first not at all; negative
    similarity covers nothing.

    Args:
        similarity: [n, n], symmetric; what is not a number counts as 0.
        count: rows to take, from 1 to n.
        score: what each row would add to the coverage of all n, [n] -> by what to choose, [n].

    Returns:
        int64, [count], in the order of picking; fewer rows are its beginning.
    """
    similarity = similarity.nan_to_num(nan=0.0)
    covered = torch.zeros_like(similarity[0])
    chosen = torch.zeros_like(covered, dtype=torch.bool)
    picks: list[Tensor] = []
    for _ in range(count):
        pick = _best(score((similarity - covered).clamp(min=0).sum(dim=1)), chosen)
        picks.append(pick)
        chosen = chosen.index_fill(0, pick[None], True)
        covered = torch.maximum(covered, row_of(similarity, pick))
    return torch.stack(picks)


def unlike_better_ones(conflicts: Tensor) -> Tensor:
    """Goes through rows from the best on and takes each that is in conflict with none taken before it.

    Args:
        conflicts: bool, [..., n, n], symmetric, rows in the order in which they are tried.

    Returns:
        bool, [..., n], whether a row was taken.
    """
    later = conflicts.triu(1)
    taken = torch.ones_like(later[..., 0])
    for row in range(later.shape[-1]):
        taken = taken & ~(later[..., row, :] & taken[..., row, None])
    return taken


def _best(scores: Tensor, chosen: Tensor) -> Tensor:
    """int64, []: the best row that is not chosen yet."""
    open_scores = scores.nan_to_num(nan=torch.finfo(scores.dtype).min).masked_fill(chosen, -torch.inf)
    return open_scores.argmax()
