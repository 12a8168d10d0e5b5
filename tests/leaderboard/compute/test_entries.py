from pathlib import Path

import pytest
from fake_runs import description, samples_of, write_run
from small_runs import RIGHT, one_run, reasons, row_of

from swiftvlm_eval.leaderboard.build import collect
from swiftvlm_eval.leaderboard.compute.entries import group_entries
from swiftvlm_eval.results import load_records, shipped_benchmarks

TABLE = shipped_benchmarks()


def silent(folder: Path, model: str, model_args: str, *, stamp: str, log_samples: bool = False) -> Path:
    lines = samples_of(RIGHT, "exact_match", None)
    tasks = {"gqa": ("exact_match", lines)}
    config = {"model_args": model_args}
    return write_run(folder, tasks, model=model, stamp=stamp, log_samples=log_samples, config=config)


@pytest.mark.parametrize("log_samples", [True, False])
def test_models_that_name_no_checkpoint_never_share_a_board(tmp_path: Path, log_samples: bool) -> None:
    for number, model in enumerate(("llava", "qwen2_5_vl")):
        silent(tmp_path / model, model, "", stamp=f"20260102_00000{number}", log_samples=log_samples)
    boards, _ = collect([tmp_path], TABLE)
    assert sorted(board.title for board in boards) == ["llava", "qwen2_5_vl"]


def test_silent_runs_with_other_arguments_are_rows_of_their_own(tmp_path: Path) -> None:
    for number, budget in enumerate(("0.2", "0.5")):
        silent(tmp_path / budget, "fastv_llava", f"pretrained=a/b,budget={budget}", stamp=f"20260102_00000{number}")
    (board,), problems = collect([tmp_path], TABLE)
    assert sorted(row.label for row in board.rows) == [
        f'fastv_llava (model_args={{"budget": "{budget}"}})' for budget in ("0.2", "0.5")
    ]
    assert "run again" not in reasons(problems)


def test_folders_of_one_name_are_two_models(tmp_path: Path) -> None:
    for method, folder in (("vanilla", "/absent/exp1/checkpoint-500"), ("fastv", "/absent/exp2/checkpoint-500")):
        one_run(tmp_path, method, RIGHT, run=description(method, pretrained=folder, revision=None))
    boards, _ = collect([tmp_path], TABLE)
    assert len({board.title for board in boards}) == 2


@pytest.mark.parametrize("broken", ["later", "earlier"])
def test_a_complete_run_counts_rather_than_a_partial_one(tmp_path: Path, broken: str) -> None:
    stamps = {"earlier": "20260102_000002", "later": "20260302_000003"}
    one_run(tmp_path, "vanilla", RIGHT)
    (whole_stamp,) = (stamp for name, stamp in stamps.items() if name != broken)
    whole = one_run(tmp_path / "whole", "fastv", RIGHT, stamp=whole_stamp)
    part = one_run(tmp_path / "part", "fastv", RIGHT[:4], stamp=stamps[broken], expected={"gqa": 8})
    (board,), problems = collect([tmp_path], TABLE, include_limited=True)
    row = row_of(board, "fastv")
    assert row.files == (whole.name,)
    assert row.cells["gqa"].documents == 8
    kind = "complete" if broken == "later" else "later"
    assert f"{part.name}: gqa: the same configuration was run again; the {kind} {whole.name} counts" in reasons(
        problems
    )


def test_of_two_partial_runs_the_later_counts(tmp_path: Path) -> None:
    for stamp in ("20260102_000002", "20260302_000003"):
        one_run(tmp_path / stamp, "fastv", RIGHT[:4], stamp=stamp, expected={"gqa": 8})
    (entry,), _ = group_entries(load_records([tmp_path])[0])
    assert entry.tasks["gqa"].path.name == "20260302_000003_results.json"
