"""What is read from a latency record, on records made by hand."""

import numpy as np
import pytest
from latency_runs import ROUNDS, contender, content, record

from swiftvlm_eval.efficiency.flops import prefill_flops
from swiftvlm_eval.leaderboard.compute.latency import (
    break_even,
    curves,
    implied_time,
    latency_rows,
    paired_ratio,
    tail,
)
from swiftvlm_eval.models.shape import DecoderShape
from swiftvlm_eval.results.latency_record import LatencyRecord

FAST = contender("fastv 0.333", prefill=1.0, rows=192.0)


def test_ratios_are_paired_within_a_round() -> None:
    """Rounds of very different speed, always twice as fast: the pairing leaves no spread."""
    base = np.array([1.0, 10.0, 3.0, 7.0])
    assert paired_ratio(base, base / 2) == pytest.approx((2.0, 2.0, 2.0))
    middle, low, high = paired_ratio(base, base / np.array([1.0, 2.0, 3.0, 4.0]))
    assert middle == pytest.approx(2.5) and 1.0 <= low < middle < high <= 4.0
    assert paired_ratio([3.0, 1.0], [1.0, 1.0]) == pytest.approx((2.0, 1.0, 3.0)), "two rounds: their range"


def test_a_row_has_the_figures_of_its_times() -> None:
    stock, *_, fast = latency_rows(record(FAST))
    assert stock.prefill_speedup == stock.total_speedup == (1.0, 1.0, 1.0)
    assert fast.prefill_speedup == pytest.approx((4.0, 4.0, 4.0))
    assert fast.prefill_time == pytest.approx((0.25, 0.25, 0.25))
    assert fast.decode_speedup == fast.total_speedup == pytest.approx((4.0, 4.0, 4.0))
    assert fast.implied_speedup == pytest.approx(3.0) and fast.of_implied == pytest.approx(4 / 3)
    assert fast.share == pytest.approx(1 / 3) and fast.mean_visual_tokens == 192
    assert fast.prefill.p50 == pytest.approx(1.15) and fast.prefill.worst == pytest.approx(1.3)
    assert fast.total.p50 == pytest.approx(1.15 * 1.03), "three steps of a hundredth each"
    assert fast.decode_ms == pytest.approx(11.5) and fast.decode.count == 6 and fast.prefill.count == ROUNDS
    assert fast.parts == pytest.approx(
        {"tower": 0.1, "projector": 0.05, "selection": 0.2, "decoder": 0.6, "other": 0.05}
    )
    assert fast.selection_share == pytest.approx(0.2 / 0.8)
    assert fast.cache_bytes == 1024 * 192 and fast.peak_bytes == 4096 * 192


def test_a_run_that_differs_from_itself_gives_no_speed_up() -> None:
    for row in latency_rows(record(FAST, again=0.8)):
        ratios = (row.prefill_time, row.prefill_speedup, row.decode_speedup, row.total_speedup, row.of_implied)
        assert ratios == (None,) * 5
        assert row.prefill.p50 > 0 and row.implied_speedup > 0, "its times and FLOPs are shown"


def test_times_without_a_look_inside_have_no_parts() -> None:
    bare = {"parts_s": {}, "steps_s": [], "cache_bytes": None, "peak_bytes": None}
    found = content(FAST, peak_method=None)
    found["settings"]["part_rounds"] = 0
    found["contenders"] = [each | bare for each in found["contenders"]]
    row = latency_rows(LatencyRecord.model_validate(found))[-1]
    assert row.parts == {} and row.selection_share is None and row.decode.count == ROUNDS


@pytest.mark.parametrize(
    ("count", "p90", "p99"),
    [(5, False, False), (9, False, False), (10, True, False), (99, True, False), (100, True, True)],
)
def test_a_quantile_is_stated_only_of_enough_times(count: int, p90: bool, p99: bool) -> None:
    times = list(np.linspace(1, 2, count))
    found = tail(times[::-1])
    assert (found.p90 is not None, found.p99 is not None) == (p90, p99)
    assert found.count == count and found.p50 == pytest.approx(1.5) and found.worst == 2.0
    if p90:
        assert found.p90 == pytest.approx(1.9)
    if p99:
        assert found.p99 == pytest.approx(1.99)


@pytest.mark.parametrize("kv_heads", [4, 2])
def test_the_promise_of_the_flops_is_that_of_the_formula(kv_heads: int) -> None:
    """Against the function that the other commands count with."""
    shape = DecoderShape(64, 128, 4, 4, kv_heads)
    one = record(FAST, model=content()["model"] | {"num_kv_heads": kv_heads})
    whole = prefill_flops([576] * 4, 64, shape)
    for share in (0.0, 1 / 9, 0.5, 1.0):
        assert implied_time(one, share) == pytest.approx(prefill_flops([576 * share] * 4, 64, shape) / whole)


@pytest.mark.parametrize(
    ("points", "share", "crossed", "said"),
    [
        ([(0.5, 0.8), (0.9, 1.2)], 0.7, True, "pays up to 0.70"),
        ([(0.9, 1.2), (0.5, 0.8)], 0.7, True, "pays up to 0.70"),
        ([(0.2, 0.5), (0.4, 0.7), (0.8, 1.0)], 0.8, True, "pays up to 0.80"),
        ([(0.2, 0.5), (0.9, 0.99)], 0.9, False, "at all measured, up to 0.90"),
        ([(0.2, 1.0), (0.9, 1.5)], None, False, "slower at every measured share"),
        ([(0.2, 0.9), (0.4, 1.1), (0.6, 0.9)], 0.3, True, "pays up to 0.30"),
    ],
)
def test_the_break_even_share(points: list, share: float | None, crossed: bool, said: str) -> None:
    found = break_even(points)
    assert found.crossed is crossed and said in found.words
    assert found.share == (None if share is None else pytest.approx(share))


def test_a_curve_is_a_method_with_its_options() -> None:
    methods = [
        contender(label, rows=rows)
        for label, rows in [("fastv 0.667", 384.0), ("fastv 0.333", 192.0), ("fastv[layers=3] 0.333", 193.0)]
    ]
    found = curves(record(*methods))
    assert {name: [row.contender for row in rows] for name, rows in found.items()} == {
        "fastv": ["fastv 0.333", "fastv 0.667"],
        "fastv[layers=3]": ["fastv[layers=3] 0.333"],
    }
