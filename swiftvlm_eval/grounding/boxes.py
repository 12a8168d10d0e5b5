"""Read a box out of a model's answer, bring it to image pixels and score it against the ground truth.

Three rules make the score trustworthy:

* Parsing is a fixed rule over the text alone. It never sees the ground truth, so it cannot pick what scores best.
* An answer means nothing without its frame. LLaVA-1.5 (arXiv:2310.03744) was trained on boxes written as fractions of
  the image *padded to a square*; read as fractions of the image itself, a perfect answer on a 4:3 image loses a
  quarter of its overlap.
* Every answer gets a score. Text without a box counts as a miss, never as an error and never as a skipped sample.

Boxes are ``(x1, y1, x2, y2)`` in continuous coordinates, x to the right and y down, origin at the top left corner; a
pixel is one unit wide, so no "+1" appears anywhere. Accuracy at an IoU of 0.5 is the usual measure of
referring-expression comprehension (RefCOCO: arXiv:1608.00272, RefCOCOg: arXiv:1511.02283).
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, get_args

Box = tuple[float, float, float, float]
Frame = Literal["square", "image", "crop"]
Scale = Literal["fraction", "per_mille", "pixel"]

HIT_IOU = 0.5
MAX_FRACTION = 1.5
"""Largest coordinate still read as a fraction; LLaVA overshoots 1 by a little, never by half."""
MAX_PER_MILLE = 1000.0
MAX_ANSWER_CHARS = 10_000
"""Longer answers are cut before parsing, which bounds the time spent on any text. A box is about 25 tokens long."""

OTHER_FRAME: dict[Frame, Frame] = {"square": "image", "image": "square", "crop": "image"}
"""The frame of the diagnostic second score."""

# Possessive repetition (`++`) cannot backtrack, so one pass over the text is linear whatever it contains.
_NUMBER = r"[+-]?(?:[0-9]++(?:\.[0-9]*+)?+|\.[0-9]++)(?:[eE][+-]?[0-9]++)?+"
# A number must stand alone: not the 1 of "x1", not the 2 of "2nd", not a part of "1.2.3".
_LONE_NUMBER = re.compile(rf"(?<![\w.])(?:{_NUMBER})(?!\w|\.[0-9])")
_KEY = r"[\"']?(?:[xy](?:_?(?:min|max)|[0-9])?|left|top|right|bottom)[\"']?\s*+[=:]"
_GAP = re.compile(rf"[\s,;()\[\]]*+(?P<key>{_KEY})?+[\s(\[]*+", re.IGNORECASE)
_OPENED = re.compile(r"[(\[]\s*+$")
_CLOSED = re.compile(r"\s*+[)\]]")
_STRICT = re.compile(rf"\s*+\[\s*+({_NUMBER})\s*+,\s*+({_NUMBER})\s*+,\s*+({_NUMBER})\s*+,\s*+({_NUMBER})\s*+\]\s*+")


class _Gap(NamedTuple):
    """What stands between two neighbouring numbers of an answer."""

    separates: bool
    comma: bool
    key: bool
    opens: bool
    closes: bool


@dataclass(frozen=True, slots=True)
class ParsedBox:
    """Four numbers found in an answer, not yet tied to an image.

    Attributes:
        numbers: The four numbers exactly as the model wrote them, in its order.
        corners: The same numbers divided by ``1000`` if per-mille, with each coordinate pair in ascending order.
        scale: How the numbers are read. ``fraction`` and ``per_mille`` of the frame, or ``pixel`` of the frame.
        tags: What was unusual, sorted: ``unbracketed``, ``extra`` (more than four numbers), ``reordered`` (corners
            swapped), ``scale`` (not fractions), ``degenerate`` (no area).
        strict: The whole answer is one bracketed list of four ordered fractions within 0..1.
    """

    numbers: Box
    corners: Box
    scale: Scale
    tags: tuple[str, ...]
    strict: bool


@dataclass(frozen=True, slots=True)
class BoxScore:
    """The score of one answer; every field is a plain number, text or tuple.

    Attributes:
        iou: Overlap with the ground truth in the declared frame, 0..1; 0 without a box.
        iou_alt: The same answer read in the other frame (`OTHER_FRAME`): a diagnostic, never a second chance.
        strict: Whether the answer kept the strict format.
        frame: The declared frame.
        parsed: What was read, or None.
        box: The answer in image pixels, or None.
        tags: Tags of the parser, plus ``degenerate`` when no area is left inside the image, or ``unparsable``.
    """

    iou: float
    iou_alt: float
    strict: bool
    frame: Frame
    parsed: ParsedBox | None
    box: Box | None
    tags: tuple[str, ...] = field(default=())

    @property
    def metrics(self) -> dict[str, float]:
        """Per-sample metrics, each a float in 0..1 whose mean over samples is the reported figure."""
        hit = self.iou >= HIT_IOU
        return {
            "acc@0.5": float(hit),
            "iou": self.iou,
            "strict_acc@0.5": float(hit and self.strict),
            "acc@0.5_alt": float(self.iou_alt >= HIT_IOU),
            "unparsable": float(self.parsed is None),
        }


def parse_box(text: object) -> ParsedBox | None:
    """Read the first box of an answer.

    A box is four numbers in a row with only commas, semicolons, white space, brackets or coordinate names (``x1=``) in
    between. Four numbers separated by white space alone count only if an opening bracket or coordinate names say that
    they are a box; otherwise "In 2020 3 4 5 people" would be one.

    The scale follows from the largest magnitude alone: fractions up to 1.5, per-mille of the frame up to 1000,
    pixels of the frame above that.

    Args:
        text: The answer. Anything that is not text has no box.

    Returns:
        The box, or None if there are fewer than four numbers in a row or one of them is not finite.
    """
    if not isinstance(text, str):
        return None
    text = text[:MAX_ANSWER_CHARS].replace("\N{MINUS SIGN}", "-")
    matches = list(_LONE_NUMBER.finditer(text))
    gaps = [_read_gap(text[a.end() : b.start()]) for a, b in zip(matches, matches[1:], strict=False)]
    for first in range(len(matches) - 3):
        opened = _OPENED.search(text, max(0, matches[first].start() - 8), matches[first].start()) is not None
        if not _is_box(gaps[first : first + 3], opened=opened):
            continue
        values = [float(match.group()) for match in matches[first : first + 4]]
        if not all(map(math.isfinite, values)):
            return None
        extra = first + 3 < len(gaps) and gaps[first + 3].separates
        closed = extra or _CLOSED.match(text, matches[first + 3].end()) is not None
        tags = {name for name, seen in (("extra", extra), ("unbracketed", not (opened and closed))) if seen}
        return _build(values, tags, strict_text=_STRICT.fullmatch(text) is not None)
    return None


def _read_gap(gap: str) -> _Gap:
    """Classify the text between two numbers."""
    match = _GAP.fullmatch(gap)
    if match is None:
        return _Gap(separates=False, comma=False, key=False, opens=False, closes=False)
    return _Gap(
        separates=gap != "",
        comma="," in gap or ";" in gap,
        key=match["key"] is not None,
        opens="(" in gap or "[" in gap,
        closes=")" in gap or "]" in gap,
    )


def _is_box(gaps: Sequence[_Gap], *, opened: bool) -> bool:
    """Whether three gaps hold four numbers together as one box."""
    if not all(gap.separates for gap in gaps):
        return False
    # "[1] [0.1, 0.2, 0.3, 0.4]": a number alone in its bracket is a mark, unless all of them are.
    if gaps[0].closes and gaps[0].opens and not gaps[1].closes:
        return False
    # "1, [0.1, 0.2, 0.3, 0.4]": a bracket that opens later starts the box, the numbers before it are not part of one.
    return opened or all(gap.key or (gap.comma and not gap.opens) for gap in gaps)


def _build(values: Sequence[float], tags: set[str], *, strict_text: bool) -> ParsedBox:
    """Apply the scale rule, sort the corners and collect the tags."""
    a, b, c, d = values
    largest = max(map(abs, values))
    scale: Scale = "fraction" if largest <= MAX_FRACTION else "per_mille" if largest <= MAX_PER_MILLE else "pixel"
    unit = MAX_PER_MILLE if scale == "per_mille" else 1.0
    corners = (min(a, c) / unit, min(b, d) / unit, max(a, c) / unit, max(b, d) / unit)
    if scale != "fraction":
        tags.add("scale")
    if a > c or b > d:
        tags.add("reordered")
    if corners[0] == corners[2] or corners[1] == corners[3]:
        tags.add("degenerate")
    strict = strict_text and "reordered" not in tags and all(0.0 <= value <= 1.0 for value in values)
    return ParsedBox((a, b, c, d), corners, scale, tuple(sorted(tags)), strict)


def frame_size(width: int, height: int, frame: Frame) -> tuple[float, float, float, float]:
    """Place a frame on an image.

    Args:
        width: Image width W in pixels.
        height: Image height H in pixels.
        frame: ``square``: the image padded to a square of side max(W, H), an odd spare pixel going to the right or
            bottom, as LLaVA-1.5 pads. ``image``: the image itself. ``crop``: the centre square of side min(W, H),
            which is what the default Hugging Face processor of LLaVA-1.5 leaves.

    Returns:
        ``(left, top, frame width, frame height)`` in image pixels; left and top are negative for padding.

    Raises:
        ValueError: If a side is not positive or the frame is unknown.
    """
    if width <= 0 or height <= 0:
        raise ValueError(f"width and height must be positive, got {width} x {height}")
    if frame == "image":
        return 0.0, 0.0, float(width), float(height)
    if frame == "square":
        side = max(width, height)
        return float(-((side - width) // 2)), float(-((side - height) // 2)), float(side), float(side)
    if frame == "crop":
        side = min(width, height)
        return float((width - side) // 2), float((height - side) // 2), float(side), float(side)
    raise ValueError(f"frame must be one of {', '.join(get_args(Frame))}, got {frame!r}")


def from_frame(box: Box, width: int, height: int, frame: Frame) -> Box:
    """Fractions of a frame to image pixels, not clipped. Arguments and errors as in `frame_size`."""
    left, top, frame_width, frame_height = frame_size(width, height, frame)
    x1, y1, x2, y2 = box
    return (x1 * frame_width + left, y1 * frame_height + top, x2 * frame_width + left, y2 * frame_height + top)


def to_frame(box: Box, width: int, height: int, frame: Frame) -> Box:
    """Image pixels to fractions of a frame, not clipped: the inverse of `from_frame`."""
    left, top, frame_width, frame_height = frame_size(width, height, frame)
    x1, y1, x2, y2 = box
    return ((x1 - left) / frame_width, (y1 - top) / frame_height, (x2 - left) / frame_width, (y2 - top) / frame_height)


def locate(parsed: ParsedBox, width: int, height: int, frame: Frame) -> Box:
    """Bring a parsed box to image pixels.

    Clipped twice: to the frame, because the model saw nothing outside it, and to the image, because padding is not
    part of it.

    Args:
        parsed: The box as read.
        width: Image width in pixels.
        height: Image height in pixels.
        frame: The frame that the answer is written in.

    Returns:
        The box in image pixels, within the image, possibly without area.

    Raises:
        ValueError: If a side is not positive or the frame is unknown.
    """
    _, _, frame_width, frame_height = frame_size(width, height, frame)
    unit_x, unit_y = (frame_width, frame_height) if parsed.scale == "pixel" else (1.0, 1.0)
    x1, y1, x2, y2 = parsed.corners
    fractions = (_clip(x1 / unit_x, 1.0), _clip(y1 / unit_y, 1.0), _clip(x2 / unit_x, 1.0), _clip(y2 / unit_y, 1.0))
    x1, y1, x2, y2 = from_frame(fractions, width, height, frame)
    return _clip(x1, width), _clip(y1, height), _clip(x2, width), _clip(y2, height)


def _clip(value: float, upper: float) -> float:
    """Limit a coordinate to ``0..upper``."""
    return min(max(value, 0.0), upper)


def box_from_xywh(bbox: Sequence[float]) -> Box:
    """COCO's ``[x, y, width, height]`` to corners, unrounded.

    Args:
        bbox: Four finite numbers in pixels of the stored image. An area of zero is accepted; it overlaps nothing.

    Returns:
        ``(x1, y1, x2, y2)`` in pixels.

    Raises:
        ValueError: If there are not four finite numbers, or width or height is negative.
    """
    if len(bbox) != 4 or not all(isinstance(value, int | float) and math.isfinite(value) for value in bbox):
        raise ValueError(f"bbox must be four finite numbers [x, y, width, height], got {list(bbox)!r}")
    x, y, width, height = map(float, bbox)
    if width < 0 or height < 0:
        raise ValueError(f"bbox must have a width and height of at least 0, got {list(bbox)!r}")
    return x, y, x + width, y + height


def iou(a: Box, b: Box) -> float:
    """Intersection over union of two boxes in the same coordinates.

    Args:
        a: Corners in ascending order.
        b: Corners in ascending order.

    Returns:
        A number in 0..1; 0 when the union has no area.
    """
    across = min(a[2], b[2]) - max(a[0], b[0])
    down = min(a[3], b[3]) - max(a[1], b[1])
    shared = max(across, 0.0) * max(down, 0.0)
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared
    # Rounding can leave the union a hair below the intersection.
    return min(shared / union, 1.0) if union > 0 else 0.0


def score_box(text: object, bbox: Sequence[float], width: int, height: int, frame: Frame = "square") -> BoxScore:
    """Score one answer against one ground-truth box.

    Args:
        text: The model's answer; anything without a box scores zero.
        bbox: Ground truth ``[x, y, width, height]`` in image pixels, as COCO writes it.
        width: Image width in pixels.
        height: Image height in pixels.
        frame: The frame the answer is written in; the other one is scored beside it.

    Returns:
        The score in both frames and what was read.

    Raises:
        ValueError: If the ground truth, the image size or the frame is invalid. No answer text raises.
    """
    truth = box_from_xywh(bbox)
    frame_size(width, height, frame)
    parsed = parse_box(text)
    if parsed is None:
        return BoxScore(0.0, 0.0, strict=False, frame=frame, parsed=None, box=None, tags=("unparsable",))
    box = locate(parsed, width, height, frame)
    alternative = locate(parsed, width, height, OTHER_FRAME[frame])
    empty = box[0] >= box[2] or box[1] >= box[3]
    tags = tuple(sorted({*parsed.tags, *(("degenerate",) if empty else ())}))
    return BoxScore(iou(truth, box), iou(truth, alternative), parsed.strict, frame, parsed, box, tags)
