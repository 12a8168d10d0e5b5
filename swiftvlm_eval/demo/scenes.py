"""Seeded synthetic scenes: a few coloured shapes on a plain canvas, some of them carrying a printed label.

A scene is data, not pixels: `drawing.py` draws it and `questions.py` asks about it, so that an answer never has to be
read back from an image. Every scene of a split is drawn from its own generator, seeded by (split, seed, index): the
scenes of two splits never share a stream, and scene 7 is the same whether or not scenes 0 to 6 were made.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

Split = Literal["train", "val", "test"]
Box = tuple[int, int, int, int]

SPLITS: tuple[Split, ...] = ("train", "val", "test")
COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (214, 39, 40),
    "green": (44, 150, 60),
    "blue": (31, 90, 200),
    "yellow": (240, 210, 40),
    "purple": (140, 60, 170),
    "orange": (245, 130, 30),
    "black": (25, 25, 25),
}
SHAPES: tuple[str, ...] = ("circle", "square", "triangle", "star", "cross")
WORDS: tuple[str, ...] = ("cat", "dog", "sun", "map", "key", "bus", "tea", "owl", "ice", "jam")
NUMBERS: tuple[str, ...] = tuple("0123456789")
LABELS: tuple[str, ...] = NUMBERS + WORDS
BACKGROUNDS: tuple[tuple[int, int, int], ...] = ((236, 236, 230), (214, 222, 230), (226, 216, 204), (205, 205, 205))

LONG_SIDES: tuple[int, ...] = (168, 196, 224)
ASPECT_RATIOS: tuple[float, ...] = (1.0, 4 / 3, 3 / 2, 3 / 4, 2 / 3)
"""Width over height: square, landscape, portrait."""

MIN_SIZE, MAX_SIZE = 0.15, 0.36
"""Side of an object as a fraction of the canvas's longer side."""

LABEL_MIN_SIZE = 0.2
"""Smallest object that may carry a label: the plate must leave the shape recognisable."""

LABEL_SHARE = 0.85
GAP = 0.02
PLACEMENT_TRIES = 60


@dataclass(frozen=True)
class SceneObject:
    """One shape: its name, its colour, its tight box in pixels and the text printed on it (None for none).

    `box` is (x1, y1, x2, y2) with x2 and y2 exclusive.
    """

    shape: str
    colour: str
    box: Box
    label: str | None = None

    @property
    def centre(self) -> tuple[float, float]:
        """Middle of the box in pixels."""
        x1, y1, x2, y2 = self.box
        return (x1 + x2) / 2, (y1 + y2) / 2

    @property
    def area(self) -> int:
        """Area of the box in pixels, what "largest" and "smallest" refer to."""
        x1, y1, x2, y2 = self.box
        return (x2 - x1) * (y2 - y1)


@dataclass(frozen=True)
class Scene:
    """A canvas of `width` x `height` pixels with objects that do not overlap."""

    width: int
    height: int
    background: tuple[int, int, int]
    objects: tuple[SceneObject, ...]

    @property
    def long_side(self) -> int:
        """Side of the square the image is padded to before the model sees it."""
        return max(self.width, self.height)


def scene_generator(split: Split, seed: int, index: int) -> np.random.Generator:
    """Random stream of one scene; disjoint for different splits, seeds and indices.

    Raises:
        ValueError: The split is unknown, or the seed or index is negative.
    """
    if split not in SPLITS:
        raise ValueError(f"split is {split!r}; allowed: {', '.join(SPLITS)}")
    if seed < 0 or index < 0:
        raise ValueError(f"seed and index are {seed} and {index}; allowed: integers of 0 or more")
    return np.random.default_rng([SPLITS.index(split), seed, index])


def scenes(split: Split, seed: int = 0, start: int = 0) -> Iterator[tuple[int, Scene]]:
    """Yields (index, scene) without end, from `start` on."""
    index = start
    while True:
        yield index, sample_scene(scene_generator(split, seed, index))
        index += 1


def sample_scene(rng: np.random.Generator) -> Scene:
    """Draws a canvas and three to six objects; in most scenes some of them look alike.

    Look-alikes share colour and shape, so that a referring expression needs a relation ("left red circle") and the
    answer cannot be had from recognising the object alone.
    """
    long_side = int(rng.choice(LONG_SIDES))
    ratio = float(rng.choice(ASPECT_RATIOS))
    width = long_side if ratio >= 1 else round(long_side * ratio)
    height = long_side if ratio <= 1 else round(long_side / ratio)
    boxes = _place_boxes(rng, width, height, wanted=int(rng.integers(3, 7)))
    kinds = _draw_kinds(rng, len(boxes))
    objects = tuple(
        SceneObject(shape, colour, box, _draw_label(rng, box, long_side))
        for (shape, colour), box in zip(kinds, boxes, strict=True)
    )
    background = BACKGROUNDS[int(rng.integers(len(BACKGROUNDS)))]
    return Scene(width, height, background, objects)


def _place_boxes(rng: np.random.Generator, width: int, height: int, wanted: int) -> list[Box]:
    """Rejection sampling; fewer boxes than wanted when the canvas is full, always at least two."""
    long_side = max(width, height)
    gap = round(GAP * long_side)
    boxes: list[Box] = []
    for _ in range(PLACEMENT_TRIES * wanted):
        if len(boxes) == wanted:
            break
        side = rng.uniform(MIN_SIZE, MAX_SIZE) * long_side
        stretch = rng.uniform(0.88, 1.14)
        w, h = round(side * stretch), round(side / stretch)
        x, y = int(rng.integers(gap, width - w - gap)), int(rng.integers(gap, height - h - gap))
        box = (x, y, x + w, y + h)
        if all(not _touch(box, other, gap) for other in boxes):
            boxes.append(box)
    return boxes if len(boxes) >= 2 else _place_boxes(rng, width, height, wanted)


def _touch(a: Box, b: Box, gap: int) -> bool:
    return a[0] < b[2] + gap and b[0] < a[2] + gap and a[1] < b[3] + gap and b[1] < a[3] + gap


def _draw_kinds(rng: np.random.Generator, count: int) -> list[tuple[str, str]]:
    """(shape, colour) of each object; in three scenes of four, two or three objects are the same."""
    colours = list(COLOURS)
    kinds = [(SHAPES[rng.integers(len(SHAPES))], colours[rng.integers(len(colours))]) for _ in range(count)]
    if count >= 3 and rng.random() < 0.75:
        copies = 2 if count < 4 or rng.random() < 0.7 else 3
        kinds[:copies] = [kinds[0]] * copies
    order = rng.permutation(count)
    return [kinds[i] for i in order]


def _draw_label(rng: np.random.Generator, box: Box, long_side: int) -> str | None:
    side = min(box[2] - box[0], box[3] - box[1])
    if side < LABEL_MIN_SIZE * long_side or rng.random() > LABEL_SHARE:
        return None
    pool = NUMBERS if rng.random() < 0.5 else WORDS
    return pool[int(rng.integers(len(pool)))]
