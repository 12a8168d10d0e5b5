"""LLaVA-NeXT: a base view and a tiled high-resolution view per image, packed by the model itself."""

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from transformers.models.llava_next.modeling_llava_next import (
    get_anyres_image_grid_shape,
    image_size_to_num_patches,
    unpad_image,
)

from swiftvlm_eval.models.adapter import FamilyAdapter
from swiftvlm_eval.models.layout import VisualLayout, joined


class LlavaNextAdapter(FamilyAdapter):
    """Adapter of `LlavaNextForConditionalGeneration`, Vicuna- or Mistral-based."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self._layout_of = lru_cache(maxsize=256)(self._image_layout)

    def pack(self, tiles: Tensor, tiling: tuple[int, int] | None, image_size: Sequence[int] | None) -> Tensor:
        """As the model packs its features, for grids of any size; see the base class."""
        if tiling is None or image_size is None:
            raise ValueError("LLaVA-NeXT needs the tiling and the size of an image to pack it")
        grid = math.isqrt(tiles.shape[1])
        fine = tiles[1:].unflatten(1, (grid, grid)).unflatten(0, tiling)  # [rows, columns, g, g, hidden]
        stitched = fine.permute(4, 0, 2, 1, 3).flatten(1, 2).flatten(2, 3)
        unpadded = unpad_image(stitched, image_size)
        newline = self.core.image_newline[:, None, None].expand(-1, unpadded.shape[1], 1).to(unpadded)
        return torch.cat([tiles[0], torch.cat([unpadded, newline], dim=2).flatten(1, 2).T])

    def layouts(self, image_inputs: Mapping[str, Any], visual_counts: Sequence[int]) -> list[VisualLayout]:
        """Runs the model's own packing on index tensors, once per image size; see the base class."""
        sizes: Tensor | None = image_inputs.get("image_sizes")
        if sizes is None:
            raise ValueError("image_sizes=None: LLaVA-NeXT needs the sizes of its images")
        images = [self._layout_of(int(height), int(width)) for height, width in torch.as_tensor(sizes).tolist()]
        copies = max(1, sum(visual_counts) // max(1, sum(len(image.patch) for image in images)))
        found, position = [], 0
        for start in range(0, len(visual_counts), copies):  # beams repeat every sample
            own: list[VisualLayout] = []
            while position < len(images) and sum(len(image.patch) for image in own) < visual_counts[start]:
                own.append(images[position])
                position += 1
            layout = joined(own)
            if len(layout.patch) != visual_counts[start]:
                raise ValueError(f"{visual_counts[start]} visual tokens, but the images make {len(layout.patch)}")
            found += [layout] * copies
        return found

    def _image_layout(self, height: int, width: int) -> VisualLayout:
        """The layout of one image of that size in pixels."""
        config, side = self.model.config, self.tower.patches_per_side
        image_size = config.vision_config.image_size
        tiles = image_size_to_num_patches([height, width], config.image_grid_pinpoints, image_size)
        flat = torch.arange(tiles * side * side, dtype=torch.float64).view(tiles, side * side, 1)
        packed, _ = self.core.pack_image_features(
            [flat], torch.tensor([[height, width]]), "default", image_newline=torch.full((1,), -1.0).double()
        )
        source = packed[0][:, 0].long()
        base = torch.arange(side * side)
        fine = source[side * side :]
        ends = (fine < 0).nonzero()[:, 0].tolist()
        columns = ends[0] + 1 if ends else 1  # unpadding leaves no fine row of a very narrow image
        place = torch.arange(len(fine))
        newline = source < 0
        return VisualLayout(
            view=torch.cat([torch.zeros_like(base), torch.ones_like(place)]),
            row=torch.cat([base // side, place // columns]),
            column=torch.cat([base % side, place % columns]),
            tile=torch.where(newline, -1, source // (side * side)),
            patch=torch.where(newline, -1, source % (side * side)),
            grids=((side, side), (len(ends), columns - 1)),
            image=torch.zeros_like(source),
            tilings=(get_anyres_image_grid_shape([height, width], config.image_grid_pinpoints, image_size),),
            side=side,
        )
