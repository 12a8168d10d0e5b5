"""Where a visual token lies in the image: positions worked out by hand, and the processors' own pixels.

The tower of the checkpoints takes 336 x 336 pixels in patches of 14, so 24 x 24 patches. By hand for 640 x 480:
padded to 640 x 640 (80 rows of pixels above and below), a patch is 640 / 24 = 26.67 pixels and 80 of them are exactly
three patch rows; the default crop shrinks it to 448 x 336 and cuts 56 pixels left and right, so a patch is 20 pixels
and the first one begins at 80; LLaVA-NeXT enlarges it by 1.05 to 672 x 504 on 672 x 672, so 84 pixels, six patch rows,
are padding above, which unpadding takes away, and a patch of the fine view is 14 / 1.05 = 13.33 pixels.
"""

from typing import Any

import pytest
import torch
from PIL import Image
from tiny_checkpoint import in_memory, save

from swiftvlm_eval.models.checkpoint import Checkpoint, load_checkpoint
from swiftvlm_eval.models.layout import VisualLayout, joined, single_grid_layout
from swiftvlm_eval.models.placement import (
    Rectangle,
    image_layout,
    input_placement,
    patch_rectangles,
)

GRID = single_grid_layout(1, 24)


@pytest.fixture(scope="module")
def anyres() -> Checkpoint:
    """336-pixel tiles and the five tilings of the checkpoints; only the widths are tiny."""
    return in_memory("llava_next", grid=24, layers=1)


def layout_of(checkpoint: Checkpoint, *sizes: tuple[int, int]) -> VisualLayout:
    """Of images of those sizes; the processor says how many tokens they have."""
    count = 0
    for size in sizes:
        ids = checkpoint.encode(["USER: <image>\nWhy? ASSISTANT:"], [[Image.new("RGB", size)]])["input_ids"]
        count += int((ids == checkpoint.adapter.image_token_id).sum())
    return image_layout(checkpoint.adapter, sizes, count)


def rectangles(layout: VisualLayout, size: tuple[int, int], placement: str = "pad") -> list[Rectangle | None]:
    return patch_rectangles(layout, [size], pixels=336, patch=14, placement=placement)


@pytest.mark.parametrize(
    ("size", "token", "expected"),
    [
        ((640, 480), 0, (0, -80, 80 / 3, -160 / 3)),
        ((640, 480), 3 * 24, (0, 0, 80 / 3, 80 / 3)),  # three patch rows are padding
        ((640, 480), 12 * 24 + 12, (320, 240, 320 + 80 / 3, 240 + 80 / 3)),
        ((640, 480), 21 * 24, (0, 480, 80 / 3, 480 + 80 / 3)),  # padding again
        ((480, 640), 3, (0, 0, 80 / 3, 80 / 3)),
        ((480, 640), 23 * 24 + 20, (480 - 80 / 3, 640 - 80 / 3, 480, 640)),
        ((427, 640), 0, (-106, 0, -106 + 80 / 3, 80 / 3)),  # 213 spare columns: 106 left, 107 right
        ((336, 336), 25, (14, 14, 28, 28)),
    ],
)
def test_padded_to_a_square(size: tuple[int, int], token: int, expected: Rectangle) -> None:
    assert rectangles(GRID, size)[token] == pytest.approx(expected)


def test_a_huge_image_is_scaled_down_before_it_is_padded() -> None:
    # 16384 x 4097 becomes 8192 x 2048 (of 2048.5, to even), 3072 rows above: scaled back by 2 and 4097 / 2048
    found = rectangles(GRID, (16384, 4097))[9 * 24]
    patch = 8192 / 24
    expected = (0, 0 * patch, 2 * patch, patch * 4097 / 2048)
    assert found == pytest.approx(expected)


@pytest.mark.parametrize(
    ("size", "token", "expected"),
    [
        ((640, 480), 0, (80, 0, 100, 20)),
        ((640, 480), 575, (540, 460, 560, 480)),
        ((480, 640), 25, (20, 100, 40, 120)),
        # 503 = int(336 * 640 / 427) rows after scaling, 167 spare: 83 above
        ((427, 640), 0, (0, 83 * 640 / 503, 427 / 24, 97 * 640 / 503)),
        ((336, 336), 25, (14, 14, 28, 28)),
    ],
)
def test_the_centre_crop(size: tuple[int, int], token: int, expected: Rectangle) -> None:
    assert rectangles(GRID, size, "crop")[token] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("size", "token", "expected"),
    [
        # the base view is the whole image, stretched to a square
        ((640, 480), 0, (0, 0, 640 / 24, 20)),
        ((640, 480), 575, (640 - 640 / 24, 460, 640, 480)),
        ((640, 480), 576, (0, 0, 40 / 3, 40 / 3)),
        ((640, 480), 576 + 47, (640 - 40 / 3, 0, 640, 40 / 3)),  # of the second tile
        ((640, 480), 576 + 49, (0, 40 / 3, 40 / 3, 80 / 3)),  # behind a newline token
        ((640, 480), 576 + 35 * 49, (0, 480 - 40 / 3, 40 / 3, 480)),  # the last row, of the third tile
        # 640 x 427 becomes 672 x 449 (of 448.35), 111 rows of pixels above; unpadding takes 8 patch rows, 112 pixels
        ((640, 427), 576, (0, 427 / 449, 40 / 3, 15 * 427 / 449)),
        ((640, 427), 576 + 31 * 49, (0, 435 * 427 / 449, 40 / 3, 427)),
        # 1000 x 400 becomes 840 x 336 in three tiles side by side, 84 columns left: six patch columns
        ((1000, 400), 576, (0, 0, 1000 / 60, 1000 / 60)),
        ((1000, 400), 576 + 61 + 59, (1000 - 1000 / 60, 1000 / 60, 1000, 2000 / 60)),
        # 400 x 1000 in three tiles one below the other
        ((400, 1000), 576 + 59 * 25 + 23, (400 - 1000 / 60, 1000 - 1000 / 60, 400, 1000)),
    ],
)
def test_the_views_of_next(anyres: Checkpoint, size: tuple[int, int], token: int, expected: Rectangle) -> None:
    layout = layout_of(anyres, size)
    assert rectangles(layout, size, "anyres")[token] == pytest.approx(expected)


def test_a_newline_token_lies_nowhere(anyres: Checkpoint) -> None:
    found = rectangles(layout_of(anyres, (640, 480)), (640, 480), "anyres")
    assert len(found) == 2340
    assert [number for number, rectangle in enumerate(found) if rectangle is None] == [
        576 + row * 49 + 48 for row in range(36)
    ]


def test_every_image_has_its_own_size(anyres: Checkpoint) -> None:
    pair = patch_rectangles(joined([GRID, GRID]), [(640, 480), (336, 336)], pixels=336, patch=14, placement="pad")
    assert pair[576 + 25] == pytest.approx((14, 14, 28, 28))
    assert pair[3 * 24] == pytest.approx((0, 0, 80 / 3, 80 / 3))
    sizes = [(640, 480), (1000, 400)]
    layout = layout_of(anyres, *sizes)
    both = patch_rectangles(layout, sizes, pixels=336, patch=14, placement="anyres")
    assert both[2340] == pytest.approx((0, 0, 1000 / 24, 400 / 24))
    assert both[2340 + 576] == pytest.approx((0, 0, 1000 / 60, 1000 / 60))


@pytest.mark.parametrize(
    ("sizes", "placement", "message"),
    [
        ([(640, 480), (640, 480)], "pad", "2 images: the visual tokens are of 1"),
        ([], "pad", "0 images: the visual tokens are of 1"),
        ([(0, 480)], "pad", "image of 0 x 480 pixels"),
        ([(640, 480)], "anyres", "placement='anyres'.*one view"),
        ([(640, 480)], "middle", "placement='middle'.*pad, crop, anyres"),
    ],
)
def test_what_does_not_fit_is_refused(sizes: list[tuple[int, int]], placement: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        patch_rectangles(GRID, sizes, pixels=336, patch=14, placement=placement)


def test_tiles_are_not_padded(anyres: Checkpoint) -> None:
    with pytest.raises(ValueError, match="placement='pad'.*several views"):
        rectangles(layout_of(anyres, (640, 480)), (640, 480), "pad")


def test_another_image_makes_other_tokens(anyres: Checkpoint) -> None:
    with pytest.raises(ValueError, match="2340 visual tokens, but the images make 2040"):
        image_layout(anyres.adapter, [(1000, 400)], 2340)


# the processors' own pixels


def brightest(checkpoint: Checkpoint, image: Image.Image) -> list[tuple[int, int]]:
    """(encoder input, patch) of the brightest patch in every encoder input, as the processor makes them."""
    pixels = checkpoint.encode(["USER: <image>\nWhy? ASSISTANT:"], [[image]])["pixel_values"]
    tiles: torch.Tensor = pixels.reshape(-1, *pixels.shape[-3:]).mean(dim=1)
    means = tiles.unfold(1, 14, 14).unfold(2, 14, 14).mean(dim=(-1, -2)).flatten(1)
    return [(tile, int(own.argmax())) for tile, own in enumerate(means)]


def lit(size: tuple[int, int], rectangle: Rectangle) -> Image.Image:
    """A black image with one white rectangle."""
    image = Image.new("RGB", size)
    box = [round(value) for value in rectangle]
    image.paste((255, 255, 255), (box[0], box[1], box[2], box[3]))
    return image


def checkpoint_of(kind: str, anyres: Checkpoint, folder: Any) -> Checkpoint:
    if kind == "anyres":
        return anyres
    if kind == "pad":
        return in_memory(grid=24, layers=1)
    return load_checkpoint(
        str(save(folder, grid=24, layers=1, as_on_the_hub=kind == "crop")), image_mode="hf_default", device="cpu"
    )


@pytest.mark.parametrize("kind", ["pad", "crop", "padded by the processor", "anyres"])
@pytest.mark.parametrize("size", [(427, 640), (1000, 400)])
def test_the_processor_puts_the_patch_there(
    kind: str, size: tuple[int, int], anyres: Checkpoint, tmp_path: Any
) -> None:
    """Where a token's rectangle alone is white, its patch is the brightest one that the tower sees."""
    checkpoint = checkpoint_of(kind, anyres, tmp_path)
    placement = input_placement(checkpoint)
    assert placement == {"padded by the processor": "pad"}.get(kind, kind)
    layout = layout_of(checkpoint, size)
    found = rectangles(layout, size, placement)
    inside = [
        token
        for token, own in enumerate(found)
        if own is not None and min(own[:2]) >= 0 and own[2] <= size[0] and own[3] <= size[1]
    ]
    assert len(inside) > 150
    for token in inside[5 :: len(inside) // 3]:
        tile, patch = int(layout.tile[token]), int(layout.patch[token])
        rectangle = found[token]
        assert rectangle is not None
        assert (tile, patch) in brightest(checkpoint, lit(size, rectangle)), token


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("do_center_crop", False),
        ("do_resize", False),
        ("size", {"shortest_edge": 400}),
        ("crop_size", {"height": 200, "width": 336}),
    ],
)
def test_a_processor_that_does_something_else_is_refused(field: str, value: Any) -> None:
    checkpoint = in_memory(grid=24, layers=1)
    setattr(checkpoint.processor.image_processor, field, value)
    with pytest.raises(ValueError, match=f"{field}=.*where its patches lie is not known"):
        input_placement(checkpoint)
