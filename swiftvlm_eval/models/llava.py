"""LLaVA-1.5: one encoder input per image, its patches in raster order."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from swiftvlm_eval.models.adapter import FamilyAdapter
from swiftvlm_eval.models.layout import VisualLayout, single_grid_layout


class LlavaAdapter(FamilyAdapter):
    """Adapter of `LlavaForConditionalGeneration`."""

    def pack(self, tiles: Tensor, tiling: tuple[int, int] | None, image_size: Sequence[int] | None) -> Tensor:
        """The grid's rows one after the other; see the base class."""
        return tiles.flatten(0, 1)

    def layouts(self, image_inputs: Mapping[str, Any], visual_counts: Sequence[int]) -> list[VisualLayout]:
        """One square grid per image; see the base class."""
        side = self.tower.patches_per_side
        found = []
        for count in visual_counts:
            images, rest = divmod(count, side * side)
            if rest:
                raise ValueError(f"{count} visual tokens: LLaVA-1.5 has {side * side} for each image")
            found.append(single_grid_layout(images, side))
        return found
