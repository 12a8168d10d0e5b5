"""Where in the original image each visual token's patch lies.

A patch is a square of the encoder's input; what the processor did to the image is undone: padding to a square, the
centre crop, the stretched base view of LLaVA-NeXT, and its tiles, which show the image enlarged or shrunk and padded.
Unpadding needs no geometry of its own, because a layout says which patch of which tile a token shows.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from swiftvlm_eval.models.adapter import FamilyAdapter
from swiftvlm_eval.models.checkpoint import Checkpoint
from swiftvlm_eval.models.images import LARGEST_SIDE
from swiftvlm_eval.models.layout import VisualLayout

Rectangle = tuple[float, float, float, float]
"""(x1, y1, x2, y2) in pixels of the original image, x to the right, y down; outside of it lies padding."""

PLACEMENTS = ("pad", "crop", "anyres")
"""Padded to a square; the centre square; LLaVA-NeXT's base view and tiles."""


@dataclass(frozen=True)
class _Placement:
    """Encoder pixels on an image: image x = left + scale_x * encoder x, and likewise for y."""

    left: float
    top: float
    scale_x: float
    scale_y: float

    def rectangle(self, x: int, y: int, patch: int) -> Rectangle:
        """Of the patch whose first encoder pixel is (x, y)."""
        return (
            self.left + self.scale_x * x,
            self.top + self.scale_y * y,
            self.left + self.scale_x * (x + patch),
            self.top + self.scale_y * (y + patch),
        )


def _placed(size: tuple[int, int], resized: tuple[int, int], origin: tuple[int, int]) -> _Placement:
    """Of an image that was resized, and whose first pixel then came to lie at `origin` of the encoder's pixels."""
    scale_x, scale_y = size[0] / resized[0], size[1] / resized[1]
    return _Placement(-origin[0] * scale_x, -origin[1] * scale_y, scale_x, scale_y)


def _padded(size: tuple[int, int], pixels: int) -> _Placement:
    """As `images.pad_to_square` and a resize make it; an odd spare pixel stands right or below."""
    longest = max(size)
    shown = size
    if longest > LARGEST_SIDE:
        width, height = (max(1, round(own * LARGEST_SIDE / longest)) for own in size)
        shown, longest = (width, height), max(width, height)
    unit = longest / pixels  # pixels of the canvas for one of the encoder
    scale_x, scale_y = size[0] / shown[0], size[1] / shown[1]
    spare_x, spare_y = (longest - shown[0]) // 2, (longest - shown[1]) // 2
    return _Placement(-spare_x * scale_x, -spare_y * scale_y, unit * scale_x, unit * scale_y)


def _cropped(size: tuple[int, int], pixels: int) -> _Placement:
    """As the default processor of LLaVA-1.5: the shorter edge resized, then the centre cropped."""
    longer = int(pixels * max(size) / min(size))
    resized = (longer, pixels) if size[0] > size[1] else (pixels, longer)
    return _placed(size, resized, (-((resized[0] - pixels) // 2), -((resized[1] - pixels) // 2)))


def _tiled(size: tuple[int, int], pixels: int, tiling: tuple[int, int]) -> _Placement:
    """LLaVA-NeXT's high-resolution view: resized to fit the tiles in one direction, padded in the other."""
    width, height = tiling[1] * pixels, tiling[0] * pixels
    across, down = width / size[0], height / size[1]
    if across < down:
        resized = width, min(math.ceil(size[1] * across), height)
    else:
        resized = min(math.ceil(size[0] * down), width), height
    return _placed(size, resized, ((width - resized[0]) // 2, (height - resized[1]) // 2))


def patch_rectangles(
    layout: VisualLayout, sizes: Sequence[tuple[int, int]], *, pixels: int, patch: int, placement: str
) -> list[Rectangle | None]:
    """The rectangle of the image that each visual token's patch shows.

    Args:
        layout: of the sample.
        sizes: (width, height) in pixels of each image.
        pixels: along one side of an encoder input.
        patch: pixels along one side of a patch.
        placement: one of `PLACEMENTS`.

    Returns:
        By visual index; None for a newline token. Rectangles are not clipped to the image.

    Raises:
        ValueError: not as many images as the layout has, an image without pixels, or a placement that is unknown or
            does not go with the layout.
    """
    _check(layout, sizes, placement)
    places: list[tuple[_Placement, int, int]] = []  # of every encoder input: placement, first column, first row
    for size, tiling in zip(sizes, layout.tilings, strict=True):
        if tiling is None:
            places.append((_padded(size, pixels) if placement == "pad" else _cropped(size, pixels), 0, 0))
            continue
        places.append((_placed(size, (pixels, pixels), (0, 0)), 0, 0))
        fine = _tiled(size, pixels, tiling)
        places += [(fine, column * pixels, row * pixels) for row in range(tiling[0]) for column in range(tiling[1])]
    found: list[Rectangle | None] = []
    for tile, number in zip(layout.tile.tolist(), layout.patch.tolist(), strict=True):
        if number < 0:
            found.append(None)
            continue
        placed, x, y = places[tile]
        row, column = divmod(number, layout.side)
        found.append(placed.rectangle(x + column * patch, y + row * patch, patch))
    return found


def _check(layout: VisualLayout, sizes: Sequence[tuple[int, int]], placement: str) -> None:
    """Refuses what `patch_rectangles` says it refuses."""
    if placement not in PLACEMENTS:
        raise ValueError(f"placement={placement!r}: allowed are {', '.join(PLACEMENTS)}")
    if len(sizes) != len(layout.tilings):
        raise ValueError(f"{len(sizes)} images: the visual tokens are of {len(layout.tilings)}")
    for width, height in sizes:
        if width < 1 or height < 1:
            raise ValueError(f"image of {width} x {height} pixels: allowed are sides from 1")
    several = any(tiling is not None for tiling in layout.tilings)
    if several != (placement == "anyres"):
        views = "several views" if several else "one view"
        fits = "anyres" if several else "pad, crop"
        raise ValueError(f"placement={placement!r}: the images have {views} each; allowed is {fits}")


def image_layout(adapter: FamilyAdapter, sizes: Sequence[tuple[int, int]], num_visual: int) -> VisualLayout:
    """The layout of a sample, found from the sizes of its images alone: no prefill need have noted it.

    Args:
        adapter: of the model.
        sizes: (width, height) in pixels of each image, in the order of the prompt.
        num_visual: N, visual tokens of the prompt.

    Raises:
        ValueError: images of those sizes do not make so many tokens.
    """
    inputs = {"image_sizes": torch.tensor([[height, width] for width, height in sizes]).view(-1, 2)}
    return adapter.layouts(inputs, [num_visual])[0]


def vision_pixels(adapter: FamilyAdapter) -> tuple[int, int]:
    """Pixels along one side of an encoder input, and of a patch."""
    vision = adapter.model.config.vision_config
    return int(vision.image_size), int(vision.patch_size)


def input_placement(checkpoint: Checkpoint) -> str:
    """How the checkpoint's processor brings an image into the encoder: one of `PLACEMENTS`.

    Raises:
        ValueError: the processor has a setting under which its patches lie elsewhere; names field, value and cure.
    """
    processor, mode = checkpoint.processor.image_processor, checkpoint.image_mode_in_force
    pixels = checkpoint.model.config.vision_config.image_size
    square = {"height": pixels, "width": pixels}
    allowed: Mapping[str, Sequence[Any]] = {
        "do_resize": [True],
        "size": [{"shortest_edge": pixels}] if mode == "hf_default" else [{"shortest_edge": pixels}, square],
        "do_center_crop": [True],
        "crop_size": [square],
    }
    for field, values in allowed.items():
        found = getattr(processor, field, None)
        plain = found if isinstance(found, bool | None) else {key: own for key, own in dict(found).items() if own}
        if plain not in values:
            raise ValueError(
                f"image processor with {field}={plain}: where its patches lie is not known; allowed is {values[0]}"
            )
    if mode == "hf_default":  # the CLIP processors pad after the crop, which changes nothing
        pads = type(processor).__name__.startswith("Llava") and bool(getattr(processor, "do_pad", False))
        return "pad" if pads else "crop"
    return mode
