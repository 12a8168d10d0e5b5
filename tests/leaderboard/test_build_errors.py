"""What `leaderboard`, `records` and `import` say when something they are given is broken."""

import json
from pathlib import Path

import pytest
from fake_runs import grid, samples_of, write_run
from small_runs import RIGHT, one_run
from typer.testing import CliRunner

from swiftvlm_eval.cli import app


def message(arguments: list[str]) -> str:
    """Runs a command that must fail with one message instead of a traceback."""
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 1 and isinstance(done.exception, SystemExit), (done.exit_code, done.exception)
    return done.output


@pytest.mark.parametrize("content", [b"benchmarks: [}\n", b"\xff\xfe\x00", b"benchmarks: {}\n", b"- 1\n"])
def test_a_broken_benchmark_table_is_named(tmp_path: Path, content: bytes) -> None:
    one_run(tmp_path / "in", "vanilla", RIGHT)
    (tmp_path / "table.yaml").write_bytes(content)
    arguments = ["leaderboard", str(tmp_path / "in"), "--out", str(tmp_path / "out")]
    text = message([*arguments, "--benchmarks", str(tmp_path / "table.yaml")])
    assert text.startswith("error table.yaml is not a benchmark table")
    assert "is a directory" in message([*arguments, "--benchmarks", str(tmp_path)]).lower()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("below", [False, True])
def test_a_file_in_place_of_the_out_folder_is_named(tmp_path: Path, below: bool) -> None:
    path = one_run(tmp_path / "in", "vanilla", RIGHT)
    (tmp_path / "file").write_text("x")
    out = str(tmp_path / "file" / "below" if below else tmp_path / "file")
    for arguments in (["leaderboard", str(tmp_path / "in")], ["import", str(path)]):
        text = message([*arguments, "--out", out])
        assert f"folder {out} cannot be made or written" in text and "allowed is a new or a writable" in text
    assert (tmp_path / "file").read_text() == "x"


def test_a_run_from_the_working_directory_breaks_nothing(tmp_path: Path) -> None:
    grid(tmp_path / "in", {"fastv": 0.2}, documents=16, budgets=(1 / 3,))
    lines = samples_of(RIGHT, "exact_match", None)
    write_run(
        tmp_path / "dot", {"gqa": ("exact_match", lines)}, model="llava_hf", config={"model_args": "pretrained=."}
    )
    bad = write_run(tmp_path / "bad", {"gqa": ("exact_match", lines)}, stamp="20260707_000000")
    bad.write_text(json.dumps({**json.loads(bad.read_text()), "n-samples": {"gqa": {"original": 2}}}))
    made = CliRunner().invoke(app, ["leaderboard", str(tmp_path), "--out", str(tmp_path / "out")])
    assert made.exit_code == 0, made.exception
    assert f"{bad.name}: n-samples of gqa: 'effective' is missing" in made.output
    listed = CliRunner().invoke(app, ["records", str(tmp_path)])
    assert listed.exit_code == 1 and f"refused {bad.name}" in listed.output
    assert "local:" in listed.output


def test_documents_of_an_unlogged_run_are_a_question_mark(tmp_path: Path) -> None:
    one_run(tmp_path, "vanilla", RIGHT, log_samples=False)
    listed = CliRunner().invoke(app, ["records", str(tmp_path)])
    assert "gqa ?/8" in listed.output and "None" not in listed.output
    assert "?: not known without a per-sample file" in listed.output


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs a folder that even root cannot write")
def test_a_folder_that_takes_no_files_is_named(tmp_path: Path) -> None:
    one_run(tmp_path / "in", "vanilla", RIGHT)
    assert "folder /proc/self cannot be made or written" in message(
        ["leaderboard", str(tmp_path / "in"), "--out", "/proc/self"]
    )


def test_nothing_to_list_is_said(tmp_path: Path) -> None:
    assert "neither records nor output of lmms-eval" in " ".join(message(["records", str(tmp_path)]).split())
