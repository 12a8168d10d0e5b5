"""Visual tokens spread uniformly over the image: every stride-th row and column, or the best of every cell."""

import math

import torch
from torch import Tensor

from swiftvlm_eval.models.layout import VisualLayout
from swiftvlm_eval.pruning.scores import top_k


def uniform_grid(layout: VisualLayout, stride: int, at_most: int) -> Tensor:
    """Visual indices on every stride-th row and column; the stride grows until there are `at_most` of them.

    Returns:
        int64, ascending, on the CPU.
    """
    while True:
        chosen = (layout.row % stride == 0) & (layout.column % stride == 0) & ~layout.newline
        indices = chosen.nonzero()[:, 0]
        if len(indices) <= at_most or stride > max(max(grid) for grid in layout.grids):
            return indices[:at_most]
        stride += 1


def expected_union(num_visual: int, best: int, stride: int) -> int:
    """How many tokens the `best` by score and a uniform grid are together, if the two are independent.

    Args:
        num_visual: N; a square number is one square grid, of any other (several grids) one in stride^2 is taken.
        best: tokens chosen by score.
        stride: of the grid.
    """
    side = math.isqrt(num_visual)
    grid = math.ceil(side / stride) ** 2 if side * side == num_visual else num_visual / stride**2
    return round(best + grid - best * grid / num_visual)


def best_of_cells(scores: Tensor, grid: tuple[int, int], count: int) -> Tensor:
    """The best patches of a grid among the t best of every cell of 2 x 2, with the least t that leaves enough.

    Patches of an odd last row or column lie in no cell; with t = 4 they are candidates like all others. Ties go to the
    lower patch, and NaN counts as the lowest score.

    Args:
        scores: [rows * columns], in raster order.
        grid: rows and columns.
        count: from 1 to all.

    Returns:
        int64, [count], ascending.
    """
    rows, columns = (side // 2 * 2 for side in grid)
    each = math.ceil(4 * count / max(rows * columns, 1))
    if each >= 4:
        return top_k(scores, count)
    number = torch.arange(math.prod(grid)).view(grid)[:rows, :columns]
    cells = number.unflatten(0, (-1, 2)).unflatten(2, (-1, 2)).transpose(1, 2).reshape(-1, 4).to(scores.device)
    clean = scores[cells].nan_to_num(nan=-torch.inf)
    best = clean.argsort(dim=1, descending=True, stable=True)[:, :each]
    candidates = cells.gather(1, best).flatten().sort().values
    return candidates[top_k(scores[candidates], count)]
