from pathlib import Path

import pytest
from fake_runs import description, samples_of, write_run

from swiftvlm_eval.leaderboard.board import Board
from swiftvlm_eval.leaderboard.build import build, collect, pages
from swiftvlm_eval.leaderboard.markdown import board_page
from swiftvlm_eval.leaderboard.published import load_published, published_board
from swiftvlm_eval.leaderboard.versus import Comparison, compare, versus_csv, versus_page
from swiftvlm_eval.results import shipped_benchmarks

TABLE = shipped_benchmarks()
FOLDER = Path(__file__).resolve().parents[2] / "leaderboards" / "published"


def paper(number: int) -> Board:
    return published_board(load_published(FOLDER / f"swiftvlm-table{number}.yaml", TABLE), TABLE)


def relative(board: Board, share: float, label: str, group: str) -> float:
    (row,) = [row for row in board.rows if row.label == label and abs((row.budget or 0) - share) < 1e-3]
    value = row.means[group].relative  # type: ignore[index]
    assert value is not None
    return value


def test_all_four_tables_load() -> None:
    assert [path.name for path in sorted(FOLDER.glob("*.yaml"))] == [f"swiftvlm-table{n}.yaml" for n in (1, 2, 3, 4)]
    assert [len(paper(number).rows) for number in (1, 2, 3, 4)] == [13, 7, 9, 7]


def test_group_means_are_plain_means_of_ratios() -> None:
    board = paper(1)
    by_hand = (66.6 / 75.9 + 58.5 / 67.0 + 60.6 / 70.7) / 3 * 100
    assert relative(board, 1 / 3, "swiftvlm", "localization") == pytest.approx(by_hand)
    assert f"{by_hand:.1f}" == "86.9"
    others = [(45.3, 46.9), (60.7, 61.4), (69.0, 69.6), (1503, 1509), (64.5, 64.6), (87.1, 86.8)]
    expected = sum(ours / base for ours, base in others) / 6 * 100
    assert relative(board, 1 / 3, "swiftvlm", "non_localization") == pytest.approx(expected)


def test_speedups_come_from_the_papers_own_vanilla() -> None:
    swift = next(row for row in paper(2).rows if row.label == "swiftvlm" and abs((row.budget or 0) - 1 / 3) < 1e-3)
    assert swift.figures["prefill_speedup"] == pytest.approx(67.3 / 37.6)
    assert swift.figures["total_speedup"] == pytest.approx(850.7 / 573.8)
    flops = next(row for row in paper(1).rows if row.label == "swiftvlm")
    assert flops.figures["implied_speedup"] == pytest.approx(4.29 / 1.75)


def test_shares_stand_for_budgets_where_images_differ() -> None:
    assert [section.title for section in paper(4).sections] == ["Vanilla", "Budget 33.3 %", "Budget 22.2 %"]


def test_a_page_says_that_nothing_was_measured() -> None:
    page = board_page(paper(1), {})
    assert "Nothing on this page was measured here." in page
    assert "arXiv 2602.03134, table 1" in page
    assert "our own vanilla" not in page


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("refcoco: 75.9", "refcoko: 75.9", "refcoko"),
        ("budget: 192", "budget: 1920", "more than all visual tokens"),
        ("budget: 192", "budget: many", "budget"),
        ("table: 1", "table: one", "table"),
        ("2602.03134", "see the web", "arxiv"),
        ("refcoco: 75.9", "refcoco: .nan", "values.refcoco"),
        ("model:", "surprise: 1\nmodel:", "surprise"),
        ("rows:", "rows: [", "rows|while parsing"),
        ("rows:", "rows:\n  - {method: fastv, budget: 192, refcoco: 1}", "rows given twice .*: fastv 192"),
    ],
)
def test_a_wrong_file_is_refused_by_name_and_field(tmp_path: Path, old: str, new: str, reason: str) -> None:
    text = (FOLDER / "swiftvlm-table1.yaml").read_text()
    assert old in text
    path = tmp_path / "mine.yaml"
    path.write_text(text.replace(old, new))
    with pytest.raises(ValueError, match=rf"(?s)mine.yaml.*({reason})"):
        load_published(path, TABLE)


def measured(tmp_path: Path) -> list[Board]:
    scores = {"vanilla": [1.0] * 6 + [0.0] * 4, "fastv": [1.0] * 5 + [0.0] * 5}
    for method, right in scores.items():
        lines = samples_of(right, "exact_match", description(method))
        write_run(tmp_path / method, {"gqa": ("exact_match", lines)})
    return collect([tmp_path], TABLE)[0]


def find(comparisons: list[Comparison], method: str, benchmark: str, share: float = 1 / 3) -> Comparison:
    (found,) = [
        each
        for each in comparisons
        if each.method == method and each.benchmark == benchmark and abs((each.budget or 0) - share) < 1e-3
    ]
    return found


def test_our_score_stands_beside_the_published_one_with_its_interval(tmp_path: Path) -> None:
    comparisons = compare(paper(1), measured(tmp_path))
    fastv = find(comparisons, "fastv", "gqa")
    assert (fastv.published, fastv.ours) == (57.2, 50.0)
    assert fastv.difference == pytest.approx(-7.2)
    # Ten documents, half right: standard error sqrt(.25 / 9) = 16.67 points, times 1.96.
    assert fastv.low == pytest.approx(-7.2 - 1.959964 * 100 / 6)
    assert fastv.high == pytest.approx(-7.2 + 1.959964 * 100 / 6)
    assert fastv.our_relative == pytest.approx(100 * 5 / 6)
    assert fastv.published_relative == pytest.approx(100 * 57.2 / 61.4)
    assert find(comparisons, "vanilla", "gqa", 1.0).ours == 60.0
    assert find(comparisons, "fastv", "gqa", 2 / 9).ours is None
    assert find(comparisons, "swiftvlm", "gqa").ours is None


def test_another_checkpoint_and_an_ablation_are_not_ours(tmp_path: Path) -> None:
    boards = measured(tmp_path)
    assert all(each.ours is None for each in compare(paper(4), boards))
    assert all(each.ours is None for each in compare(paper(3), boards))


def test_missing_figures_are_dashes(tmp_path: Path) -> None:
    board = paper(1)
    page = versus_page([board, paper(2)], compare(board, measured(tmp_path)))
    (line,) = [line for line in page.splitlines() if "33.3 %" in line and "| fastv" in line]
    assert "57.2 → 50.0<br>-7.2 [-39.9, 25.5]" in line
    assert line.count("→ -") == 8
    assert "table 2" not in page
    assert len(versus_csv(compare(board, [])).splitlines()) == 1 + 13 * 9


def test_published_and_measured_rows_never_share_a_table(tmp_path: Path) -> None:
    files = pages(measured(tmp_path), [paper(1)], [])
    own = files["llava-hf-llava-1.5-7b-hf.md"].decode()
    assert "published" not in own and "visionzip" not in own
    theirs = files["published-2602-03134-table1.md"].decode()
    assert "swiftvlm" in theirs and "Test GPU" not in theirs


def test_published_numbers_alone_make_a_leaderboard(tmp_path: Path) -> None:
    report = build([], tmp_path / "out", published=sorted(FOLDER.glob("*.yaml")))
    assert report.boards == ()
    page = (tmp_path / "out" / "published-2602-03134-table1.md").read_text(encoding="utf-8")
    assert "66.6" in page  # SwiftVLM at 192 on RefCOCO, as printed
    with pytest.raises(ValueError, match="nothing to show"):
        build([], tmp_path / "none")
