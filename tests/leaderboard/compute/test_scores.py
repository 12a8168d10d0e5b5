import itertools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from small_runs import RIGHT, one_run, reasons

from swiftvlm_eval.leaderboard.board import Cell
from swiftvlm_eval.leaderboard.build import collect
from swiftvlm_eval.leaderboard.compute import statistics
from swiftvlm_eval.leaderboard.compute.scores import ColumnScores, Resampling, column_p_values, marked, mean_p_values
from swiftvlm_eval.leaderboard.compute.units import Units
from swiftvlm_eval.results import shipped_benchmarks

COLUMNS = shipped_benchmarks().benchmarks
Floats = NDArray[np.float64]


def units(values: Floats, ids: list[str], clustered: bool = True) -> Units:
    expected = np.full(values.size, values.mean())
    return Units(np.array(ids), values, expected, clustered=clustered, named=True)


def column(key: str, scores: dict[str, Floats], ids: list[str], clustered: bool = True) -> ColumnScores:
    cells = {name: Cell(score=float(values.sum()) * 100) for name, values in scores.items()}
    return ColumnScores(
        COLUMNS[key], cells, {name: units(values, ids, clustered) for name, values in scores.items()}, "vanilla"
    )


@pytest.fixture
def shared() -> tuple[dict[str, Floats], list[str]]:
    rng = np.random.default_rng(5)
    vanilla = rng.integers(1, 5, 40) / 160
    scores = {"vanilla": vanilla, **{name: vanilla * rng.random(40) for name in "abc"}}
    return scores, [f"image {index:03d}" for index in range(40)]


@pytest.mark.parametrize("batch", [100, 4_000_000])
def test_columns_on_the_same_images_draw_the_same_images(
    shared: tuple[dict[str, Floats], list[str]], monkeypatch: pytest.MonkeyPatch, batch: int
) -> None:
    monkeypatch.setattr(statistics, "_BATCH_NUMBERS", batch)
    scores, ids = shared
    fewer = {name: scores[name] for name in ("vanilla", "a")}
    drawn = Resampling([column("refcoco", scores, ids), column("refcoco+", fewer, ids)], resamples=200)
    one, other = drawn.draws("refcoco", "a"), drawn.draws("refcoco+", "a")
    assert one is not None and other is not None
    assert np.allclose(one.middle, other.middle, rtol=1e-12)
    alone = drawn.interval(["refcoco"], "a")
    both = drawn.interval(["refcoco", "refcoco+"], "a")
    # One event that was not seen weighs half as much in the mean of two columns.
    assert alone is not None and both is not None and alone[0] < both[0] < both[1] < alone[1]
    assert drawn.interval(["refcoco", "refcoco+"], "b") is None


def test_columns_on_other_images_are_drawn_independently(shared: tuple[dict[str, Floats], list[str]]) -> None:
    scores, ids = shared
    drawn = Resampling([column("refcoco", scores, ids), column("gqa", scores, ids)], resamples=2000)
    one, other = drawn.draws("refcoco", "a"), drawn.draws("gqa", "a")
    assert one is not None and other is not None
    assert abs(np.corrcoef(one.middle, other.middle)[0, 1]) < 0.08
    both = statistics.mean_of([one, other]).middle
    assert both.std() == pytest.approx(one.middle.std() / np.sqrt(2), rel=0.08)


def test_images_of_one_column_only_count_as_nothing_in_the_other(shared: tuple[dict[str, Floats], list[str]]) -> None:
    scores, ids = shared
    half = {name: values[:20] for name, values in scores.items()}
    drawn = Resampling([column("refcoco", scores, ids), column("refcocog", half, ids[:20])], resamples=2000)
    joint = drawn.draws("refcocog", "a")
    alone = Resampling([column("refcocog", half, ids[:20])], resamples=2000).draws("refcocog", "a")
    assert joint is not None and alone is not None
    assert joint.middle.mean() == pytest.approx(alone.middle.mean(), rel=0.02)
    assert joint.middle.std() == pytest.approx(alone.middle.std(), rel=0.15)


def test_other_units_than_vanillas_have_no_interval(shared: tuple[dict[str, Floats], list[str]]) -> None:
    scores, ids = shared
    made = column("refcoco", scores, ids)
    foreign = {**made.units, "b": units(scores["b"][1:], ids[1:])}
    drawn = Resampling([ColumnScores(made.benchmark, made.cells, foreign, "vanilla")], resamples=50)
    assert drawn.draws("refcoco", "b") is None
    assert drawn.draws("refcoco", "a") is not None


def test_marks_follow_the_adjusted_p_values() -> None:
    cells = {name: Cell(score=score) for name, score in (("a", 70.0), ("b", 69.0), ("c", 66.0), ("d", 50.0))}
    made = marked(cells, {"a": 1.0, "b": 0.4, "c": 0.050001, "d": 0.05})
    assert {name: cell.mark for name, cell in made.items()} == {"a": "best", "b": "tied", "c": "tied", "d": ""}
    assert [made[name].p_best for name in "abcd"] == [None, 0.4, 0.050001, 0.05]


def test_a_lone_row_is_not_the_best_and_an_untested_row_says_so() -> None:
    assert marked({"a": Cell(score=1.0)}, {})["a"].mark == ""
    rows = {"a": Cell(score=2.0), "b": Cell(score=1.0), "c": Cell()}
    assert [marked(rows, {})[name].mark for name in "abc"] == ["best", "untested", ""]
    assert [marked(rows, None)[name].mark for name in "abc"] == ["best", "", ""]


def test_equal_scores_are_both_best_however_they_were_added_up() -> None:
    made = marked({"a": Cell(score=0.3), "b": Cell(score=0.1 + 0.2), "c": Cell(score=0.1)}, {"c": 0.01})
    assert [made[name].mark for name in "abc"] == ["best", "best", ""]


@pytest.mark.parametrize("p_values", [{"a": 1.0, "b": 1.0, "c": 1.0}, {}, None])
def test_nobody_is_best_or_as_good_as_the_best_where_all_scored_zero(p_values: dict[str, float] | None) -> None:
    made = marked({name: Cell(score=0.0, relative=0.0) for name in "abc"}, p_values)
    assert [made[name].mark for name in "abc"] == ["", "", ""]


def test_rows_off_their_budget_are_neither_best_nor_tested(shared: tuple[dict[str, Floats], list[str]]) -> None:
    scores, ids = shared
    made = column("refcoco", {**scores, "top": scores["vanilla"] * 0.99}, ids)
    cells = {name: made.cells[name] for name in ("a", "b", "top")}
    assert set(column_p_values(made, cells)) == {"a", "b", "top"}
    cells["top"] = replace(cells["top"], mark="off_budget")
    p_values = column_p_values(made, cells)
    assert set(p_values) == {"a", "b"}
    marks = {name: cell.mark for name, cell in marked(cells, p_values).items()}
    assert marks["top"] == "off_budget" and "best" in {marks["a"], marks["b"]}


def test_p_values_are_those_of_the_rows_of_one_budget(shared: tuple[dict[str, Floats], list[str]]) -> None:
    scores, ids = shared
    made = column("refcoco", {**scores, "best": scores["vanilla"] * 0.99}, ids)
    p_values = column_p_values(made, {name: made.cells[name] for name in ("a", "b", "best")})
    assert set(p_values) == {"a", "b", "best"}
    assert p_values["best"] == 1.0 and p_values["a"] < 0.001 and p_values["b"] < 0.001
    assert column_p_values(made, {"a": made.cells["a"]}) == {}


def test_rows_without_the_best_rows_units_are_not_tested(shared: tuple[dict[str, Floats], list[str]]) -> None:
    scores, ids = shared
    made = column("refcoco", {**scores, "best": scores["vanilla"] * 0.99}, ids)
    cells = {name: made.cells[name] for name in ("a", "b", "best")}
    without = {name: each for name, each in made.units.items() if name != "b"}
    assert set(column_p_values(replace(made, units=without), cells)) == {"a", "best"}
    without = {name: each for name, each in made.units.items() if name != "best"}
    assert column_p_values(replace(made, units=without), cells) == {}


def means_of(columns: list[ColumnScores], names: tuple[str, ...]) -> dict[str, Cell]:
    return {
        name: Cell(
            relative=float(np.mean([100 * (c.cells[name].score or 0) / (c.vanilla_score or 1) for c in columns]))
        )
        for name in names
    }


def test_the_mean_over_one_column_is_tested_as_the_column() -> None:
    rng = np.random.default_rng(3)
    right = rng.random(40) < 0.8
    lost = right.copy()
    lost[np.flatnonzero(right)[:5]] = False  # five losses, no win: exact binomial p = 2 / 2**5
    scores = {name: values / 40 for name, values in (("vanilla", right), ("best", right), ("worse", lost))}
    made = column("gqa", scores, [f"doc {number:02d}" for number in range(40)], clustered=False)
    p_values = mean_p_values(means_of([made], ("best", "worse")), [made])
    assert p_values == {"best": 1.0, "worse": pytest.approx(2 / 2**5)}
    assert p_values == column_p_values(made, {name: made.cells[name] for name in ("best", "worse")})


def test_group_means_are_tested_on_the_images_of_all_their_columns() -> None:
    """Twelve images in two columns; the sign flips of the images' sums, all 4096 counted here."""
    rng = np.random.default_rng(10)
    ids = [f"image {number:02d}" for number in range(12)]
    first = {name: rng.integers(low, 5, 12) / 60 for name, low in (("a", 1), ("b", 0))}
    second = {name: rng.integers(low, 3, 12) / 30 for name, low in (("a", 1), ("b", 0))}
    first["vanilla"], second["vanilla"] = np.full(12, 4 / 60), np.full(12, 2 / 30)
    columns = [column("refcoco", first, ids), column("refcoco+", second, ids)]
    p_values = mean_p_values(means_of(columns, ("a", "b")), columns)
    sums = (first["a"] - first["b"]) / first["vanilla"].sum() + (second["a"] - second["b"]) / second["vanilla"].sum()
    flips = np.array(list(itertools.product((1, -1), repeat=12))) @ sums
    expected = np.mean(np.abs(flips) >= abs(sums.sum()) - 1e-9)
    assert sorted(p_values.values()) == [pytest.approx(expected), 1.0]
    assert 0.01 < expected < 0.5


def test_equal_rows_have_equal_means(shared: tuple[dict[str, Floats], list[str]]) -> None:
    scores, ids = shared
    close = {**scores, "best": scores["vanilla"] * 0.99, "twin": scores["vanilla"] * 0.99}
    columns = [column("refcoco", close, ids), column("refcoco+", close, ids)]
    p_values = mean_p_values(means_of(columns, ("a", "best", "twin")), columns)
    assert p_values["a"] < 0.01
    assert p_values["best"] == p_values["twin"] == 1.0


def test_one_question_an_image_or_several_the_images_are_shared(shared: tuple[dict[str, Floats], list[str]]) -> None:
    """A column with one question an image is not clustered, and still on the same images as the other."""
    scores, ids = shared
    drawn = Resampling([column("refcoco", scores, ids), column("refcoco+", scores, ids, clustered=False)], 200)
    one, other = drawn.draws("refcoco", "a"), drawn.draws("refcoco+", "a")
    assert one is not None and other is not None
    assert np.allclose(one.middle, other.middle, rtol=1e-12)


@pytest.mark.parametrize("declared", [False, None])
def test_a_metric_that_is_better_when_lower_has_no_place_in_a_table(tmp_path: Path, declared: bool | None) -> None:
    one_run(tmp_path / "in", "vanilla", RIGHT)
    path = one_run(tmp_path / "in", "fastv", RIGHT, stamp="20260203_000000")
    content = json.loads(path.read_text())
    content["higher_is_better"]["gqa"] = {} if declared is None else {"exact_match": declared}
    path.write_text(json.dumps(content))
    boards, problems = collect([tmp_path / "in"], shipped_benchmarks())
    named = f"{path.name}: gqa: 'exact_match' is declared lower-is-better" in reasons(problems)
    assert named == (declared is False)
    # What does not say its direction is taken as the benchmark table has it.
    assert [row.label for row in boards[0].rows] == (["vanilla"] if declared is False else ["vanilla", "fastv"])
