"""The leaderboard of a terminal: never wider than 100 columns, nothing cut."""

import io
from dataclasses import replace

import pytest
from fake_runs import grid
from rich.console import Console

from swiftvlm_eval.cli import board_table
from swiftvlm_eval.cli.board_table import print_board
from swiftvlm_eval.leaderboard.board import Board, Cell, Row
from swiftvlm_eval.leaderboard.build import collect
from swiftvlm_eval.leaderboard.render.terminal import compact
from swiftvlm_eval.results import shipped_benchmarks


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Board:
    folder = tmp_path_factory.mktemp("grid")
    grid(folder, {"fastv": 0.3}, documents=40, budgets=(1 / 3,))
    return collect([folder], shipped_benchmarks())[0][0]


def with_row(board: Board, row: Row) -> Board:
    section = replace(board.sections[1], rows=(row,))
    return replace(board, sections=(board.sections[0], section))


def printed(board: Board, monkeypatch: pytest.MonkeyPatch, columns: int) -> list[str]:
    file = io.StringIO()
    monkeypatch.setattr(board_table, "console", Console(file=file, width=columns))
    print_board(board)
    return file.getvalue().splitlines()


def test_a_row_has_means_with_marks_tokens_and_cost(board: Board) -> None:
    means = {
        "localization": Cell(relative=87.654, low=80.01, high=93.96, mark="best"),
        "non_localization": Cell(relative=50.0, mark="off_budget"),
    }
    figures = {"visual_tokens": 192.04, "executed_tflops": 1.0}
    row = replace(board.rows[1], means=means, figures=figures, label="fastv", budget=2 / 9)
    vanilla = replace(board.rows[0], figures={"executed_tflops": 4.0})
    changed = with_row(replace(board, sections=(replace(board.sections[0], rows=(vanilla,)), board.sections[1])), row)
    short = compact(changed, 6)
    assert short.header == ("method", "budget", "localization mean", "non-localization mean", "tokens", "FLOPs")
    assert short.body[1] == ("fastv", "22.2 %", "87.7* [80.0, 94.0]", "50.0!", "192.0", "0.25")


def test_without_group_means_scores_are_shown_and_what_is_left_out_is_said(board: Board) -> None:
    bare = replace(board, sections=tuple(
        replace(each, rows=tuple(replace(row, means={}) for row in each.rows)) for each in board.sections
    ))  # fmt: skip
    short = compact(bare, 1)
    assert short.header[2:-2] == ("RefCOCO",) and "1 more columns on the pages" in short.legend
    assert short.legend.startswith("scores")
    assert short.body[0][2] == f"{board.rows[0].cells['refcoco'].score:.1f}"


def test_what_is_missing_is_a_dash(board: Board) -> None:
    short = compact(with_row(board, replace(board.rows[1], means={}, figures={}, budget=None)), 6)
    assert short.body[1][1:] == ("-", "-", "-", "-", "-")


@pytest.mark.parametrize("columns", [40, 80, 100, 300])
@pytest.mark.parametrize("label", ["fastv", "swiftvlm (layers=3:10:14, merge=false, bypass=false, anchors=strided)"])
def test_it_fits_100_columns_whole(board: Board, monkeypatch: pytest.MonkeyPatch, columns: int, label: str) -> None:
    lines = printed(with_row(board, replace(board.rows[1], label=label)), monkeypatch, columns)
    assert max(map(len, lines)) <= 100
    shown = "".join(line[:40].strip() + " " for line in lines)
    assert all(word.strip("(,)") in shown for word in label.split())
    assert not any("…" in line for line in lines)
    assert any(line.rstrip().endswith(compact(board, 6).body[1][-1]) for line in lines)


def test_many_benchmarks_do_not_make_it_wider(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = [f"b{number}" for number in range(12)]
    benchmarks = tuple(replace_title(board, key, f"Benchmark {key} (official prompt, locally)") for key in keys)
    cells = {key: Cell(score=1234.5, mark="tied") for key in keys}
    rows = [replace(row, means={}, cells=cells) for row in board.rows]
    wide = replace(with_row(board, rows[1]), benchmarks=benchmarks, groups={})
    lines = printed(wide, monkeypatch, 80)
    assert max(map(len, lines)) <= 100 and "more columns on the pages" in "\n".join(lines)
    assert "1234.5~" in "\n".join(lines)


def replace_title(board: Board, key: str, title: str) -> object:
    return board.benchmarks[0].model_copy(update={"key": key, "title": title})


def test_a_hostile_label_is_text(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    hostile = "[red]x[/] \x1b[2J\x07 evil"
    text = "\n".join(printed(with_row(board, replace(board.rows[1], label=hostile)), monkeypatch, 100))
    assert "[red]x[/]" in text and "\x1b" not in text and "\x07" not in text
