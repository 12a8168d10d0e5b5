"""What each of the tower's patches shows, read off the scene: the teacher of the tower and of the projector.

Aligning the two halves is the hard part of training a small LLaVA from nothing: the decoder cannot look anything up
before the visual tokens mean something, and the tower gets no gradient before the decoder looks. So both halves are
first trained towards one fixed code (`PatchCode`): the decoder reads the code of each patch, the tower and the
projector learn to write it. The code is dropped when both train together.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from demo_model.model import GRID, IMAGE_SIDE, PATCH, WIDTH
from swiftvlm_eval.demo.drawing import label_box, object_map, square_box
from swiftvlm_eval.demo.scenes import COLOURS, LABELS, SHAPES, Scene

COLOUR_IDS = {name: i + 1 for i, name in enumerate(COLOURS)}
SHAPE_IDS = {name: i + 1 for i, name in enumerate(SHAPES)}
LABEL_IDS = {name: i + 1 for i, name in enumerate(LABELS)}
KINDS = len(COLOURS) * len(SHAPES)
PRESENCE = len(COLOURS) + len(SHAPES) + KINDS + len(LABELS)

MIN_COVER = 0.18
"""A patch shows an object that covers at least this share of it, and a label whose plate does."""


STRENGTH = 7.0
"""Length of a colour, shape or label in the code: most of a token, so that a word finds its patches by likeness."""


BOX_STRENGTH = 2.5
"""Scale of a box's coordinates in the code; much less, and "left" and the second decimal are learned very late."""


@dataclass(frozen=True)
class PatchTargets:
    """Per scene: class ids (0 for none) of [GRID * GRID] patches, [.., 4] boxes, and [PRESENCE] zeros and ones.

    Boxes are (x1, y1, x2, y2) fractions of the padded square, zero where a patch shows no object.
    """

    colour: npt.NDArray[np.int64]
    shape: npt.NDArray[np.int64]
    label: npt.NDArray[np.int64]
    box: npt.NDArray[np.float32]
    presence: npt.NDArray[np.float32]


def patch_targets(scene: Scene) -> PatchTargets:
    """Targets of one scene on the padded square."""
    cover = _cover(_on_square(object_map(scene), scene), len(scene.objects))
    best = cover.argmax(axis=1)
    visible = cover.max(axis=1) >= MIN_COVER
    table = np.array([(COLOUR_IDS[o.colour], SHAPE_IDS[o.shape]) for o in scene.objects], dtype=np.int64)
    boxes = np.array([square_box(o.box, scene) for o in scene.objects], dtype=np.float32)
    return PatchTargets(
        colour=np.where(visible, table[best, 0], 0),
        shape=np.where(visible, table[best, 1], 0),
        label=_label_ids(scene),
        box=np.where(visible[:, None], boxes[best], 0).astype(np.float32),
        presence=_presence(scene),
    )


def _on_square(ids: npt.NDArray[np.uint8], scene: Scene) -> npt.NDArray[np.uint8]:
    """[IMAGE_SIDE, IMAGE_SIDE] object ids after padding and nearest-neighbour resizing."""
    side = scene.long_side
    square = np.zeros((side, side), dtype=np.uint8)
    top, left = (side - scene.height) // 2, (side - scene.width) // 2
    square[top : top + scene.height, left : left + scene.width] = ids
    index = (np.arange(IMAGE_SIDE) * 2 + 1) * side // (2 * IMAGE_SIDE)
    return square[index[:, None], index]


def _cover(ids: npt.NDArray[np.uint8], count: int) -> npt.NDArray[np.float64]:
    """[GRID * GRID, count]: share of each patch that each object covers."""
    cells = ids.reshape(GRID, PATCH, GRID, PATCH).swapaxes(1, 2).reshape(GRID * GRID, PATCH * PATCH)
    return np.stack([(cells == i + 1).mean(axis=1) for i in range(count)], axis=1)


def _label_ids(scene: Scene) -> npt.NDArray[np.int64]:
    plates = np.zeros((scene.height, scene.width), dtype=np.uint8)
    labelled = [item for item in scene.objects if item.label is not None]
    for index, item in enumerate(labelled, start=1):
        x1, y1, x2, y2 = label_box(item, scene.long_side)
        plates[max(y1, 0) : y2, max(x1, 0) : x2] = index
    if not labelled:
        return np.zeros(GRID * GRID, dtype=np.int64)
    cover = _cover(_on_square(plates, scene), len(labelled))
    ids = np.array([LABEL_IDS[item.label or ""] for item in labelled], dtype=np.int64)
    return np.where(cover.max(axis=1) >= MIN_COVER, ids[cover.argmax(axis=1)], 0)


def _presence(scene: Scene) -> npt.NDArray[np.float32]:
    """Multi-label target of the CLS token: which colours, shapes, coloured shapes and labels the image shows."""
    target = np.zeros(PRESENCE, dtype=np.float32)
    for item in scene.objects:
        colour, shape = COLOUR_IDS[item.colour] - 1, SHAPE_IDS[item.shape] - 1
        start = len(COLOURS) + len(SHAPES)
        target[[colour, len(COLOURS) + shape, start + colour * len(SHAPES) + shape]] = 1
        if item.label is not None:
            target[start + KINDS + LABEL_IDS[item.label] - 1] = 1
    return target


class PatchCode:
    """A fixed linear code: targets of a patch -> a vector of WIDTH numbers, every property along its own axes.

    The axes are orthogonal and drawn once from a seed, so a vector is decoded by projecting it.
    """

    def __init__(self, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        axes = torch.linalg.qr(torch.randn(WIDTH, WIDTH, generator=generator))[0]
        sizes = (1, len(COLOURS), len(SHAPES), len(LABELS), 4 * 5, 4 * 3)
        self.text, self.colour, self.shape, self.label, self.box, place = axes[: sum(sizes)].split(sizes)
        rows, columns = torch.meshgrid(torch.arange(GRID), torch.arange(GRID), indexing="ij")
        cells = torch.stack([columns, rows, columns + 1, rows + 1], dim=-1).reshape(-1, 4) / GRID
        self._places = _waves(cells, 1).flatten(1) @ place

    def words(self) -> dict[str, torch.Tensor]:
        """Axis [WIDTH] of every colour, shape and label that has a word, by that word."""
        axes = torch.cat([self.colour, self.shape, self.label])
        return dict(zip((*COLOURS, *SHAPES, *LABELS), axes, strict=True))

    def coordinate(self, values: torch.Tensor) -> torch.Tensor:
        """[n, WIDTH] vectors for coordinates 0..1 [n]: alike to every box code that has this value on any side."""
        return _waves(values.unsqueeze(-1).expand(-1, 4), 2).flatten(1) @ self.box

    def to(self, device: torch.device) -> PatchCode:
        """Moves the axes to a device; returns self."""
        for name in ("text", "colour", "shape", "label", "box", "_places"):
            setattr(self, name, getattr(self, name).to(device))
        return self

    def encode(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """[B, GRID * GRID, WIDTH] codes of a batch of targets, of about unit variance."""
        nothing = torch.zeros_like(self.colour[:1])
        shown = (batch["colour"] > 0).unsqueeze(-1)
        boxes = _waves(batch["box"], 2).flatten(2) @ self.box
        colours = torch.cat([-self.text, self.colour])  # nothing there is the opposite of text
        code = STRENGTH * colours[batch["colour"]]
        code = code + STRENGTH * torch.cat([nothing, self.shape])[batch["shape"]]
        code = code + STRENGTH * torch.cat([nothing, self.label])[batch["label"]]
        return code + shown * BOX_STRENGTH * boxes + 0.6 * self._places


def _waves(values: torch.Tensor, octaves: int) -> torch.Tensor:
    """[..., 4] numbers in 0..1 -> [..., 4, 1 + 2 * octaves]: linear, sines and cosines of rising frequency."""
    parts = [2 * values - 1]
    for octave in range(octaves):
        angle = torch.pi * 2**octave * values
        parts += [angle.sin(), angle.cos()]
    return torch.stack(parts, dim=-1)
