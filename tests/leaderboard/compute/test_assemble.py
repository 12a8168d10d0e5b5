import re
from pathlib import Path
from typing import Any

import pytest
from fake_runs import description, grid, samples_of, write_run
from small_runs import RIGHT, one_run, reasons, row_of

from swiftvlm_eval.leaderboard.board import Board
from swiftvlm_eval.leaderboard.build import collect
from swiftvlm_eval.leaderboard.render.markdown import board_page
from swiftvlm_eval.results import import_run, shipped_benchmarks, write_record

TABLE = shipped_benchmarks()


def only_board(inputs: list[Path]) -> Board:
    (board,) = collect(inputs, TABLE)[0]
    return board


def test_figures_by_hand(tmp_path: Path) -> None:
    one_run(tmp_path / "in", "vanilla", RIGHT)
    one_run(tmp_path / "in", "fastv", [1.0] * 3 + [0.0] * 5)
    board = only_board([tmp_path / "in"])
    vanilla, fastv = board.rows
    assert (vanilla.label, fastv.label) == ("vanilla", "fastv")
    assert (vanilla.cells["gqa"].score, vanilla.cells["gqa"].relative) == (75.0, 100.0)
    assert (fastv.cells["gqa"].score, fastv.cells["gqa"].relative) == (37.5, 50.0)
    assert fastv.means["non_localization"].relative == 50.0
    assert fastv.figures["visual_tokens"] == pytest.approx(192)
    assert fastv.figures["executed_tflops"] == pytest.approx(1.4)
    assert fastv.figures["paper_tflops"] == pytest.approx(1.43)
    assert fastv.figures["implied_speedup"] == pytest.approx(3)
    # Prefill 60, 61, 62 ms by turns against 20, 21, 22 ms; eight documents, so the middle is the second of three.
    assert vanilla.figures["prefill_ms"] == pytest.approx(61)
    assert fastv.figures["prefill_ms"] == pytest.approx(21)
    assert fastv.figures["prefill_speedup"] == pytest.approx(61 / 21)
    assert fastv.figures["merit"] == pytest.approx(61 / 21 / 3)
    total = 0.06 * 8 + 0.001 * (3 * 0 + 3 * 1 + 2 * 2) + 8 * 0.04
    assert vanilla.figures["total_s"] == pytest.approx(total)
    assert fastv.figures["total_speedup"] == pytest.approx(total / (total - 8 * 0.04))


def test_written_records_give_the_same_figures_as_plain_output(tmp_path: Path) -> None:
    for path in grid(tmp_path / "in", {"swiftvlm": 0.1}, documents=40):
        write_record(*import_run(path), tmp_path / "records")
    plain = only_board([tmp_path / "in"])
    stored = only_board([tmp_path / "records"])
    assert [row.cells for row in plain.rows] == [row.cells for row in stored.rows]
    assert [row.figures for row in plain.rows] == [row.figures for row in stored.rows]


def test_vanilla_stands_first_then_budgets_from_large_to_small_best_first(tmp_path: Path) -> None:
    grid(tmp_path, {"bad": 0.5, "good": 0.05}, documents=400, budgets=(2 / 9, 1 / 3))
    board = only_board([tmp_path])
    assert [section.title for section in board.sections] == [
        "Vanilla",
        "Budget 33.3 % (192 of 576 visual tokens per layer)",
        "Budget 22.2 % (128 of 576 visual tokens per layer)",
    ]
    assert [[row.label for row in section.rows] for section in board.sections] == [
        ["vanilla"],
        ["good", "bad"],
        ["good", "bad"],
    ]


def test_best_and_not_significantly_different_rows_are_marked(tmp_path: Path) -> None:
    grid(tmp_path, {"best": 0.06, "close": 0.06, "poor": 0.4}, documents=400, budgets=(1 / 3,), seed=2)
    board = only_board([tmp_path])
    cells = {row.label: row.cells["gqa"] for row in board.sections[1].rows}
    assert cells["poor"].mark == ""
    assert cells["poor"].p_best == 1 / 5000  # the smallest that 4999 sign flips can give
    assert {cells["best"].mark, cells["close"].mark} == {"best", "tied"}
    means = {row.label: row.means["localization"] for row in board.sections[1].rows}
    assert sorted(cell.mark for cell in means.values()) == ["", "best", "tied"]
    assert board.vanilla is not None and board.vanilla.cells["gqa"].mark == ""


def test_intervals_hold_the_figure_and_shrink_with_documents(tmp_path: Path) -> None:
    widths = []
    for documents in (200, 3200):
        grid(tmp_path / str(documents), {"fastv": 0.3}, documents=documents, budgets=(1 / 3,))
        row = only_board([tmp_path / str(documents)]).rows[1]
        for cell in (*row.cells.values(), *row.means.values()):
            assert cell.low is not None and cell.high is not None and cell.relative is not None
            assert cell.low < cell.relative < cell.high
        cell = row.cells["gqa"]
        widths.append((cell.high or 0) - (cell.low or 0))
    assert 3 < widths[0] / widths[1] < 5.3  # 16 times the documents: a quarter of the width


def test_limited_and_complete_runs_never_share_a_table(tmp_path: Path) -> None:
    one_run(tmp_path / "in", "vanilla", RIGHT)
    one_run(tmp_path / "in", "fastv", RIGHT, config={"limit": 8})
    boards, problems = collect([tmp_path / "in"], TABLE, include_limited=True)
    assert [[row.label for row in board.rows] for board in boards] == [["vanilla"], ["fastv"]]
    assert "no vanilla run of the same model and setting" in reasons(problems)


def test_a_missing_vanilla_run_leaves_relative_figures_empty(tmp_path: Path) -> None:
    path = one_run(tmp_path / "in", "fastv", RIGHT)
    boards, problems = collect([tmp_path / "in"], TABLE)
    cell = boards[0].rows[0].cells["gqa"]
    assert (cell.score, cell.relative, cell.low) == (75.0, None, None)
    assert f"{path.name}: no vanilla run" in reasons(problems)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"scores": [1.0] * 9}, "documents scored '9' instead of '8'"),
        ({"prompt": "Please: {}"}, "prompts"),
        ({"version": 2.0}, "task version '2.0' instead of '1.0'"),
    ],
)
def test_unlike_runs_are_not_compared(tmp_path: Path, change: dict[str, Any], reason: str) -> None:
    one_run(tmp_path / "in", "vanilla", RIGHT)
    path = one_run(tmp_path / "in", "fastv", change.pop("scores", RIGHT), stamp="20260203_040506", **change)
    boards, problems = collect([tmp_path / "in"], TABLE)
    assert [row.label for row in boards[0].rows] == ["vanilla"]
    assert f"{path.name}: gqa: not comparable with 20260102_030405_results.json" in reasons(problems)
    assert reason in reasons(problems)


@pytest.mark.parametrize(
    "change",
    [{"dtype": "bfloat16"}, {"image_mode": "hf_default"}, {"revision": "other"}, {"pretrained": "other/model"}],
)
def test_another_setting_is_another_board(tmp_path: Path, change: dict[str, Any]) -> None:
    one_run(tmp_path / "in", "vanilla", RIGHT)
    one_run(tmp_path / "in", "fastv", RIGHT, run=description("fastv", **change))
    boards, problems = collect([tmp_path / "in"], TABLE)
    assert len(boards) == 2
    assert len({board.slug for board in boards}) == 2
    assert all(row.cells["gqa"].relative is None for board in boards for row in board.rows if row.label == "fastv")


def test_of_two_equal_configurations_the_later_counts_and_the_older_is_named(tmp_path: Path) -> None:
    one_run(tmp_path / "in", "vanilla", RIGHT)
    old = one_run(tmp_path / "in" / "old", "fastv", [0.0] * 8, stamp="20260101_000000")
    new = one_run(tmp_path / "in" / "new", "fastv", RIGHT, stamp="20260301_000000")
    boards, problems = collect([tmp_path / "in"], TABLE)
    assert row_of(boards[0], "fastv").cells["gqa"].relative == 100.0
    assert f"{old.name}: gqa: the same configuration was run again; the later {new.name} counts" in reasons(problems)


def test_tasks_of_one_configuration_may_come_from_several_runs(tmp_path: Path) -> None:
    for method in ("vanilla", "fastv"):
        one_run(tmp_path / "in", method, RIGHT)
        lines = samples_of(RIGHT, "pope_accuracy", description(method))
        write_run(tmp_path / "in" / f"{method} pope", {"pope": ("pope_accuracy", lines)}, stamp="20260405_000000")
    board = only_board([tmp_path / "in"])
    assert [sorted(row.cells) for row in board.rows] == [["gqa", "pope"]] * 2
    assert row_of(board, "fastv").means["non_localization"].relative == 100.0
    assert len(row_of(board, "fastv").files) == 2


def test_a_group_mean_needs_all_of_its_tasks(tmp_path: Path) -> None:
    tasks = {
        "gqa": ("exact_match", samples_of(RIGHT, "exact_match", description("vanilla"))),
        "pope": ("pope_accuracy", samples_of(RIGHT, "pope_accuracy", description("vanilla"))),
    }
    write_run(tmp_path / "in" / "vanilla", tasks)
    one_run(tmp_path / "in", "fastv", RIGHT)
    board = only_board([tmp_path / "in"])
    assert board.groups["non_localization"] == ("gqa", "pope")
    assert "non_localization" not in row_of(board, "fastv").means
    assert "no non-localization mean: no score on pope" in row_of(board, "fastv").notes


def test_a_nan_score_and_a_missing_metric_are_named(tmp_path: Path) -> None:
    one_run(tmp_path / "in", "vanilla", RIGHT)
    nan = one_run(tmp_path / "in", "fastv", RIGHT, stamp="20260203_000000", values={"gqa": float("nan")})
    lines = samples_of(RIGHT, "other", description("pdrop"))
    lacking = write_run(tmp_path / "in" / "pdrop", {"gqa": ("other", lines)}, stamp="20260204_000000")
    boards, problems = collect([tmp_path / "in"], TABLE)
    assert [row.label for row in boards[0].rows] == ["vanilla"]
    assert f"{nan.name}: gqa: metric 'exact_match' has no finite value" in reasons(problems)
    assert f"{lacking.name}: gqa: metric 'exact_match' is missing" in reasons(problems)


def test_failed_samples_keep_a_run_out(tmp_path: Path) -> None:
    one_run(tmp_path / "in", "vanilla", RIGHT)
    path = one_run(tmp_path / "in", "fastv", RIGHT, stamp="20260203_000000", expected={"gqa": 9})
    boards, problems = collect([tmp_path / "in"], TABLE)
    assert f"{path.name}: partial run left out: gqa: 8 of 9 documents answered, 1 failed" in reasons(problems)
    assert [row.label for row in boards[0].rows] == ["vanilla"]


def test_a_broken_file_is_named_and_the_rest_is_shown(tmp_path: Path) -> None:
    one_run(tmp_path / "in", "vanilla", RIGHT)
    (tmp_path / "in" / "20260909_000000_results.json").write_text("{")
    (tmp_path / "in" / "other.record.json").write_text('{"format": "somebody else"}')
    boards, problems = collect([tmp_path / "in"], TABLE)
    assert {problem.file for problem in problems} == {"20260909_000000_results.json", "other.record.json"}
    assert len(boards) == 1


def test_a_stock_model_shows_its_score_and_dashes(tmp_path: Path) -> None:
    lines = samples_of(RIGHT, "exact_match", None)
    write_run(tmp_path / "in", {"gqa": ("exact_match", lines)}, model="llava_hf")
    board = only_board([tmp_path / "in"])
    (row,) = board.rows
    assert (row.label, row.cells["gqa"].score, row.figures["visual_tokens"]) == ("llava_hf", 75.0, None)
    assert board.sections[0].title == "Budget not recorded"


def test_a_run_without_samples_stands_alone_and_says_why(tmp_path: Path) -> None:
    one_run(tmp_path / "in", "vanilla", RIGHT)
    one_run(tmp_path / "in", "fastv", [1.0] * 3 + [0.0] * 5, log_samples=False)
    boards, _ = collect([tmp_path / "in"], TABLE)
    (alone,) = [board for board in boards if board.vanilla is None]
    cell = alone.rows[0].cells["gqa"]
    assert (cell.score, cell.relative, cell.low) == (37.5, None, None)
    assert any("unverified run: gqa: no per-sample file" in note for note in alone.notes)


def test_samples_that_do_not_add_up_give_no_interval(tmp_path: Path) -> None:
    one_run(tmp_path / "in", "vanilla", RIGHT)
    path = one_run(tmp_path / "in", "fastv", RIGHT, stamp="20260203_000000", values={"gqa": 0.5})
    boards, problems = collect([tmp_path / "in"], TABLE)
    cell = row_of(boards[0], "fastv").cells["gqa"]
    assert (cell.score, cell.low) == (50.0, None)
    assert f"{path.name}: no interval: per-sample scores of 'gqa' add up to 0.75" in reasons(problems)


def test_other_hardware_is_not_timed_against_vanilla(tmp_path: Path) -> None:
    one_run(tmp_path / "in", "vanilla", RIGHT)
    one_run(tmp_path / "in", "fastv", RIGHT, run=description("fastv", device="Other GPU", attn_implementation="eager"))
    board = only_board([tmp_path / "in"])
    fastv = row_of(board, "fastv")
    assert fastv.figures.get("prefill_speedup") is None
    assert fastv.figures["prefill_ms"] == pytest.approx(21)
    notes = " ".join(fastv.notes)
    assert "not timed against vanilla: device Other GPU (vanilla: Test GPU)" in notes
    assert "attention kernel eager (vanilla: sdpa)" in notes


def test_what_a_reader_must_know_of_a_method_stands_in_the_notes(tmp_path: Path) -> None:
    caveat = "formula known at second hand"
    one_run(tmp_path / "in", "vanilla", RIGHT)
    one_run(tmp_path / "in", "score", RIGHT, run=description("score", caveat=caveat))
    one_run(tmp_path / "in", "fastv", RIGHT)
    board = only_board([tmp_path / "in"])
    assert caveat in row_of(board, "score").notes
    assert any(note.endswith(f"score: {caveat}") for note in board.notes)
    assert not any(caveat in note for name in ("vanilla", "fastv") for note in row_of(board, name).notes)


def test_a_budget_that_was_not_met_is_noted(tmp_path: Path) -> None:
    one_run(tmp_path / "in", "vanilla", RIGHT)
    one_run(tmp_path / "in", "fastv", RIGHT, run=description("fastv", planned_mean=180.0))
    board = only_board([tmp_path / "in"])
    assert any(
        "gqa: executed mean differs from the planned one by +12.0 visual tokens" in note for note in board.notes
    )


def test_options_and_seeds_tell_equal_methods_apart(tmp_path: Path) -> None:
    one_run(tmp_path / "in", "vanilla", RIGHT)
    for layer in (2, 3):
        one_run(
            tmp_path / "in" / str(layer), "fastv", RIGHT, run=description("fastv", options={"layer": layer, "k": 1})
        )
    for seed in (0, 1):
        one_run(tmp_path / "in" / f"seed{seed}", "random", RIGHT, run=description("random", seed=seed))
    board = only_board([tmp_path / "in"])
    assert sorted(row.label for row in board.sections[1].rows) == [
        *("fastv (layer=2)", "fastv (layer=3)", "random (seed=0)", "random (seed=1)")
    ]


def test_a_row_with_an_option_stands_beside_the_one_without(tmp_path: Path) -> None:
    """Both are named as one types them: lists with colons, and an option that was not given by its name."""
    one_run(tmp_path / "in", "vanilla", RIGHT)
    for number, layers in enumerate((None, [2], [2, 16])):
        run = description("fastv", options={"layers": layers, "scope": "all"})
        one_run(tmp_path / "in" / str(number), "fastv", RIGHT, run=run)
    board = only_board([tmp_path / "in"])
    assert sorted(row.label for row in board.sections[1].rows) == [
        *("fastv (layers=2)", "fastv (layers=2:16)", "fastv (layers=default)")
    ]


def test_runs_on_several_machines_are_not_timed(tmp_path: Path) -> None:
    for method in ("vanilla", "fastv"):
        for task, metric, device in (("gqa", "exact_match", "one GPU"), ("pope", "pope_accuracy", "another GPU")):
            lines = samples_of(RIGHT, metric, description(method, device=device))
            write_run(tmp_path / f"{method} {task}", {task: (metric, lines)}, stamp=f"2026040{len(task)}_000000")
    fastv = row_of(only_board([tmp_path]), "fastv")
    assert fastv.figures.get("prefill_speedup") is None
    assert fastv.cells["pope"].relative == 100.0


def test_a_column_without_a_usable_vanilla_score_is_named_and_leaves_the_mean(tmp_path: Path) -> None:
    def tasks(method: str, pope: list[float]) -> dict[str, Any]:
        return {
            "gqa": ("exact_match", samples_of(RIGHT, "exact_match", description(method))),
            "pope": ("pope_accuracy", samples_of(pope, "pope_accuracy", description(method))),
        }

    write_run(tmp_path / "in" / "vanilla", tasks("vanilla", [0.0] * 8), stamp="20260201_000000")
    write_run(tmp_path / "in" / "fastv", tasks("fastv", RIGHT), stamp="20260202_000000")
    boards, problems = collect([tmp_path / "in"], TABLE)
    assert "20260201_000000_results.json: pope: vanilla scored 0: no percentages" in reasons(problems)
    assert boards[0].groups["non_localization"] == ("gqa",)
    assert row_of(boards[0], "fastv").means["non_localization"].relative == pytest.approx(100)
    assert any(sentence.startswith("POPE") and sentence.endswith("no intervals.") for sentence in boards[0].caption)


def test_a_plan_beside_the_budget_is_noted_once(tmp_path: Path) -> None:
    one_run(tmp_path / "in", "vanilla", RIGHT)
    one_run(tmp_path / "in", "downsample", RIGHT, run=description("downsample", budget=2 / 9, planned_mean=144.0))
    one_run(tmp_path / "in", "fastv", RIGHT, run=description("fastv", budget=2 / 9, planned_mean=128.4))
    board = only_board([tmp_path / "in"])
    beside = "144.0 visual tokens per layer planned, the budget is 128.0"
    assert row_of(board, "downsample").notes.count(beside) == 1
    assert not any("the budget is" in note for note in row_of(board, "fastv").notes)


def test_without_vanilla_the_best_still_stands_first(tmp_path: Path) -> None:
    one_run(tmp_path / "in" / "a", "fastv", [1.0] + [0.0] * 7)
    one_run(tmp_path / "in" / "b", "pdrop", RIGHT)
    assert [row.label for row in only_board([tmp_path / "in"]).rows] == ["pdrop", "fastv"]


def test_a_row_that_has_everything_wrong_stands_last_without_vanilla(tmp_path: Path) -> None:
    one_run(tmp_path / "in" / "a", "fastv", [0.0] * 8)
    one_run(tmp_path / "in" / "b", "pdrop", RIGHT)
    assert [row.label for row in only_board([tmp_path / "in"]).rows] == ["pdrop", "fastv"]


def test_two_spellings_of_one_budget_are_told_apart(tmp_path: Path) -> None:
    one_run(tmp_path / "in", "vanilla", RIGHT)
    for budget in (1 / 3, 0.333):
        one_run(tmp_path / "in" / f"{budget}", "fastv", RIGHT, run=description("fastv", budget=budget))
    labels = {row.label for row in only_board([tmp_path / "in"]).sections[1].rows}
    assert labels == {"fastv (budget=0.333)", "fastv (budget=0.3333333333333333)"}


def test_rows_that_could_not_be_tested_say_so(tmp_path: Path) -> None:
    one_run(tmp_path / "in", "vanilla", RIGHT)
    one_run(tmp_path / "in", "fastv", [1.0] * 4 + [0.0] * 4)
    one_run(tmp_path / "in", "pdrop", RIGHT, values={"gqa": 0.8})  # does not add up: no units
    board = only_board([tmp_path / "in"])
    assert {row.label: row.cells["gqa"].mark for row in board.sections[1].rows} == {
        "pdrop": "best",
        "fastv": "untested",
    }
    assert {row.label: row.means["non_localization"].mark for row in board.sections[1].rows} == {
        "pdrop": "best",
        "fastv": "untested",
    }
    page = board_page(board, {})
    assert re.search(r"50\.0 \([\d.]+ %\) \?", page) and "`?`: that could not be tested" in page


def test_a_log_without_image_names_is_not_called_clustered(tmp_path: Path) -> None:
    one_run(tmp_path / "in", "vanilla", RIGHT)
    one_run(tmp_path / "in", "fastv", [0.0, 1.0] * 4)
    caption = " ".join(only_board([tmp_path / "in"]).caption)
    assert "taken as independent, since not every sample names its image" in caption and "by image" not in caption
