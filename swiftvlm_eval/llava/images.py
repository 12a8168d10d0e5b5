"""Images as LLaVA-1.5 expects them: padded to a square before the processor sees them."""

from typing import Literal

from PIL import Image

ImageMode = Literal["pad", "hf_default"]

CLIP_MEAN_COLOUR = (122, 116, 104)
"""int(255 * CLIP mean): the canvas of LLaVA-1.5's training and evaluation code."""


def pad_to_square(image: Image.Image, colour: tuple[int, int, int] = CLIP_MEAN_COLOUR) -> Image.Image:
    """Centres an image on a square canvas; an odd spare pixel goes to the right or the bottom.

    A box in fractions of the result is in the frame `square` of `swiftvlm_eval.grounding.boxes`.
    """
    image = image.convert("RGB")
    width, height = image.size
    if width == height:
        return image
    side = max(width, height)
    canvas = Image.new("RGB", (side, side), colour)
    canvas.paste(image, ((side - width) // 2, (side - height) // 2))
    return canvas
