"""Simulation sizes are chosen for seconds; limits follow from the binomial error of the simulation itself."""

import importlib.util
import itertools
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from swiftvlm_eval.leaderboard.compute import statistics
from swiftvlm_eval.leaderboard.compute.statistics import RatioDraws, best_p_values, mean_of, ratio_draws, seed_of

Floats = NDArray[np.float64]
SCRIPTS = Path(__file__).resolve().parents[3] / "scripts"


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, SCRIPTS / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def clustered_pair(rng: np.random.Generator, images: int, each: int = 4) -> tuple[Floats, Floats]:
    """Vanilla and a method of true ratio 0.8: hard images fail whole, and the method loses whole images."""
    ease = np.repeat(rng.beta(2, 1, images), each)
    vanilla = rng.random(images * each) < ease
    kept = np.repeat(rng.random(images) < 0.8, each)
    return vanilla.reshape(images, each).sum(1) * 1.0, (vanilla & kept).reshape(images, each).sum(1) * 1.0


def coverage(truth: float, pairs: list[tuple[Floats, Floats]]) -> float:
    hits = 0
    for number, (vanilla, method) in enumerate(pairs):
        low, high = ratio_draws(method[None], vanilla, seed=number, resamples=1000)[0].interval()
        hits += low <= truth <= high
    return hits / len(pairs)


def error_of(rate: float, simulations: int) -> float:
    return float(np.sqrt(rate * (1 - rate) / simulations))


def test_intervals_over_documents_cover_the_truth_95_percent_of_the_time() -> None:
    rng = np.random.default_rng(11)
    pairs = []
    for _ in range(600):
        vanilla = rng.random(400) < 0.6
        pairs.append((vanilla * 1.0, (vanilla & (rng.random(400) < 0.8)) * 1.0))
    assert 0.93 <= coverage(0.8, pairs) <= 0.98


def test_intervals_over_images_cover_the_truth_and_intervals_over_documents_would_not() -> None:
    rng = np.random.default_rng(12)
    pairs = [clustered_pair(rng, 150) for _ in range(400)]
    assert 0.93 <= coverage(0.8, pairs) <= 0.98
    flat = []
    for vanilla, method in pairs[:200]:
        # The same right answers, each taken as a document of its own.
        documents = np.zeros((2, 600))
        documents[0, : int(vanilla.sum())] = 1
        documents[1, : int(method.sum())] = 1
        flat.append((documents[0], documents[1]))
    assert coverage(0.8, flat) < 0.90


@pytest.mark.parametrize(
    ("accuracy", "lost", "gained", "clustered"),
    [(0.98, 0.001, 0.2, False), (0.5, 0.012, 0.004, False), (0.5, 0.988, 0.0, False), (0.7, 0.02, 0.02, True)],
)
def test_few_events_are_covered_where_the_percentile_interval_is_too_short(
    accuracy: float, lost: float, gained: float, clustered: bool
) -> None:
    """Two gains; three losses and a gain; three hits; three images of 150 that differ."""
    simulation = script("simulate_intervals")
    units = 150 if clustered else 500
    found = simulation.coverage(simulation.Truth(units, accuracy, lost, gained, clustered), 400, seed=1)
    assert found["now"] >= 0.95 - 3 * error_of(0.05, 400)
    assert found["old"] < 0.95 and found["length"] > found["old length"]


def test_agreement_and_no_hit_at_all_leave_room_for_what_was_not_seen() -> None:
    """No event among n: the exact upper limit of its chance is 1 - 0.025 ** (1 / n), here of 200 right answers."""
    vanilla = np.repeat([1.0, 0.0], [200, 50])
    low, high = ratio_draws(vanilla[None], vanilla, seed=1)[0].interval()
    limit = 1 - 0.025 ** (1 / 200)
    assert 1 - low == pytest.approx(limit, rel=0.1) and high - 1 == pytest.approx(limit, rel=0.1)
    low, high = ratio_draws(np.zeros((1, 250)), vanilla, seed=1)[0].interval()
    assert low == 0 and high == pytest.approx(limit, rel=0.1)


@pytest.mark.parametrize("hits", [1, 3, 10, 150])
def test_with_a_vanilla_that_is_always_right_it_is_the_interval_of_clopper_and_pearson(hits: int) -> None:
    method = (np.arange(200) < hits) * 1.0
    low, high = ratio_draws(method[None], np.ones(200), seed=3, resamples=20000)[0].interval()
    exact = stats.binomtest(hits, 200).proportion_ci(0.95, method="exact")
    width = exact.high - exact.low
    assert low == pytest.approx(exact.low, abs=0.02 * width)
    # A gain over vanilla may lie outside of vanilla's right answers, so the upper end is a little higher.
    assert exact.high - 0.02 * width <= high <= exact.high + 0.03 * width + hits / 200 / 200


def test_an_unseen_event_is_as_large_as_those_seen() -> None:
    """Images of four questions on which the method gains all four; the loss that was not seen is as large."""
    vanilla = np.array([4.0] * 50 + [0.0] * 3)
    method = np.array([4.0] * 53)
    draws = ratio_draws(method[None], vanilla, seed=2, resamples=20000)[0]
    assert draws.gain.mean() == pytest.approx(4 / 200, rel=0.05)
    assert draws.loss.mean() == pytest.approx(212 / 200 - 212 / 204, rel=0.05)


def test_the_draws_agree_with_the_delta_method() -> None:
    rng = np.random.default_rng(3)
    vanilla = (rng.random(3000) < 0.6) * 1.0
    method = vanilla * (rng.random(3000) < 0.9)
    draws = ratio_draws(method[None], vanilla, seed=1)[0].middle
    ratio = method.sum() / vanilla.sum()
    error = np.sqrt(np.sum((method - ratio * vanilla) ** 2)) / vanilla.sum()
    assert draws.mean() == pytest.approx(ratio, abs=0.002)
    assert draws.std() == pytest.approx(error, rel=0.06)


def test_equal_seeds_weigh_the_same_units_for_every_method() -> None:
    rng = np.random.default_rng(4)
    vanilla, first, second = rng.random((3, 50)) + 0.5
    together = ratio_draws(np.array([first, second]), vanilla, seed=5)[1].middle
    assert np.allclose(together, ratio_draws(second[None], vanilla, seed=5)[0].middle, rtol=1e-12)
    assert not np.allclose(together, ratio_draws(second[None], vanilla, seed=6)[0].middle)
    assert np.allclose(ratio_draws(vanilla[None] * 0.7, vanilla, seed=5)[0].middle, 0.7)


def test_a_mean_grants_one_unseen_event_where_it_weighs_most() -> None:
    one = RatioDraws(np.full(9, 0.8), gain=np.full(9, 0.01), loss=np.full(9, 0.06))
    other = RatioDraws(np.full(9, 0.6), gain=np.full(9, 0.04), loss=np.full(9, 0.02))
    assert mean_of([one, other]).interval() == pytest.approx((0.7 - 0.03, 0.7 + 0.02))


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"scores \(1, 3\) and vanilla \(4,\)"):
        ratio_draws(np.ones((1, 3)), np.ones(4), seed=0)
    with pytest.raises(ValueError, match="at least 2 units, got 1"):
        ratio_draws(np.ones((1, 1)), np.ones(1), seed=0)
    with pytest.raises(ValueError, match="vanilla's score is 0"):
        ratio_draws(np.ones((1, 4)), np.zeros(4), seed=0)


def test_two_rows_of_right_and_wrong_are_compared_by_mcnemars_exact_test() -> None:
    first = np.array([1.0] * 8 + [0.0] * 3 + [1.0] * 20)
    second = np.array([0.0] * 8 + [1.0] * 3 + [1.0] * 20)
    exact = stats.binomtest(3, 11, 0.5).pvalue  # 2048 flips: all are counted
    assert best_p_values(np.array([first, second]), seed=0) == pytest.approx([1.0, exact])
    drawn = best_p_values(np.array([second, first]), seed=0, flips=1999)
    assert drawn[0] == pytest.approx(exact, abs=4 * error_of(exact, 1999)) and drawn[1] == 1.0


def slow_p_values(scores: Floats) -> list[float]:
    """Westfall and Young's step-down rule in plain loops, over all sign flips of the units."""
    rows = range(len(scores))

    def leads(signs: tuple[int, ...]) -> list[float]:
        result = []
        for row in rows:
            parts = [
                [sign * (y - x) for sign, x, y in zip(signs, scores[row], other, strict=True)] for other in scores
            ]
            spread = [sum(part**2 for part in each) ** 0.5 for each in parts]
            result.append(max(sum(each) / size if size else 0.0 for each, size in zip(parts, spread, strict=True)))
        return result

    units = scores.shape[1]
    seen = leads((1,) * units)
    flips = [leads(signs) for signs in itertools.product((1, -1), repeat=units)]
    p_values, last, open_rows = dict.fromkeys(rows, 1.0), 0.0, sorted(rows, key=lambda row: -seen[row])
    while open_rows:
        row = open_rows[0]
        beyond = [max(flip[other] for other in open_rows) >= seen[row] - 1e-9 for flip in flips]
        p_values[row] = last = max(last, sum(beyond) / len(flips))
        open_rows = open_rows[1:]
    return [p_values[row] for row in rows]


def test_several_rows_are_compared_as_a_slow_reference_does() -> None:
    rng = np.random.default_rng(8)
    for shape in ((2, 7), (3, 8), (5, 9)):
        scores = rng.choice([0.0, 0.3, 1.0, 2.0], shape)
        scores[0] += rng.choice([0.0, 1.0], shape[1])
        assert best_p_values(scores, seed=0) == pytest.approx(slow_p_values(scores))


def test_batches_do_not_change_a_draw(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = np.random.default_rng(5).random((4, 90))
    whole = best_p_values(scores, seed=3, flips=300), ratio_draws(scores, scores[0], seed=3, resamples=300)[2]
    monkeypatch.setattr(statistics, "_BATCH_NUMBERS", 1000)
    parts = best_p_values(scores, seed=3, flips=300), ratio_draws(scores, scores[0], seed=3, resamples=300)[2]
    assert whole[0].tolist() == parts[0].tolist()
    assert whole[1].interval() == pytest.approx(parts[1].interval(), rel=1e-12)


def test_rows_that_agree_have_p_one() -> None:
    scores = np.array([[0.1, 0.7, 0.2]] * 3)
    assert best_p_values(scores, seed=0).tolist() == [1.0, 1.0, 1.0]
    assert best_p_values(scores[:1], seed=0).tolist() == [1.0]


def test_one_changed_unit_tells_nothing() -> None:
    """Both of its two sign flips are as far from zero as what was seen."""
    assert best_p_values(np.array([[2.0, 1.0, 3.0], [2.0, 1.0, 1.0]]), seed=0).tolist() == [1.0, 1.0]


@pytest.mark.parametrize(("clustered", "worse", "gap"), [(False, 0, 0.0), (True, 0, 0.0), (False, 5, 0.05)])
def test_of_ten_rows_none_of_the_best_is_called_worse_more_often_than_5_percent(
    clustered: bool, worse: int, gap: float
) -> None:
    simulation = script("simulate_marks")
    units = 125 if clustered else 500
    found = simulation.rates(simulation.Truth(10, 0.8, units, clustered, worse, gap), 400, seed=2)
    assert found["alarm"] <= 0.05 + 3 * error_of(0.05, 400)
    # The rule that tests the apparent best row alone does not hold it where all rows are equal.
    assert worse or found["old alarm"] > 0.05 + 3 * error_of(0.05, 400)
    assert not worse or found["power"] > 0.3


def test_real_differences_are_found() -> None:
    rng = np.random.default_rng(31)
    for number in range(20):
        vanilla, method = clustered_pair(rng, 120)
        p_values = best_p_values(np.array([vanilla, method, vanilla]), seed=number)
        assert (p_values <= 0.05).tolist() == [False, True, False]


def test_seeds_are_fixed_by_name() -> None:
    # CRC-32 of the name, which no Python version or hash seed changes.
    assert seed_of("coco") == 3632353089
    assert seed_of("coco") != seed_of("gqa")
