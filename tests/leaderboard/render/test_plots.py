import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fake_runs import grid
from hypothesis import given
from hypothesis import strategies as st

from swiftvlm_eval.leaderboard.board import Board, Row
from swiftvlm_eval.leaderboard.build import collect
from swiftvlm_eval.leaderboard.render.plots import accuracy_against, bars, board_pictures, pareto_front, render
from swiftvlm_eval.results import shipped_benchmarks


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Board:
    folder = tmp_path_factory.mktemp("grid")
    grid(folder, {"swiftvlm": 0.05, "fastv": 0.2, "_odd$name$": 0.3}, documents=60)
    return collect([folder], shipped_benchmarks())[0][0]


points = st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), min_size=1, max_size=12)


@given(points)
def test_the_front_holds_exactly_the_points_nothing_beats(costs_and_accuracies: list[tuple[int, int]]) -> None:
    given_points = [(float(cost), float(accuracy)) for cost, accuracy in costs_and_accuracies]
    front = pareto_front(given_points)
    beaten = {
        mine
        for mine, other in itertools.product(given_points, repeat=2)
        if other != mine and other[0] <= mine[0] and other[1] >= mine[1]
    }
    assert set(front) == set(given_points) - beaten
    assert front == sorted(set(front))


def test_there_is_a_picture_for_each_cost_and_budget(board: Board) -> None:
    stem = board.slug
    assert list(board_pictures(board)) == [f"{stem}-flops", f"{stem}-prefill", f"{stem}-bars-333", f"{stem}-bars-222"]


def test_points_stand_where_the_figures_are(board: Board) -> None:
    axis = accuracy_against(board, "executed_tflops").axes[0]
    drawn = {
        (round(float(x), 6), round(float(y), 6))
        for container in axis.containers
        for x, y in zip(*container.lines[0].get_data(), strict=True)  # type: ignore[union-attr]
    }
    expected = {
        (round(row.figures["executed_tflops"] or 0, 6), round(row.means["localization"].relative or 0, 6))
        for row in board.rows
        if not row.is_vanilla
    }
    assert drawn == expected
    vanilla = board.rows[0].figures["executed_tflops"] or 0
    assert f"vanilla {vanilla:.3g} T \u2192" in [text.get_text() for text in axis.texts]
    assert axis.get_xlim()[1] < vanilla  # the methods have the axis for themselves


def test_bars_are_as_long_as_the_figures(board: Board) -> None:
    section = board.sections[1]
    axes = bars(board, section).axes
    shown = [each for each in board.benchmarks if any(each.key in row.cells for row in section.rows)]
    for axis, benchmark in zip(axes, shown, strict=True):
        widths = [patch.get_width() for patch in axis.patches]  # type: ignore[attr-defined]
        assert np.allclose(widths, [row.cells[benchmark.key].relative for row in section.rows])  # type: ignore[arg-type]
        places = [patch.get_y() for patch in axis.patches]  # type: ignore[attr-defined]
        assert places == sorted(places) and axis.yaxis_inverted()  # in the board's order, from the top
    labels = [label.get_text().strip().replace("\\", "") for label in axes[0].get_yticklabels()]
    assert labels == [row.label for row in section.rows]


def test_forty_series_are_told_apart_and_fit_the_picture(tmp_path: Path) -> None:
    grid(tmp_path, {f"method{number:02}": 0.1 for number in range(40)}, documents=20, budgets=(1 / 3,))
    board = collect([tmp_path], shipped_benchmarks())[0][0]
    figure = accuracy_against(board, "executed_tflops")
    assert render(figure, "png")  # lays it out
    (legend,) = figure.legends
    assert len(legend.get_texts()) == 41
    box, size = legend.get_window_extent(), figure.bbox
    assert box.y0 >= size.y0 and box.y1 <= size.y1 and box.x0 >= size.x0 and box.x1 <= size.x1
    for axis in figure.axes:  # below the axes: on no title and no point
        assert box.y1 <= axis.get_tightbbox().y0  # type: ignore[union-attr]
    low = bars(board, board.sections[1])
    assert len(low.axes[0].get_yticklabels()) == 40


@pytest.mark.parametrize("kind", ["svg", "png"])
def test_the_same_board_gives_the_same_bytes(board: Board, kind: str) -> None:
    first, second = (render(accuracy_against(board, "prefill_ms"), kind) for _ in range(2))
    assert first == second
    assert first.startswith(b"<?xml" if kind == "svg" else b"\x89PNG")
    assert b"<dc:date>" not in first
    assert b"http-equiv" not in first


def test_odd_names_appear_in_the_legend_as_they_are(board: Board) -> None:
    figure = accuracy_against(board, "executed_tflops")
    labels = [text.get_text().strip() for text in figure.legends[0].get_texts()]
    assert labels == [r"_odd\$name\$", "fastv", "swiftvlm", "Pareto front"]
    assert render(figure, "png")


def test_a_board_without_times_has_no_picture_of_them(tmp_path: Path, board: Board) -> None:
    section = board.sections[1]
    rows = tuple(replace(row, figures={"executed_tflops": 1.0 + n}) for n, row in enumerate(section.rows))
    timeless = replace(board, sections=(replace(section, rows=rows),))
    assert [name for name in board_pictures(timeless) if name.endswith("prefill")] == []


def test_a_method_looks_the_same_on_every_board(tmp_path: Path, board: Board) -> None:
    grid(tmp_path, {"fastv": 0.1, "another": 0.2, "aaa": 0.3}, documents=20, budgets=(1 / 3,))
    other = collect([tmp_path], shipped_benchmarks())[0][0]
    found = []
    for each in (board, other):
        handles = accuracy_against(each, "executed_tflops").legends[0].legend_handles
        found += [(each.get_color(), each.get_marker()) for each in handles if each.get_label() == "fastv"]  # type: ignore[union-attr]
    assert found == [("#0072B2", "^")] * 2


def scaled(board: Board, factor: float) -> Board:
    """The board with its operations many times more or fewer, and nothing else that costs."""

    def changed(row: Row) -> Row:
        return replace(row, figures={"executed_tflops": factor * (row.figures["executed_tflops"] or 0)})

    return replace(
        board, sections=tuple(replace(each, rows=tuple(map(changed, each.rows))) for each in board.sections)
    )


def test_tick_labels_keep_apart_and_flops_have_a_unit_that_fits(board: Board) -> None:
    figure = accuracy_against(scaled(board, 1e-4), "executed_tflops")
    assert render(figure, "png")
    for axis in figure.axes:
        assert axis.get_xlabel() == "executed prefill FLOPs (M)"
        boxes = [label.get_window_extent() for label in axis.get_xticklabels() if label.get_text()]
        boxes = [box for box in boxes if axis.bbox.x0 <= (box.x0 + box.x1) / 2 <= axis.bbox.x1]
        assert len(boxes) > 2
        assert all(left.x1 < right.x0 for left, right in itertools.pairwise(boxes))


def test_a_row_far_below_the_others_stands_at_the_edge_with_its_number(board: Board) -> None:
    section = board.sections[1]
    first = section.rows[0]
    rows = tuple(
        replace(
            first,
            key=f"row{place}",
            label=f"m{place}",
            method=f"m{place}",
            means={"localization": replace(first.means["localization"], relative=value, low=None, high=None)},
            figures={"executed_tflops": 1.0 + place},
        )
        for place, value in enumerate((97.0, 96.0, 95.0, 94.0, 12.0))
    )
    few = replace(board, sections=(board.sections[0], replace(section, rows=rows)))
    axis = accuracy_against(few, "executed_tflops").axes[0]
    assert axis.get_ylim()[0] > 60
    assert "12 \u2193" in [text.get_text() for text in axis.texts]
