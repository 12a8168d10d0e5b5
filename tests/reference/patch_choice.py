"""Methods that choose among the patches of each encoder input: what a tile shows, and how kept rows are put together.

A tile is one input of the vision tower: P patches and a class token. The rows of a prompt are spread over its tiles,
every tile is reduced by itself, and the decoder reads a shorter prompt: rows of the base tile in their own order, then
the kept patches of all further tiles in raster order of the stitched grid.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from reference.full_length import Run, run_full_length
from reference.vision import ClipLayer, clip_layers, pack, start_state, tiles
from torch import Tensor


class Tile(NamedTuple):
    """One encoder input as executed: all layers of the tower, and the number of the one that the projector reads."""

    layers: list[ClipLayer]
    number: int

    def class_attention(self, number: int | None = None) -> Tensor:
        """Attention of the class token to the patches, (heads, P), in the feature layer unless another is named."""
        return self.layers[self.number if number is None else number].attention[:, 0, 1:]

    @property
    def patches(self) -> Tensor:
        """Features of the patches, (P, width), before the projector."""
        return self.layers[self.number].after[1:]

    @property
    def class_row(self) -> Tensor:
        """Features of the class token, (width,)."""
        return self.layers[self.number].after[0]


Choose = Callable[[Tile, int], Sequence[int]]
"""(tile, rows that it keeps) -> patches in the order in which they are to stand."""


def look(model: Any, inputs: Mapping[str, Tensor]) -> list[Tile]:
    """Every encoder input, run through the tower."""
    tower = model.model.vision_tower
    number = len(tower.encoder.layers) + model.config.vision_feature_layer
    return [Tile(clip_layers(tower, pixels), number) for pixels in tiles(inputs)]


def spread(count: int, parts: int) -> list[int]:
    """``count`` rows over so many parts, as evenly as possible, the first ones taking what is left over."""
    each, rest = divmod(count, parts)
    return [each + (part < rest) for part in range(parts)]


def sequence(model: Any, inputs: Mapping[str, Tensor], kept: Sequence[Sequence[int]]) -> list[tuple[int, int]]:
    """Kept patches of each tile as (tile, patch) in the order in which the decoder reads them."""
    base = [(0, patch) for patch in kept[0]]
    if "image_sizes" not in inputs:
        return base
    wanted = {(tile, patch) for tile, own in enumerate(kept) if tile > 0 for patch in own}
    stitched = pack(model, inputs["image_sizes"][0].tolist(), grid_side(model)).stitched
    return [*base, *(place for line in stitched for place in line if place in wanted)]


def grid_side(model: Any) -> int:
    """Patches along one side of a tile."""
    side: int = model.config.vision_config.image_size // model.config.vision_config.patch_size
    return side


def tokens_of(model: Any, inputs: Mapping[str, Tensor]) -> dict[tuple[int, int], int]:
    """The visual token of the unpruned prompt that shows (tile, patch); patches of the padding are in none."""
    if "image_sizes" not in inputs:
        return {(0, patch): patch for patch in range(grid_side(model) ** 2)}
    entries = pack(model, inputs["image_sizes"][0].tolist(), grid_side(model)).entries
    return {entry: token for token, entry in enumerate(entries) if entry is not None}


def visual_indices_of(model: Any, inputs: Mapping[str, Tensor], places: Sequence[tuple[int, int]]) -> list[int]:
    """Visual indices of the (tile, patch) that have one, in the given order."""
    tokens = tokens_of(model, inputs)
    return [tokens[place] for place in places if place in tokens]


@torch.no_grad()
def run_patches(
    model: Any, inputs: Mapping[str, Tensor], generated: Sequence[int] = (), *, count: int, choose: Choose
) -> Run:
    """Run the model on ``count`` rows, ``choose`` having picked those of each tile."""
    shown = look(model, inputs)
    kept = [choose(tile, rows) for tile, rows in zip(shown, spread(count, len(shown)), strict=True)]
    places = sequence(model, inputs, kept)
    record = Run(logits=torch.empty(0), kept_indices=[visual_indices_of(model, inputs, places)])
    visual = model.model.multi_modal_projector(torch.stack([shown[tile].patches[patch] for tile, patch in places]))
    return run_full_length(model, start_state(model, inputs, visual, kind="made"), generated, {}, record)


def cosines(vectors: Tensor) -> Tensor:
    """Cosine of every two of (rows, width) in double precision; equal rows have equal cosines to any other."""
    unit = vectors.double() / vectors.double().norm(dim=1, keepdim=True)
    return torch.stack([(unit * one).sum(dim=1) for one in unit])
