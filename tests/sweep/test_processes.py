"""Sweeps in several processes, started as users start them, leave the records of one."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import run
from small_sweeps import files
from tiny_checkpoint import save

from swiftvlm_eval.results import read_record
from swiftvlm_eval.results.samples import read_samples
from swiftvlm_eval.sweep.processes import Processes

SCRIPT = Path(__file__).parents[2] / "scripts" / "soak_sweep.py"
SETTINGS = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


def records(out: Path) -> dict[str, Any]:
    """Records and samples by file name, without what may differ: times, stamps and the number of processes."""
    found = {}
    for path in (out / "records").rglob("*.record.json"):
        record = read_record(path)
        assert record.samples_file is not None
        lines = list(read_samples(path.with_name(record.samples_file.name), record.samples_file.sha256))
        content = json.loads(record.to_json())
        for field in ("origin", "wall_time_s", "samples_file"):
            del content[field]
        del content["settings"]["world_size"]
        del content["software"]["commit"]  # of the checkout, in which another test may be writing at the moment
        for task in content["tasks"].values():
            del task["timing"]
        samples = [line.model_copy(update={"prefill_s": None, "total_s": None}) for line in lines]
        found[f"{path.parent.name}/{path.name}"] = (content, samples)
    return found


@pytest.mark.timeout(900)
def test_two_processes_of_accelerate_leave_the_records_of_one(tmp_path: Path) -> None:
    folder = save(tmp_path / "tiny", grid=4, layers=12)
    command = ["sweep", "--model", str(folder), "--device", "cpu", "--dtype", "float32", "--tasks", "demo_gqa"]
    command += ["--methods", "vanilla,random,fastv", "--budgets", "1/2,0.01", "--limit", "3"]
    command += ["--batch-size", "auto"]  # they agree on one
    torch.set_num_threads(1)  # as the two have; an earlier test may have left another number
    status, output, _ = run(*command, "--out", str(tmp_path / "one"))
    # one token of 16 is out of reach
    assert status == 1 and output.count(" done") == 3 and output.count(" refused: ") == 2

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    accelerate = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    accelerate += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
    accelerate += ["--main_process_port", port, "-m", "swiftvlm_eval.cli"]
    done = subprocess.run(
        [*accelerate, *command, "--out", str(tmp_path / "two")],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, **SETTINGS, "ACCELERATE_USE_CPU": "true", "COLUMNS": "200"},
        timeout=800,
    )
    assert (done.stdout.count(" done"), done.stdout.count(" refused: ")) == (3, 2), done.stderr[-4000:]
    assert done.returncode == 1
    assert len(records(tmp_path / "one")) == 3 and records(tmp_path / "two") == records(tmp_path / "one")
    written = [read_record(path) for path in (tmp_path / "two/records").rglob("*.record.json")]
    assert [record.settings.world_size for record in written] == [2, 2, 2]
    assert {record.settings.batch_size for record in written} == {2}
    assert not files(tmp_path / "two/partial") and not files(tmp_path / "two/claims")


@pytest.mark.timeout(900)
def test_three_sweeps_at_once_and_three_kills_leave_the_records_of_one() -> None:
    options = ["--kills", "3", "--limit", "2", "--methods", "vanilla,random", "--pause", "0.3", "4"]
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *options],
        capture_output=True,
        text=True,
        env={**os.environ, **SETTINGS},
        timeout=800,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    one, together, *killed = done.stdout.splitlines()
    assert one == "one sweep: 3 records" and together.startswith("3 sweeps at once, 0 killed")
    assert sum(int(line.split("at once, ")[1].split()[0]) for line in killed) == 3


def test_one_process_is_the_first() -> None:
    processes = Processes("cpu")
    assert (processes.count, processes.number, processes.first) == (1, 0, True)
    assert processes.told(lambda: 5) == processes.one_after_the_other(lambda: 5) == 5
    assert [processes.device_for(device) for device in ("auto", "cuda", "cpu")] == ["auto", "cuda", "cpu"]


def test_processes_that_cannot_find_each_other_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(RuntimeError, match="2 processes were started, but accelerate knows 1; .* ACCELERATE_USE_CPU"):
        Processes("cpu")
