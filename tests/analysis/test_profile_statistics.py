"""x of layers by hand, intervals against their simulated meaning, and what has no x."""

import math

import numpy as np
import pytest

from swiftvlm_eval.analysis.profile_statistics import ScoredSample, make_profile, wins


def by_hand() -> dict[str, list[ScoredSample]]:
    return {
        "b": [ScoredSample("1", 1.0, (0.0, 1.0)), ScoredSample("2", 1.0, (1.0, 1.0)), ScoredSample("2", 0.0, (0, 1))],
        "a": [ScoredSample("1", 0.5, (0.5, 0.25)), ScoredSample("3", 0.5, (0.25, 0.25))],
    }


def test_x_is_the_mean_of_the_tasks_ratios_to_vanilla() -> None:
    profile = make_profile(by_hand(), draws=50)
    assert profile.by_task == {"a": (0.75, 0.5), "b": (0.5, 1.5)}
    assert profile.x == (0.625, 1.0) and profile.of_layers() == {2: 0.625, 3: 1.0}
    assert profile.scores["a"] == (0.5, 0.375, 0.25)
    assert (profile.documents, profile.clusters) == ({"a": 2, "b": 3}, {"a": 2, "b": 2})
    assert all(low <= x <= high for low, x, high in zip(profile.low, profile.x, profile.high, strict=True))


def test_documents_of_one_image_are_drawn_together() -> None:
    """Ten copies of every document are no more evidence when they are of the same images."""
    rng = np.random.default_rng(1)
    once = [ScoredSample(str(n), 1.0, tuple(rng.integers(0, 2, 3).astype(float))) for n in range(40)]
    together = make_profile({"t": once * 10})
    alone = make_profile({"t": once})
    apart = [ScoredSample(f"{n}/{copy}", 1.0, one.by_layer) for copy in range(10) for n, one in enumerate(once)]
    assert together.low == pytest.approx(alone.low) and together.high == pytest.approx(alone.high)
    wide = np.subtract(alone.high, alone.low)
    narrow = np.subtract(make_profile({"t": apart}).high, make_profile({"t": apart}).low)
    assert (narrow < 0.45 * wide).all()


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    rng = np.random.default_rng(5)
    held = 0
    for trial in range(200):
        right = (rng.random((150, 1)) < 0.6).astype(float)
        rows = [ScoredSample(str(n), 1.0, tuple(row)) for n, row in enumerate(right)]
        profile = make_profile({"t": rows}, seed=trial, draws=300)
        held += profile.low[0] <= 0.6 <= profile.high[0]
    assert 0.88 <= held / 200 <= 0.99


def test_a_set_that_is_clearly_best_wins_every_draw_and_a_close_one_does_not() -> None:
    rng = np.random.default_rng(2)
    clear = [ScoredSample(str(n), 1.0, (0.1, 0.9, 0.1, 0.1, 0.1)) for n in range(50)]
    assert wins(make_profile({"t": clear}, draws=100), 6, 2) == [((3,), 1.0)]
    close = [ScoredSample(str(n), 1.0, (0.0, *rng.integers(0, 2, 4).astype(float))) for n in range(50)]
    found = wins(make_profile({"t": close}, draws=200), 6, 2)
    assert len(found) > 1 and sum(share for _, share in found) == pytest.approx(1)
    assert [share for _, share in found] == sorted((share for _, share in found), reverse=True)


def test_equal_documents_and_seed_give_equal_draws() -> None:
    first, second = make_profile(by_hand(), draws=20), make_profile(by_hand(), draws=20)
    assert (first.draws == second.draws).all()
    assert not (first.draws == make_profile(by_hand(), seed=1, draws=20).draws).all()


@pytest.mark.parametrize(
    ("samples", "said"),
    [
        ([ScoredSample("1", 0.0, (1.0,)), ScoredSample("2", 0.0, (1.0,))], "t: vanilla scores 0"),
        ([ScoredSample("1", 1.0, (math.nan,)), ScoredSample("2", 1.0, (1.0,))], "t: a score is not finite"),
        ([ScoredSample("1", 1.0, (1.0,)), ScoredSample("1", 1.0, (1.0,))], "t: all documents belong to one unit"),
    ],
)
def test_what_has_no_x_is_refused(samples: list[ScoredSample], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        make_profile({"t": samples})
