"""The embedded benchmarks: hub schemas, counts, balance, and rows that agree with the pixels."""

import io
from collections import Counter

import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from swiftvlm_eval.demo import DATA_NAMES, data_path
from swiftvlm_eval.demo.data import generate_split
from swiftvlm_eval.demo.scenes import COLOURS

FIELDS = {
    "demo_refcoco": {
        "question_id": "string",
        "question": "string",
        "answer": "list<element: string>",
        "segmentation": "list<element: float>",
        "bbox": "list<element: float>",
        "iscrowd": "int8",
        "file_name": "string",
    },
    "demo_textvqa": {
        "image_id": "string",
        "question_id": "int32",
        "question": "string",
        "image_width": "int32",
        "image_height": "int32",
        "answers": "list<element: string>",
        "ocr_tokens": "list<element: string>",
    },
    "demo_gqa": {name: "string" for name in ("id", "imageId", "question", "answer", "fullAnswer")},
    "demo_pope": {name: "string" for name in ("id", "question_id", "question", "answer", "image_source", "category")},
}


def rows(name):
    return pq.read_table(data_path(name)).to_pylist()


def pixels(row):
    return np.asarray(Image.open(io.BytesIO(row["image"]["bytes"])).convert("RGB"))


@pytest.mark.parametrize("name", DATA_NAMES)
def test_schema_counts_and_image_decoding(name, tmp_path):
    table = pq.read_table(data_path(name))
    types = {field.name: str(field.type) for field in table.schema if field.name != "image"}
    assert types == FIELDS[name]
    loaded = datasets.load_dataset(
        "parquet", data_files=str(data_path(name)), split="train", cache_dir=str(tmp_path / "cache")
    )
    assert isinstance(loaded[0]["image"], Image.Image)
    assert len({image["bytes"] for image in table["image"].to_pylist()}) >= 150
    questions = sum(map(len, table["answer"].to_pylist())) if name == "demo_refcoco" else table.num_rows
    assert questions >= 500
    ids = table["id" if name == "demo_gqa" else "question_id"].to_pylist()
    assert len(set(ids)) == len(ids)


def test_all_data_is_small():
    assert sum(data_path(name).stat().st_size for name in DATA_NAMES) < 2_000_000


def test_boxes_lie_inside_their_images_and_hold_the_colour_that_is_named():
    orientations = set()
    for row in rows("demo_refcoco"):
        x, y, w, h = map(int, row["bbox"])
        image = pixels(row)
        height, width = image.shape[:2]
        orientations.add(np.sign(width - height))
        assert 0 <= x < x + w <= width and 0 <= y < y + h <= height
        xs, ys = row["segmentation"][::2], row["segmentation"][1::2]
        assert x <= min(xs) and max(xs) <= x + w and y <= min(ys) and max(ys) <= y + h
        named = {word for expression in row["answer"] for word in expression.split()} & set(COLOURS)
        assert len(named) <= 1
        for colour in named:
            inside = (image[y : y + h, x : x + w] == COLOURS[colour]).all(axis=2)
            # Tight: the colour reaches every side of the box.
            assert inside[0].any() and inside[-1].any() and inside[:, 0].any() and inside[:, -1].any()
    assert orientations == {-1, 0, 1}


def test_many_expressions_need_a_relation():
    words = [e.split()[0] for row in rows("demo_refcoco") for e in row["answer"]]
    share = np.mean([word in ("left", "right", "top", "bottom", "largest", "smallest") for word in words])
    assert 0.4 < share < 0.85


def test_existence_is_balanced_overall_and_in_each_category():
    answers = Counter((row["category"], row["answer"]) for row in rows("demo_pope"))
    assert set(answers) == {(c, a) for c in ("random", "popular", "adversarial") for a in ("yes", "no")}
    for category in ("random", "popular", "adversarial"):
        assert answers[category, "yes"] == answers[category, "no"] >= 50


def test_reading_rows_carry_ten_equal_answers_among_the_printed_ones():
    kinds = Counter()
    for row in rows("demo_textvqa"):
        assert len(row["answers"]) == 10 and set(row["answers"]) <= set(row["ocr_tokens"])
        assert len(set(row["answers"])) == 1
        assert pixels(row).shape[:2] == (row["image_height"], row["image_width"])
        kinds[row["answers"][0].isdigit()] += 1
    assert min(kinds.values()) > 150


def test_no_answer_dominates_the_attribute_questions():
    answers = Counter(row["answer"] for row in rows("demo_gqa"))
    assert len(answers) >= 14 and answers.most_common(1)[0][1] < 0.2 * sum(answers.values())


def test_generation_is_reproducible_and_embeds_the_committed_rows(tmp_path):
    assert generate_split("test", 3, 0, tmp_path / "a") == generate_split("test", 3, 0, tmp_path / "b")
    for name in DATA_NAMES:
        made = pq.read_table(tmp_path / "a" / f"{name}.parquet").to_pylist()
        assert made == pq.read_table(tmp_path / "b" / f"{name}.parquet").to_pylist()
        for ours, committed in zip(made, rows(name), strict=False):
            if name != "demo_refcoco":
                assert ours["question"] == committed["question"]
            assert np.array_equal(pixels(ours), pixels(committed))


def test_another_split_has_other_images(tmp_path):
    generate_split("val", 5, 0, tmp_path)
    for name in DATA_NAMES:
        ours = {row["image"]["bytes"] for row in pq.read_table(tmp_path / f"{name}.parquet").to_pylist()}
        assert not ours & {row["image"]["bytes"] for row in rows(name)}


@pytest.mark.parametrize(("split", "count", "seed"), [("dev", 3, 0), ("val", 0, 0), ("val", 3, -1)])
def test_bad_arguments_write_nothing(split, count, seed, tmp_path):
    with pytest.raises(ValueError, match="allowed"):
        generate_split(split, count, seed, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="demo_refcoco"):
        data_path("refcoco")
