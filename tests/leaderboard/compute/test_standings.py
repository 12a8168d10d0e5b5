"""Pairs, places and power on boards: who takes part, under which names, and what the files say."""

import csv
import io
import itertools
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fake_runs import description, grid, samples_of, write_run
from scipy import stats
from small_runs import RIGHT, one_run, row_of
from test_off_budget import off_budget_board

from swiftvlm_eval.leaderboard.board import Board, Cell, Row, Section
from swiftvlm_eval.leaderboard.build import board_files, collect
from swiftvlm_eval.leaderboard.render.export import board_csv, board_json
from swiftvlm_eval.leaderboard.render.names import page_names
from swiftvlm_eval.leaderboard.render.pairs import pairs_csv
from swiftvlm_eval.results import load_records, shipped_benchmarks


def only_board(folder: Path) -> Board:
    (board,) = collect([folder], shipped_benchmarks())[0]
    return board


def read(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Board:
    folder = tmp_path_factory.mktemp("grid")
    grid(folder, {"best": 0.05, "close": 0.08, "poor": 0.5}, documents=400, seed=2)
    return only_board(folder)


def cells_of(row: Row) -> Mapping[str, Cell]:
    return {**row.cells, **{str(group): cell for group, cell in row.means.items()}}


def test_every_pair_of_a_budget_is_compared_in_every_column_and_group(board: Board) -> None:
    vanilla, *budgets = board.sections
    assert vanilla.comparisons == () and vanilla.detectable == {}
    columns = ("swiftvlm_refcoco_val", "gqa", "localization", "non_localization")
    keys = {benchmark.key for benchmark in board.benchmarks} | set(board.groups)
    assert len(budgets) == 2 and len(keys) == len(columns)
    for section in budgets:
        rows = {row.key: row for row in section.rows}
        pairs = [(each.column, frozenset((each.first, each.second))) for each in section.comparisons]
        expected = [(column, frozenset(pair)) for column in keys for pair in itertools.combinations(rows, 2)]
        assert sorted(pairs, key=str) == sorted(expected, key=str)
        assert set(section.detectable) == keys
        for each in section.comparisons:
            one, other = (cells_of(rows[key])[each.column].relative for key in (each.first, each.second))
            assert one is not None and other is not None and one >= other
            assert each.difference == pytest.approx(one - other, abs=1e-6)
            assert each.low <= each.difference <= each.high
            assert 0 < each.p <= 1


def test_places_agree_with_marks_and_count_the_rows_compared(board: Board) -> None:
    assert board.vanilla is not None and all(cell.rank is None for cell in cells_of(board.vanilla).values())
    for section in board.sections[1:]:
        for row in section.rows:
            for cell in cells_of(row).values():
                assert cell.rank is not None and 1 <= cell.rank[0] <= cell.rank[1] <= 3
                assert cell.mark not in ("best", "tied") or cell.rank[0] == 1
        poor = next(row for row in section.rows if row.label == "poor")
        assert poor.means["localization"].rank == (3, 3)


def test_a_mean_over_one_column_says_what_the_column_says(board: Board) -> None:
    section = board.sections[1]
    by_column = {
        column: [replace(each, column="") for each in section.comparisons if each.column == column]
        for column in ("gqa", "non_localization")
    }
    assert by_column["gqa"] == by_column["non_localization"] != []
    assert section.detectable["gqa"] == section.detectable["non_localization"]


def test_the_smallest_difference_is_in_percent_of_vanilla(tmp_path: Path) -> None:
    """Two rows of 400 documents that disagree on 40, by turns; vanilla is right on 320."""
    vanilla = [1.0] * 320 + [0.0] * 80
    first = [1.0] * 280 + [0.0, 1.0] * 20 + [0.0] * 80
    second = [1.0] * 280 + [1.0, 0.0] * 20 + [0.0] * 80
    for name, scores in (("vanilla", vanilla), ("fastv", first), ("pdrop", second)):
        one_run(tmp_path, name, scores)
    section = only_board(tmp_path).sections[1]
    error = (40 * 400 / 399) ** 0.5 / 320 * 100
    assert section.detectable["gqa"] == pytest.approx(2.8016 * error, rel=0.01)
    (pair,) = [each for each in section.comparisons if each.column == "gqa"]
    assert (pair.difference, pair.p) == (0.0, 1.0)
    assert pair.low == pytest.approx(-pair.high, rel=0.1)
    assert 1.96 * error < pair.high < 1.96 * error * 1.2  # and one unseen event


def test_rows_off_their_budget_take_no_part_and_are_named(tmp_path: Path) -> None:
    board = off_budget_board(tmp_path / "in")
    section = board.sections[1]
    labels = {row.key: row.label for row in section.rows}
    assert {frozenset((labels[each.first], labels[each.second])) for each in section.comparisons} == {
        frozenset(("fastv", "visionzip"))
    }
    for label in ("pdrop", "random"):
        assert all(cell.rank is None for cell in cells_of(row_of(board, label)).values())
    assert cells_of(row_of(board, "fastv"))["gqa"].rank == (1, 2)
    lines = [line for line in read(pairs_csv(board)) if line["column"] == "gqa"]
    assert [(line["first"], line["second"], line["not compared"]) for line in lines] == [
        ("fastv", "visionzip", ""),
        ("pdrop", "", "off budget"),
        ("random", "", "off budget"),
    ]


def test_a_row_without_per_sample_scores_is_named(tmp_path: Path) -> None:
    for name, scores in (("vanilla", RIGHT), ("fastv", RIGHT[1:] + [0.0]), ("pdrop", RIGHT)):
        one_run(tmp_path, name, scores)
    # its lines add up to another score than lmms-eval printed, so that they are of no use
    one_run(tmp_path, "random", RIGHT, values={"gqa": 0.5})
    board = only_board(tmp_path)
    assert row_of(board, "random").cells["gqa"].rank is None
    assert row_of(board, "random").cells["gqa"].mark == "untested"
    lines = [line for line in read(pairs_csv(board)) if line["column"] == "gqa"]
    assert [line["not compared"] for line in lines] == ["", "no per-sample scores on the documents of vanilla"]
    assert lines[1]["first"] == "random"


def test_where_nobody_is_right_or_nobody_else_there_nothing_is_compared(tmp_path: Path) -> None:
    one_run(tmp_path / "zero", "vanilla", RIGHT)
    for name in ("fastv", "pdrop"):
        one_run(tmp_path / "zero", name, [0.0] * 8)
    zero = only_board(tmp_path / "zero").sections[1]
    assert (zero.comparisons, zero.detectable) == ((), {})
    assert all(cell.rank is None for row in zero.rows for cell in row.cells.values())
    one_run(tmp_path / "one", "vanilla", RIGHT)
    one_run(tmp_path / "one", "fastv", RIGHT)
    board = only_board(tmp_path / "one")
    assert board.sections[1].comparisons == () and board.sections[1].rows[0].cells["gqa"].rank is None
    assert not [name for name in board_files(board, {}) if name.endswith("-pairs.csv")]
    assert json.loads(board_json(board))["pairs"] is None


def test_without_vanilla_nothing_is_compared(tmp_path: Path) -> None:
    for name in ("fastv", "pdrop"):
        one_run(tmp_path, name, RIGHT)
    board = collect([tmp_path], shipped_benchmarks())[0][0]
    assert board.sections[0].comparisons == () and board.sections[0].detectable == {}


def test_p_values_of_two_rows_on_a_board_are_mcnemars(tmp_path: Path) -> None:
    first = [1.0] * 30 + [0.0] * 10
    second = [0.0] * 9 + [1.0] * 21 + [1.0] * 2 + [0.0] * 8
    for name, scores in (("vanilla", first), ("fastv", first), ("pdrop", second)):
        one_run(tmp_path, name, scores)
    (pair,) = [each for each in only_board(tmp_path).sections[1].comparisons if each.column == "gqa"]
    assert pair.p == pytest.approx(stats.binomtest(2, 11).pvalue)
    assert pair.difference == pytest.approx(100 * 7 / 30, abs=1e-6)


def test_files_hold_pairs_places_power_and_commands(board: Board) -> None:
    lines = read(pairs_csv(board))
    assert len(lines) == sum(len(section.comparisons) for section in board.sections)
    section = board.sections[1]
    labels = {row.key: row.label for row in section.rows}
    own = [line for line in lines if line["section"] == section.title]
    by_pair = {(each.column, labels[each.first], labels[each.second]): each for each in section.comparisons}
    for line in own:
        each = by_pair[line["column"], line["first"], line["second"]]
        for name in ("difference", "low", "high", "p"):
            assert float(line[name]) == pytest.approx(getattr(each, name))
    table = {(row["section"], row["method"]): row for row in read(board_csv(board))}
    content = json.loads(board_json(board))
    assert content["pairs"] == f"{board.slug}-pairs.csv" and f"{board.slug}-pairs.csv" in board_files(board, {})
    for part, written in zip(board.sections, content["sections"], strict=True):
        assert written["detectable"] == part.detectable
        for row, shown in zip(part.rows, written["rows"], strict=True):
            rank = row.cells["gqa"].rank
            assert shown["cells"]["gqa"]["rank"] == (None if rank is None else list(rank))
            line = table[part.title, row.label]
            assert (line["gqa rank low"], line["gqa rank high"]) == tuple(map(str, rank or ("", "")))
            assert shown["reproduce"] == row.reproduce and set(row.reproduce) == {"sweep", "lmms_eval"}
            assert f"--methods {row.method} " in row.reproduce["sweep"]


def test_a_row_of_two_runs_has_two_commands(tmp_path: Path) -> None:
    for task, metric in (("gqa", "exact_match"), ("textvqa_val", "exact_match")):
        run = description("fastv")
        write_run(tmp_path / task, {task: (metric, samples_of(RIGHT, metric, run))})
    (row,) = collect([tmp_path], shipped_benchmarks())[0][0].rows
    assert [line.partition("--tasks ")[2].split()[0] for line in row.reproduce["sweep"].splitlines()] == [
        next(iter(record.tasks)) for record in row.records
    ]


def test_hostile_labels_run_in_no_spreadsheet(board: Board) -> None:
    section = board.sections[1]
    rows = tuple(replace(row, label=f"=1+{number}\n@x") for number, row in enumerate(section.rows))
    hostile = replace(board, sections=(replace(section, rows=rows),))
    for line in read(pairs_csv(hostile)):
        assert line["first"].startswith("'=1+") and line["second"].startswith("'=1+")


def test_a_board_cannot_take_the_name_of_anothers_pairs() -> None:
    made = page_names({"one": "demo", "other": "demo-pairs"})
    assert made["one"] == "demo" and made["other"].startswith("demo-pairs-")


def test_places_come_of_the_draws_of_the_rows_of_the_budget_alone(tmp_path: Path) -> None:
    """Another budget's rows change nothing."""
    grid(tmp_path / "two", {"best": 0.05, "poor": 0.3}, documents=200, seed=3)
    grid(tmp_path / "one", {"best": 0.05, "poor": 0.3}, documents=200, seed=3, budgets=(1 / 3, 2 / 9))
    for path in sorted((tmp_path / "one").iterdir()):
        if json.loads(next(path.glob("*_samples_gqa.jsonl")).read_text().splitlines()[0])["token_counts"][0][
            "swiftvlm"
        ]["run"]["budget"] == pytest.approx(2 / 9):
            for file in path.iterdir():
                file.unlink()
    both, alone = (section_of(tmp_path / name) for name in ("two", "one"))
    assert both.comparisons == alone.comparisons
    assert [row.cells for row in both.rows] == [row.cells for row in alone.rows]


def section_of(folder: Path) -> Section:
    return only_board(folder).sections[1]


def test_the_committed_records_place_every_row_that_met_its_budget() -> None:
    """The interval of a place holds the place by score, give or take the rows that it could not be told from."""
    records = Path(__file__).resolve().parents[3] / "leaderboards" / "demo" / "records"
    wanted = ("swiftvlm", "random", "v2drop", "feather", "downsample", "vanilla")
    files = [run.path for run in load_records([records])[0] if run.record.method.name in wanted]
    board = collect(files, shipped_benchmarks())[0][0]
    for section in board.sections[1:]:
        for name in ("demo_refcoco", "non_localization"):
            scored = {row.key: cell for row in section.rows if (cell := cells_of(row)[name]).rank is not None}
            off = [row.label for row in section.rows if cells_of(row)[name].mark == "off_budget"]
            assert len(scored) == len(section.rows) - len(off)
            order = sorted(scored, key=lambda key: -(scored[key].relative or 0))
            for place, key in enumerate(order, start=1):
                low, high = scored[key].rank or (0, 0)
                assert low <= place <= high
    assert np.isfinite([value for section in board.sections for value in section.detectable.values()]).all()
