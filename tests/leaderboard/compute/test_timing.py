from typing import Any

import pytest
from fake_runs import description, samples_of

from swiftvlm_eval.leaderboard.compute.timing import Times, measured_figures, speedups, times_of
from swiftvlm_eval.results.lmms_output import sample_line


def times(prefill: list[float | None], total: list[float | None] | None = None) -> dict[str, Times]:
    raw: list[dict[str, Any]] = samples_of([1.0] * len(prefill), "exact_match", description())
    for line, first, whole in zip(raw, prefill, total or [1.0] * len(prefill), strict=True):
        line["token_counts"][0]["swiftvlm"].update(prefill_s=first, total_s=whole)
    return {"gqa": times_of([sample_line("gqa", line, ["exact_match"]) for line in raw])}


@pytest.mark.parametrize("missing", [0.0, None])
@pytest.mark.parametrize("where", ["ours", "vanilla"])
def test_a_prefill_without_a_time_is_in_no_speedup(missing: float | None, where: str) -> None:
    ours: list[float | None] = [0.1, 0.1, 0.1, 0.1, 0.1]
    base: list[float | None] = [0.3, 0.3, 0.3, 0.4, 0.2]
    (ours if where == "ours" else base)[:2] = [missing, missing]
    figures = speedups(times(ours), times(base))
    assert figures["prefill_speedup"] == pytest.approx(3.0)  # of 3, 4 and 2
    assert figures["total_speedup"] == pytest.approx(1.0)


def test_nothing_but_zeros_is_no_time() -> None:
    nothing = times([0.0, 0.0])
    assert set(speedups(nothing, times([0.1, 0.1])).values()) == {None}
    assert set(speedups(times([0.1, 0.1]), nothing).values()) == {None}
    assert set(measured_figures(nothing).values()) == {None}


def test_an_answer_that_took_no_time_is_not_timed() -> None:
    figures = measured_figures(times([0.1, 0.1, 0.4], [0.0, 1.0, 1.0]))
    assert figures["prefill_ms"] == pytest.approx(250.0)
    assert figures["total_s"] == pytest.approx(2.0)
