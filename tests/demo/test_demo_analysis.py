"""The page on the demo model's inside: its words follow its numbers, and its examples their rule."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from demo_analysis import analysis_page
from demo_analysis.ablation import effect_of, printed_shares
from demo_analysis.examples import CASES, choose
from demo_analysis.words import Effect, beside_the_paper

from swiftvlm_eval.leaderboard.board import Comparison, Row, Section
from swiftvlm_eval.leaderboard.compute.paper_table import SHIPPED
from swiftvlm_eval.results import load_records

ROOT = Path(__file__).resolve().parents[2] / "leaderboards"
DEMO = ROOT / "demo"


def row(key: str) -> Row:
    return Row(key=key, label=key, method="swiftvlm", budget=1 / 3, is_vanilla=False)


def change(path: Path, how: Callable[[Any], object]) -> None:
    """Rewrites a JSON file with something in it changed."""
    found = json.loads(path.read_text())
    how(found)
    path.write_text(json.dumps(found))


@pytest.mark.parametrize(
    ("low", "high", "printed", "said"),
    [
        (0.1, 2.0, 3.0, "as in the paper"),
        (-2.0, -0.1, -3.0, "as in the paper"),
        (0.1, 2.0, -3.0, "the other way"),
        (-2.0, -0.1, 3.0, "the other way"),
        (-0.1, 2.0, 3.0, "not shown here"),
        (0.0, 2.0, 3.0, "not shown here"),
    ],
)
def test_a_difference_beside_the_papers(low: float, high: float, printed: float, said: str) -> None:
    assert beside_the_paper(Effect((low + high) / 2, low, high, 0.01), printed) == said


def test_a_pair_that_the_board_holds_the_other_way_round_is_turned() -> None:
    held = Comparison("demo_refcoco", first="a", second="b", difference=3.0, low=1.0, high=4.0, p=0.02)
    section = Section("1/3", (row("a"), row("b"), row("c")), comparisons=(held,))
    assert effect_of(section, "demo_refcoco", row("a"), row("b")) == Effect(3.0, 1.0, 4.0, 0.02)
    assert effect_of(section, "demo_refcoco", row("b"), row("a")) == Effect(-3.0, -4.0, -1.0, 0.02)
    with pytest.raises(ValueError, match="a and c: not compared on demo_refcoco"):
        effect_of(section, "demo_refcoco", row("a"), row("c"))
    with pytest.raises(ValueError, match="not compared on demo_textvqa"):
        effect_of(section, "demo_textvqa", row("a"), row("b"))


def test_the_papers_shares_by_hand() -> None:
    """Table 3 of arXiv 2602.03134 over the unpruned row of table 1: 75.9 and 46.9."""
    shares = printed_shares(SHIPPED / "swiftvlm-table3.yaml")
    assert len(shares) == 8
    assert shares[192, "baseline"]["refcoco"] == pytest.approx(100 * 42.6 / 75.9)
    assert shares[192, "S+M+B"]["textvqa"] == pytest.approx(100 * 45.3 / 46.9)
    assert shares[128, "S"]["refcoco"] == pytest.approx(100 * 42.8 / 75.9)


def test_the_page_says_what_the_numbers_say(tmp_path: Path) -> None:
    """The same page with other numbers: a sure choice, no more held with bypass, alignment of no use."""
    table = SHIPPED / "swiftvlm-table3.yaml"
    for part in ("layers", "overlap", "drift", "examples"):
        shutil.copytree(DEMO / part, tmp_path / part)
    (tmp_path / "ablation").symlink_to(DEMO / "ablation")
    before = analysis_page(tmp_path, table)
    for words in ("which set is best is\n  not certain", "bypass more is held", "* Alignment helps:"):
        assert words in before
    change(tmp_path / "layers" / "layers.json", lambda all_: all_["stability"]["wins"][0].update(share=0.97))
    change(
        tmp_path / "overlap" / "overlap.json",
        lambda all_: all_["methods"][1]["overlap"]["0.05"]["less_first"].update(high=0.01),
    )
    change(
        tmp_path / "drift" / "drift.json",
        lambda all_: all_["methods"][0]["re_entries"][0]["aligned_less"]["stored"]["relative"].update(high=0.01),
    )
    after = analysis_page(tmp_path, table)
    for words in (
        "best in 97%",
        "is\n  clear",
        "bypass not clearly more is held",
        "* Alignment does not help everywhere:",
    ):
        assert words in after


def test_the_examples_are_the_first_documents_of_their_case() -> None:
    chosen = json.loads((DEMO / "examples" / "chosen.json").read_text())
    assert chosen == choose(DEMO / "records")
    assert [one["case"] for one in chosen["documents"]] == list(CASES.values())
    for one in chosen["documents"]:
        facts = json.loads((DEMO / "examples" / f"{one['doc_id']}.json").read_text())
        right = tuple(method["iou"] >= 0.5 for method in facts["methods"])
        assert [method["method"] for method in facts["methods"]] == ["fastv", "swiftvlm"]
        assert CASES[right] == one["case"], "the picture shows what the records say"


def test_the_ablation_is_whole_and_of_one_state_of_the_code() -> None:
    runs, problems = load_records([DEMO / "ablation" / "records"])
    assert not problems and len(runs) == 19
    assert len({run.record.software.commit for run in runs}) == 1
    content = json.loads((DEMO / "layers" / "layers.json").read_text())
    chosen = [run for run in runs if run.record.method.options.get("layers") == content["boundaries"]]
    assert len(chosen) == 6
    assert {run.record.status for run in runs} == {"complete"}
