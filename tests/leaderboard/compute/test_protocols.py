"""Columns of two protocols on one board: named, and never in one mean."""

import json
from pathlib import Path

import pytest
from fake_runs import description, samples_of, write_run

from swiftvlm_eval.leaderboard.build import collect
from swiftvlm_eval.leaderboard.render.export import board_json
from swiftvlm_eval.leaderboard.render.markdown import board_page
from swiftvlm_eval.results import shipped_benchmarks

STOCK = {"vanilla": [1.0] * 8, "fastv": [1.0] * 4 + [0.0] * 4}
OFFICIAL = {"vanilla": [1.0] * 4 + [0.0] * 4, "fastv": [1.0] * 3 + [0.0] * 5}


def test_both_protocols_are_told_apart_and_never_averaged(tmp_path: Path) -> None:
    for method in STOCK:
        run = description(method)
        tasks = {
            "gqa": ("exact_match", samples_of(STOCK[method], "exact_match", run)),
            "swiftvlm_official_gqa": ("exact_match", samples_of(OFFICIAL[method], "exact_match", run)),
        }
        write_run(tmp_path / method, tasks)
    (board,) = collect([tmp_path], shipped_benchmarks())[0]
    assert board.groups == {"non_localization": ("gqa",), "official": ("gqa_official",)}
    (fastv,) = [row for row in board.rows if row.label == "fastv"]
    # 50 of 100, and 37.5 of 50; their mean, 62.5, stands nowhere.
    assert fastv.means["non_localization"].relative == pytest.approx(50)
    assert fastv.means["official"].relative == pytest.approx(75)
    page = board_page(board, {})
    assert "62.5" not in page
    assert "| GQA | GQA (official) | tokens | cost |" in " ".join(page.split())
    lines = [line for line in board.caption if "documents" in line]
    assert lines[0].startswith("GQA: gqa, exact_match, protocol of lmms-eval, 8 documents")
    assert lines[1].startswith(
        "GQA (official): swiftvlm_official_gqa, exact_match, official protocol (LLaVA's own evaluation scripts), 8 "
    )
    protocols = {key: entry["protocol"] for key, entry in json.loads(board_json(board))["benchmarks"].items()}
    assert protocols == {"gqa": "lmms_eval", "gqa_official": "official"}
