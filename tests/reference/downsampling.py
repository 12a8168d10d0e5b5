"""Image downsampling in three forms: encode a smaller image, pool the features, or blur the image only."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Literal

import torch
from reference.declared import Case, MethodOracle
from reference.full_length import Run, run_full_length
from reference.options import LAYERS, Changes, Refused, Unused
from reference.vision import feature_layer, pack, start_state, tiles
from torch import Tensor, nn

Form = Literal["low-resolution", "pool", "blur"]


def adaptive_mean(grid: Tensor, side: int) -> Tensor:
    """Average (G, G, width) down to (side, side, width); bin i covers floor(i G / side) .. ceil((i + 1) G / side)."""
    full = grid.shape[0]
    edges = [(i * full // side, -(-(i + 1) * full // side)) for i in range(side)]
    return torch.stack(
        [
            torch.stack([grid[top:bottom, left:right].mean(dim=(0, 1)) for left, right in edges])
            for top, bottom in edges
        ]
    )


def resized(pixels: Tensor, side: int) -> Tensor:
    """Resize one preprocessed tile (3, height, width), bicubic with antialiasing."""
    return nn.functional.interpolate(
        pixels[None], size=(side, side), mode="bicubic", align_corners=False, antialias=True
    )[0]


def tile_tokens(model: Any, pixels: Tensor, side: int, form: Form) -> Tensor:
    """Projected tokens of one tile, in raster order; ``side**2`` of them unless the form is "blur"."""
    patch = model.config.vision_config.patch_size
    if form == "low-resolution":
        features = feature_layer(model, resized(pixels, patch * side), interpolate=True)[0].after[1:]
    elif form == "blur":
        restored = resized(resized(pixels, patch * side), pixels.shape[-1])
        features = feature_layer(model, restored)[0].after[1:]
    else:
        features = feature_layer(model, pixels)[0].after[1:]
        full = int(features.shape[0] ** 0.5)
        features = adaptive_mean(features.reshape(full, full, -1), side).flatten(0, 1)
    tokens: Tensor = model.model.multi_modal_projector(features)
    return tokens


@torch.no_grad()
def downsampling(
    model: Any, inputs: Mapping[str, Tensor], generated: Sequence[int] = (), *, side: int, form: Form
) -> Run:
    """Run the unpruned decoder on fewer (or blurred) visual tokens, positions compact.

    LLaVA-NeXT: each tile is reduced to side x side, the stitched grid is unpadded by the usual rule at its new size
    and each of its rows ends with a newline token.
    """
    parts = [tile_tokens(model, pixels, side, form) for pixels in tiles(inputs)]
    visual = parts[0]
    if "image_sizes" in inputs:
        packing = pack(model, inputs["image_sizes"][0].tolist(), int(parts[0].shape[0] ** 0.5))
        newline = model.model.image_newline
        visual = torch.stack([newline if entry is None else parts[entry[0]][entry[1]] for entry in packing.entries])
    return run_full_length(model, start_state(model, inputs, visual, kind="made"), generated, {})


FORMS: dict[str, Form] = {"low_res": "low-resolution", "pool": "pool", "blur": "blur"}
GRID = "takes form and grid instead"
ORACLES = (
    MethodOracle(
        method="downsample",
        cases={
            name: Case({"form": name, "grid": 4}, partial(downsampling, side=4, form=form))
            for name, form in FORMS.items()
        },
        options={
            "layers": Refused((3,), GRID),
            "counts": Refused((30,), GRID),
            "schedule": Unused("paper", "no paper has a schedule of it; the command for FLOPs asks every method"),
            "form": Changes("pool", lambda without, given: without.rows == given.rows, all_values=(*FORMS,)),
            "grid": Changes(5, lambda without, given: given.rows == [25] * LAYERS),
        },
    ),
)
