"""Rows that executed more or fewer visual tokens than their budget."""

import csv
import io
from pathlib import Path

import pytest
from fake_runs import description, samples_of, write_run
from small_runs import RIGHT, one_run, row_of

from swiftvlm_eval.leaderboard import build
from swiftvlm_eval.leaderboard.board import Board
from swiftvlm_eval.leaderboard.build import collect
from swiftvlm_eval.leaderboard.render.export import board_csv
from swiftvlm_eval.leaderboard.render.grid import figures, headings
from swiftvlm_eval.leaderboard.render.markdown import board_page
from swiftvlm_eval.leaderboard.render.terminal import compact
from swiftvlm_eval.results import shipped_benchmarks


def only_board(folder: Path) -> Board:
    (board,) = collect([folder], shipped_benchmarks())[0]
    return board


def off_budget_board(folder: Path) -> Board:
    """Three rows at 1/3 (192 of 576): one that executed 192.5, one 193 and one 205, the best of them."""
    one_run(folder, "vanilla", RIGHT)
    for name, extra, scores in (("fastv", 0.5, RIGHT[1:]), ("pdrop", 1.0, RIGHT), ("random", 13.0, RIGHT)):
        run = description(name)
        lines = samples_of([*scores, 0.0][:8], "exact_match", run)
        for line in lines:
            line["token_counts"][0]["swiftvlm"]["rows_per_layer"] = [[192 + extra, 4]]
        write_run(folder / name, {"gqa": ("exact_match", lines)})
    write_run(
        folder / "other", {"gqa": ("exact_match", samples_of([1.0, 0.0] * 4, "exact_match", description("visionzip")))}
    )
    return only_board(folder)


def test_rows_off_their_budget_by_more_than_half_a_token_say_so_and_are_not_marked(tmp_path: Path) -> None:
    board = off_budget_board(tmp_path / "in")
    for place in ("gqa", "non_localization"):
        cells = {row.label: {**row.cells, **row.means}[place] for row in board.sections[1].rows}
        assert {name: cell.mark for name, cell in cells.items()} == {
            "fastv": "best",
            "visionzip": "tied",
            "pdrop": "off_budget",
            "random": "off_budget",
        }
        assert (cells["random"].executed, cells["random"].asked) == pytest.approx((205, 192))
        assert cells["random"].p_best is None
    assert board.vanilla is not None and board.vanilla.cells["gqa"].mark == ""


def test_a_row_off_its_budget_is_named_in_every_format(tmp_path: Path) -> None:
    board = off_budget_board(tmp_path / "in")
    line = next(line for line in board_page(board, {}).splitlines() if line.startswith("| random"))
    assert line.count("<br>off budget: 205.0 for 192.0 tokens") == 1
    place = [heading.text for heading in headings(board, "cost")].index("GQA")
    assert figures(board, row_of(board, "random"), "cost")[place].flag == "off budget: 205.0 for 192.0 tokens"
    build([tmp_path / "in"], tmp_path / "out")
    page = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    assert page.count("off budget: 205.0 for 192.0 tokens</small>") == 2
    table = {row["method"]: row for row in csv.DictReader(io.StringIO(board_csv(board)))}
    assert (table["random"]["gqa mark"], table["random"]["gqa executed"]) == ("off_budget", "205")
    assert (table["fastv"]["gqa mark"], table["fastv"]["gqa executed"]) == ("best", "192.5")
    short = compact(board, 3)
    place = short.header.index("non-localization mean")
    marks = {texts[0]: texts[place].split(" ")[0].strip("0123456789.") for texts in short.body}
    assert marks == {"vanilla": "", "fastv": "*", "visionzip": "~", "pdrop": "!", "random": "!"}


def test_a_budget_whose_execution_was_not_recorded_is_not_taken_as_met(tmp_path: Path) -> None:
    one_run(tmp_path / "in", "vanilla", RIGHT)
    one_run(tmp_path / "in", "fastv", RIGHT)
    lines = samples_of(RIGHT, "exact_match", description("pdrop"))
    for line in lines:
        line["token_counts"][0]["swiftvlm"]["rows_per_layer"] = None
    write_run(tmp_path / "in" / "pdrop", {"gqa": ("exact_match", lines)})
    board = only_board(tmp_path / "in")
    assert row_of(board, "pdrop").cells["gqa"].mark == "off_budget"
    assert "off budget: tokens not recorded" in board_page(board, {})
