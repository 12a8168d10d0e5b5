"""The demo model's card and the README's table, rendered from boards that were made by hand."""

import importlib.util
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
from demo_model.card import read_facts

from swiftvlm_eval.demo import checkpoint_path
from swiftvlm_eval.leaderboard.board import Board, Cell, Row, Section
from swiftvlm_eval.results import shipped_benchmarks

ROOT = Path(__file__).resolve().parents[2]
SHARES = {"fastv (layers=2)": 31.04, "fastv (layers=default)": 64.96, "swift_vlm": 86.7, "tied": 64.96}


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_leaderboards", ROOT / "scripts" / "make_leaderboards.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def board() -> Board:
    benchmark = shipped_benchmarks().benchmarks["demo_refcoco"]
    rows = [
        Row(
            label, label, label.split()[0], 1 / 3, False, {"demo_refcoco": Cell(50.0, relative=share, low=10, high=90)}
        )
        for label, share in SHARES.items()
    ]
    vanilla = replace(rows[0], label="vanilla", is_vanilla=True, cells={"demo_refcoco": Cell(98.96, relative=100.0)})
    sections = (Section("Vanilla", (vanilla,)), Section("Budget 33.3 %", tuple(rows)), Section("22", tuple(rows[:1])))
    return Board("demo", "Demo", True, (benchmark,), {}, sections, (), (), "demo")


def test_both_orders_stand_side_by_side(script: ModuleType, board: Board) -> None:
    earlier = {"rows": [["random", 40.0, 30.0, 50.0], ["fastv", 90.6, 86.9, 93.9]]}
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in script.orders(board, earlier).splitlines()]
    assert lines[2:] == [
        ["1", "fastv 90.6 % [86.9, 93.9]", "swift\\_vlm 86.7 % [10.0, 90.0]"],
        ["2", "random 40.0 % [30.0, 50.0]", "fastv (layers=default) 65.0 % [10.0, 90.0]"],
        ["3", "", "tied 65.0 % [10.0, 90.0]"],
        ["4", "", "fastv (layers=2) 31.0 % [10.0, 90.0]"],
    ]


def test_card_and_readme_carry_option_rows_and_what_they_do_not_show(script: ModuleType, board: Board) -> None:
    facts = read_facts(checkpoint_path().parent)
    card, readme = script.demo_card(board), script.readme(board)
    made = readme.split(script.BEGIN)[1].split(script.END)[0]
    for page in (card, made):
        assert "| fastv (layers=2) " in page and "| fastv (layers=default) " in page
    leader = max(facts["earlier"]["rows"], key=lambda row: row[1])
    assert leader[:2] == ["fastv (layers=2)", 90.6]
    assert "1 | fastv (layers=2) 90.6 % [86.9, 93.9]" in " ".join(card.split())
    said = " ".join(made.split())
    assert "on an earlier checkpoint fastv (layers=2) led grounding with 90.6 % of vanilla" in said
    assert "on this one swift\\_vlm with 86.7 %" in said
    for page in (card, made):
        text = " ".join(page.split())
        assert "test bench" in text and "no evidence" in text and "cover" in text and "documents" in text


def test_every_number_of_the_card_is_filled_in(script: ModuleType, board: Board) -> None:
    card = script.demo_card(board)
    assert "{" not in card.replace("{.", "") and "86.9 % without pruning" in card.replace("\n", " ")
    assert "present one (99.0 %)" in card.replace("\n", " ")
