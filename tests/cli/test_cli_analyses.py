"""`overlap` and `drift`: files, going on after an interruption, and what is refused."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from analysis.small_prompts import FewPrompts, checkpoint
from command_line import run
from PIL import Image

from swiftvlm_eval.analysis import drift_run
from swiftvlm_eval.cli import analyses
from swiftvlm_eval.sweep import processes
from swiftvlm_eval.sweep.claims import Claim

Few = Callable[[int], FewPrompts]


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> Few:
    """So many prompts made by hand, on a tiny model."""

    def give(count: int) -> FewPrompts:
        prompts = FewPrompts(count)
        monkeypatch.setattr(analyses, "load", lambda *_: (checkpoint(), prompts))
        return prompts

    return give


@pytest.fixture
def nothing_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("loaded")

    monkeypatch.setattr(analyses, "load", refuse)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def strict(path: Path) -> Any:
    def refuse(name: str) -> None:
        raise AssertionError(name)

    return json.loads(path.read_text(), parse_constant=refuse)


def test_overlap_writes_numbers_table_and_picture(tmp_path: Path, few: Few) -> None:
    few(2)
    status, _, said = run("overlap", "--model", "tiny", "--out", str(tmp_path))
    assert status == 0 and "swiftvlm[merge=false;bypass=false]" in said and "overlap.png" in said
    written = strict(tmp_path / "overlap.json")
    assert written["documents"] == 2 and written["model"] == "tiny" and written["tasks"] == ["by_hand"]
    assert [one["label"] for one in written["methods"]] == ["swiftvlm", "swiftvlm[merge=false;bypass=false]"]
    rows = list(csv.DictReader((tmp_path / "overlap.csv").open()))
    assert len(rows) == 2 * 2 * 2
    for label, one in zip(("swiftvlm", "swiftvlm[merge=false;bypass=false]"), written["methods"], strict=True):
        for share in ("0.05", "0.10"):
            own = [
                float(row["overlap"])
                for row in rows
                if row["method"] == label and float(row["top_share"]) == float(share)
            ]
            assert one["overlap"][share]["mean"] == pytest.approx(sum(own) / 2)
    assert len(list(csv.DictReader((tmp_path / "low_then_high.csv").open()))) == 12 * 11 / 2
    Image.open(tmp_path / "overlap.png").verify()


def test_a_second_call_measures_nothing_again(tmp_path: Path, few: Few) -> None:
    few(2)
    command = ("drift", "--model", "tiny", "--out", str(tmp_path), "--methods", "swiftvlm,swiftvlm[anchors=top]")
    assert run(*command)[0] == 0
    before, prompts = contents(tmp_path), few(2)
    assert run(*command)[0] == 0
    assert prompts.made == [] and contents(tmp_path) == before
    assert set(before) == {"drift.json", "drift.csv", "drift.png", "drift.documents.jsonl"}
    rows = list(csv.DictReader((tmp_path / "drift.csv").open()))
    assert {row["arm"] for row in rows} == {"aligned", "stored", "other", "live"}
    assert {row["method"] for row in rows} == {"swiftvlm", "swiftvlm[anchors=top]"}
    Image.open(tmp_path / "drift.png").verify()


def test_an_interrupted_analysis_goes_on(tmp_path: Path, few: Few, monkeypatch: pytest.MonkeyPatch) -> None:
    prompts, whole = few(3), drift_run.drift_of

    def stop(prompt: Any, *others: Any) -> dict[str, Any]:
        if prompt.doc_id == 2:
            raise RuntimeError(f"{prompt.key}: out of memory")
        return whole(prompt, *others)

    command = ("drift", "--model", "tiny", "--out", str(tmp_path))
    monkeypatch.setattr(drift_run, "drift_of", stop)
    status, _, said = run(*command)
    assert status == 1 and "by_hand/2: out of memory" in said and not (tmp_path / "drift.json").exists()
    monkeypatch.setattr(drift_run, "drift_of", whole)
    prompts = few(3)
    assert run(*command)[0] == 0 and prompts.made == [2]
    once = tmp_path / "once"
    few(3)
    assert run(*command[:-1], str(once))[0] == 0
    assert contents(once) == contents(tmp_path)


def test_a_projection_is_drawn_on_request_and_refused_without_scikit_learn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, few: Few
) -> None:
    few(1)
    assert run("drift", "--model", "tiny", "--out", str(tmp_path))[0] == 0
    assert not (tmp_path / "projection.png").exists()
    status, _, said = run("drift", "--model", "tiny", "--out", str(tmp_path), "--project")
    assert status == 0, said
    assert (tmp_path / "projection.png").read_bytes().startswith(b"\x89PNG")
    monkeypatch.setattr(analyses, "find_spec", lambda name: None)
    status, _, said = run("drift", "--model", "tiny", "--out", str(tmp_path / "other"), "--project")
    assert status == 1 and "needs scikit-learn" in said and not (tmp_path / "other").exists()


def test_another_analysis_in_the_folder_is_kept(tmp_path: Path, few: Few) -> None:
    few(1)
    assert run("drift", "--model", "tiny", "--out", str(tmp_path))[0] == 0
    before = contents(tmp_path)
    for option, value in (("--budget", "1/2"), ("--seed", "1"), ("--methods", "swiftvlm[anchors=top]")):
        status, _, said = run("drift", "--model", "tiny", "--out", str(tmp_path), option, value)
        assert status == 1 and "drift.documents.jsonl: " in said and "allowed is another --out folder" in said
    assert contents(tmp_path) == before
    (tmp_path / "drift.documents.jsonl").unlink()
    status, _, said = run("drift", "--model", "tiny", "--out", str(tmp_path))
    assert status == 1 and "is there without its drift.documents.jsonl" in said


def test_two_processes_do_not_share_an_analysis(tmp_path: Path, few: Few) -> None:
    few(1)
    claim = Claim(tmp_path / "claims", "drift")
    assert claim.take() is None
    try:
        status, _, said = run("drift", "--model", "tiny", "--out", str(tmp_path))
    finally:
        claim.release(done=True)
    assert status == 1 and "run by process" in said and not list(tmp_path.glob("drift*"))


@pytest.mark.usefixtures("nothing_loaded")
@pytest.mark.parametrize(
    ("command", "option", "value", "message"),
    [
        ("drift", "--methods", "fastv", "methods='fastv': what leaves never comes back"),
        ("drift", "--methods", "swiftvlm,swiftvlm[bypass=false]", "methods='swiftvlm[bypass=false]': what leaves"),
        ("drift", "--methods", "swiftvm", "method='swiftvm': unknown"),
        ("drift", "--budget", "0", "budget='0': allowed is a share"),
        ("overlap", "--budget", "3", "is a slip"),
        ("overlap", "--methods", "fastv,fastv", "fastv stands twice; allowed is once"),
        ("overlap", "--methods", "", "methods='': allowed are all"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_loaded(
    tmp_path: Path, command: str, option: str, value: str, message: str
) -> None:
    status, _, said = run(command, "--model", "demo", "--out", str(tmp_path / "out"), option, value)
    assert status == 1 and message in said and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("command", "methods", "message"),
    [
        ("overlap", "vanilla", "methods='vanilla': it never prunes"),
        ("overlap", "swiftvlm[counts=0:8:0:8:0]", "every row stands for several tokens"),
        ("drift", "swiftvlm[counts=40:0:24:0:8]", "by_hand/0: swiftvlm[counts=40:0:24:0:8]: it makes no merged rows"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    tmp_path: Path, few: Few, command: str, methods: str, message: str
) -> None:
    few(1)
    status, _, said = run(command, "--model", "tiny", "--out", str(tmp_path), "--methods", methods)
    assert status == 1 and message in said and not (tmp_path / f"{command}.json").exists()


def test_a_count_is_refused_for_images_of_other_sizes(tmp_path: Path, few: Few) -> None:
    few(1)
    status, _, said = run("overlap", "--model", "tiny", "--out", str(tmp_path), "--budget", "192")
    assert status == 1 and "budget='192'" in said and "images are 64" in said


def test_several_processes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "Processes", lambda device: SimpleNamespace(count=2))
    with pytest.raises(ValueError, match="2 processes were started: allowed is one"):
        analyses.load("demo", "demo", 1, {"device": "cpu"}, "1/3")
