"""Whole profiles of the tiny model: what is written, what a kill leaves, and what is refused."""

import csv
import json
from pathlib import Path

import pytest
import torch
from small_profiles import HandTask, collected, hand_task, make, make_run
from tiny_checkpoint import in_memory

from swiftvlm_eval import make_method
from swiftvlm_eval.analysis.profile_files import PLOTS
from swiftvlm_eval.pruning.engine import PruningSession

FILES = {"profile.json", "profile.csv", "layers.json", *PLOTS}


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted profile."""
    out = tmp_path_factory.mktemp("whole")
    make(out)
    return out


def test_the_files_hold_what_the_lines_of_the_documents_say(whole: Path) -> None:
    profile = json.loads((whole / "profile.json").read_text())
    (stored,) = whole.glob("samples-*.jsonl")
    lines = [json.loads(line) for line in stored.read_text().splitlines()]
    assert set(contents(whole)) == {*FILES, stored.name} and len(lines) == 6
    vanilla = sum(line["vanilla"] for line in lines)
    expected = [sum(line["by_layer"][layer - 2] for line in lines) / vanilla for layer in range(2, 13)]
    assert [row["layer"] for row in profile["layers"]] == list(range(2, 13))
    assert [row["x"] for row in profile["layers"]] == pytest.approx(expected, abs=1e-8)
    assert len(set(expected)) > 2 and all(row["low"] <= row["x"] <= row["high"] for row in profile["layers"])
    assert profile["tasks"]["by_hand"]["documents"] == profile["tasks"]["by_hand"]["images"] == 6
    assert profile["model"]["num_layers"] == 12 and profile["model"]["name"] == "tiny"
    rows = list(csv.DictReader((whole / "profile.csv").read_text().splitlines()))
    assert [float(row["x"]) for row in rows] == [row["x"] for row in profile["layers"]]
    assert (whole / PLOTS[0]).read_bytes().startswith(b"\x89PNG") and b"</svg>" in (whole / PLOTS[1]).read_bytes()


def test_what_sharing_saves_is_what_is_not_run(whole: Path) -> None:
    """C(n) = 4 n d^2 + 2 n^2 d + 3 n d m of the tiny decoder (d 64, m 128), on the rows of the lines."""
    (stored,) = whole.glob("samples-*.jsonl")
    lines = [json.loads(line) for line in stored.read_text().splitlines()]

    def cost(rows: int) -> int:
        return 4 * rows * 64**2 + 2 * rows**2 * 64 + 3 * rows * 64 * 128

    saved = sum(11 * 2 * cost(line["num_visual"] + line["num_text"]) for line in lines)
    left = sum(
        12 * cost(line["num_visual"] + line["num_text"]) + 11 * 10 * cost(3 + line["num_text"]) for line in lines
    )
    shared = json.loads((whole / "profile.json").read_text())["shared"]
    assert shared["decoder_prefill_flops_saved"] == round(saved / (saved + left), 4)
    assert (shared["answers_per_document"], shared["image_encodings_per_document"]) == (12, 1)


def test_the_chosen_layers_can_be_used_at_once(whole: Path) -> None:
    layers = json.loads((whole / "layers.json").read_text())
    stages = len(layers["layers"])
    method = {0: "vanilla", 1: "fastv", 2: "feather", 3: "swiftvlm"}[stages]
    assert sum(win["share"] for win in layers["stability"]["wins"]) <= 1 + 1e-9
    assert layers["by_stages"][-1]["layers"] == layers["layers"]
    if stages:
        made = make_method(method, {"layers": f"auto:{whole / 'layers.json'}"})
        session = PruningSession(make_run(whole).checkpoint.adapter, made, 0.5)
        assert list(session.method.options["layers"]) == layers["boundaries"]


def test_a_killed_profile_goes_on_and_ends_alike(whole: Path, tmp_path: Path) -> None:
    run = make_run(tmp_path)
    running = run.run()
    assert [next(running)[1] for _ in range(3)] == [True] * 3
    running.close()
    (stored,) = tmp_path.iterdir()
    stored.write_bytes(stored.read_bytes()[:-40])  # killed while it wrote the third line
    again = make_run(tmp_path)
    assert again.stored() == 2
    found = collected(again)
    assert [fresh for _, fresh in found] == [False] * 2 + [True] * 4
    with pytest.raises(ValueError, match="5 of 6 documents are scored"):
        again.finish([sample for sample, _ in found][:5], 3)
    again.finish([sample for sample, _ in found], 3)
    assert {name: contents(tmp_path)[name] for name in FILES} == {name: contents(whole)[name] for name in FILES}
    assert [fresh for _, fresh in collected(make_run(tmp_path))] == [False] * 6


def test_more_documents_or_stages_use_the_stored_ones(tmp_path: Path) -> None:
    make(tmp_path, None, hand_task(documents=4), stages=1)
    one = json.loads((tmp_path / "layers.json").read_text())
    found = collected(make_run(tmp_path))
    assert [fresh for _, fresh in found] == [False] * 4 + [True] * 2
    assert one["stages"] == 1 and len(one["by_stages"]) == 1


def test_a_folder_of_another_profile_stays_as_it_is(whole: Path) -> None:
    before = contents(whole)
    with pytest.raises(ValueError, match="holds a profile with another seed, top; allowed"):
        make_run(whole, seed=1, share=0.5)
    with pytest.raises(ValueError, match="another model"):
        make_run(whole, in_memory(layers=8))
    with pytest.raises(ValueError, match="another tasks"):
        make_run(whole, None, hand_task("other"))
    assert contents(whole) == before


def test_a_document_that_cannot_be_answered_is_named_and_the_others_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(HandTask, "broken", 2)
    with pytest.raises(RuntimeError, match="by_hand doc_id 2: cannot identify image file"):
        make(tmp_path)
    monkeypatch.undo()
    assert make_run(tmp_path).stored() == 2 and not (tmp_path / "profile.json").exists()


def test_answers_that_mean_nothing_are_counted(tmp_path: Path) -> None:
    broken = in_memory(layers=4)
    with torch.no_grad():
        broken.model.lm_head.weight[5] = torch.nan
    make(tmp_path, broken, hand_task(documents=2))
    assert json.loads((tmp_path / "profile.json").read_text())["not_finite"] == {"0": 2, "2": 2, "3": 2, "4": 2}


def test_a_metric_that_gives_no_number_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HandTask, "process_results", lambda *_: {"score": {"answer": "a"}})
    with pytest.raises(RuntimeError, match="by_hand doc_id 0: .*metric score is no number"):
        make(tmp_path)
