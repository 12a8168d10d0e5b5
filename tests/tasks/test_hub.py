"""Every way a data set can be missing, and what the user then reads."""

import datasets
import pytest
from datasets.exceptions import DatasetNotFoundError
from lmms_eval.tasks import TaskManager
from task_data import FakeHub

from swiftvlm_eval.tasks import hub
from swiftvlm_eval.tasks.hub import DatasetAccessError, HubSource, load_split

SOURCE = HubSource(repository="lmms-lab-encoder/RefCOCO", split="val")
COLUMNS = {"bbox": "[x, y, width, height] in pixels", "file_name": "COCO file name"}


@pytest.mark.parametrize(
    ("error", "cure"),
    [
        (
            ConnectionError("Couldn't reach 'lmms-lab-encoder/RefCOCO' on the Hub (OfflineModeIsEnabled)"),
            "unset HF_HUB_OFFLINE",
        ),
        (TimeoutError("timed out"), "later runs need only its cache folder"),
        (
            DatasetNotFoundError("Dataset 'x' is a gated dataset on the Hub. You must be authenticated to access it."),
            "Accept its terms on its hub page, then log in with `hf auth login`",
        ),
        (
            DatasetNotFoundError("Revision 'main' doesn't exist for dataset 'x' on the Hub."),
            "correct it in revisions.json",
        ),
        (DatasetNotFoundError("Dataset 'x' doesn't exist on the Hub or cannot be accessed."), "Check the id"),
        (ValueError("Unknown split \"val\". Should be one of ['train']."), "has no split 'val'"),
        (OSError("No space left on device"), "cannot be read"),
    ],
)
def test_a_loading_error_names_the_data_and_the_cure(fake_hub: FakeHub, error: Exception, cure: str) -> None:
    fake_hub["lmms-lab-encoder/RefCOCO", "val"] = error
    with pytest.raises(DatasetAccessError) as caught:
        load_split(SOURCE, COLUMNS)
    message = str(caught.value)
    assert "data set lmms-lab-encoder/RefCOCO@main/val" in message
    assert cure in message
    assert str(error) in message
    assert caught.value.__cause__ is error


def test_the_cause_behind_an_error_decides(fake_hub: FakeHub) -> None:
    error = RuntimeError("loading failed")
    error.__cause__ = ConnectionError("no route")
    fake_hub["lmms-lab-encoder/RefCOCO", "val"] = error
    with pytest.raises(DatasetAccessError, match="cannot be reached"):
        load_split(SOURCE, COLUMNS)


def test_a_changed_column_is_named_with_what_is_there(fake_hub: FakeHub) -> None:
    fake_hub["lmms-lab-encoder/RefCOCO", "val"] = datasets.Dataset.from_dict({"box": [1], "file_name": ["a"]})
    with pytest.raises(DatasetAccessError) as caught:
        load_split(SOURCE, COLUMNS)
    message = str(caught.value)
    assert "no column bbox. Expected bbox ([x, y, width, height] in pixels), file_name (COCO file name)" in message
    assert "found box, file_name" in message
    assert "pin a revision" in message


def test_an_empty_split_is_refused(fake_hub: FakeHub) -> None:
    fake_hub["lmms-lab-encoder/RefCOCO", "val"] = datasets.Dataset.from_dict({"bbox": [], "file_name": []})
    with pytest.raises(DatasetAccessError, match="expected rows, found none"):
        load_split(SOURCE, COLUMNS)


def test_the_revision_comes_from_one_file_unless_the_source_has_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def load_dataset(path: str, split: str, revision: str) -> datasets.Dataset:
        seen.append((path, split, revision))
        return datasets.Dataset.from_dict({"bbox": [1], "file_name": ["a"]})

    monkeypatch.setattr(hub.datasets, "load_dataset", load_dataset)
    monkeypatch.setattr(hub, "_revisions", lambda: {"lmms-lab-encoder/RefCOCO": "0123abc"})
    load_split(SOURCE, COLUMNS)
    load_split(SOURCE.model_copy(update={"revision": "v2"}), COLUMNS)
    load_split(SOURCE.model_copy(update={"repository": "somebody/else"}), COLUMNS)
    assert seen == [
        ("lmms-lab-encoder/RefCOCO", "val", "0123abc"),
        ("lmms-lab-encoder/RefCOCO", "val", "v2"),
        ("somebody/else", "val", "main"),
    ]


def test_a_configuration_is_asked_for_and_named(fake_hub: FakeHub) -> None:
    rows = datasets.Dataset.from_dict({"bbox": [1], "file_name": ["a"]})
    fake_hub["lmms-lab-encoder/MMBench/en", "dev"] = rows
    source = HubSource(repository="lmms-lab-encoder/MMBench", split="dev", config="en")
    assert load_split(source, COLUMNS)["bbox"][:] == [1]
    fake_hub["lmms-lab-encoder/MMBench/en", "dev"] = ConnectionError("no route")
    with pytest.raises(DatasetAccessError, match="data set lmms-lab-encoder/MMBench@main/en/dev cannot be reached"):
        load_split(source, COLUMNS)


@pytest.mark.parametrize(
    ("task", "repository", "split"),
    [
        ("swiftvlm_refcoco_testA", "lmms-lab-encoder/RefCOCO", "testA"),
        ("swiftvlm_textvqa_noocr_val", "lmms-lab-encoder/textvqa", "validation"),
    ],
)
def test_lmms_eval_raises_the_message_itself_after_one_attempt(
    fake_hub: FakeHub, task_manager: TaskManager, task: str, repository: str, split: str
) -> None:
    fake_hub[repository, split] = ConnectionError("no route to the hub")
    with pytest.raises(DatasetAccessError, match=f"data set {repository}@main/{split} cannot be reached"):
        task_manager.load_task_or_group(task)
    assert fake_hub.attempts == [(repository, split)]
