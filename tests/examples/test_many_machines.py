"""The scripts of `examples/many_machines` do what they say, and the page's estimate is the command's."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import run
from typer.main import get_command

from swiftvlm_eval.cli import app
from swiftvlm_eval.results import load_records

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "examples" / "many_machines"
PAGE = (ROOT / "docs" / "many_machines.md").read_text(encoding="utf-8")
SCRIPTS = sorted(FOLDER.glob("*.sh"))
SETTINGS = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
TRIAL = ["--methods", "vanilla,fastv", "--budgets", "1/3", "--tasks", "demo_gqa", "--limit", "2", "--device", "cpu"]
RECORDER = """#!/usr/bin/env bash
printf "%s\\0" "${CUDA_VISIBLE_DEVICES-}" "$@" >>"$RECORDED"
printf "\\n" >>"$RECORDED"
echo "told: $*"; echo "warned: $*" >&2
"""


def call(script: str, *words: str, path: Path = Path(sys.executable).parent, **settings: str) -> tuple[int, str]:
    """Status and output of a script; `path` has the programs that it starts."""
    done = subprocess.run(
        ["bash", str(FOLDER / script), *words],
        capture_output=True,
        text=True,
        env={**os.environ, **SETTINGS, "PATH": f"{path}:{os.environ['PATH']}", **settings},
        timeout=500,
    )
    return done.returncode, done.stdout + done.stderr


def recorded(tmp_path: Path, program: str, script: str, *words: str, **settings: str) -> list[list[str]]:
    """GPUs and words with which a script starts a program, one list for each start, sorted."""
    (tmp_path / program).write_text(RECORDER)
    (tmp_path / program).chmod(0o755)
    file = tmp_path / "recorded"
    status, said = call(script, *words, path=tmp_path, RECORDED=str(file), **settings)
    assert status == 0, said
    return sorted(line.split("\0")[:-1] for line in file.read_text().splitlines())


def sweep_options(words: list[str]) -> dict[str, object]:
    """The options as the command itself reads them."""
    assert words[0] == "sweep"
    command = get_command(app).commands["sweep"]  # type: ignore[attr-defined]
    return dict(command.make_context("sweep", list(words[1:])).params)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_bash_can_read_it_and_the_page_has_it(script: Path) -> None:
    assert subprocess.run(["bash", "-n", str(script)], capture_output=True).returncode == 0
    assert f"](../examples/many_machines/{script.name})" in PAGE


def page_calls() -> list[str]:
    """Lines of the page's blocks and of the scripts' heads that start a script, continued ones joined."""
    heads = [re.sub(r"^# ?", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE) for path in SCRIPTS]
    lines = "\n".join([PAGE, *heads]).replace("\\\n", " ").splitlines()
    return [line.strip() for line in lines if re.search(r"(bash|sbatch) .*many_machines/\w+\.sh --", line)]


def test_the_calls_on_the_page_and_in_the_scripts_are_sweeps() -> None:
    assert len(page_calls()) == 8
    for line in page_calls():
        words = shlex.split(line)
        place = next(number for number, word in enumerate(words) if word.endswith(".sh"))
        assert (ROOT / words[place]).is_file()
        assert sweep_options(["sweep", "--model", "m", "--out", "o", *words[place + 1 :]])["tasks"] == "paper"


def test_one_node_gives_each_gpu_its_part(tmp_path: Path) -> None:
    options = {"MODEL": "a/b", "OUT": str(tmp_path / "a b"), "GPUS": "0 2 5"}
    started = recorded(tmp_path, "swiftvlm-eval", "one_node.sh", *TRIAL, **options)
    assert [gpu for gpu, *_ in started] == ["0", "2", "5"]
    for number, (_, *words) in enumerate(started, start=1):
        found = sweep_options(words)
        assert (found["shard"], found["model"], found["out"]) == (f"{number}/3", "a/b", tmp_path / "a b")
        assert (found["methods"], found["limit"]) == ("vanilla,fastv", 2)


def test_one_node_keeps_what_each_process_says(tmp_path: Path) -> None:
    out = tmp_path / "out"
    started = recorded(tmp_path, "swiftvlm-eval", "one_node.sh", *TRIAL, OUT=str(out), GPUS="0 1")
    for part, (_, *words) in enumerate(started, start=1):
        log = (out / f"part-{part}.log").read_text().splitlines()
        assert log == [f"told: {' '.join(words)}", f"warned: {' '.join(words)}"] and f"--shard {part}/2" in log[0]


def test_the_processes_of_one_node_leave_every_record(tmp_path: Path) -> None:
    out = tmp_path / "out"
    started = recorded(tmp_path, "swiftvlm-eval", "one_node.sh", *TRIAL, MODEL="demo", OUT=str(out), GPUS="0 1")
    for _, *words in started:
        status, log, said = run(*words)
        assert status == 0 and "1 configurations" in log and log.count(" done") == 1, said
    runs, problems = load_records([out / "records"])
    assert not problems and sorted(run.record.method.name for run in runs) == ["fastv", "vanilla"]


def test_one_node_tells_of_a_part_that_failed(tmp_path: Path) -> None:
    program = tmp_path / "swiftvlm-eval"
    program.write_text('#!/usr/bin/env bash\n[[ "$*" == *"--shard 1/2"* ]]\n')
    program.chmod(0o755)
    out = tmp_path / "out"
    status, said = call("one_node.sh", path=tmp_path, OUT=str(out), GPUS="0 1")
    assert status == 1 and said.strip() == f"part 2: see {out}/part-2.log"


def test_an_array_job_runs_its_part(tmp_path: Path) -> None:
    options = {"MODEL": "a/b", "OUT": "o", "SLURM_ARRAY_TASK_ID": "3"}
    ((_, *words),) = recorded(tmp_path, "swiftvlm-eval", "slurm_array.sh", *TRIAL, **options)
    assert sweep_options(words)["shard"] == "3/8"
    text = (FOLDER / "slurm_array.sh").read_text(encoding="utf-8")
    assert "#SBATCH --array=1-8" in text and "PARTS=${PARTS:-8}" in text


def test_an_array_job_of_two_would_run_one_configuration(tmp_path: Path) -> None:
    settings = {"MODEL": "demo", "OUT": str(tmp_path / "out"), "PARTS": "2", "SLURM_ARRAY_TASK_ID": "2"}
    ((_, *words),) = recorded(tmp_path, "swiftvlm-eval", "slurm_array.sh", *TRIAL, "--dry-run", **settings)
    status, said, _ = run(*words)
    assert status == 0 and "1 configurations: 1 to run" in said, said
    assert re.search(r"^ +fastv\b.* run ", said, re.MULTILINE) and not (tmp_path / "out").exists()


def test_an_array_job_beyond_the_parts_is_refused(tmp_path: Path) -> None:
    settings = {"SLURM_ARRAY_TASK_ID": "3", "PARTS": "2", "OUT": str(tmp_path / "out")}
    ((_, *words),) = recorded(tmp_path, "swiftvlm-eval", "slurm_array.sh", *TRIAL, **settings)
    status, _, said = run(*words)
    assert status == 1 and "shard='3/2'" in said and not (tmp_path / "out").exists()


def test_an_array_job_ends_with_the_status_of_the_sweep(tmp_path: Path) -> None:
    program = tmp_path / "swiftvlm-eval"
    program.write_text("#!/usr/bin/env bash\necho refused >&2\nexit 7\n")
    program.chmod(0o755)
    assert call("slurm_array.sh", *TRIAL, path=tmp_path, SLURM_ARRAY_TASK_ID="1") == (7, "refused\n")


@pytest.mark.parametrize(
    ("script", "settings", "missing"),
    [
        ("slurm_array.sh", {}, "SLURM_ARRAY_TASK_ID"),
        ("several_nodes.sh", {"NODES": "2", "MAIN": "m"}, "NODE"),
        ("several_nodes.sh", {"NODE": "0", "MAIN": "m"}, "NODES"),
        ("several_nodes.sh", {"NODE": "0", "NODES": "2"}, "MAIN"),
    ],
)
def test_a_setting_that_is_missing_is_named(script: str, settings: dict[str, str], missing: str) -> None:
    status, said = call(script, *TRIAL, **settings)
    assert status != 0 and f"{missing} is not set: " in said


def test_several_nodes_is_one_launch_over_all_gpus(tmp_path: Path) -> None:
    from accelerate.commands.launch import launch_command_parser

    options = {"MODEL": "a/b", "OUT": "/shared/o", "NODE": "1", "NODES": "2", "GPUS": "4", "MAIN": "10.0.0.1"}
    ((_, first, *words),) = recorded(tmp_path, "accelerate", "several_nodes.sh", *TRIAL, **options)
    assert first == "launch"
    found = launch_command_parser().parse_args(words)
    assert (found.num_machines, found.num_processes, found.machine_rank) == (2, 8, 1)
    assert (found.main_process_ip, found.main_process_port, found.multi_gpu) == ("10.0.0.1", 29500, True)
    assert found.module and found.training_script == "swiftvlm_eval.cli"
    assert sweep_options(found.training_script_args)["out"] == Path("/shared/o")


def test_the_pages_estimate_is_that_of_the_command_and_is_called_one() -> None:
    (line,) = re.findall(r"^swiftvlm-eval (estimate .*)$", PAGE, re.MULTILINE)
    told = json.loads(run(*shlex.split(line), "--json")[1])
    total, longest, count = told["total_hours"], max(one["hours"] for one in told["hours"]), len(told["hours"])
    memory = sum(told["memory_gib"].values())
    words = " ".join(PAGE.split())
    assert "**estimates, no measurements**" in words
    assert (
        f"all {count} configurations one after the other: {total:.0f} hours; the longest single one {longest:.1f}"
        in words
    )
    assert f"on 8 GPUs by shards about {total / 8:.0f} hours, on 16 about {total / 16:.0f}; more than {count}" in words
    assert f"{memory:.1f} GiB of GPU memory" in words
