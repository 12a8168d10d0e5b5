"""The index file: made from official annotations in the shape of the REFER distribution, and read back with care."""

import json
import pickle
import subprocess
from pathlib import Path
from typing import Any

import pytest
from task_data import FakeHub, ref_rows

from swiftvlm_eval.tasks.hub import HubSource
from swiftvlm_eval.tasks.refcoco import make_index, source
from swiftvlm_eval.tasks.refcoco.make_index import read_refs, write_index
from swiftvlm_eval.tasks.refcoco.official_split import Chosen, ReferredObject
from swiftvlm_eval.tasks.refcoco.split_index import OfficialRef, SplitIndex, build_index, read_index

HUB = HubSource(repository="lmms-lab-encoder/RefCOCOg", split="val", revision="abc")
BOX = (0.0, 0.0, 1.0, 1.0)
OBJECTS = [
    ReferredObject(0, "5", BOX, ("the dog", "a cat")),
    ReferredObject(1, "5", BOX, ("the dog",)),
    ReferredObject(2, "6", BOX, ("the  Dog ", "a bird")),
]


def ref(image_id: int, split: str, *sentences: str) -> dict[str, Any]:
    return {"image_id": image_id, "split": split, "ann_id": 1, "sentences": [{"sent": text} for text in sentences]}


def test_each_official_object_gets_the_tightest_row() -> None:
    refs = [OfficialRef("5", ("the dog",)), OfficialRef("6", ("a bird", "the dog"))]
    index = build_index(HUB, OBJECTS, refs)
    assert index.select(OBJECTS) == [Chosen(1, (0,)), Chosen(2, (0, 1))]
    assert (index.repository, index.revision, index.split) == ("lmms-lab-encoder/RefCOCOg", "abc", "val")


def test_no_row_is_used_twice() -> None:
    refs = [OfficialRef("5", ("the dog",)), OfficialRef("5", ("the dog",))]
    assert build_index(HUB, OBJECTS, refs).select(OBJECTS) == [Chosen(0, (0,)), Chosen(1, (0,))]


def test_objects_that_are_not_there_are_counted() -> None:
    with pytest.raises(ValueError, match="1 of 2 official objects have no row"):
        build_index(HUB, OBJECTS, [OfficialRef("5", ("the dog",)), OfficialRef("6", ("a horse",))])


@pytest.mark.parametrize("suffix", [".p", ".json"])
def test_official_annotations_are_read_by_split(tmp_path: Path, suffix: str) -> None:
    refs = [ref(5, "val", "the dog"), ref(6, "train", "a bird"), ref(7, "val", "x", "y")]
    path = tmp_path / f"refs{suffix}"
    path.write_bytes(pickle.dumps(refs, protocol=0) if suffix == ".p" else json.dumps(refs).encode())
    assert read_refs(path, "val") == [OfficialRef("5", ("the dog",)), OfficialRef("7", ("x", "y"))]


def test_a_pickle_that_could_run_code_is_refused(tmp_path: Path) -> None:
    class Command:
        def __reduce__(self) -> tuple[Any, ...]:
            return subprocess.run, (["touch", str(tmp_path / "ran")],)

    path = tmp_path / "refs.p"
    path.write_bytes(pickle.dumps([Command()]))
    with pytest.raises(ValueError, match="refused subprocess.run"):
        read_refs(path, "val")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a list"),
        (b"[1, 2]", "not a list"),
        (b"{]", "not a list"),
        (b'[{"split": "val"}]', "image_id"),
        (b"[]", "no"),
    ],
)
def test_annotations_of_another_shape_are_refused_by_name(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "refs.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"refs\.json .*{message}"):
        read_refs(path, "val")


@pytest.mark.parametrize(
    ("objects", "message"),
    [
        ([{"row": 3, "expressions": [0]}], "row 3 does not exist"),
        ([{"row": 1, "expressions": [1]}], "row 1 has 1 expressions"),
        ([{"row": 0, "expressions": [1, 1]}], "row 0 names an expression twice"),
        ([{"row": 0, "expressions": [0]}, {"row": 0, "expressions": [1]}], "names a row twice"),
    ],
)
def test_an_index_that_does_not_fit_the_data_is_refused(objects: list[Any], message: str) -> None:
    index = SplitIndex(repository="r", revision="v", split="s", objects=tuple(objects))
    with pytest.raises(ValueError, match=message):
        index.select(OBJECTS)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"revision": "main"},
            "made for lmms-lab-encoder/RefCOCOg@main/val, the data is lmms-lab-encoder/RefCOCOg@abc/val",
        ),
        ({"split": "test"}, "made for"),
        ({"objects": [{"row": -1, "expressions": []}]}, "cannot be read"),
        ({"extra": 1}, "cannot be read"),
    ],
)
def test_an_index_for_other_data_is_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    path = tmp_path / "x.index.json"
    content = {"repository": HUB.repository, "revision": "abc", "split": "val", "objects": []} | change
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=f"x.index.json .*{message}"):
        read_index(path, HUB)


def test_making_an_index_end_to_end(tmp_path: Path, fake_hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"answer": ["the dog", "a cat"]}, {"answer": ["a bird"]}, {"answer": ["a horse"]}]
    fake_hub["lmms-lab-encoder/RefCOCOg", "val"] = ref_rows(rows)
    refs = tmp_path / "refs.json"
    refs.write_text(json.dumps([ref(1, "val", "a cat"), ref(3, "val", "a horse")]))
    out = tmp_path / "out.json"
    with pytest.raises(
        ValueError, match="expected 2573 objects with 4896 expressions, found 2 objects with 2 expressions"
    ):
        write_index("refcocog_val", refs, out)
    assert not out.exists()

    small = source.packaged_source("refcocog_val").model_copy(update={"objects": 2, "expressions": 2})
    monkeypatch.setattr(make_index, "packaged_source", lambda task: small)
    assert write_index("refcocog_val", refs, out) == out
    assert json.loads(out.read_text()) == {
        "repository": "lmms-lab-encoder/RefCOCOg",
        "revision": "main",
        "split": "val",
        "objects": [{"row": 0, "expressions": [1]}, {"row": 2, "expressions": [0]}],
    }
    with pytest.raises(ValueError, match=r"out\.json exists already"):
        write_index("refcocog_val", refs, out)


def test_a_task_without_an_index_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'refcoco_testA' takes its split as it is"):
        write_index("refcoco_testA", tmp_path / "refs.p")
    with pytest.raises(ValueError, match="task must be one of refcoco_val, .*, got 'refcoco'"):
        write_index("refcoco", tmp_path / "refs.p")
