"""LLaVA-1.5's image preprocessing against ways of its own: by hand, and the library's own padding."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_checkpoint import in_memory, save
from transformers import LlavaImageProcessorPil

from swiftvlm_eval.models import images as module
from swiftvlm_eval.models.checkpoint import load_checkpoint
from swiftvlm_eval.models.images import LARGEST_SIDE, image_digest, pad_to_square
from swiftvlm_eval.testing.tiny_models import make_image

SIZES = [(64, 48), (48, 64), (50, 50), (33, 61), (61, 33), (61, 34), (1, 57), (200, 3)]
SIDE = 56  # pixels of the tiny tower
MEAN = np.array([0.48145466, 0.4578275, 0.40821073])
STD = np.array([0.26862954, 0.26130258, 0.27577711])


def squared(image: Image.Image) -> np.ndarray[Any, Any]:
    """On a canvas of int(mean * 255); the offset is rounded down, so a spare pixel is right or below."""
    pixels = np.asarray(image)
    height, width = pixels.shape[:2]
    side = max(height, width)
    canvas = np.empty((side, side, 3), np.uint8)
    canvas[:] = (MEAN * 255).astype(int)
    top, left = (side - height) // 2, (side - width) // 2
    canvas[top : top + height, left : left + width] = pixels
    return canvas


def normalised(pixels: np.ndarray[Any, Any]) -> torch.Tensor:
    """[H, W, 3] bytes -> [3, H, W] in the units of the tower."""
    return torch.tensor(((pixels / 255 - MEAN) / STD).transpose(2, 0, 1), dtype=torch.float32)


@pytest.fixture(scope="module")
def hub_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("clip"), as_on_the_hub=True, grid=4, layers=2)


def test_the_canvas_colour() -> None:
    assert tuple((MEAN * 255).astype(int)) == (122, 116, 104)
    assert pad_to_square(Image.new("RGB", (3, 1), "white")).getpixel((0, 0)) == (122, 116, 104)


@pytest.mark.parametrize("size", SIZES)
def test_padding_pixel_by_pixel(size: tuple[int, int]) -> None:
    image = make_image(*size)
    assert np.array_equal(np.asarray(pad_to_square(image)), squared(image))


def test_the_spare_pixel_is_at_the_right_or_bottom() -> None:
    wide = np.asarray(pad_to_square(Image.new("RGB", (6, 3), "white")))[:, 0]
    assert [bool((row == 255).all()) for row in wide] == [False, True, True, True, False, False]
    tall = np.asarray(pad_to_square(Image.new("RGB", (3, 6), "white")))[0]
    assert [bool((column == 255).all()) for column in tall] == [False, True, True, True, False, False]


def test_other_modes_become_rgb() -> None:
    padded = pad_to_square(Image.new("L", (4, 2), 255))
    assert (padded.mode, padded.size, padded.getpixel((0, 1))) == ("RGB", (4, 4), (255, 255, 255))


@pytest.mark.parametrize("size", SIZES)
def test_pixels_that_reach_the_tower(size: tuple[int, int], hub_folder: Path) -> None:
    image = make_image(*size)
    checkpoint = load_checkpoint(str(hub_folder), device="cpu")
    found = checkpoint.encode(["<image>"], [[image]])["pixel_values"]
    assert found.shape == (1, 3, SIDE, SIDE)
    resized = Image.fromarray(squared(image)).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    torch.testing.assert_close(found[0].cpu(), normalised(np.asarray(resized)), rtol=0, atol=1e-5)
    # the library can pad by itself, in a class that the hub's checkpoints do not declare
    library = LlavaImageProcessorPil(
        do_pad=True, size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}
    )
    assert torch.equal(found, library(image, return_tensors="pt")["pixel_values"])


@pytest.mark.parametrize(("size", "differs"), [((84, 56), True), ((56, 84), True), ((56, 56), False)])
def test_hf_default_crops_instead(size: tuple[int, int], differs: bool, hub_folder: Path) -> None:
    image = make_image(*size)
    padded, cropped = (
        load_checkpoint(str(hub_folder), device="cpu", image_mode=mode).encode(["<image>"], [[image]])["pixel_values"]
        for mode in ("pad", "hf_default")
    )
    assert bool((padded - cropped).abs().max() > 0.5) is differs
    # the shorter edge fits already, so the crop is the plain centre of the image
    left, top = (size[0] - SIDE) // 2, (size[1] - SIDE) // 2
    centre = np.asarray(image)[top : top + SIDE, left : left + SIDE]
    torch.testing.assert_close(cropped[0], normalised(centre), rtol=0, atol=1e-5)


def test_next_images_are_not_padded() -> None:
    checkpoint = in_memory("llava_next", grid=2, layers=2)
    image = make_image(56, 28)
    found = checkpoint.encode(["<image>"], [[image]])
    assert found["image_sizes"].tolist() == [[28, 56]]
    # 28 pixels are one tile: base view, then two tiles beside each other that need no resizing
    assert found["pixel_values"].shape == (1, 3, 3, 28, 28)
    for tile, left in ((1, 0), (2, 28)):
        expected = normalised(np.asarray(image)[:, left : left + 28])
        torch.testing.assert_close(found["pixel_values"][0, tile], expected, rtol=0, atol=1e-5)


def test_a_sliver_needs_no_canvas_of_its_own_length() -> None:
    """20000 x 20000 pixels would be 1.2 GB."""
    padded = pad_to_square(Image.new("RGB", (20000, 10), "white"))
    assert padded.size == (LARGEST_SIDE, LARGEST_SIDE)
    assert LARGEST_SIDE**2 * 3 <= 192 * 2**20
    middle = np.asarray(padded)[:, LARGEST_SIDE // 2]
    assert (middle == 255).all(axis=1).sum() == 4  # 10 * 8192 / 20000, rounded
    assert pad_to_square(Image.new("L", (10, 20000))).size == (LARGEST_SIDE, LARGEST_SIDE)


def test_up_to_the_bound_nothing_is_scaled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LARGEST_SIDE", 64)
    image = make_image(64, 40)
    assert np.array_equal(np.asarray(pad_to_square(image)), squared(image))


@pytest.mark.parametrize("size", [(260, 100), (90, 300), (256, 256)])
def test_beyond_the_bound_the_tower_sees_nearly_the_same(
    size: tuple[int, int], hub_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = load_checkpoint(str(hub_folder), device="cpu")
    image = make_image(*size)
    whole = checkpoint.encode(["<image>"], [[image]])["pixel_values"]
    monkeypatch.setattr(module, "LARGEST_SIDE", 224)
    bounded = checkpoint.encode(["<image>"], [[image]])["pixel_values"]
    assert not torch.equal(whole, bounded)
    assert float((whole - bounded).abs().mean()) < 0.1 * float(whole.std())


def test_a_sliver_that_would_be_cropped_is_refused_by_name(hub_folder: Path) -> None:
    """The shorter edge would become 56 pixels, the longer one 112,000, before all but 56 of them are cut off."""
    checkpoint = load_checkpoint(str(hub_folder), device="cpu", image_mode="hf_default")
    longest = LARGEST_SIDE**2 // SIDE**2
    with pytest.raises(
        ValueError, match=rf"image of 60000 x 2 pixels: image_mode=hf_default .* up to {longest} times"
    ):
        checkpoint.encode(["<image>"], [[Image.new("RGB", (60000, 2))]])
    assert checkpoint.encode(["<image>"], [[Image.new("RGB", (600, 2))]])["pixel_values"].shape[0] == 1


def test_a_digest_names_pixels() -> None:
    image = make_image(31, 17)
    name = image_digest([image])
    assert name is not None and len(name) == 16
    with_alpha = image.copy()
    with_alpha.putalpha(255)
    grey = image.convert("L")
    assert image_digest([with_alpha]) == name
    assert image_digest([grey]) == image_digest([grey.convert("RGB")]) != name
    other = image.copy()
    other.putpixel((3, 5), (1, 2, 3))
    turned = Image.frombytes("RGB", (17, 31), image.tobytes())  # the same bytes in another shape
    names = [
        image_digest(each) for each in ([image], [other], [turned], [image, image], [image, other], [other, image])
    ]
    assert len(set(names)) == 6
    assert image_digest([]) is None
