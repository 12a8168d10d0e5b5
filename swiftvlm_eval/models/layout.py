"""Where each visual token comes from: which image, view, row, column, encoder input and patch."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor


@dataclass(frozen=True)
class VisualLayout:
    """Where each visual token comes from. All tensors are int64, [N].

    Attributes:
        view: which grid the token lies on; one number per grid of the sample, ascending.
        row: row on that grid.
        column: column on that grid; for a newline token the grid's width.
        tile: index among the sample's encoder inputs; -1 for a newline token.
        patch: patch index inside that tile, raster order; -1 for a newline token.
        grids: (height, width) of every view.
        image: which image of the sample.
        tilings: (rows, columns) of tiles of each image's high-resolution view; None where there is none.
        side: patches along one side of an encoder input.
    """

    view: Tensor
    row: Tensor
    column: Tensor
    tile: Tensor
    patch: Tensor
    grids: tuple[tuple[int, int], ...]
    image: Tensor
    tilings: tuple[tuple[int, int] | None, ...]
    side: int

    @property
    def tiles_per_image(self) -> tuple[int, ...]:
        """Encoder inputs of each image: the base view and, if there is one, the tiles of the high-resolution view."""
        return tuple(1 if tiling is None else 1 + tiling[0] * tiling[1] for tiling in self.tilings)

    @property
    def num_tiles(self) -> int:
        """Encoder inputs of the sample."""
        return sum(self.tiles_per_image)

    @property
    def newline(self) -> Tensor:
        """bool, [N]: tokens that mark the end of a grid row and show no patch."""
        return self.patch < 0


@lru_cache(maxsize=64)
def single_grid_layout(views: int, side: int) -> VisualLayout:
    """Layout of `views` square grids of side x side patches, one after the other; shared, so not to be written to."""
    count = side * side
    patch = torch.arange(count).repeat(views)
    view = torch.arange(views).repeat_interleave(count)
    return VisualLayout(
        view=view,
        row=patch // side,
        column=patch % side,
        tile=view,
        patch=patch,
        grids=((side, side),) * views,
        image=view,
        tilings=(None,) * views,
        side=side,
    )


def joined(images: Sequence[VisualLayout]) -> VisualLayout:
    """The layout of several images of one sample, one after the other."""
    if len(images) == 1:
        return images[0]
    views, tiles = 0, 0
    view, tile = [], []
    for image in images:
        view.append(image.view + views)
        tile.append(torch.where(image.newline, -1, image.tile + tiles))
        views += len(image.grids)
        tiles += image.num_tiles
    empty = torch.empty(0, dtype=torch.int64)
    return VisualLayout(
        view=torch.cat([empty, *view]),
        row=torch.cat([empty, *(image.row for image in images)]),
        column=torch.cat([empty, *(image.column for image in images)]),
        tile=torch.cat([empty, *tile]),
        patch=torch.cat([empty, *(image.patch for image in images)]),
        grids=tuple(grid for image in images for grid in image.grids),
        image=torch.cat([empty, *(image.image + number for number, image in enumerate(images))]),
        tilings=tuple(tiling for image in images for tiling in image.tilings),
        side=images[0].side if images else 0,
    )
