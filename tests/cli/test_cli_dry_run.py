"""`sweep --dry-run` on the embedded model."""

from pathlib import Path

import pytest
from command_line import run

from swiftvlm_eval.analysis.pace import Pace
from swiftvlm_eval.cli.dry_run import say_hours, say_previews
from swiftvlm_eval.sweep import Configuration, Preview


def test_a_dry_run_says_everything_and_writes_nothing(tmp_path: Path) -> None:
    out = tmp_path / "results"
    options = ("--tasks", "demo_gqa", "--methods", "vanilla,fastv", "--budgets", "1/3,1/30", "--limit", "3")
    status, _, said = run("sweep", "--model", "demo", "--output_path", str(out), *options, "--dry-run")
    assert status == 1 and not out.exists()  # fastv cannot meet 1/30
    assert "demo_gqa: 3 of 640 documents" in said
    assert "fastv 0.0333 refused budget=0.03333 of 144 visual tokens" in said and "feasible with" in said
    assert "3 configurations: 2 to run, 0 stored, 1 refused" in said
    assert (
        "6 answers are missing in 2 configurations: about" in said and "an ESTIMATE: 2 documents of demo_gqa" in said
    )
    assert said.endswith("nothing was written")


def test_a_dry_run_that_can_run_everything_ends_with_0(tmp_path: Path) -> None:
    grid = tmp_path / "grid.yaml"
    grid.write_text("- {method: vanilla}\n- {method: 'fastv[layers=2]', budgets: [1/3]}\n")
    options = ("--tasks", "demo_gqa", "--grid", str(grid), "--limit", "2", "--dry-run")
    status, _, said = run("sweep", "--model", "demo", "--out", str(tmp_path / "out"), *options)
    assert status == 0 and "fastv[layers=2] 0.333 run" in said and not (tmp_path / "out").exists()


def test_the_hours_are_pace_times_answers(capsys: pytest.CaptureFixture[str]) -> None:
    say_hours(7200, Pace("refcoco", 8, 0.5), 3)
    assert "7200 answers are missing in 3 configurations: about 60 min, an ESTIMATE" in capsys.readouterr().out
    say_hours(10, None, 1)
    assert "no task has generated answers" in capsys.readouterr().out
    say_hours(0, None, 0)
    assert "nothing is left to run" in capsys.readouterr().out


def test_labels_are_text_and_stored_answers_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    cell = Configuration("fastv", 0.5, {"layers": "2"})
    say_previews(
        [Preview(cell, "run", answers=7), Preview(cell, "stored"), Preview(cell, "refused", reason="[red]no")]
    )
    said = " ".join(capsys.readouterr().out.split())
    assert "fastv[layers=2] 0.5 run 7 answers are stored" in said and "refused [red]no" in said
    assert "3 configurations: 1 to run, 1 stored, 1 refused" in said
