"""The box parser and scorer against hand-computed numbers and against Pillow's own padding."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from swiftvlm_eval.grounding import Box, ParsedBox, box_from_xywh, from_frame, iou, parse_box, score_box, to_frame

BOX = (0.1, 0.2, 0.3, 0.4)

sides = st.integers(1, 4000)
coordinates = st.floats(-2000, 2000, allow_nan=False)
boxes = st.tuples(coordinates, coordinates, st.floats(0, 2000), st.floats(0, 2000)).map(box_from_xywh)


def parsed(text: str) -> ParsedBox:
    box = parse_box(text)
    assert box is not None, text
    return box


@pytest.mark.parametrize(
    ("text", "numbers", "tags"),
    [
        ("[0.1, 0.2, 0.3, 0.4]", BOX, ()),
        ("[[0.1, 0.2, 0.3, 0.4]]", BOX, ()),
        ("[.1, .2, .3, .4]", BOX, ()),
        ("[1., 0.2, 0.3, 0.4]", (1.0, 0.2, 0.3, 0.4), ("reordered",)),
        ("[1e-2, 0.2, 0.3, 0.4]", (0.01, 0.2, 0.3, 0.4), ()),
        ("[0.1,0.2,0.3,0.4", BOX, ("unbracketed",)),
        ("0.1, 0.2, 0.3, 0.4", BOX, ("unbracketed",)),
        ("(0.1, 0.2), (0.3, 0.4)", BOX, ()),
        ("[0.1 0.2 0.3 0.4]", BOX, ()),
        ("[0.1; 0.2; 0.3; 0.4]", BOX, ()),
        ("x1=0.1, y1=0.2, x2=0.3, y2=0.4", BOX, ("unbracketed",)),
        ("xmin: 0.1 ymin: 0.2 xmax: 0.3 ymax: 0.4", BOX, ("unbracketed",)),
        ('{"x1": 0.1, "y1": 0.2, "x2": 0.3, "y2": 0.4}', BOX, ("unbracketed",)),
        ("There are 2 dogs [0.1, 0.2, 0.3, 0.4].", BOX, ()),
        ("The 2nd dog, [0.1, 0.2, 0.3, 0.4]", BOX, ()),
        ("1, [0.1, 0.2, 0.3, 0.4]", BOX, ()),
        ("[1] [0.1, 0.2, 0.3, 0.4]", BOX, ()),
        ("(1), (0.1, 0.2, 0.3, 0.4)", BOX, ()),
        ("(0.1)(0.2)(0.3)(0.4)", BOX, ()),
        ("[\N{MINUS SIGN}0.1, 0.2, 0.3, 0.4]", (-0.1, 0.2, 0.3, 0.4), ()),
        ("[0.3, 0.4, 0.1, 0.2]", (0.3, 0.4, 0.1, 0.2), ("reordered",)),
        ("[0.1, 0.4, 0.3, 0.2]", (0.1, 0.4, 0.3, 0.2), ("reordered",)),
        ("[100, 200, 300, 400]", (100.0, 200.0, 300.0, 400.0), ("scale",)),
        ("[0.1, 0.2, 0.3, 0.4, 0.5]", BOX, ("extra",)),
        ("[0.1, 0.2, 0.3, 0.4], [0.5, 0.6, 0.7, 0.8]", BOX, ("extra",)),
        ("[0.1, 0.2, 0.1, 0.4]", (0.1, 0.2, 0.1, 0.4), ("degenerate",)),
        ("[-0.1, +0.2, 0.3, 0.4]", (-0.1, 0.2, 0.3, 0.4), ()),
        ("[0.1,\n0.2,\n0.3,\n0.4]", BOX, ()),
    ],
)
def test_the_numbers_and_tags_of_an_answer(text: str, numbers: tuple[float, ...], tags: tuple[str, ...]) -> None:
    assert parsed(text).numbers == numbers
    assert parsed(text).tags == tags


@pytest.mark.parametrize(
    "text",
    [
        "[0.1, 0.2]",
        "no box",
        "",
        "   ",
        "In 2020 3 4 5 people",
        "[nan, 0.2, 0.3, 0.4]",
        "[inf, 0.2, 0.3, 0.4]",
        "[1e999, 0.2, 0.3, 0.4]",
        "1.2.3.4, 0.2, 0.3",
        "0.1, 0.2 and 0.3, 0.4",
        "x=0.1, y=0.2, w=0.3, h=0.4",
        "0.1/0.2/0.3/0.4",
        None,
        7,
        b"[0.1, 0.2, 0.3, 0.4]",
        ["[0.1, 0.2, 0.3, 0.4]"],
    ],
)
def test_an_answer_without_a_box_is_unparsable(text: object) -> None:
    assert parse_box(text) is None
    score = score_box(text, [10, 10, 20, 20], 100, 100)
    assert score.metrics == {"acc@0.5": 0.0, "iou": 0.0, "strict_acc@0.5": 0.0, "acc@0.5_alt": 0.0, "unparsable": 1.0}
    assert score.tags == ("unparsable",)
    assert score.box is None


@pytest.mark.parametrize(
    ("text", "scale", "corners"),
    [
        ("[0.1, 0.2, 0.3, 1.5]", "fraction", (0.1, 0.2, 0.3, 1.5)),
        ("[0, 1, 1, 1.51]", "per_mille", (0.0, 0.001, 0.001, 0.00151)),
        ("[100, 200, 300, 1000]", "per_mille", (0.1, 0.2, 0.3, 1.0)),
        ("[100, 200, 300, 1001]", "pixel", (100.0, 200.0, 300.0, 1001.0)),
        ("[300, 400, 100, 200]", "per_mille", (0.1, 0.2, 0.3, 0.4)),
    ],
)
def test_the_scale_follows_from_the_largest_number(text: str, scale: str, corners: tuple[float, ...]) -> None:
    assert parsed(text).scale == scale
    assert parsed(text).corners == pytest.approx(corners)


@pytest.mark.parametrize(
    ("text", "strict"),
    [
        ("[0.1, 0.2, 0.3, 0.4]", True),
        (" [0.1,0.2,0.3,0.4]\n", True),
        ("[0, 0, 1, 1]", True),
        ("[0.1, 0.2, 0.3, 0.4].", False),
        ("Box: [0.1, 0.2, 0.3, 0.4]", False),
        ("[[0.1, 0.2, 0.3, 0.4]]", False),
        ("(0.1, 0.2, 0.3, 0.4)", False),
        ("[0.3, 0.2, 0.1, 0.4]", False),
        ("[0.1, 0.2, 0.3, 1.1]", False),
        ("[-0.1, 0.2, 0.3, 0.4]", False),
        ("[0.1, 0.2, 0.3, 0.4, 0.5]", False),
        ("[0.1 0.2 0.3 0.4]", False),
    ],
)
def test_strict_accepts_one_bracketed_ordered_list_and_nothing_else(text: str, strict: bool) -> None:
    assert parsed(text).strict is strict


@pytest.mark.parametrize(
    ("width", "height", "corners", "answer", "in_square", "in_image"),
    [
        (640, 480, (100, 80, 300, 400), "[0.16, 0.25, 0.47, 0.75]", 0.984, 0.739),
        (480, 640, (30, 200, 200, 600), "[0.17, 0.31, 0.44, 0.94]", 0.976, 0.650),
        (640, 427, (0, 0, 640, 427), "[0.0, 0.17, 1.0, 0.83]", 0.989, 0.660),
    ],
)
def test_the_frame_of_an_answer_decides_its_overlap(
    width: int, height: int, corners: tuple[int, ...], answer: str, in_square: float, in_image: float
) -> None:
    x1, y1, x2, y2 = corners
    bbox = [x1, y1, x2 - x1, y2 - y1]
    square = score_box(answer, bbox, width, height, "square")
    image = score_box(answer, bbox, width, height, "image")
    assert square.iou == pytest.approx(in_square, abs=5e-4)
    assert square.iou_alt == pytest.approx(in_image, abs=5e-4)
    assert (image.iou, image.iou_alt) == (square.iou_alt, square.iou)
    assert square.metrics["acc@0.5"] == square.metrics["strict_acc@0.5"] == 1.0


def test_the_crop_frame_by_hand() -> None:
    # 640x480: the centre square is 480 wide and starts at x = 80; half of it is the box (80, 0)-(320, 480).
    score = score_box("[0, 0, 0.5, 1]", [80, 0, 240, 480], 640, 480, "crop")
    assert score.box == (80.0, 0.0, 320.0, 480.0)
    assert score.iou == 1.0
    # Read as fractions of the image it is (0, 0)-(320, 480): 240*480 shared of 320*480.
    assert score.iou_alt == pytest.approx(0.75)


def test_pixels_are_pixels_of_the_frame() -> None:
    # 1600x1200 padded to 1600x1600 puts 200 pixels above the image.
    score = score_box("[100, 300, 1100, 900]", [100, 100, 1000, 600], 1600, 1200)
    assert score.box == pytest.approx((100, 100, 1100, 700))
    assert score.iou == pytest.approx(1.0)
    assert score.tags == ("scale",)


def test_pixels_of_an_image_that_is_not_square_go_by_its_two_sides() -> None:
    score = score_box("[100, 300, 1500, 1100]", [100, 300, 1400, 800], 1600, 1200, "image")
    assert score.box == pytest.approx((100, 300, 1500, 1100))
    assert score.iou == pytest.approx(1.0)


def test_per_mille_are_not_pixels() -> None:
    # A tenth and three tenths of 640, two and four tenths of 480.
    score = score_box("[100, 200, 300, 400]", [64, 96, 128, 96], 640, 480, "image")
    assert score.box == pytest.approx((64, 96, 192, 192))


@pytest.mark.parametrize(
    ("answer", "width", "height", "box"),
    [
        # The centre square of 640x480 lies at x = 80 to 560, that of 480x640 at y = 80 to 560; no answer leaves it.
        ("[-0.1, 0, 0.5, 1]", 640, 480, (80, 0, 320, 480)),
        ("[0.5, 0, 1.1, 1]", 640, 480, (320, 0, 560, 480)),
        ("[0, -0.1, 1, 0.5]", 480, 640, (0, 80, 480, 320)),
        ("[0, 0.5, 1, 1.1]", 480, 640, (0, 320, 480, 560)),
    ],
)
def test_nothing_outside_the_crop_was_seen(answer: str, width: int, height: int, box: Box) -> None:
    assert score_box(answer, [0, 0, 1, 1], width, height, "crop").box == pytest.approx(box)


@pytest.mark.parametrize(("width", "height"), [(640, 480), (480, 640)])
def test_padding_is_no_part_of_a_box(width: int, height: int) -> None:
    score = score_box("[0, 0, 1, 1]", [0, 0, width, height], width, height)
    assert score.box == (0, 0, width, height)
    assert score.iou == 1.0


def test_a_box_inside_the_padding_scores_zero_and_is_degenerate() -> None:
    score = score_box("[0.1, 0.0, 0.5, 0.1]", [0, 0, 640, 480], 640, 480)
    assert score.metrics["iou"] == 0.0
    assert score.metrics["unparsable"] == 0.0
    assert score.tags == ("degenerate",)


def test_a_truth_without_area_scores_zero() -> None:
    score = score_box("[0.5, 0.5, 0.5, 0.5]", [320, 240, 0, 0], 640, 480)
    assert score.iou == 0.0
    assert score.metrics["acc@0.5"] == 0.0


def test_a_hit_needs_exactly_half() -> None:
    half = score_box("[0, 0, 0.5, 1]", [0, 0, 100, 100], 100, 100)
    assert half.iou == 0.5
    assert half.metrics["acc@0.5"] == 1.0
    below = score_box("[0, 0, 0.49, 1]", [0, 0, 100, 100], 100, 100)
    assert below.metrics["acc@0.5"] == 0.0


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ((0, 0, 10, 10), (5, 5, 15, 15), 25 / 175),
        ((0, 0, 10, 10), (10, 0, 20, 10), 0.0),
        ((0, 0, 10, 10), (2, 2, 4, 4), 0.04),
        ((0, 0, 0, 0), (0, 0, 0, 0), 0.0),
    ],
)
def test_iou_by_hand(a: Box, b: Box, expected: float) -> None:
    assert iou(a, b) == pytest.approx(expected)


@pytest.mark.parametrize("size", [(640, 480), (333, 500), (7, 8), (8, 7), (1, 5), (5, 5)])
def test_the_square_frame_is_where_pillow_puts_the_image(size: tuple[int, int]) -> None:
    width, height = size
    side = max(size)
    padded = Image.new("L", (side, side), 0)
    padded.paste(Image.new("L", size, 255), ((side - width) // 2, (side - height) // 2))
    left, top, right, bottom = padded.getbbox() or (0, 0, 0, 0)
    assert to_frame((0, 0, width, height), width, height, "square") == pytest.approx(
        (left / side, top / side, right / side, bottom / side)
    )


@pytest.mark.parametrize(
    "bbox", [[1, 2, 3], [1, 2, 3, 4, 5], [1, 2, -3, 4], [math.nan, 0, 1, 1], [0, 0, math.inf, 1], [1, 2, None, 4]]
)
def test_a_malformed_ground_truth_is_refused_by_name(bbox: list[float]) -> None:
    with pytest.raises(ValueError, match="bbox must"):
        score_box("[0, 0, 1, 1]", bbox, 10, 10)


@pytest.mark.parametrize(("width", "height"), [(0, 10), (10, 0), (-1, 10)])
def test_an_empty_image_is_refused_by_name(width: int, height: int) -> None:
    with pytest.raises(ValueError, match="width and height must be positive"):
        score_box("[0, 0, 1, 1]", [0, 0, 1, 1], width, height)


def test_an_unknown_frame_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"square, image, crop, got 'padded'"):
        score_box("[0, 0, 1, 1]", [0, 0, 1, 1], 10, 10, "padded")  # type: ignore[arg-type]


@given(boxes, sides, sides, st.sampled_from(["square", "image", "crop"]))
def test_frames_round_trip(box: Box, width: int, height: int, frame: str) -> None:
    there_and_back = from_frame(to_frame(box, width, height, frame), width, height, frame)  # type: ignore[arg-type]
    assert there_and_back == pytest.approx(box, rel=1e-9, abs=1e-6)


@given(boxes, boxes)
def test_iou_is_symmetric_and_a_share(a: Box, b: Box) -> None:
    assert iou(a, b) == iou(b, a)
    assert 0.0 <= iou(a, b) <= 1.0


@given(st.floats(0, 0.9), st.floats(0, 0.9), st.floats(0.1, 1), st.floats(0.1, 1), sides, sides)
def test_an_exact_answer_overlaps_fully(x: float, y: float, w: float, h: float, width: int, height: int) -> None:
    bbox = [x * width, y * height, (1 - x) * w * width, (1 - y) * h * height]
    fractions = to_frame(box_from_xywh(bbox), width, height, "square")
    score = score_box(f"[{', '.join(f'{value:.17f}' for value in fractions)}]", bbox, width, height)
    assert score.iou == pytest.approx(1.0, abs=1e-6)


@given(st.text(alphabet="0123456789.,;[]()xy=+-eE \n", max_size=60), boxes, boxes, sides, sides)
def test_reading_never_depends_on_the_ground_truth(
    text: str, a: tuple[float, ...], b: tuple[float, ...], width: int, height: int
) -> None:
    one = score_box(text, [a[0], a[1], a[2] - a[0], a[3] - a[1]], width, height)
    two = score_box(text, [b[0], b[1], b[2] - b[0], b[3] - b[1]], width, height)
    assert (one.parsed, one.box, one.tags) == (two.parsed, two.box, two.tags)


@given(st.text(max_size=300) | st.text(alphabet="0123456789.,;[]()xymin=:+-eE \n\"'", max_size=300))
def test_no_text_raises_and_every_metric_is_a_share(text: str) -> None:
    metrics = score_box(text, [1.0, 2.0, 30.0, 40.0], 64, 48).metrics
    assert all(isinstance(value, float) and 0.0 <= value <= 1.0 for value in metrics.values())


@pytest.mark.parametrize(
    "piece",
    ["1", "1.", ".1", "[", "[[0.1,", "1e1", "+-", "x1=", " ", "1 ", "0.1, ", "1e", "x1=0.1 ", "1.1.", "\u0663", "\0"],
)
def test_huge_answers_are_cut_before_parsing(piece: str) -> None:
    # No super-linear rule would finish on this many repetitions; the box behind them is out of reach.
    score = score_box(piece * 300_000 + "] so: [0.1, 0.2, 0.3, 0.4]", [10, 20, 20, 20], 100, 100)
    assert score.metrics["acc@0.5"] == 0.0


def test_the_first_box_of_several_is_taken() -> None:
    assert parsed("Either [0.5, 0.5, 0.6, 0.6] or [0.1, 0.2, 0.3, 0.4].").numbers == (0.5, 0.5, 0.6, 0.6)
