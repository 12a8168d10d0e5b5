from dataclasses import replace

import pytest
from fake_runs import grid

from swiftvlm_eval.leaderboard.board import Board, Row
from swiftvlm_eval.leaderboard.build import collect
from swiftvlm_eval.leaderboard.render.grid import figures, headings
from swiftvlm_eval.results import shipped_benchmarks


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Board:
    folder = tmp_path_factory.mktemp("grid")
    grid(folder, {"fastv": 0.3}, documents=40, budgets=(1 / 3,))
    return collect([folder], shipped_benchmarks())[0][0]


def with_flops(board: Board, *values: float) -> Board:
    def changed(row: Row, value: float) -> Row:
        return replace(row, figures={**row.figures, "executed_tflops": value})

    sections = tuple(
        replace(section, rows=(changed(section.rows[0], value),))
        for section, value in zip(board.sections, values, strict=True)
    )
    return replace(board, sections=sections)


def test_every_row_has_a_figure_under_every_heading(board: Board) -> None:
    for tables in (("cost",), ("timing",), ("cost", "timing", "export")):
        for row in board.rows:
            assert len(figures(board, row, *tables)) == len(headings(board, *tables))


def test_columns_nobody_fills_are_left_out(board: Board) -> None:
    assert "attributed tokens (per layer)" not in [each.text for each in headings(board, "export")]
    assert "FLOPs (T)" in [each.text for each in headings(board, "cost")]


def test_directions_are_declared(board: Board) -> None:
    better = {each.text: each.better for each in headings(board, "cost", "timing")}
    assert (better["GQA"], better["localization mean"]) == ("higher", "higher")
    assert (better["FLOPs (T)"], better["prefill (ms)"], better["prefill speed-up (x)"]) == (
        "lower",
        "lower",
        "higher",
    )


def test_tiny_figures_keep_three_digits_that_mean_something(board: Board) -> None:
    place = [each.text for each in headings(board, "cost")].index("FLOPs (T)")

    def shown(*values: float) -> list[str]:
        changed = with_flops(board, *values)
        own = [figures(changed, row, "cost")[place].lines[0] for row in changed.rows]
        return [headings(changed, "cost")[place].text, *own]

    assert shown(4.2, 1.4) == ["FLOPs (T)", "4.20", "1.40"]
    assert shown(0.00123456, 0.000456789) == ["FLOPs (G)", "1.23", "0.46"]
    assert shown(0.00045, 0.000075) == ["FLOPs (M)", "450.0", "75.00"]
