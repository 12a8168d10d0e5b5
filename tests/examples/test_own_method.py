"""The methods of `examples/own_method`, as a user runs them: by file, from another folder.

`test_launch.py` has lmms-eval's own command line with one of them.
"""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import run

from swiftvlm_eval.pruning.registry import make_method
from swiftvlm_eval.results import load_records

FOLDER = Path(__file__).parents[2] / "examples" / "own_method"
BIN = Path(sys.executable).parent
METHODS = {"cls_top": "ClsTop", "last_row": "LastRow"}


def reference(name: str) -> str:
    return f"{FOLDER / name}.py:{METHODS[name]}"


def command(tmp_path: Path, *words: str) -> str:
    settings = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    settings |= {"LMMS_EVAL_DATASETS_CACHE": str(tmp_path / "datasets")}
    done = subprocess.run(
        words, capture_output=True, text=True, cwd=tmp_path, env={**os.environ, **settings}, timeout=500
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    return done.stdout


@pytest.mark.parametrize("name", METHODS)
def test_an_example_is_short(name: str) -> None:
    assert len((FOLDER / f"{name}.py").read_text(encoding="utf-8").splitlines()) <= 40
    assert make_method(reference(name)).name == name


def test_a_sweep_of_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in METHODS:
        (tmp_path / f"{name}.py").write_bytes((FOLDER / f"{name}.py").read_bytes())
    methods = "vanilla,./cls_top.py:ClsTop,last_row.py:LastRow[heads=max]"
    sweep = ["sweep", "--model", "demo", "--methods", methods, "--budgets", "0.5", "--tasks", "demo_gqa"]
    sweep += ["--limit", "3", "--device", "cpu", "--out", "out"]
    command(tmp_path, str(BIN / "swiftvlm-eval"), *sweep)
    runs, problems = load_records([tmp_path / "out" / "records"])
    assert not problems
    found = {run.record.method.name: run.record for run in runs}
    assert set(found) == {"vanilla", *METHODS}
    assert found["vanilla"].method.source_sha256 is None
    for name in METHODS:
        source = (FOLDER / f"{name}.py").read_bytes()
        assert found[name].method.source_sha256 == hashlib.sha256(source).hexdigest()
        execution = found[name].tasks["demo_gqa"].execution
        assert execution is not None and abs(execution.mean_visual_tokens - 72) <= 0.5
    assert found["last_row"].method.options["heads"] == "max"
    folders = {path.name for path in (tmp_path / "out" / "records").iterdir()}
    with (tmp_path / "last_row.py").open("a", encoding="utf-8") as file:
        file.write("# an edit\n")
    monkeypatch.chdir(tmp_path)
    status, _, said = run(*sweep)
    assert status == 0, said
    more = {path.name for path in (tmp_path / "out" / "records").iterdir()} - folders
    assert len(more) == 1 and more.pop().startswith("last_row-"), "an edited method is run again, the others are not"


def test_costs_and_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    def said(*words: str) -> str:
        status, output, everything = run(*words, columns=80)
        assert status == 0, everything
        return output

    own = ",".join(reference(name) for name in METHODS)
    rows = json.loads(said("flops", "--methods", own, "--budgets", "192", "--json"))
    assert [(row["method"], round(row["mean_visual_tokens"])) for row in rows] == [("cls_top", 192), ("last_row", 192)]
    small = ["--shape", "64,128,8,4", "--rounds", "3", "--output-tokens", "1", "--device", "cpu", "--dtype", "float32"]
    timed = json.loads(said("latency", "--methods", own, *small, "--json"))
    assert [round(row["mean_visual_tokens"]) for row in timed[-2:]] == [192, 192]
    shown = said("methods", reference("cls_top"))
    assert "cls_top" in shown and "CLS attends to most" in " ".join(shown.split()) and "fastv" not in shown
    for word in ("sweep", "flops", "latency"):
        assert "code runs" in " ".join(said(word, "--help").replace("│", " ").split())
