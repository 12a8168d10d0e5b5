"""Draws scenes with PIL, without antialiasing: few colours make small PNG files, and a pixel belongs to one object."""

from __future__ import annotations

import io
import math
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from swiftvlm_eval.demo.scenes import COLOURS, Box, Scene, SceneObject

CANVAS_COLOUR = (122, 116, 104)
"""CLIP's pixel mean as integers: what LLaVA-1.5 (arXiv 2310.03744) pads an image to a square with."""

FONT_SHARE = 0.088
"""Font size of a label as a fraction of the longer side."""

PLATE_COLOUR, INK_COLOUR = (255, 255, 255), (0, 0, 0)


def draw_scene(scene: Scene) -> Image.Image:
    """The scene as an RGB image of `scene.width` x `scene.height` pixels."""
    image = Image.new("RGB", (scene.width, scene.height), scene.background)
    pen = ImageDraw.Draw(image)
    pen.fontmode = "1"
    for item in scene.objects:
        _draw_shape(pen, item, COLOURS[item.colour])
        if item.label is not None:
            plate = label_box(item, scene.long_side)
            pen.rectangle((plate[0], plate[1], plate[2] - 1, plate[3] - 1), fill=PLATE_COLOUR)
            middle = ((plate[0] + plate[2]) / 2, (plate[1] + plate[3]) / 2)
            pen.text(middle, item.label, fill=INK_COLOUR, font=_font(scene.long_side), anchor="mm")
    return image


def encode_png(image: Image.Image) -> bytes:
    """The image as a palette PNG, without loss as long as it has at most 256 colours."""
    buffer = io.BytesIO()
    image.convert("P", palette=Image.Palette.ADAPTIVE, colors=256).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def pad_to_square(image: Image.Image) -> Image.Image:
    """LLaVA-1.5's square canvas: the image in the middle, offset floor((L - s) / 2), the rest in CLIP's mean."""
    side = max(image.size)
    canvas = Image.new("RGB", (side, side), CANVAS_COLOUR)
    canvas.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return canvas


def square_box(box: Box, scene: Scene) -> tuple[float, float, float, float]:
    """A pixel box as fractions of the padded square, the frame in which the model answers."""
    side = scene.long_side
    dx, dy = (side - scene.width) // 2, (side - scene.height) // 2
    return (box[0] + dx) / side, (box[1] + dy) / side, (box[2] + dx) / side, (box[3] + dy) / side


def label_box(item: SceneObject, long_side: int) -> Box:
    """The white plate of an object's label, (x1, y1, x2, y2) in pixels, in the middle of the shape.

    Raises:
        ValueError: The object carries no label.
    """
    if item.label is None:
        raise ValueError(f"label is None for the {item.colour} {item.shape}; allowed: a labelled object")
    left, _, right, _ = _font(long_side).getbbox(item.label)
    width, height = round(right - left) + 4, round(FONT_SHARE * long_side) + 3
    x, y = item.centre
    if item.shape == "triangle":
        y += 0.18 * (item.box[3] - item.box[1])
    x1, y1 = round(x - width / 2), round(y - height / 2)
    return x1, y1, x1 + width, y1 + height


def object_map(scene: Scene) -> npt.NDArray[np.uint8]:
    """[height, width]: 0 for the background, i + 1 where object i is drawn (its plate included)."""
    image = Image.new("L", (scene.width, scene.height), 0)
    pen = ImageDraw.Draw(image)
    for index, item in enumerate(scene.objects, start=1):
        _draw_shape(pen, item, index)
        if item.label is not None:
            x1, y1, x2, y2 = label_box(item, scene.long_side)
            pen.rectangle((x1, y1, x2 - 1, y2 - 1), fill=index)
    return np.asarray(image)


@lru_cache(maxsize=16)
def _font(long_side: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size=FONT_SHARE * long_side)


def outline(item: SceneObject) -> list[tuple[float, float]]:
    """Corners of the shape in pixels, clockwise from the top; a circle is given by 32 of its points."""
    x1, y1, x2, y2 = item.box
    corners = _circle() if item.shape == "circle" else _CORNERS[item.shape]
    return [(x1 + x * (x2 - 1 - x1), y1 + y * (y2 - 1 - y1)) for x, y in corners]


def _draw_shape(pen: ImageDraw.ImageDraw, item: SceneObject, fill: tuple[int, int, int] | int) -> None:
    """Fills the shape so that it touches all four sides of its box."""
    x1, y1, x2, y2 = item.box
    if item.shape == "circle":
        pen.ellipse((x1, y1, x2 - 1, y2 - 1), fill=fill)
    else:
        pen.polygon(outline(item), fill=fill)


def _circle() -> list[tuple[float, float]]:
    angles = [math.tau * step / 32 for step in range(32)]
    return [(0.5 + 0.5 * math.sin(angle), 0.5 - 0.5 * math.cos(angle)) for angle in angles]


def _star() -> list[tuple[float, float]]:
    """Ten corners of a five-pointed star, stretched so that its points reach all sides of the unit square."""
    polar = [(1.0 if step % 2 == 0 else 0.42, math.pi * step / 5) for step in range(10)]
    xs = [radius * math.sin(angle) for radius, angle in polar]
    ys = [-radius * math.cos(angle) for radius, angle in polar]
    return [
        ((x - min(xs)) / (max(xs) - min(xs)), (y - min(ys)) / (max(ys) - min(ys))) for x, y in zip(xs, ys, strict=True)
    ]


_ARM, _FAR = 0.34, 0.66
_CORNERS: dict[str, list[tuple[float, float]]] = {
    "square": [(0, 0), (1, 0), (1, 1), (0, 1)],
    "triangle": [(0.5, 0), (1, 1), (0, 1)],
    "star": _star(),
    "cross": [
        *((_ARM, 0), (_FAR, 0), (_FAR, _ARM), (1, _ARM), (1, _FAR), (_FAR, _FAR)),
        *((_FAR, 1), (_ARM, 1), (_ARM, _FAR), (0, _FAR), (0, _ARM), (_ARM, _ARM)),
    ],
}
"""Corners of each shape in its unit square."""
