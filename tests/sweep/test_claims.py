"""Several processes that share one folder: what one of them runs is left to it."""

import json
import os
import shutil
import socket
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from small_sweeps import files, make_sweep

from swiftvlm_eval.sweep import Configuration
from swiftvlm_eval.sweep.claims import Claim


def test_what_another_process_runs_is_left_to_it(tmp_path: Path, generated: list[str]) -> None:
    first, second = Configuration("fastv", 0.5), Configuration("vanilla", 1.0)
    sweep = make_sweep(tmp_path, "demo_gqa")
    other = Claim(tmp_path / "claims", sweep._identity(first))
    assert other.take() is None
    outcomes = sweep.run([first, second])
    done, claimed = outcomes
    assert (done.configuration, done.status) == (second, "done")
    assert (claimed.configuration, claimed.status, claimed.record) == (first, "claimed", None)
    assert claimed.reason == f"run by process {os.getpid()} on {socket.gethostname()}, since 0 min"
    assert generated == ["demo_gqa/0", "demo_gqa/1"]
    other.release(done=False)
    assert [outcome.status for outcome in sweep.run([first, second])] == ["done", "kept"]
    assert not files(tmp_path / "claims")


def test_a_record_that_appeared_meanwhile_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the first look and the claim, and between the first pass and the second."""
    grid = [Configuration("fastv", 0.5)]
    (whole,) = make_sweep(tmp_path / "whole", "demo_gqa").run(grid)
    assert whole.record is not None
    sweep = make_sweep(tmp_path / "shared", "demo_gqa")
    take, found = Claim.take, whole.record.parent

    def another_is_done(self: Claim) -> str | None:
        shutil.copytree(found, tmp_path / "shared/records" / found.name)
        return take(self)

    monkeypatch.setattr(Claim, "take", another_is_done)
    (outcome,) = sweep.run(grid)
    assert outcome.status == "kept" and outcome.record is not None
    assert not files(tmp_path / "shared/claims")

    def another_is_nearly_done(self: Claim) -> str:
        shutil.copytree(found, tmp_path / "later/records" / found.name)
        return "run by another process"

    monkeypatch.setattr(Claim, "take", another_is_nearly_done)
    (outcome,) = make_sweep(tmp_path / "later", "demo_gqa").run(grid)
    assert outcome.status == "kept" and outcome.record is not None


def note(folder: Path, **changes: Any) -> Path:
    started = (datetime.now(UTC) - timedelta(hours=3, minutes=12)).isoformat()
    path = folder / "cell.json"
    path.write_text(json.dumps({"host": socket.gethostname(), "pid": 4711, "started": started} | changes))
    return path


def test_the_claim_of_a_dead_process_of_this_host_is_taken_over(tmp_path: Path) -> None:
    left = note(tmp_path)
    (tmp_path / "cell.lock").write_text("")
    claim = Claim(tmp_path, "cell")
    assert claim.take() is None
    assert json.loads(left.read_text())["pid"] == os.getpid()
    claim.release(done=False)
    assert not left.exists()
    left.write_text('{"host": "no')  # a kill in the middle of a note
    assert claim.take() is None


def test_the_claim_of_another_host_is_shown(tmp_path: Path) -> None:
    left = note(tmp_path, host="node7")
    claim = Claim(tmp_path, "cell")
    expected = (
        f"run by process 4711 on node7, since 3 h 12 min; if that process is gone, delete {tmp_path.name}/cell.json"
    )
    assert claim.take() == expected
    assert claim.take() == expected and left.exists()
    left.unlink()
    assert claim.take() is None


def test_a_claim_ends_with_its_process(tmp_path: Path) -> None:
    code = (
        "import os, sys, time; from pathlib import Path; from swiftvlm_eval.sweep.claims import Claim\n"
        "claim = Claim(Path(sys.argv[1]), 'cell'); print(claim.take(), os.getpid(), flush=True); time.sleep(100)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline().split() == ["None", str(other.pid)]
        claim = Claim(tmp_path, "cell")
        assert claim.take() == f"run by process {other.pid} on {socket.gethostname()}, since 0 min"
        other.kill()
        other.wait()
    assert claim.take() is None
