"""Boards that pages are made from, and a real browser (Debian packages chromium and chromium-driver)."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import screenshots
from fake_runs import grid
from hostile_board import EVIL, poisoned

from swiftvlm_eval.leaderboard.board import Board, Cell, Comparison, Row, Section
from swiftvlm_eval.leaderboard.build import collect
from swiftvlm_eval.leaderboard.render.html import Neighbours, html_page
from swiftvlm_eval.results import shipped_benchmarks

COMMANDS = {"sweep": "swiftvlm-eval sweep --methods 'a b'\nsecond line", "lmms_eval": "lmms_eval --config run.yaml"}


@pytest.fixture(scope="session")
def board(tmp_path_factory: pytest.TempPathFactory) -> Board:
    """Five methods (one off its budget) at two budgets; with the fields that statistics fill, as if they had."""
    folder = tmp_path_factory.mktemp("board")
    grid(folder, {"swiftvlm": 0.05, "fastv": 0.3, "visionzip": 0.2, "my_method": 0.5}, documents=80)
    made = collect([folder], shipped_benchmarks())[0][0]
    return replace(made, sections=tuple(_with_statistics(section) for section in made.sections))


def _with_statistics(section: Section) -> Section:
    rows = tuple(replace(_ranked(row, place), reproduce=COMMANDS) for place, row in enumerate(section.rows))
    if rows[0].is_vanilla:
        return section
    missed = replace(rows[-1].cells["gqa"], mark="off_budget", executed=205.0, asked=192.0)
    rows = (*rows[:-1], replace(rows[-1], cells={**rows[-1].cells, "gqa": missed}, notes=("a note",)))
    pair = Comparison("gqa", rows[1].key, rows[0].key, difference=-2.5, low=-6.2, high=1.2, p=0.375)
    return replace(section, rows=rows, comparisons=(pair,), detectable={"gqa": 7.7})


def _ranked(row: Row, place: int) -> Row:
    def ranked(cell: Cell) -> Cell:
        return replace(cell, rank=(max(place, 1), place + 2))

    return replace(row, cells={key: ranked(cell) for key, cell in row.cells.items()})


@pytest.fixture(scope="session")
def page(board: Board, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of the board, with its files beside it."""
    folder = tmp_path_factory.mktemp("page")
    record = board.sections[1].rows[0].files[0]
    (folder / "records").mkdir()
    for name in ("board.csv", "board.json", f"records/{record}"):
        (folder / name).write_text("here")
    near = Neighbours({board.slug: {"CSV": "board.csv", "JSON": "board.json"}}, {record: f"records/{record}"})
    (folder / "index.html").write_text(html_page([board], {}, near), encoding="utf-8")
    return folder / "index.html"


@pytest.fixture(scope="session")
def poisoned_page(board: Board, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("poisoned") / "index.html"
    groups = {group: poisoned(keys) for group, keys in board.groups.items()}
    path.write_text(html_page([replace(poisoned(board), groups=groups)], {EVIL: [EVIL]}), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    try:
        with screenshots.browser() as session:
            yield session
    except FileNotFoundError as error:
        pytest.skip(str(error))
