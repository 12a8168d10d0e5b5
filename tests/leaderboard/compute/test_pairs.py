"""Pairs, places and power against exact tests, plain loops, and data whose truth is known."""

import itertools
from types import ModuleType

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats
from test_statistics import error_of, script

from swiftvlm_eval.leaderboard.compute import statistics
from swiftvlm_eval.leaderboard.compute.pairs import (
    detectable_difference,
    pair_intervals,
    pair_p_values,
    pairs_of,
    rank_intervals,
)
from swiftvlm_eval.leaderboard.compute.statistics import Resampled, resample

Floats = NDArray[np.float64]


@pytest.fixture(scope="module")
def simulation() -> ModuleType:
    return script("simulate_pairs")


def centred(scores: Floats) -> Floats:
    """What each document would contribute if all of a row scored the same."""
    return np.tile(scores.mean(axis=1, keepdims=True), scores.shape[1])


def right_or_wrong(*rows: str) -> Floats:
    """Rows of right (1) and wrong (0) answers, written as digits."""
    return np.array([[float(sign) for sign in row] for row in rows])


def test_two_rows_of_right_and_wrong_are_compared_by_mcnemars_exact_test() -> None:
    first, second = [1.0] * 8 + [0.0] * 3 + [1.0] * 20, [0.0] * 8 + [1.0] * 3 + [1.0] * 20
    exact = stats.binomtest(3, 11, 0.5).pvalue
    assert pair_p_values(np.array([first, second]), seed=0) == pytest.approx([exact])
    drawn = pair_p_values(np.array([second, first]), seed=0, flips=1999)
    assert drawn[0] == pytest.approx(exact, abs=4 * error_of(exact, 1999))


def slow_p_values(scores: Floats) -> list[float]:
    """Westfall and Young's step-down rule for all pairs in plain loops, over all sign flips of the units."""
    pairs = list(itertools.combinations(range(len(scores)), 2))

    def leads(signs: tuple[int, ...]) -> dict[tuple[int, int], float]:
        found = {}
        for one, other in pairs:
            parts = [sign * (x - y) for sign, x, y in zip(signs, scores[one], scores[other], strict=True)]
            spread = sum(part**2 for part in parts) ** 0.5
            found[one, other] = abs(sum(parts)) / spread if spread else 0.0
        return found

    units = scores.shape[1]
    seen = leads((1,) * units)
    flips = [leads(signs) for signs in itertools.product((1, -1), repeat=units)]
    p_values, last, still_open = {}, 0.0, sorted(pairs, key=lambda pair: -seen[pair])
    while still_open:
        pair = still_open[0]
        beyond = [max(flip[other] for other in still_open) >= seen[pair] - 1e-9 for flip in flips]
        p_values[pair] = last = max(last, sum(beyond) / len(flips))
        still_open = still_open[1:]
    return [p_values[pair] for pair in pairs]


def test_several_rows_are_compared_as_a_slow_reference_does() -> None:
    rng = np.random.default_rng(8)
    for rows, units, alike in ((2, 7, False), (3, 8, False), (5, 9, True)):
        scores = rng.choice([0.0, 0.3, 1.0, 2.0], (rows, units))
        scores[0] += rng.choice([0.0, 1.0], units)
        scores[-1] = scores[0] if alike else scores[-1]
        assert pair_p_values(scores, seed=0) == pytest.approx(slow_p_values(scores))


def test_batches_do_not_change_a_draw(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = np.random.default_rng(5).random((4, 90))
    whole = pair_p_values(scores, seed=3, flips=300)
    monkeypatch.setattr(statistics, "_BATCH_NUMBERS", 1000)
    assert pair_p_values(scores, seed=3, flips=300).tolist() == whole.tolist()


def test_rows_that_agree_have_p_one_and_a_lone_row_no_pair() -> None:
    scores = np.array([[0.1, 0.7, 0.2]] * 3)
    assert pair_p_values(scores, seed=0).tolist() == [1.0, 1.0, 1.0]
    assert pair_p_values(scores[:1], seed=0).tolist() == []
    assert [part.tolist() for part in pairs_of(3)] == [[0, 0, 1], [1, 2, 2]]


@pytest.mark.parametrize(
    ("clustered", "accuracies"), [(False, (0.7,) * 6), (True, (0.7,) * 6), (False, (0.7,) * 3 + (0.5,) * 3)]
)
def test_of_all_pairs_of_equal_rows_none_is_called_different_more_often_than_5_percent(
    simulation: ModuleType, clustered: bool, accuracies: tuple[float, ...]
) -> None:
    truth = simulation.Truth(accuracies, 125 if clustered else 500, clustered)
    equal = np.subtract(*(np.array(accuracies)[each] for each in pairs_of(6))) == 0
    rng, alarms, found = np.random.default_rng(4), [], []
    for number in range(300):
        called = pair_p_values(truth.draw(rng)[0], seed=number, flips=499) <= 0.05
        alarms.append(called[equal].any())
        found.append(called[~equal].mean() if not equal.all() else 1.0)
    assert np.mean(alarms) <= 0.05 + 3 * error_of(0.05, 300)
    assert np.mean(found) > 0.9


def test_uncorrected_tests_would_call_equal_rows_different_far_more_often(simulation: ModuleType) -> None:
    truth, rng = simulation.Truth((0.7,) * 6, 200), np.random.default_rng(5)
    alarms = []
    for number in range(60):
        scores = truth.draw(rng)[0]
        alone = [
            pair_p_values(scores[[one, other]], seed=number, flips=199)[0]
            for one, other in zip(*pairs_of(6), strict=True)
        ]
        alarms.append(min(alone) <= 0.05)
    assert np.mean(alarms) > 0.2


@pytest.mark.parametrize("clustered", [False, True])
def test_the_interval_of_a_difference_covers_the_truth(simulation: ModuleType, clustered: bool) -> None:
    truth = simulation.Truth((0.75, 0.6, 0.6), 100 if clustered else 300, clustered)
    rng, gaps = np.random.default_rng(6), np.array([0.15, 0.15, 0.0]) / 0.8
    hits = []
    for number in range(400):
        scores, vanilla = truth.draw(rng)
        low, high = pair_intervals([resample(scores, vanilla, seed=number, resamples=600)])
        hits.append((low <= gaps) & (gaps <= high))
    assert np.all(np.mean(hits, axis=0) >= 0.95 - 3 * error_of(0.05, 400))
    assert np.all(np.mean(hits, axis=0) <= 0.985)


def test_two_rows_that_never_differed_leave_room_for_what_was_not_seen() -> None:
    """No event among n: the exact upper limit of its chance is 1 - 0.025 ** (1 / n), here of 200 right answers."""
    vanilla = np.repeat([1.0, 0.0], [200, 50])
    low, high = pair_intervals([resample(np.array([vanilla, vanilla]), vanilla, seed=1)])
    limit = 1 - 0.025 ** (1 / 200)
    assert -low[0] == pytest.approx(limit, rel=0.1) and high[0] == pytest.approx(limit, rel=0.1)


@pytest.mark.parametrize("lost", [1, 3, 10])
def test_against_a_row_that_is_always_right_it_is_the_interval_of_clopper_and_pearson(lost: int) -> None:
    rows = np.array([np.ones(200), (np.arange(200) >= lost) * 1.0])
    low, high = pair_intervals([resample(rows, np.ones(200), seed=3, resamples=20000)])
    exact = stats.binomtest(lost, 200).proportion_ci(0.95, method="exact")
    width = exact.high - exact.low
    assert high[0] == pytest.approx(exact.high, abs=0.04 * width)
    # the other row may yet be right where the first is wrong: one event, whose upper limit is 3.7 in 200
    assert exact.low - 3.7 / 200 <= low[0] <= exact.low + 0.02 * width


def slow_interval(columns: list[Resampled], one: int, other: int) -> tuple[float, float]:
    """The ends of one pair by loops over draws: all events won and lost are as large as those seen."""
    ends = []
    for kind, quantile in ((1, 0.025), (0, 0.975)):
        sizes = []
        for column in columns:
            ahead = [x - y for x, y in zip(column.scores[one], column.scores[other], strict=True)]
            events = [d for d in ahead if (d > 0 if kind == 0 else d < 0)]
            sizes.append((sum(d * d for d in events) / len(events)) ** 0.5)
        heavy = max(range(len(columns)), key=lambda number: sizes[number] * columns[number].unseen[kind].mean())
        drawn = []
        for draw in range(columns[0].middle.shape[1]):
            lead = sum(c.middle[one, draw] - c.middle[other, draw] for c in columns) / len(columns)
            event = sizes[heavy] * columns[heavy].unseen[kind, draw] / len(columns)
            drawn.append(lead + event if kind == 0 else lead - event)
        ends.append(float(np.quantile(drawn, quantile)))
    return ends[0], ends[1]


def test_the_interval_of_a_mean_is_that_of_a_slow_reference() -> None:
    rng = np.random.default_rng(9)
    columns = [
        resample(
            (weight * rng.integers(0, 4, (4, 30))).astype(np.float64),
            (weight * rng.integers(1, 4, 30)).astype(np.float64),
            seed=seed,
            resamples=200,
        )
        for weight, seed in ((1.0, 1), (0.1, 1), (2.0, 7))
    ]
    low, high = pair_intervals(columns)
    for number, (one, other) in enumerate(zip(*pairs_of(4), strict=True)):
        assert (low[number], high[number]) == pytest.approx(slow_interval(columns, one, other))


def test_places_of_rows_far_apart_are_certain_and_equal_rows_share_theirs() -> None:
    rng = np.random.default_rng(2)
    vanilla = np.ones(300)
    rows = np.array([(rng.random(300) < chance) * 1.0 for chance in (0.2, 0.95, 0.6)])
    assert rank_intervals([resample(rows, vanilla, seed=1)]).tolist() == [[3, 3], [1, 1], [2, 2]]
    twins = rows[[1, 1, 0]]
    assert rank_intervals([resample(twins, vanilla, seed=1)]).tolist() == [[1, 2], [1, 2], [3, 3]]
    assert rank_intervals([resample(twins[:2], vanilla, seed=1)]).tolist() == [[1, 2], [1, 2]]


def test_places_are_counted_as_a_slow_reference_counts_them() -> None:
    rng = np.random.default_rng(3)
    vanilla = np.ones(60)
    rows = np.array([(rng.random(60) < chance) * 1.0 for chance in (0.95, 0.8, 0.75, 0.5, 0.2)])
    drawn = resample(rows, vanilla, seed=1, resamples=300)
    expected = []
    for row in range(5):
        leads = {other: (rows[row].sum() - rows[other].sum()) / 60 for other in range(5) if other != row}
        noise = {other: drawn.middle[row] - drawn.middle[other] for other in leads}
        spread = {other: noise[other].std() for other in leads}
        widest = np.quantile(
            [max(abs(noise[o][draw] - leads[o]) / spread[o] for o in leads) for draw in range(300)], 0.95
        )
        # one document is an event of 1 / 60
        better = sum(leads[o] + widest * spread[o] + 1 / 60 < 0 for o in leads)
        worse = sum(leads[o] - widest * spread[o] - 1 / 60 > 0 for o in leads)
        expected.append([1 + better, 5 - worse])
    assert rank_intervals([drawn]).tolist() == expected
    assert expected[0][1] < 5 and expected[4][0] > 1


@pytest.mark.parametrize("accuracies", [(0.7,) * 10, tuple(0.75 - 0.02 * place for place in range(10))])
def test_intervals_of_places_hold_the_true_places_and_resampled_places_do_not(
    simulation: ModuleType, accuracies: tuple[float, ...]
) -> None:
    equal = len(set(accuracies)) == 1
    truth, rng = simulation.Truth(accuracies, 300), np.random.default_rng(7)
    held, resampled = [], []
    for number in range(150):
        scores, vanilla = truth.draw(rng)
        drawn = resample(scores, vanilla, seed=number, resamples=500)
        held.append(simulation.covering(rank_intervals([drawn]), truth.places))
        resampled.append(simulation.covering(simulation.resampled_places(drawn), truth.places))
    # ten rows of one data set succeed and fail together, so the error is that of 150 data sets
    assert np.mean(held) >= 0.95 - 3 * error_of(0.05, 150)
    assert not equal or np.mean(resampled) < 0.5


def test_five_documents_do_not_decide_a_place() -> None:
    """The exact test of five losses and no gain has p = 1/16, that of twelve p = 1/2048."""
    vanilla = np.ones(400)
    for lost, places in ((5, [[1, 2], [1, 2]]), (12, [[1, 1], [2, 2]])):
        rows = np.array([vanilla, (np.arange(400) >= lost) * 1.0])
        assert rank_intervals([resample(rows, vanilla, seed=1)]).tolist() == places


def test_the_smallest_difference_by_hand() -> None:
    """100 documents, 25 for the one row and 25 for the other: s = sqrt(50 * 100 / 99)."""
    first = right_or_wrong("1" * 25 + "0" * 25 + "1" * 50, "0" * 25 + "1" * 25 + "1" * 50)
    s = (50 * 100 / 99) ** 0.5
    found = detectable_difference(first, centred(first))
    assert found is not None
    # x standard errors so that x exceeds 1.96 of the test's own divisor, sqrt(s^2 + d^2 / n), by 0.84
    x = found / s
    assert x == pytest.approx(1.959964 * (1 + x**2 / 100) ** 0.5 + 0.841621, rel=1e-5)
    assert 2.80 < x < 2.95
    many = np.tile(first, 100)
    assert detectable_difference(many, centred(many)) == pytest.approx(2.8016 * 5000**0.5, rel=1e-3)


def test_few_documents_that_differ_cannot_show_a_small_difference() -> None:
    rows = right_or_wrong("1" + "0" + "1" * 498, "0" + "1" + "1" * 498)
    least = float(stats.gamma.ppf(0.8, 6))
    assert stats.poisson.sf(5, least) == pytest.approx(0.8)  # the chance of six or more
    assert 2 * 0.5**6 < 0.05 < 2 * 0.5**5
    assert detectable_difference(rows, centred(rows)) == pytest.approx(least)


def test_the_median_is_taken_over_pairs_that_differ() -> None:
    base = "1" * 200
    rows = right_or_wrong(base, base, base, "01" * 100)
    s = (100 - 100**2 / 200) ** 0.5 * (200 / 199) ** 0.5
    found = detectable_difference(rows, centred(rows))
    assert found is not None and 2.80 < found / s < 2.95
    assert detectable_difference(rows[:3], centred(rows[:3])) is None
    assert detectable_difference(rows[:1], centred(rows[:1])) is None
    five = right_or_wrong("11111", "00000")
    assert detectable_difference(five, centred(five)) is None  # whatever five documents say, p is 1/16


@pytest.mark.parametrize(("units", "accuracy", "clustered"), [(400, 0.8, False), (150, 0.7, True), (100, 0.9, False)])
def test_the_smallest_difference_is_found_with_a_chance_of_80_percent(
    simulation: ModuleType, units: int, accuracy: float, clustered: bool
) -> None:
    gap, found = simulation.power(units, accuracy, clustered, 400, seed=1)
    assert found == pytest.approx(0.78, abs=0.05 + 3 * error_of(0.8, 400))
    assert 0.01 < gap < 0.2


def test_half_the_smallest_difference_is_mostly_missed(simulation: ModuleType) -> None:
    gap, _ = simulation.power(400, 0.8, False, 1, seed=1)
    truth, rng = simulation.Truth((0.8, 0.8 - gap / 2), 400), np.random.default_rng(1)
    called = [pair_p_values(truth.draw(rng)[0], seed=n, flips=199)[0] <= 0.05 for n in range(200)]
    assert np.mean(called) < 0.45
