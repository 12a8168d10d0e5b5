"""Simulation sizes are chosen for seconds; limits follow from the binomial error of the simulation itself."""

import itertools

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from swiftvlm_eval.results.statistics import (
    bootstrap_ratios,
    holm,
    paired_p_value,
    percentile_interval,
    seed_of,
)

Floats = NDArray[np.float64]


def clustered_pair(rng: np.random.Generator, images: int, each: int = 4) -> tuple[Floats, Floats]:
    """Vanilla and a method of true ratio 0.8: hard images fail whole, and the method loses whole images."""
    ease = np.repeat(rng.beta(2, 1, images), each)
    vanilla = rng.random(images * each) < ease
    kept = np.repeat(rng.random(images) < 0.8, each)
    return vanilla.reshape(images, each).sum(1) * 1.0, (vanilla & kept).reshape(images, each).sum(1) * 1.0


def coverage(truth: float, pairs: list[tuple[Floats, Floats]]) -> float:
    hits = 0
    for number, (vanilla, method) in enumerate(pairs):
        bounds = percentile_interval(bootstrap_ratios(method[None], vanilla, seed=number, resamples=1000)[0])
        assert bounds is not None
        hits += bounds[0] <= truth <= bounds[1]
    return hits / len(pairs)


def test_intervals_over_documents_cover_the_truth_95_percent_of_the_time() -> None:
    rng = np.random.default_rng(11)
    pairs = []
    for _ in range(600):
        vanilla = rng.random(400) < 0.6
        pairs.append((vanilla * 1.0, (vanilla & (rng.random(400) < 0.8)) * 1.0))
    assert 0.93 <= coverage(0.8, pairs) <= 0.97


def test_intervals_over_images_cover_the_truth_and_intervals_over_documents_would_not() -> None:
    rng = np.random.default_rng(12)
    pairs = [clustered_pair(rng, 150) for _ in range(2000)]
    assert 0.93 <= coverage(0.8, pairs) <= 0.97
    flat = []
    for vanilla, method in pairs[:300]:
        # The same right answers, each taken as a document of its own.
        documents = np.zeros((2, 600))
        documents[0, : int(vanilla.sum())] = 1
        documents[1, : int(method.sum())] = 1
        flat.append((documents[0], documents[1]))
    assert coverage(0.8, flat) < 0.90


def test_the_bootstrap_agrees_with_the_delta_method() -> None:
    rng = np.random.default_rng(3)
    vanilla = (rng.random(3000) < 0.6) * 1.0
    method = vanilla * (rng.random(3000) < 0.9)
    draws = bootstrap_ratios(method[None], vanilla, seed=1)[0]
    ratio = method.sum() / vanilla.sum()
    error = np.sqrt(np.sum((method - ratio * vanilla) ** 2)) / vanilla.sum()
    assert draws.mean() == pytest.approx(ratio, abs=0.002)
    assert draws.std() == pytest.approx(error, rel=0.06)


def test_equal_seeds_draw_the_same_units_for_every_method() -> None:
    rng = np.random.default_rng(4)
    vanilla, first, second = rng.random((3, 50)) + 0.5
    together = bootstrap_ratios(np.array([first, second]), vanilla, seed=5)
    assert np.allclose(together[1], bootstrap_ratios(second[None], vanilla, seed=5)[0], rtol=1e-12)
    assert not np.allclose(together[1], bootstrap_ratios(second[None], vanilla, seed=6)[0])
    assert np.allclose(bootstrap_ratios(vanilla[None] * 0.7, vanilla, seed=5), 0.7)


def test_a_ratio_to_nothing_has_no_interval() -> None:
    draws = bootstrap_ratios(np.ones((1, 4)), np.zeros(4), seed=0)[0]
    assert percentile_interval(draws) is None


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"scores \(1, 3\) and vanilla \(4,\)"):
        bootstrap_ratios(np.ones((1, 3)), np.ones(4), seed=0)
    with pytest.raises(ValueError, match="at least 2 units, got 1"):
        bootstrap_ratios(np.ones((1, 1)), np.ones(1), seed=0)
    with pytest.raises(ValueError, match=r"first \(3,\) and second \(4,\)"):
        paired_p_value(np.ones(3), np.ones(4), binary=True, clustered=False, seed=0)


def test_right_or_wrong_documents_are_compared_by_the_exact_binomial_test() -> None:
    first = np.array([1.0] * 12 + [0.0] * 3 + [1.0] * 20)
    second = np.array([0.0] * 12 + [1.0] * 3 + [1.0] * 20)
    expected = stats.binomtest(3, 15, 0.5).pvalue
    assert paired_p_value(first, second, binary=True, clustered=False, seed=0) == pytest.approx(expected)


def test_few_images_are_compared_over_all_sign_flips() -> None:
    difference = np.array([2.0, 1.0, -1.0, 3.0, 0.5, 1.5, -0.5, 2.5])
    sums = [float(np.dot(signs, difference)) for signs in itertools.product([1, -1], repeat=8)]
    tail = np.mean([total >= difference.sum() for total in sums])
    assert paired_p_value(difference, np.zeros(8), binary=False, clustered=True, seed=0) == pytest.approx(2 * tail)


def test_agreeing_methods_have_p_one() -> None:
    scores = np.array([0.1, 0.7, 0.2])
    assert paired_p_value(scores, scores.copy(), binary=False, clustered=False, seed=0) == 1.0


def null_rate(clustered: bool, simulations: int, images: int = 80, each: int = 4) -> tuple[float, float]:
    """Share of false alarms at 5 % of our test and of McNemar's on single questions; both methods are equally good."""
    rng = np.random.default_rng(21)
    ours = naive = 0
    for number in range(simulations):
        shape = (images, 1) if clustered else (images, each)
        base = rng.random((images, each)) < 0.7
        losses = [np.broadcast_to(rng.random(shape) < 0.25, (images, each)) for _ in range(2)]
        first, second = (base & ~lost for lost in losses)
        if clustered:
            pair = (first.sum(1) * 1.0, second.sum(1) * 1.0)
        else:
            pair = (first.ravel() * 1.0, second.ravel() * 1.0)
        ours += paired_p_value(*pair, binary=not clustered, clustered=clustered, seed=number) < 0.05
        single = (first.ravel() * 1.0, second.ravel() * 1.0)
        naive += paired_p_value(*single, binary=True, clustered=False, seed=number) < 0.05
    return ours / simulations, naive / simulations


def error_of(rate: float, simulations: int) -> float:
    return float(np.sqrt(rate * (1 - rate) / simulations))


def test_false_alarms_over_documents_stay_below_five_percent() -> None:
    rate, _ = null_rate(clustered=False, simulations=1000)
    assert 0.01 < rate <= 0.05 + 3 * error_of(0.05, 1000)


def test_false_alarms_over_images_stay_below_five_percent_where_mcnemar_does_not() -> None:
    rate, naive = null_rate(clustered=True, simulations=400)
    assert 0.02 < rate <= 0.05 + 3 * error_of(0.05, 400)
    assert naive > 0.05 + 6 * error_of(0.05, 400)


def test_a_real_difference_is_found() -> None:
    rng = np.random.default_rng(31)
    found = 0
    for number in range(60):
        vanilla, method = clustered_pair(rng, 120)
        found += paired_p_value(vanilla, method, binary=False, clustered=True, seed=number) < 0.05
    assert found == 60


def test_soft_scores_are_tested_by_sign_flips() -> None:
    rng = np.random.default_rng(41)
    alarms = 0
    for number in range(300):
        first, second = rng.choice([0.0, 0.3, 0.6, 0.9, 1.0], size=(2, 60))
        alarms += paired_p_value(first, second, binary=False, clustered=False, seed=number) < 0.05
    assert alarms / 300 <= 0.05 + 3 * error_of(0.05, 300)


def test_holm_by_hand() -> None:
    # Sorted .01, .02, .03, .4 times 4, 3, 2, 1, made monotone.
    assert holm([0.03, 0.01, 0.4, 0.02]) == pytest.approx([0.06, 0.04, 0.4, 0.06])
    assert holm([]) == []


def test_seeds_are_fixed_by_name() -> None:
    # CRC-32 of the name, which no Python version or hash seed changes.
    assert seed_of("coco") == 3632353089
    assert seed_of("coco") != seed_of("gqa")


def test_one_changed_cluster_tells_nothing() -> None:
    """Both of its two sign flips are as far from zero as what was seen; scipy takes no sample of one."""
    first, second = np.array([2.0, 1.0, 3.0]), np.array([2.0, 1.0, 1.0])
    assert paired_p_value(first, second, binary=False, clustered=True, seed=0) == 1.0
