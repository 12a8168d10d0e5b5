"""Every way to start a run, as a user types it. lmms-eval exits with 0 on failure: what counts is the results file."""

import json
import os
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tiny_checkpoint import save

from swiftvlm_eval.results import import_run

BIN = Path(sys.executable).parent
OWN_METHOD = Path(__file__).parents[1] / "examples" / "own_method" / "last_row.py"
TASKS = {"demo_gqa": "exact_match", "demo_pope": "pope_accuracy"}
LIMIT = 3  # odd: with two processes one of them repeats a document to keep step


@dataclass(frozen=True)
class Run:
    """What lmms-eval left in its output folder."""

    path: Path
    results: dict[str, Any]
    samples: dict[str, list[dict[str, Any]]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("tiny"), grid=4, layers=12)


def launch(command: list[str], model: str, arguments: str, limit: int, tmp_path: Path, **environment: str) -> Run:
    """Runs a command line from a folder outside the repository and reads what it wrote."""
    out = tmp_path / "out"
    options = ["--model", model, "--model_args", arguments, "--tasks", ",".join(TASKS), "--limit", str(limit)]
    output = ["--output_path", str(out), "--log_samples"]
    settings = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    settings |= {"LMMS_EVAL_DATASETS_CACHE": str(tmp_path / "datasets"), **environment}
    done = subprocess.run(
        [*command, *options, *output],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, **settings},
        timeout=500,
    )
    found = list(out.rglob("*_results.json"))
    assert len(found) == 1, (done.stdout + done.stderr)[-4000:]
    samples = {}
    for task in TASKS:
        (path,) = out.rglob(f"*_samples_{task}.jsonl")
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        samples[task] = sorted(lines, key=lambda line: line["doc_id"])
    return Run(found[0], json.loads(found[0].read_text(encoding="utf-8")), samples)


def check(run: Run, model: str, method: str, limit: int, visual_tokens: int, budget: float = 1 / 3) -> None:
    """The keys that a user of the results file reads; the budget is a third by default."""
    assert run.results["config"]["model"] == model
    for task, metric in TASKS.items():
        assert isinstance(run.results["results"][task][f"{metric},none"], float)
        assert run.results["n-samples"][task]["effective"] == limit
        assert [line["doc_id"] for line in run.samples[task]] == list(range(limit))
        reports = [line["token_counts"][0]["swiftvlm"] for line in run.samples[task]]
        assert reports[0]["run"]["method"] == method
        for report in reports:
            executed = sum(count * layers for count, layers in report["rows_per_layer"]) / 12
            assert executed == pytest.approx(visual_tokens * budget, abs=0.5)


def test_python_m_starts_the_command_of_lmms_eval(tmp_path: Path) -> None:
    """What the two of ours run is the same function, which the next tests run whole."""
    starts = ([sys.executable, "-m", "swiftvlm_eval"], [str(BIN / "lmms_eval")], [str(BIN / "lmms-eval")])
    said = [subprocess.run([*start, "--help"], capture_output=True, text=True, cwd=tmp_path) for start in starts]
    assert [each.returncode for each in said] == [0, 0, 0]
    assert said[0].stdout == said[1].stdout == said[2].stdout and "Run model evaluation" in said[0].stdout


def test_lmms_evals_command_with_a_method_of_ones_own(tmp_path: Path) -> None:
    arguments = f"pretrained=demo,device=cpu,budget=0.5,method={OWN_METHOD}:LastRow,heads=max,layers=3"
    run = launch([str(BIN / "lmms-eval")], "swiftvlm_llava", arguments, 2, tmp_path)
    check(run, "swiftvlm_llava", "last_row", 2, 144, 0.5)
    record, _ = import_run(run.path)
    assert record.method.name == "last_row" and record.method.options["layers"] == [3]
    assert record.method.options["heads"] == "max"
    assert len(record.method.source_sha256 or "") == 64


def test_one_process_and_two(folder: Path, tmp_path: Path) -> None:
    """Our `lmms_eval` alone and lmms-eval under `accelerate launch` on two processes: the same answers."""
    arguments = f"pretrained={folder},device=cpu,dtype=float32"
    one_folder, two_folder = tmp_path / "one", tmp_path / "two"
    one_folder.mkdir()
    two_folder.mkdir()
    one = launch([str(BIN / "lmms_eval")], "random_llava", arguments, LIMIT, one_folder)
    check(one, "random_llava", "random", LIMIT, 16)

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    accelerate = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    accelerate += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
    accelerate += ["--main_process_port", str(port), "-m", "lmms_eval"]
    two = launch(accelerate, "random_llava", arguments, LIMIT, two_folder, ACCELERATE_USE_CPU="true")
    check(two, "random_llava", "random", LIMIT, 16)

    for run, processes in ((one, 1), (two, 2)):
        for lines in run.samples.values():
            # every process describes the run at its first document
            described = [line["token_counts"][0]["swiftvlm"].get("run") for line in lines]
            assert [own["world_size"] for own in described if own] == [processes] * processes
    record, _ = import_run(two.path)
    assert record.settings.world_size == 2 and record.tasks["demo_gqa"].answered == LIMIT

    assert two.results["results"] == one.results["results"]
    assert two.results["throughput"]["avg_n_samples"] == one.results["throughput"]["avg_n_samples"] == 2 * LIMIT
    for task in TASKS:
        assert [comparable(line) for line in two.samples[task]] == [comparable(line) for line in one.samples[task]]
        assert len({line["filtered_resps"] for line in one.samples[task]}) > 1


def comparable(line: dict[str, Any]) -> dict[str, Any]:
    """A sample without what may differ: times, and the description of the run."""
    (counts,) = line["token_counts"]
    report = {key: value for key, value in counts["swiftvlm"].items() if key not in ("prefill_s", "total_s", "run")}
    return {**line, "token_counts": {**counts, "swiftvlm": report}}
