"""The scene generator: reproducible, disjoint splits, and drawings that fill the boxes they claim."""

import io

import numpy as np
import pytest
from PIL import Image

from swiftvlm_eval.demo.drawing import draw_scene, encode_png, label_box, object_map, pad_to_square, square_box
from swiftvlm_eval.demo.scenes import COLOURS, Scene, SceneObject, sample_scene, scene_generator, scenes


def _first(split: str, count: int, seed: int = 0) -> list[Scene]:
    return [scene for _, scene in zip(range(count), (s for _, s in scenes(split, seed)), strict=False)]


def test_the_same_seed_draws_the_same_pixels_and_scene_seven_does_not_depend_on_the_others():
    alone = sample_scene(scene_generator("val", 3, 7))
    in_order = _first("val", 8, seed=3)[7]
    assert alone == in_order
    assert np.array_equal(np.asarray(draw_scene(alone)), np.asarray(draw_scene(in_order)))


def test_splits_and_seeds_share_no_scene():
    drawn = {(split, seed): set(_first(split, 200, seed)) for split in ("train", "val", "test") for seed in (0, 1)}
    assert all(len(found) == 200 for found in drawn.values())
    assert len(set().union(*drawn.values())) == 6 * 200


@pytest.mark.parametrize(("split", "seed", "index"), [("dev", 0, 0), ("val", -1, 0), ("val", 0, -1)])
def test_bad_streams_are_refused(split, seed, index):
    with pytest.raises(ValueError, match="allowed"):
        scene_generator(split, seed, index)


def test_every_object_fills_its_box_and_shows_its_colour():
    for scene in _first("train", 60):
        pixels, ids = np.asarray(draw_scene(scene)), object_map(scene)
        assert pixels.shape == (scene.height, scene.width, 3)
        for number, item in enumerate(scene.objects, start=1):
            ys, xs = np.nonzero(ids == number)
            assert (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1) == item.box
            drawn = ids == number
            if item.label is not None:
                a, b, c, d = label_box(item, scene.long_side)
                drawn[b:d, a:c] = False
            # A letter may stick out of its plate by a pixel or two.
            assert drawn.any() and (pixels[drawn] == COLOURS[item.colour]).all(axis=1).mean() > 0.95


def test_objects_lie_inside_and_apart():
    for scene in _first("train", 200):
        for number, item in enumerate(scene.objects):
            x1, y1, x2, y2 = item.box
            assert 0 <= x1 < x2 <= scene.width and 0 <= y1 < y2 <= scene.height
            for other in scene.objects[number + 1 :]:
                a1, b1, a2, b2 = other.box
                assert x2 <= a1 or a2 <= x1 or y2 <= b1 or b2 <= y1


def test_all_orientations_labels_and_lookalikes_occur():
    drawn = _first("train", 200)
    assert {int(np.sign(scene.width - scene.height)) for scene in drawn} == {-1, 0, 1}
    labels = {item.label for scene in drawn for item in scene.objects}
    assert {"7", "cat", None} <= labels
    twins = [len({(o.shape, o.colour) for o in scene.objects}) < len(scene.objects) for scene in drawn]
    assert 0.6 < np.mean(twins) < 0.95


def test_label_is_printed_in_black_on_a_white_plate():
    item = SceneObject("square", "red", (40, 30, 100, 90), "7")
    scene = Scene(168, 126, (205, 205, 205), (item,))
    x1, y1, x2, y2 = label_box(item, 168)
    plate = np.asarray(draw_scene(scene))[y1:y2, x1:x2].reshape(-1, 3)
    assert {tuple(colour) for colour in plate.tolist()} == {(0, 0, 0), (255, 255, 255)}
    blank = Scene(168, 126, (205, 205, 205), (SceneObject("square", "red", (40, 30, 100, 90)),))
    assert not (np.asarray(draw_scene(blank)) == 255).all(axis=2).any()
    with pytest.raises(ValueError, match="label"):
        label_box(blank.objects[0], 168)


def test_padding_and_square_frame_by_hand():
    # 168 x 112: 28 rows of canvas above. Box y 14..70 is (14 + 28) / 168 = 0.25 to (70 + 28) / 168 = 0.58333.
    scene = Scene(168, 112, (236, 236, 230), (SceneObject("square", "blue", (42, 14, 84, 70)),))
    square = np.asarray(pad_to_square(draw_scene(scene)))
    assert square.shape == (168, 168, 3)
    assert (square[:28] == (122, 116, 104)).all() and (square[140:] == (122, 116, 104)).all()
    assert (square[42:98, 42:84] == COLOURS["blue"]).all()
    assert square_box((42, 14, 84, 70), scene) == pytest.approx((0.25, 0.25, 0.5, 98 / 168))


def test_odd_padding_is_rounded_down():
    image = Image.new("RGB", (5, 2), (1, 2, 3))
    square = np.asarray(pad_to_square(image))
    assert [tuple(row[0]) == (1, 2, 3) for row in square] == [False, True, True, False, False]


def test_png_is_lossless_and_small():
    for scene in _first("val", 20):
        image = draw_scene(scene)
        data = encode_png(image)
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(data)).convert("RGB")), np.asarray(image))
        assert len(data) < 2000
