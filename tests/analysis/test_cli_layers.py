"""The command `select-layers` as it is typed: on the tiny model with a task made by hand, and what it refuses."""

import json
from pathlib import Path
from typing import Any

import pytest
from command_line import run
from lmms.tiny_runs import checkpoint
from small_profiles import HandTask, hand_task, make

from swiftvlm_eval.analysis import selection_split
from swiftvlm_eval.models import checkpoint as checkpoint_module
from swiftvlm_eval.sweep import documents, processes

COMMON = ("select-layers", "--model", "tiny", "--device", "cpu")


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The command finds the task made by hand and the tiny model; which models it loaded."""
    found: list[str] = []

    class Found:
        def __init__(self, tasks: list[str]) -> None:
            self.tasks = dict.fromkeys(tasks)

    def load(model: str, **_: Any) -> Any:
        found.append(model)
        return checkpoint()

    monkeypatch.setattr(documents, "Documents", Found)
    monkeypatch.setattr(checkpoint_module, "load_checkpoint", load)
    monkeypatch.setattr(
        selection_split, "selection_task", lambda name, task, split, samples, seed: hand_task(name, samples)
    )
    return found


def test_a_profile_is_told_and_goes_on(tmp_path: Path, loaded: list[str]) -> None:
    typed = (*COMMON, "--tasks", "by_hand", "--samples", "3", "--split", "val", "--out", str(tmp_path / "out"))
    status, _, said = run(*typed)
    assert status == 0 and loaded == ["tiny"], said
    assert "3 documents, each answered 12 times (11 layers and all tokens); 0 are stored." in said
    assert "for the others" in said and "of the decoder's prefill FLOPs and 11 of 12 image encodings" in said
    assert "wrote profile.json, profile.csv, layers.json, profile.png, profile.svg" in said
    layers = json.loads((tmp_path / "out/layers.json").read_text())
    first = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert ", ".join(map(str, layers["layers"])) in said
    assert ("note" in said) == bool(layers["note"])
    status, _, said = run(*typed)
    assert status == 0 and "3 are stored" in said and "the first took" not in said
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == first


def test_a_profile_that_never_rises_says_so(
    tmp_path: Path, loaded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def flat(self: Any, document: Any, results: list[str]) -> dict[str, Any]:
        return {"score": 1.0, "cluster_id": str(document["number"])}

    monkeypatch.setattr(HandTask, "process_results", flat)
    typed = (*COMMON, "--tasks", "by_hand", "--samples", "2", "--split", "val", "--out", str(tmp_path))
    status, _, said = run(*typed)
    assert status == 0 and "note no layer from 3 on has a larger x than layer 2" in said
    assert "use:" not in said and json.loads((tmp_path / "layers.json").read_text())["layers"] == []


def test_another_profile_is_not_overwritten(tmp_path: Path, loaded: list[str]) -> None:
    make(tmp_path, None, hand_task(documents=2))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    typed = (*COMMON, "--tasks", "by_hand", "--samples", "2", "--split", "val", "--top", "0.5", "--out", str(tmp_path))
    status, _, said = run(*typed)
    assert status == 1 and "holds a profile with another top" in said
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_broken_document_ends_in_one_line(
    tmp_path: Path, loaded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(HandTask, "broken", 1)
    typed = (*COMMON, "--tasks", "by_hand", "--samples", "2", "--split", "val", "--out", str(tmp_path))
    status, _, said = run(*typed)
    assert status == 1 and "error by_hand doc_id 1: cannot identify image file" in said
    assert [path.suffix for path in tmp_path.iterdir()] == [".jsonl"]


def test_several_processes_are_refused(tmp_path: Path, loaded: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes.Processes, "count", 2)
    monkeypatch.setenv("WORLD_SIZE", "2")
    status, _, said = run(*COMMON, "--tasks", "by_hand", "--out", str(tmp_path / "out"))
    assert status == 1 and "processes=2: select-layers runs in one" in said
    assert not loaded and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (("--tasks", "by_hand", "--top", "0"), "top=0.0: allowed is a share"),
        (("--tasks", "by_hand", "--top", "nan"), "top=nan: allowed is a share"),
        (("--tasks", " , "), "names at least one"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_loaded(
    tmp_path: Path, loaded: list[str], typed: tuple[str, ...], said: str
) -> None:
    status, _, output = run(*COMMON, *typed, "--out", str(tmp_path / "out"))
    assert status == 1 and said in output
    assert not loaded and not (tmp_path / "out").exists()
