"""Runs that lost something make no record, and what killed runs left is cleared."""

from pathlib import Path
from typing import Any

import pytest
from lmms_eval.loggers.evaluation_tracker import EvaluationTracker
from small_sweeps import LIMIT, files, make_sweep

from swiftvlm_eval.sweep import Configuration
from swiftvlm_eval.sweep.claims import Claim


def test_a_lost_samples_file_makes_no_record(
    tmp_path: Path, generated: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """lmms-eval only warns when it cannot write the samples of a task."""
    grid = [Configuration("fastv", 0.5)]
    save = EvaluationTracker.save_results_samples

    def loses_one(self: EvaluationTracker, task_name: str, samples: Any) -> None:
        if task_name != "demo_refcoco":
            save(self, task_name, samples)

    with monkeypatch.context() as patch:
        patch.setattr(EvaluationTracker, "save_results_samples", loses_one)
        with pytest.raises(RuntimeError, match=r"fastv 0\.5: documents are missing .*\(demo_refcoco 0 of 2\)"):
            list(make_sweep(tmp_path).run(grid))
    assert not list(tmp_path.rglob("*.record.json"))
    assert len(files(tmp_path / "partial")) == 1
    generated.clear()
    (again,) = make_sweep(tmp_path).run(grid)
    assert again.status == "done" and not generated
    assert len(list((tmp_path / "lmms_eval").rglob("*_results.json"))) == 1
    assert not files(tmp_path / "partial")


@pytest.mark.parametrize("lost", [1, LIMIT])
def test_documents_that_lmms_eval_leaves_out_make_no_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lost: int
) -> None:
    save = EvaluationTracker.save_results_samples

    def cuts(self: EvaluationTracker, task_name: str, samples: Any) -> None:
        save(self, task_name, samples[lost:])

    monkeypatch.setattr(EvaluationTracker, "save_results_samples", cuts)
    with pytest.raises(RuntimeError, match=rf"\(demo_gqa {LIMIT - lost} of 2\), so there is no record"):
        list(make_sweep(tmp_path, "demo_gqa").run([Configuration("vanilla", 1.0)]))


def test_results_that_cannot_be_written_make_no_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An older results file in the folder does not stand in."""
    sweep, grid = make_sweep(tmp_path, "demo_gqa"), [Configuration("vanilla", 1.0)]
    (outcome,) = make_sweep(tmp_path / "other", "demo_gqa").run(grid)
    (older,) = (tmp_path / "other/lmms_eval").rglob("*_results.json")
    written: list[str] = []

    def writes_an_older_one(self: EvaluationTracker, results: Any, samples: Any, datetime_str: str) -> None:
        self.date_id = datetime_str
        written.append(datetime_str)
        folder = Path(str(self.output_path))
        folder.mkdir(parents=True)
        (folder / "20991231_235959_results.json").write_bytes(older.read_bytes())

    monkeypatch.setattr(EvaluationTracker, "save_results_aggregated", writes_an_older_one)
    with pytest.raises(RuntimeError, match="lmms-eval wrote no results file"):
        list(sweep.run(grid))
    assert written and not list((tmp_path / "records").rglob("*"))


def test_what_a_killed_run_left_is_cleared(tmp_path: Path) -> None:
    """A kill right after the aggregate was written, and others while a record was."""
    grid = [Configuration("fastv", 0.5)]
    sweep = make_sweep(tmp_path, "demo_gqa")
    identity = sweep._identity(grid[0])
    lmms_eval, records = tmp_path / "lmms_eval" / identity, tmp_path / "records" / identity
    for left in (
        lmms_eval / "model" / "20200101_000000_results.json",
        records / ".x.record.json.1.part",
        records / "x.samples.jsonl.gz",
    ):
        left.parent.mkdir(parents=True, exist_ok=True)
        left.write_text("{}")
    (done,) = sweep.run(grid)
    assert done.record is not None
    assert len(list(lmms_eval.rglob("*_results.json"))) == 1
    assert sorted(path.name for path in records.iterdir()) == sorted(
        [done.record.name, done.record.name.replace(".record.json", ".samples.jsonl.gz")]
    )
    # a kill between the record and the end
    (tmp_path / "partial").mkdir(exist_ok=True)
    for stale in (f"{identity}-00000000.jsonl", f"{identity}-00000000.1.jsonl", "other-00000000.jsonl"):
        (tmp_path / "partial" / stale).write_text("")
    (records / ".x.samples.jsonl.gz.2.part").write_text("")
    (kept,) = sweep.run(grid)
    assert (kept.status, kept.record) == ("kept", done.record)
    assert files(tmp_path / "partial") == ["other-00000000.jsonl"]
    assert len(list(records.iterdir())) == 2


def test_a_claim_beside_a_finished_record_goes_unless_somebody_holds_it(tmp_path: Path) -> None:
    """A process may be killed after its record is written and before it gives its claim back."""
    sweep, grid = make_sweep(tmp_path, "demo_gqa"), [Configuration("vanilla", 1.0)]
    list(sweep.run(grid))
    left = Claim(tmp_path / "claims", sweep._identity(grid[0]))
    assert left.take() is None
    (held,) = sweep.run(grid)
    assert held.status == "kept" and len(files(tmp_path / "claims")) == 2
    left._lock.release()  # as the operating system does when a process is killed
    (kept,) = sweep.run(grid)
    assert kept.status == "kept" and not files(tmp_path / "claims")
