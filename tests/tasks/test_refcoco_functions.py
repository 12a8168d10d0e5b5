"""Documents, images, prompts and scores of the grounding tasks, called directly."""

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import datasets
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngImageFile
from task_data import FakeHub, encoded_image, ref_rows

from swiftvlm_eval.tasks.hub import DatasetAccessError
from swiftvlm_eval.tasks.refcoco import source as source_module
from swiftvlm_eval.tasks.refcoco.functions import (
    build_documents,
    doc_to_text,
    doc_to_visual,
    process_results_crop,
    process_results_image,
    process_results_square,
)
from swiftvlm_eval.tasks.refcoco.source import image_id, packaged_source

METRICS = {"acc@0.5", "iou", "strict_acc@0.5", "acc@0.5_alt", "unparsable"}


def documents(*rows: dict[str, Any]) -> datasets.Dataset:
    return build_documents(ref_rows(list(rows)))


def entry(**fields: Any) -> datasets.Dataset:
    """What lmms-eval loads from an entry of sources.json."""
    return datasets.Dataset.from_list([{"repository": "lmms-lab-encoder/RefCOCO", "split": "val", **fields}])


def test_one_document_per_expression_without_an_image() -> None:
    docs = documents(
        {"answer": ["left dog", "the dog"], "size": (64, 48), "bbox": [1, 2, 3, 4]},
        {"answer": ["cat"], "size": (33, 61), "file_name": "COCO_train2014_000000000007_3.jpg"},
    )
    assert "image" not in docs.column_names
    assert docs[1] | {"images": ""} == {
        "row": 0,
        "images": "",
        "question_id": "1000",
        "file_name": "COCO_train2014_000000000001.jpg",
        "cluster_id": "1",
        "expression": "the dog",
        "width": 64,
        "height": 48,
        "bbox": [1.0, 2.0, 3.0, 4.0],
        "split": {"source": "the given rows", "filter": "none", "objects": 2, "expressions": 3},
    }
    assert [(doc["row"], doc["expression"], doc["cluster_id"]) for doc in docs] == [
        (0, "left dog", "1"),
        (0, "the dog", "1"),
        (1, "cat", "7"),
    ]


def test_no_image_is_decoded_before_the_model_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[tuple[int, int]] = []
    load = PngImageFile.load

    def counting_load(image: PngImageFile) -> Any:
        decoded.append(image.size)
        return load(image)

    rows = ref_rows([{"size": (64, 48)}, {"size": (48, 64)}])
    monkeypatch.setattr(PngImageFile, "load", counting_load)
    docs = build_documents(rows)
    assert decoded == []
    assert [doc_to_visual(doc)[0].size for doc in docs] == [(64, 48), (48, 64)]
    assert set(decoded) == {(64, 48), (48, 64)}


def test_the_image_is_the_one_of_the_row_in_rgb() -> None:
    docs = documents(
        {"image": encoded_image(8, 6, (1, 2, 3))}, {"image": encoded_image(6, 8, (9, 8, 7)), "answer": ["a", "b"]}
    )
    (image,) = doc_to_visual(docs[2])
    assert (image.mode, image.size, image.getpixel((0, 0))) == ("RGB", (6, 8), (9, 8, 7))


def test_a_rotated_photograph_keeps_the_stored_pixels_the_box_refers_to() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    docs = documents({"image": encoded_image(40, 20, exif=exif.tobytes())})
    assert (docs[0]["width"], docs[0]["height"]) == (40, 20)
    assert doc_to_visual(docs[0])[0].size == (40, 20)


def test_a_grey_image_given_by_path_is_read(tmp_path: Any) -> None:
    path = tmp_path / "grey.png"
    Image.new("L", (10, 20), 7).save(path)
    docs = documents({"image": {"bytes": None, "path": str(path)}})
    assert doc_to_visual(docs[0])[0].getpixel((0, 0)) == (7, 7, 7)


def test_a_document_of_another_process_is_refused() -> None:
    with pytest.raises(ValueError, match="process_docs in this process"):
        doc_to_visual({"images": "elsewhere", "row": 0})


@pytest.mark.parametrize("expression", ["the dog", " the dog ", "the dog.", "the dog . ", "the dog.."])
def test_the_prompt_ends_in_one_period(expression: str) -> None:
    assert doc_to_text({"expression": expression}, {"default": {}}) == (
        "Please provide the bounding box coordinate of the region this sentence describes: the dog."
    )


@pytest.mark.parametrize(
    ("file_name", "expected"),
    [
        ("COCO_train2014_000000581857.jpg", "581857"),
        ("COCO_train2014_000000581857_16.jpg", "581857"),
        ("000000000042.jpg", "42"),
        ("scene_0007.png", "scene_0007"),
        ("val/scene.png", "scene"),
        ("1234567890123.jpg", "1234567890123"),
    ],
)
def test_the_same_image_has_one_name(file_name: str, expected: str) -> None:
    assert image_id(file_name) == expected


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"bbox": [1.0, 2.0, 3.0]}, "row 0: bbox must be four finite numbers"),
        ({"bbox": [1.0, 2.0, -3.0, 4.0]}, "row 0: bbox must have a width and height of at least 0"),
        ({"image": {"bytes": b"no image", "path": None}}, "row 0: image cannot be read"),
        ({"image": {"bytes": None, "path": None}}, "row 0: .*image"),
        ({"answer": "one expression"}, "row 0: answer must be a list of expressions, got str"),
        ({"answer": [None]}, "row 0: answer must be a list of expressions"),
        ({"bbox": "1 2 3 4"}, r"row 0: bbox must be \[x, y, width, height\], got str"),
        ({"file_name": 7}, "row 0: file_name must be text, got int"),
        ({"answer": []}, "expected expressions, found none"),
    ],
)
def test_broken_rows_are_refused_with_their_place(row: dict[str, Any], message: str) -> None:
    with pytest.raises(DatasetAccessError, match=message):
        documents(row)


def test_an_image_column_of_another_kind_is_refused() -> None:
    rows = ref_rows([{}]).remove_columns("image").add_column("image", [7])
    with pytest.raises(DatasetAccessError, match="image must hold encoded images, got Value"):
        build_documents(rows)


def test_rows_without_a_needed_column_are_refused() -> None:
    with pytest.raises(DatasetAccessError, match="no column bbox, file_name"):
        build_documents(ref_rows([{}]).remove_columns(["bbox", "file_name"]))


def score(answer: object, **doc: Any) -> dict[str, Any]:
    given = {"width": 640, "height": 480, "bbox": [100, 80, 200, 320], "expression": "dog", "cluster_id": "1"}
    return process_results_square(given | doc, [answer])


def test_the_score_carries_all_that_later_analysis_needs() -> None:
    result = score("[0.16, 0.25, 0.47, 0.75]")
    assert {name: result[name] for name in METRICS - {"iou"}} == {
        "acc@0.5": 1.0,
        "strict_acc@0.5": 1.0,
        "acc@0.5_alt": 1.0,
        "unparsable": 0.0,
    }
    assert result["iou"] == pytest.approx(0.984, abs=5e-4)
    assert (result["cluster_id"], result["width"], result["height"], result["expression"]) == ("1", 640, 480, "dog")
    assert result["bbox"] == [100, 80, 200, 320]
    assert result["parsed"]["numbers"] == [0.16, 0.25, 0.47, 0.75]
    assert result["parsed"]["box"] == pytest.approx([102.4, 80, 300.8, 400])
    assert (result["parsed"]["tags"], result["parsed"]["scale"], result["parsed"]["frame"]) == (
        [],
        "fraction",
        "square",
    )


def test_each_function_scores_in_its_own_frame() -> None:
    doc = {"width": 640, "height": 480, "bbox": [80, 0, 480, 480], "expression": "all", "cluster_id": "1"}
    # The centre square exactly. As fractions of the image it is (0, 0)-(640, 480): three quarters. Of the padded
    # square, the same.
    scores = {
        "crop": process_results_crop(doc, ["[0, 0, 1, 1]"])["iou"],
        "image": process_results_image(doc, ["[0, 0, 1, 1]"])["iou"],
        "square": process_results_square(doc, ["[0.125, 0, 0.875, 1]"])["iou"],
    }
    assert scores == pytest.approx({"crop": 1.0, "image": 0.75, "square": 1.0})


@pytest.mark.parametrize("answer", ["", "no box", None, 3, ["x"], {"a": 1}, "9" * 200_000, "[" * 200_000, b"\xff"])
def test_any_answer_is_scored_zero_without_an_error(answer: object) -> None:
    result = score(answer)
    assert {name: result[name] for name in METRICS} == dict.fromkeys(METRICS, 0.0) | {"unparsable": 1.0}


def test_no_answer_at_all_counts_as_unparsable() -> None:
    assert process_results_square({"width": 4, "height": 4, "bbox": [0, 0, 1, 1]}, [])["unparsable"] == 1.0


@pytest.mark.parametrize(
    "doc",
    [{"bbox": [0, 0, 0, 0]}, {"bbox": None}, {"bbox": [1, 2]}, {"bbox": ["a"] * 4}, {"width": 0}, {"height": None}],
)
def test_a_truth_that_cannot_be_scored_counts_as_a_miss(doc: dict[str, Any]) -> None:
    result = score("[0.1, 0.2, 0.3, 0.4]", **doc)
    assert (result["acc@0.5"], result["iou"]) == (0.0, 0.0)


def test_a_box_outside_the_image_scores_zero() -> None:
    assert score("[1.1, 1.1, 1.4, 1.4]")["iou"] == 0.0
    assert score("[-0.4, -0.4, -0.1, -0.1]")["iou"] == 0.0


def test_scoring_in_threads_gives_what_one_thread_gives() -> None:
    answers = [f"[0.{digit}, 0.2, 0.8, 0.7]" for digit in range(10)] * 20
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(score, answers)) == [score(answer) for answer in answers]


def mixture() -> datasets.Dataset:
    """Images 1 and 2 are the official part; object 0 comes back in row 3, images 3 and 9 are from elsewhere."""
    repeated = {"answer": ["left", "red"], "bbox": [1, 1, 5, 5], "file_name": "COCO_train2014_000000000001_9.jpg"}
    return ref_rows([dict(repeated), {"answer": ["top"]}, {"answer": ["far"]}, dict(repeated), {"answer": ["y", "z"]}])


def plus_val() -> datasets.Dataset:
    return ref_rows([{}, {}])


UNC = {"split_filter": "unc_val", "other": {"repository": "lmms-lab-encoder/RefCOCOplus", "split": "val"}}


def test_the_official_part_of_a_mixture_is_scored(fake_hub: FakeHub) -> None:
    fake_hub["lmms-lab-encoder/RefCOCO", "val"] = mixture()
    fake_hub["lmms-lab-encoder/RefCOCOplus", "val"] = plus_val()
    docs = build_documents(entry(**UNC, objects=2, expressions=3))
    assert docs["expression"][:] == ["left", "red", "top"]
    assert docs[0]["split"] == {
        "source": "lmms-lab-encoder/RefCOCO@main/val",
        "revision": "main",
        "pin": "not pinned",
        "commit": None,
        "filter": "unc_val",
        "objects": 2,
        "expressions": 3,
    }


def test_a_mixture_that_does_not_add_up_stops_the_run_with_the_cure(fake_hub: FakeHub) -> None:
    fake_hub["lmms-lab-encoder/RefCOCO", "val"] = mixture()
    fake_hub["lmms-lab-encoder/RefCOCOplus", "val"] = plus_val()
    with pytest.raises(DatasetAccessError) as caught:
        build_documents(entry(**UNC, objects=3, expressions=4))
    message = str(caught.value)
    assert "expected 3 objects with 4 expressions, found" in message
    assert "2 objects with 3 expressions" in message
    assert "make_index refcoco_val 'refs(unc).p'" in message
    assert "swiftvlm_refcoco_testA" in message and "swiftvlm_refcoco_val_hub" in message


def test_the_filter_can_be_switched_off(fake_hub: FakeHub, caplog: pytest.LogCaptureFixture) -> None:
    fake_hub["lmms-lab-encoder/RefCOCO", "val"] = mixture()
    with caplog.at_level(logging.WARNING):
        docs = build_documents(entry(split_filter="none"))
    assert docs["expression"][:] == ["left", "red", "top", "far", "left", "red", "y", "z"]
    assert docs[0]["split"]["filter"] == "none"
    assert caplog.records == []


def test_a_pure_split_of_another_size_is_logged_and_recorded(
    fake_hub: FakeHub, caplog: pytest.LogCaptureFixture
) -> None:
    fake_hub["lmms-lab-encoder/RefCOCO", "val"] = mixture()
    with caplog.at_level(logging.WARNING):
        docs = build_documents(entry(split_filter="none", objects=5, expressions=9))
    assert "expected 5 objects with 9 expressions, found 5 objects with 8 expressions" in caplog.text
    assert docs[0]["split"]["expressions"] == 8


@pytest.fixture
def index_file(tmp_path: Any) -> Callable[[list[Any]], str]:
    def write(objects: list[Any]) -> str:
        from swiftvlm_eval.tasks.refcoco.split_index import SplitIndex

        index = SplitIndex(repository="lmms-lab-encoder/RefCOCO", revision="main", split="val", objects=tuple(objects))
        (tmp_path / "x.index.json").write_text(index.model_dump_json())
        return str(tmp_path / "x.index.json")

    return write


def test_an_index_file_has_the_last_word(fake_hub: FakeHub, index_file: Callable[[list[Any]], str]) -> None:
    fake_hub["lmms-lab-encoder/RefCOCO", "val"] = mixture()
    path = index_file([{"row": 2, "expressions": [0]}, {"row": 4, "expressions": [1]}])
    docs = build_documents(entry(**UNC, objects=2, expressions=2, index_file=path))
    assert docs["expression"][:] == ["far", "z"]


def test_an_index_file_must_give_the_official_size(fake_hub: FakeHub, index_file: Callable[[list[Any]], str]) -> None:
    fake_hub["lmms-lab-encoder/RefCOCO", "val"] = mixture()
    path = index_file([{"row": 2, "expressions": [0]}])
    with pytest.raises(DatasetAccessError, match="expected 2 objects with 2 expressions, found 1 objects with 1"):
        build_documents(entry(**UNC, objects=2, expressions=2, index_file=path))


def test_refcocog_val_without_an_index_says_how_to_make_one(fake_hub: FakeHub) -> None:
    fake_hub["lmms-lab-encoder/RefCOCOg", "val"] = mixture()
    fake_hub["lmms-lab-encoder/RefCOCOg", "test"] = plus_val()
    with pytest.raises(DatasetAccessError) as caught:
        build_documents(datasets.Dataset.from_list([packaged_source("refcocog_val").model_dump(mode="json")]))
    message = str(caught.value)
    assert "expected 2573 objects with 4896 expressions" in message
    assert "make_index refcocog_val 'refs(umd).p'" in message
    assert "swiftvlm_refcocog_test)" in message and "swiftvlm_refcocog_val_hub" in message


def test_refcocog_val_is_recovered_from_a_block(fake_hub: FakeHub) -> None:
    pure = [{"answer": ["a", "b"]}, {"answer": ["c"]}]
    google = [{"answer": ["d"], "file_name": "COCO_train2014_000000000099.jpg"}, {"answer": ["e"]}, {"answer": ["f"]}]
    fake_hub["lmms-lab-encoder/RefCOCO", "val"] = ref_rows([*pure, *google])
    fake_hub["lmms-lab-encoder/RefCOCOg", "test"] = ref_rows([{"file_name": "COCO_train2014_000000000099.jpg"}])
    other = {"repository": "lmms-lab-encoder/RefCOCOg", "split": "test"}
    docs = build_documents(entry(split_filter="umd_val", other=other, objects=2, expressions=3))
    assert docs["expression"][:] == ["a", "b", "c"]


def test_an_unreachable_reference_split_is_named(fake_hub: FakeHub) -> None:
    fake_hub["lmms-lab-encoder/RefCOCO", "val"] = mixture()
    fake_hub["lmms-lab-encoder/RefCOCOplus", "val"] = ConnectionError("no route")
    with pytest.raises(DatasetAccessError, match="data set lmms-lab-encoder/RefCOCOplus@main/val cannot be reached"):
        build_documents(entry(**UNC, objects=2, expressions=3))


@pytest.mark.parametrize("fields", [{"split_filter": "best"}, {"objects": -1}, {"colour": "red"}])
def test_a_source_with_a_bad_field_is_refused_by_name(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(fields))):
        build_documents(entry(**fields))


def test_the_index_files_of_the_package_lie_beside_its_sources() -> None:
    path = packaged_source("refcocog_val").index_path
    assert path == source_module.SOURCES_FILE.parent / "refcocog_umd_val.index.json"
