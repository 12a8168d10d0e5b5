"""One view of an image as a picture: kept patches clear, the others dimmed, boxes on top."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from swiftvlm_eval.models.placement import Rectangle

RETURNED = "#56B4E9"
TRUE = "#009E73"
PREDICTED = "#D55E00"
"""Colours of Okabe and Ito, safe for colour-blind readers; each also has a form of its own."""

LONGEST = 480
"""Pixels of a picture's longer side."""

_DIM_COLOUR, _DIM_SHARE = (128, 128, 128), 0.78


@dataclass(frozen=True)
class MarkedBox:
    """A box on the image: (x1, y1, x2, y2) in its pixels. The predicted one is dashed."""

    box: Rectangle
    predicted: bool


def draw_view(
    image: Image.Image,
    patches: Mapping[int, Rectangle],
    kept: Collection[int],
    returned: Collection[int] = (),
    boxes: Sequence[MarkedBox] = (),
    background: tuple[int, int, int] = (0, 0, 0),
    longest: int = LONGEST,
) -> Image.Image:
    """Draws the image and all that its patches show, padding included, with the kept patches clear.

    Args:
        image: the original.
        patches: visual index -> rectangle in image pixels, of one view.
        kept: visual indices; those of other views do not count.
        returned: of these, what came back: framed, with a dot in the corner.
        boxes: drawn above everything.
        background: colour of the padding.
        longest: pixels of the picture's longer side.

    Returns:
        An RGB picture; the area is the smallest that holds the image and every patch.
    """
    area = _area(image, patches)
    unit = longest / max(area[2] - area[0], area[3] - area[1])

    def on_picture(box: Rectangle) -> tuple[int, int, int, int]:
        x1, y1, x2, y2 = box
        return (
            round((x1 - area[0]) * unit),
            round((y1 - area[1]) * unit),
            round((x2 - area[0]) * unit),
            round((y2 - area[1]) * unit),
        )

    _, _, width, height = on_picture(area)
    clear = Image.new("RGB", (max(1, width), max(1, height)), background)
    left, top, right, bottom = on_picture((0, 0, image.width, image.height))
    shown = image.convert("RGB").resize((max(1, right - left), max(1, bottom - top)), Image.Resampling.LANCZOS)
    clear.paste(shown, (left, top))
    dimmed = Image.blend(clear.convert("L").convert("RGB"), Image.new("RGB", clear.size, _DIM_COLOUR), _DIM_SHARE)
    mask = Image.new("1", clear.size)
    pen = ImageDraw.Draw(mask)
    for index in kept:
        if index in patches:
            _fill(pen, on_picture(patches[index]))
    dimmed.paste(clear, mask=mask)
    pen = ImageDraw.Draw(dimmed)
    for index in returned:
        if index in patches:
            _mark(pen, on_picture(patches[index]))
    for marked in boxes:
        _outline(pen, on_picture(marked.box), marked.predicted)
    return dimmed


def _area(image: Image.Image, patches: Mapping[int, Rectangle]) -> Rectangle:
    """The smallest rectangle that holds the image and the patches."""
    x1, y1, x2, y2 = zip((0.0, 0.0, float(image.width), float(image.height)), *patches.values(), strict=True)
    return min(x1), min(y1), max(x2), max(y2)


def _fill(pen: ImageDraw.ImageDraw, box: tuple[int, int, int, int]) -> None:
    """A patch; neighbours share an edge and no pixel."""
    x1, y1, x2, y2 = box
    if x2 > x1 and y2 > y1:
        pen.rectangle((x1, y1, x2 - 1, y2 - 1), fill=1)


def _mark(pen: ImageDraw.ImageDraw, box: tuple[int, int, int, int]) -> None:
    """A frame inside the patch and a dot in its upper left corner."""
    x1, y1, x2, y2 = box
    if x2 <= x1 or y2 <= y1:
        return
    pen.rectangle((x1, y1, x2 - 1, y2 - 1), outline=RETURNED, width=max(1, min(3, (x2 - x1) // 6)))
    dot = max(2, min(x2 - x1, y2 - y1) // 4)
    pen.ellipse((x1, y1, x1 + 2 * dot, y1 + 2 * dot), fill=RETURNED)


def _outline(pen: ImageDraw.ImageDraw, box: tuple[int, int, int, int], predicted: bool) -> None:
    """The true box in one line, the predicted one in dashes; white below both, so that they show on any colour."""
    x1, y1, x2, y2 = box
    pen.rectangle((x1 - 1, y1 - 1, x2 + 1, y2 + 1), outline="white", width=5)
    colour, dash = (PREDICTED, 9) if predicted else (TRUE, 0)
    if not dash:
        pen.rectangle((x1, y1, x2, y2), outline=colour, width=3)
        return
    for start in range(x1, x2 + 1, 2 * dash):
        for y in (y1, y2):
            pen.line((start, y, min(start + dash, x2), y), fill=colour, width=3)
    for start in range(y1, y2 + 1, 2 * dash):
        for x in (x1, x2):
            pen.line((x, start, x, min(start + dash, y2)), fill=colour, width=3)


@lru_cache(maxsize=8)
def font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, as matplotlib brings it along.

    Raises:
        ImportError: matplotlib is missing; the message says what to install.
    """
    try:
        import matplotlib
    except ImportError as error:
        raise ImportError("pictures: letters come from matplotlib: pip install 'swiftvlm-eval[eval]'") from error
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name), size)


def text_block(text: str, width: int, size: int = 14, bold: bool = False) -> Image.Image:
    """The text in black on white, wrapped to a width in pixels; what no font prints becomes a space."""
    letters, lines = font(size, bold), []
    clean = "".join(sign if sign.isprintable() or sign == "\n" else " " for sign in text)
    for paragraph in clean.split("\n"):
        line = ""
        for word in paragraph.split(" "):
            for part in _fitting(word, width - 8, letters):
                longer = f"{line} {part}" if line else part
                if line and letters.getlength(longer) > width - 8:
                    lines.append(line)
                    longer = part
                line = longer
        lines.append(line)
    height = round(size * 1.4)
    block = Image.new("RGB", (width, height * len(lines) + 6), "white")
    pen = ImageDraw.Draw(block)
    for number, line in enumerate(lines):
        pen.text((4, 3 + number * height), line, fill="black", font=letters)
    return block


def _fitting(word: str, width: int, letters: ImageFont.FreeTypeFont) -> list[str]:
    """A word in parts that fit a line each."""
    parts = [""]
    for sign in word:
        if parts[-1] and letters.getlength(parts[-1] + sign) > width:
            parts.append("")
        parts[-1] += sign
    return parts


def beside(pictures: Sequence[Image.Image], gap: int = 12) -> Image.Image:
    """Pictures from left to right on white, aligned at the top."""
    width = sum(picture.width for picture in pictures) + gap * (len(pictures) - 1)
    whole = Image.new("RGB", (width, max(picture.height for picture in pictures)), "white")
    left = 0
    for picture in pictures:
        whole.paste(picture, (left, 0))
        left += picture.width + gap
    return whole


def below(pictures: Sequence[Image.Image], gap: int = 4) -> Image.Image:
    """Pictures from top to bottom on white, aligned at the left."""
    height = sum(picture.height for picture in pictures) + gap * (len(pictures) - 1)
    whole = Image.new("RGB", (max(picture.width for picture in pictures), height), "white")
    top = 0
    for picture in pictures:
        whole.paste(picture, (0, top))
        top += picture.height + gap
    return whole
