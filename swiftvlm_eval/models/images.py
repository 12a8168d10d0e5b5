"""Images as LLaVA-1.5 expects them: padded to a square before the processor sees them."""

import hashlib
from collections.abc import Sequence
from typing import Literal

from loguru import logger
from PIL import Image

ImageMode = Literal["pad", "hf_default"]

CLIP_MEAN_COLOUR = (122, 116, 104)
"""int(255 * CLIP mean): the canvas of LLaVA-1.5's training and evaluation code."""


LARGEST_SIDE = 8192
"""Pixels: the largest square, 192 MiB of RGB, that is made of an image; the tower sees 336 x 336."""


def pad_to_square(image: Image.Image, colour: tuple[int, int, int] = CLIP_MEAN_COLOUR) -> Image.Image:
    """Centres an image on a square canvas; an odd spare pixel goes to the right or the bottom.

    A box in fractions of the result is in the frame `square` of `swiftvlm_eval.grounding.boxes`. An image with a side
    of more than `LARGEST_SIDE` pixels, which would need a canvas of any size, is first scaled down to that side; a
    warning says so.
    """
    image = _bounded(image).convert("RGB")
    width, height = image.size
    if width == height:
        return image
    side = max(width, height)
    canvas = Image.new("RGB", (side, side), colour)
    canvas.paste(image, ((side - width) // 2, (side - height) // 2))
    return canvas


def _bounded(image: Image.Image) -> Image.Image:
    side = max(image.size)
    if side <= LARGEST_SIDE:
        return image
    logger.warning(
        "image of {} x {} pixels: scaled down to a longer side of {} before it is padded to a square",
        *image.size,
        LARGEST_SIDE,
    )
    width, height = (max(1, round(pixels * LARGEST_SIDE / side)) for pixels in image.size)
    return image.convert("RGB").resize((width, height), Image.Resampling.BICUBIC)


def check_sliver(image: Image.Image, shortest_edge: int) -> None:
    """Refuses an image that a processor would make huge, because it scales the shorter edge before it crops.

    Args:
        image: any image.
        shortest_edge: pixels of the shorter edge after scaling.

    Raises:
        ValueError: the scaled image would have more pixels than the square of `LARGEST_SIDE`.
    """
    longest = LARGEST_SIDE**2 // shortest_edge**2
    if max(image.size) > longest * min(image.size):
        raise ValueError(
            f"image of {image.width} x {image.height} pixels: image_mode=hf_default scales the shorter edge to "
            f"{shortest_edge}; allowed there are images up to {longest} times as long as wide"
        )


def image_digest(images: Sequence[Image.Image]) -> str | None:
    """Names what a model sees: equal sizes and RGB pixels have the same name, in whatever mode or file they came.

    Returns:
        16 hexadecimal digits of BLAKE2b over all images of a sample; None without an image.
    """
    if not images:
        return None
    digest = hashlib.blake2b(digest_size=8)
    for image in images:
        digest.update(f"{image.width}x{image.height} ".encode())
        digest.update(image.convert("RGB").tobytes())
    return digest.hexdigest()
