"""The statistics of a latency run, by hand; no test here times anything."""

import numpy as np
import pytest

from swiftvlm_eval.efficiency.latency import AGAIN, ratio_interval, steady


def test_ratios_are_paired_within_a_round() -> None:
    """Rounds of very different speed, always twice as fast: the pairing leaves no spread."""
    base = np.array([1.0, 10.0, 3.0, 7.0])
    assert ratio_interval(base, base / 2) == pytest.approx((2.0, 2.0, 2.0))
    middle, low, high = ratio_interval(base, base / np.array([1.0, 2.0, 3.0, 4.0]))
    assert middle == pytest.approx(2.5) and 1.0 <= low < middle < high <= 4.0


@pytest.mark.parametrize(
    ("prefill", "decode", "expected"),
    [((1.0, 0.9, 1.1), (1.0, 0.99, 1.01), True), ((0.88, 0.8, 0.9), (1.0, 0.9, 1.1), False)],
)
def test_a_busy_machine_shows_in_the_stock_model(prefill: tuple, decode: tuple, expected: bool) -> None:
    rows = [{"contender": "stock"}, {"contender": AGAIN, "prefill_speedup": prefill, "decode_speedup": decode}]
    assert steady(rows) is expected
