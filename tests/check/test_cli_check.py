"""The check on the embedded model, as a user starts it."""

from pathlib import Path

from typer.testing import CliRunner

from swiftvlm_eval.cli import app


def test_the_check_of_the_demo_model(tmp_path: Path) -> None:
    arguments = ["check", "--model", "demo", "--tasks", "demo_refcoco,demo_pope", "--samples", "40", "--device", "cpu"]
    done = CliRunner().invoke(app, [*arguments, "--out", str(tmp_path / "check")], env={"COLUMNS": "200"})
    shown = " ".join(done.output.split())
    for gate in ("answers without a box at most 1%", "boxes as fractions at least 99%", "main box frame ahead"):
        assert gate in shown
    assert "no published range for this model and task" in shown
    assert done.exit_code == (1 if " fail " in shown else 0)


def test_a_check_that_cannot_start(tmp_path: Path) -> None:
    options = ["--model", str(tmp_path / "none"), "--tasks", "demo_gqa", "--out", str(tmp_path / "check")]
    done = CliRunner().invoke(app, ["check", *options])
    assert done.exit_code == 1
    assert "no folder with a config.json" in " ".join(done.output.split())
