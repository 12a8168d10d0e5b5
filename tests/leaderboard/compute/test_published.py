import csv
import io
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from fake_runs import description, samples_of, write_run

from swiftvlm_eval.leaderboard.board import Board
from swiftvlm_eval.leaderboard.build import build, collect, pages
from swiftvlm_eval.leaderboard.compute.counterparts import _unlike
from swiftvlm_eval.leaderboard.compute.paper_table import SHIPPED, load_published, measures
from swiftvlm_eval.leaderboard.compute.published import Paper, published_boards
from swiftvlm_eval.leaderboard.compute.versus import Comparison, compare, versus_csv, versus_page
from swiftvlm_eval.leaderboard.render.markdown import board_page
from swiftvlm_eval.results import shipped_benchmarks

TABLE = shipped_benchmarks()
FOLDER = SHIPPED


def whole(number: int) -> Paper:
    (found,) = published_boards([load_published(FOLDER / f"swiftvlm-table{number}.yaml", TABLE)], TABLE)
    return found


def paper(number: int) -> Board:
    return whole(number).board


def changed(tmp_path: Path, number: int = 1, **changes: Any) -> Paper:
    """A published table with some of its parts replaced."""
    content = yaml.safe_load((FOLDER / f"swiftvlm-table{number}.yaml").read_text()) | changes
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(content))
    (found,) = published_boards([load_published(path, TABLE)], TABLE)
    return found


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
        ("refcoco: 75.9", "refcoco: .nan", "values.refcoco: "),
        ("model:", "surprise: 1\nmodel:", "surprise"),
        ("rows:", "rows: [", "rows|while parsing"),
        ("rows:", "rows:\n  - {method: fastv, budget: 192, refcoco: 1}", "rows given twice .*: fastv 33.3 %"),
        ("refcoco: 75.9", "refcoco: 75.9, refcoco: 75.9", "given twice: refcoco"),
        ("refcoco: 75.9", "refcoco: 1e300", "values.refcoco: .*1e300"),
        ("budget: 192, refcoco: 30.6", "budget: -192, refcoco: 30.6", "rows.1.budget"),
        (
            "perception total",
            "perception and cognition",
            "columns.mme.metric is 'perception and cognition', our mme is",
        ),
        (
            "no OCR tokens",
            "with OCR tokens",
            "columns.textvqa.metric is 'soft accuracy, with OCR tokens', our textvqa",
        ),
        (
            "comparable: mme",
            "comparable: nothing",
            "columns.mme.comparable is 'nothing'; allowed are false and refcoco,",
        ),
        ("comparable: mme", "comparable: false", "columns.mme: .*gives its .reason."),
        ("comparable: mme", "comparable: mme, reason: because", "columns.mme: .*gives its .reason."),
        ("comparable: mme", "comparable: pope", "columns.mme.metric is 'perception total', our pope is"),
        (
            "comparable: refcoco+}",
            "comparable: refcoco}",
            "columns.refcoco..comparable is 'refcoco', as columns.refcoco is",
        ),
        (
            "exact match, split: not stated",
            "exact match, split: val",
            "columns.gqa.split is 'val', our gqa is 'testdev bal",
        ),
        (
            "exact match, split: not stated, protocol: not stated",
            "exact match, split: not stated, protocol: official",
            "pro",
        ),
        ("  gqa: {metric: exact match,", "  gqa: {metrik: exact match,", "columns.gqa.metric: .*columns.gqa.metrik: "),
        ("  pope: {", "  budget: {", "columns.budget: the key is taken"),
        ("comparable: paper_tflops", "comparable: wall_tflops", "figures.flops_t.comparable"),
        ("  flops_t: {", "  joules: {", "figures.joules"),
        ("rows:", "rows:\n  - {method: a, budget: 1, gqa: 1, stdev: {gqa: 1}}", "stdev goes with .seeds."),
        ("rows:", "rows:\n  - {method: a, budget: 1, gqa: 1, seeds: 0}", "rows.0.seeds"),
    ],
)
def test_a_wrong_file_is_refused_by_name_and_field(tmp_path: Path, old: str, new: str, reason: str) -> None:
    text = (FOLDER / "swiftvlm-table1.yaml").read_text()
    assert old in text
    path = tmp_path / "mine.yaml"
    path.write_text(text.replace(old, new))
    with pytest.raises(ValueError, match=rf"mine.yaml.*({reason})") as error:
        load_published(path, TABLE)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "content", ["[" * 5000, "a: &a [x]\nb: [*a", "- 1", "", "? [1, 2]\n: 3", "? {a: b}\n: 3", "\x00", "1"]
)
def test_what_is_no_table_is_refused_in_one_line(tmp_path: Path, content: str) -> None:
    (tmp_path / "mine.yaml").write_text(content)
    with pytest.raises(ValueError, match=r"^mine.yaml .*$"):
        load_published(tmp_path / "mine.yaml", TABLE)


def test_a_pipe_is_no_table(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "mine.yaml")
    with pytest.raises(ValueError, match="not a regular file"):
        load_published(tmp_path / "mine.yaml", TABLE)


def test_every_column_of_the_paper_sets_says_what_it_measures() -> None:
    assert {*TABLE.sets["paper"], *TABLE.sets["paper_next"]} <= set(measures())


def test_the_mean_of_table_four_is_over_its_four_benchmarks() -> None:
    board = paper(4)
    by_hand = (80.7 / 85.3 + 64.1 / 65.5 + 63.6 / 63.9 + 68.0 / 67.9) / 4 * 100
    assert relative(board, 1 / 3, "swiftvlm", "paper_next") == pytest.approx(by_hand)
    assert "mean of the four" in board_page(board, {})
    assert "paper_next" not in paper(1).groups and "paper_next" not in paper(3).groups


def test_a_page_says_what_its_means_are_and_that_they_are_not_copied() -> None:
    caption = paper(4).caption
    assert "The mean of the four is the plain mean of the ratios of RefCOCO, TextVQA, GQA, MMB." in caption
    assert caption[-1] == "Percentages and means are computed here from the printed scores."
    assert not any("computed here" in sentence for sentence in paper(2).caption)


def test_a_printed_average_is_a_column_in_the_papers_words_and_in_no_mean_of_ours(tmp_path: Path) -> None:
    content = yaml.safe_load((FOLDER / "swiftvlm-table4.yaml").read_text())
    content["columns"]["overall"] = {
        "metric": "mean of four scores",
        "split": "not stated",
        "protocol": "not stated",
        "comparable": False,
        "reason": "an average in the words of the paper",
        "title": "overall",
    }
    content["rows"] = [{**row, "overall": 70.0 if row["method"] == "vanilla" else 63.0} for row in content["rows"]]
    board = changed(tmp_path, 4, **content).board
    (column,) = [each for each in board.benchmarks if each.key == "overall"]
    assert (column.title, column.metric, column.group) == ("overall", "mean of four scores", None)
    assert not any("overall" in members for members in board.groups.values())
    assert board.rows[1].cells["overall"].relative == pytest.approx(90)


def test_flops_have_the_papers_two_decimals() -> None:
    page = board_page(paper(1), {})
    assert " 4.29 |" in page and " 1.30 |" in page and "4.290" not in page


def test_columns_and_methods_that_we_do_not_run_are_shown(tmp_path: Path) -> None:
    columns = {
        "gqa": {"metric": "exact match", "split": "not stated", "protocol": "mine", "comparable": "gqa"},
        "vizwiz": {
            **{"metric": "accuracy", "split": "test", "protocol": "official", "comparable": False},
            **{"reason": "not one of ours", "title": "VizWiz", "digits": 2},
        },
        "average": {
            **{"metric": "mean of both, as printed", "split": "both", "protocol": "mine", "comparable": False},
            "reason": "a mean",
        },
    }
    rows = [
        {"method": "vanilla", "budget": 576, "gqa": 61.0, "vizwiz": 50.0, "average": 100.0},
        {
            "method": "novel",
            "budget": 192,
            "gqa": 60.0,
            "vizwiz": 49.25,
            "average": 98.4,
            "seeds": 4,
            "stdev": {"gqa": 0.5},
        },
    ]
    found = changed(tmp_path, columns=columns, figures={}, rows=rows)
    page = board_page(found.board, {})
    assert "VizWiz" in page and "49.25" in page and "98.4" in page and "novel 192: mean of 4 seeds" in page
    novel = found.board.rows[1]
    assert novel.cells["gqa"].stderr == 0.25
    assert found.board.groups == {"non_localization": ("gqa",)}
    compared = versus_page([found], compare(found, measured(tmp_path / "runs")))
    assert (
        "VizWiz (accuracy): not one of ours" in compared and "average (mean of both, as printed): a mean" in compared
    )
    assert "60.0 → -" in compared


def test_two_files_of_one_table_get_two_pages() -> None:
    table = load_published(FOLDER / "swiftvlm-table1.yaml", TABLE)
    boards = [each.board.slug for each in published_boards([table, table, table], TABLE)]
    stem = "published-2602-03134-table1"
    assert boards == [stem, f"{stem}-part-2", f"{stem}-part-3"]


def one(
    folder: Path, method: str, right: float, budget: float = 1 / 3, share: float | None = None, **run: Any
) -> None:
    """One run of ours on GQA: `right` of ten documents, with FLOPs in the paper's convention (`flops`, T)."""
    flops = run.pop("flops", 4.29 if method == "vanilla" else 1.71)
    described = description(method, budget, **run)
    lines = samples_of([1.0] * int(10 * right) + [0.0] * (10 - int(10 * right)), "exact_match", described)
    for line in lines:
        counts = line["token_counts"][0]["swiftvlm"]
        counts["flops_paper_t"] = flops
        if share is not None:
            counts["rows_per_layer"] = [[576 * share, 4]]
    write_run(folder, {"gqa": ("exact_match", lines)})


def measured(tmp_path: Path) -> list[Board]:
    one(tmp_path / "vanilla", "vanilla", 0.6)
    one(tmp_path / "fastv", "fastv", 0.5)
    return collect([tmp_path], TABLE)[0]


def find(comparisons: list[Comparison], method: str, column: str, share: float = 1 / 3) -> Comparison:
    (found,) = [
        each
        for each in comparisons
        if each.method == method and each.column == column and abs((each.budget or 0) - share) < 1e-3
    ]
    return found


def test_our_score_stands_beside_the_published_one_with_its_interval(tmp_path: Path) -> None:
    comparisons = compare(whole(1), measured(tmp_path))
    fastv = find(comparisons, "fastv", "gqa")
    assert (fastv.published, fastv.ours, fastv.unlike) == (57.2, 50.0, None)
    assert fastv.difference == pytest.approx(-7.2)
    # Ten documents, half right: standard error sqrt(.25 / 9) = 16.67 points, times 1.96.
    assert fastv.low == pytest.approx(-7.2 - 1.959964 * 100 / 6)
    assert fastv.high == pytest.approx(-7.2 + 1.959964 * 100 / 6)
    assert fastv.our_relative == pytest.approx(100 * 5 / 6)
    assert fastv.published_relative == pytest.approx(100 * 57.2 / 61.4)
    assert (fastv.published_tokens, fastv.our_tokens) == (pytest.approx(192), pytest.approx(192))
    assert (fastv.published_tflops, fastv.our_tflops) == (1.71, pytest.approx(1.71))
    assert find(comparisons, "vanilla", "gqa", 1.0).ours == 60.0
    assert find(comparisons, "fastv", "gqa", 2 / 9).ours is None
    assert find(comparisons, "swiftvlm", "gqa").ours is None


@pytest.mark.parametrize(
    ("budget", "alike"), [(0.30, False), (0.34, False), (0.333, True), (1 / 3, True), (0.3345, False)]
)
def test_a_budget_is_the_same_or_not(tmp_path: Path, budget: float, alike: bool) -> None:
    one(tmp_path, "fastv", 0.5, budget, flops=1.71)
    found = find(compare(whole(1), collect([tmp_path], TABLE)[0]), "fastv", "gqa")
    assert (found.ours is not None, found.unlike) == (alike, None)


def test_what_was_executed_decides_not_the_nominal_budget(tmp_path: Path) -> None:
    one(tmp_path, "fastv", 0.5, share=206.5 / 576)
    boards = collect([tmp_path], TABLE)[0]
    found = find(compare(whole(1), boards), "fastv", "gqa")
    assert found.unlike == "ours executed 206.5 visual tokens per layer instead of 192.0"
    assert (found.ours, found.difference, found.our_tokens) == (50.0, None, pytest.approx(206.5))
    page = versus_page([whole(1)], compare(whole(1), boards))
    above, below = page.split("### Not alike")
    assert "50.0" not in above and "192 → 206.5" in below and "GQA 57.2 → 50.0" in below and found.unlike in below


def test_half_a_token_is_alike(tmp_path: Path) -> None:
    for name, share, alike in (("a", 192.4, True), ("b", 192.7, False), ("c", 191.4, False)):
        one(tmp_path / name, "fastv", 0.5, share=share / 576)
        found = find(compare(whole(1), collect([tmp_path / name], TABLE)[0]), "fastv", "gqa")
        assert (found.unlike is None) == alike, name


def test_other_flops_at_one_budget_are_another_configuration(tmp_path: Path) -> None:
    one(tmp_path, "feather", 0.5, flops=1.73)
    found = find(compare(whole(1), collect([tmp_path], TABLE)[0]), "feather", "gqa")
    assert found.unlike == "ours costs 1.73 T, the paper's 1.82 T at the same nominal budget: other counts or layers"
    assert found.difference is None


def test_the_papers_own_counts_are_preferred_and_compared_whatever_mean_they_give(tmp_path: Path) -> None:
    one(tmp_path / "exact", "pdrop", 0.4, flops=1.73)
    own = {"schedule": "paper", "options": {"schedule": "paper"}, "planned_mean": 191.25}
    one(tmp_path / "paper", "pdrop", 0.5, share=191.25 / 576, flops=1.80, **own)
    found = find(compare(whole(1), collect([tmp_path], TABLE)[0]), "pdrop", "gqa")
    assert (found.ours, found.unlike, found.our_tokens) == (50.0, None, pytest.approx(191.25))
    assert found.our_row is not None and found.our_row.endswith("paper's counts")
    one(tmp_path / "off" / "x", "sparsevlm", 0.5, share=200 / 576, **own)
    off = find(compare(whole(1), collect([tmp_path / "off"], TABLE)[0]), "sparsevlm", "gqa")
    assert off.unlike == "ours executed 200.0 visual tokens per layer instead of 191.2"


def test_of_several_rows_none_is_picked_and_it_is_said(tmp_path: Path) -> None:
    for layer in (1, 2):
        one(tmp_path / str(layer), "fastv", 0.5, options={"layer": layer})
    found = find(compare(whole(1), collect([tmp_path], TABLE)[0]), "fastv", "gqa")
    assert found.ours is None
    assert found.unlike == "2 rows of ours at this budget (fastv (layer=1), fastv (layer=2)); none is picked"


def test_what_was_not_recorded_is_not_alike(tmp_path: Path) -> None:
    one(tmp_path, "fastv", 0.5)
    (samples,) = tmp_path.glob("*.jsonl")
    samples.write_text(samples.read_text().replace('"visual_tokens": 576', '"visual_tokens": null'))
    found = find(compare(whole(1), collect([tmp_path], TABLE)[0]), "fastv", "gqa")
    assert found.unlike == "how many visual tokens ours executed was not recorded"


@pytest.mark.parametrize("missing", ["executed_share", "visual_tokens", "budget"])
def test_each_figure_that_is_missing_makes_a_row_unlike(tmp_path: Path, missing: str) -> None:
    (board,) = measured(tmp_path)
    (theirs,) = [row for row in paper(1).rows if row.method == "fastv" and abs((row.budget or 0) - 1 / 3) < 1e-3]
    (ours,) = [row for row in board.rows if row.method == "fastv"]
    assert _unlike(theirs, ours, None) is None
    less = {name: value for name, value in ours.figures.items() if name != missing}
    without = replace(ours, figures=less, budget=None if missing == "budget" else ours.budget)
    assert _unlike(theirs, without, None) == "how many visual tokens ours executed was not recorded"


def test_the_papers_executed_tokens_count_where_it_states_them(tmp_path: Path) -> None:
    rows = [{"method": "fastv", "budget": 192, "executed_tokens": 207.8, "gqa": 57.2}]
    boards = measured(tmp_path / "runs")
    found = find(compare(changed(tmp_path, rows=rows), boards), "fastv", "gqa")
    assert found.unlike == "ours executed 192.0 visual tokens per layer, the paper's 207.8"


def test_the_papers_spread_over_seeds_is_in_the_interval(tmp_path: Path) -> None:
    rows = [{"method": "fastv", "budget": 192, "gqa": 57.2, "seeds": 4, "stdev": {"gqa": 40.0}}]
    found = find(compare(changed(tmp_path, rows=rows), measured(tmp_path / "runs")), "fastv", "gqa")
    half = 1.959964 * ((100 / 6) ** 2 + 20**2) ** 0.5
    assert (found.low, found.high) == (pytest.approx(-7.2 - half), pytest.approx(-7.2 + half))


def test_another_checkpoint_and_an_ablation_are_not_ours(tmp_path: Path) -> None:
    boards = measured(tmp_path)
    assert all(each.ours is None for each in compare(whole(4), boards))
    assert all(each.ours is None for each in compare(whole(3), boards))
    one(tmp_path / "more", "swiftvlm", 0.5)
    lines = samples_of([1.0], "exact_match", description("swiftvlm"))
    write_run(tmp_path / "more2", {"swiftvlm_textvqa_noocr_val": ("exact_match", lines)}, stamp="20260305_000000")
    (found,) = [
        each
        for each in compare(whole(3), collect([tmp_path], TABLE)[0])
        if (each.method, each.column) == ("swiftvlm (S)", "textvqa") and abs((each.budget or 0) - 1 / 3) < 1e-3
    ]
    assert found.ours is None and "a variant of the method" in (found.unlike or "")


def test_missing_figures_are_dashes(tmp_path: Path) -> None:
    found = whole(1)
    comparisons = compare(found, measured(tmp_path))
    page = versus_page([found, whole(2)], comparisons)
    (line,) = [line for line in page.splitlines() if "33.3 %" in line and "| fastv" in line]
    assert "57.2 → 50.0<br>-7.2 [-39.9, 25.5]" in line and "192 → 192.0" in line and "1.71 → 1.71" in line
    assert line.count("→ -") == 8
    assert "table 2" not in page
    rows = list(csv.DictReader(io.StringIO(versus_csv(compare(found, [])))))
    assert len(rows) == 13 * 9
    assert rows[0]["metric"] == "accuracy at IoU 0.5; not stated; not stated"


def test_published_and_measured_rows_never_share_a_table(tmp_path: Path) -> None:
    files = pages(measured(tmp_path), [whole(1)], [])
    own = files["llava-hf-llava-1.5-7b-hf.md"].decode()
    assert "published" not in own and "visionzip" not in own
    theirs = files["published-2602-03134-table1.md"].decode()
    assert "swiftvlm" in theirs and "Test GPU" not in theirs


def test_published_numbers_alone_make_a_leaderboard(tmp_path: Path) -> None:
    report = build([], tmp_path / "out", published=[FOLDER / "swiftvlm-table1.yaml"])
    assert report.boards == ()
    page = (tmp_path / "out" / "published-2602-03134-table1.md").read_text(encoding="utf-8")
    assert "66.6" in page  # SwiftVLM at 192 on RefCOCO, as printed
    with pytest.raises(ValueError, match="nothing to show"):
        build([], tmp_path / "none")
