"""Uniform grids of visual tokens: every stride-th row and column, by position alone."""

import math

from torch import Tensor

from swiftvlm_eval.models.layout import VisualLayout


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
