"""The latency run on a clock that the tests turn, with timings made by hand: no test here times anything."""

import json
import platform
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from swiftvlm_eval.efficiency import latency
from swiftvlm_eval.efficiency.latency import AGAIN, Timing, feasible, measure, runs_of
from swiftvlm_eval.efficiency.machine import machine_facts
from swiftvlm_eval.efficiency.parts import PARTS
from swiftvlm_eval.efficiency.workload import Workload, build_model
from swiftvlm_eval.models.shape import DecoderShape
from swiftvlm_eval.pruning.budget import BudgetError
from swiftvlm_eval.pruning.registry import make_method

SHAPE = DecoderShape(hidden_size=64, intermediate_size=128, num_layers=4, num_heads=4, num_kv_heads=4)
WORKLOAD = Workload(SHAPE, side=4, text_tokens=6, output_tokens=2)
CPU = torch.device("cpu")


@dataclass
class FakeClock:
    """Time that passes only when the fake model runs: a prefill and a decoded token of the n-th run last as told."""

    now: float = 0.0

    def perf_counter(self) -> float:
        return self.now

    def process_time(self) -> float:
        return 1000 + 2 * self.now


class FakeModel:
    """Answers nothing; a call with pixels lasts as long as the plan says, one of a single token a tenth of it.

    Args:
        clock: what is turned.
        prefills: seconds of each prefill, in the order of the runs.
    """

    def __init__(self, clock: FakeClock, prefills: Iterator[float]) -> None:
        self.clock, self.prefills = clock, prefills
        self.device, self.dtype = torch.device("cpu"), torch.float32
        self.prefill = 0.0

    def __call__(self, pixel_values: Any = None, **inputs: Any) -> SimpleNamespace:
        if pixel_values is not None:
            self.prefill = next(self.prefills)
        self.clock.now += self.prefill if pixel_values is not None else self.prefill / 10
        return SimpleNamespace(past_key_values=None)


def timed(monkeypatch: pytest.MonkeyPatch, rounds: list[list[float]], warmup: int, **clock: Any) -> list[Timing]:
    """Timings of stock, stock again, the bare engine and `random`, whose prefills last as told, round by round."""
    turned = FakeClock()
    model = FakeModel(turned, iter([seconds for each in rounds for seconds in each]))
    monkeypatch.setattr(latency, "build_model", lambda *_, **__: model)
    monkeypatch.setattr(latency, "weight_bytes", lambda _: 0)
    monkeypatch.setattr(latency, "prune", lambda *_: nullcontext())
    monkeypatch.setattr(latency, "time", turned)
    contenders = [("random 0.5", make_method("random"), 0.5)]
    told: list[float] = []
    timings, _ = measure(
        WORKLOAD,
        contenders,
        rounds=len(rounds) - warmup,
        warmup=warmup,
        on_run=lambda: told.append(turned.now),
        **clock,
    )
    assert len(told) == runs_of(contenders, len(rounds)) and told == sorted(set(told)), "told after every run"
    assert next(model.prefills, None) is None, "a run too few"
    return timings


SLOW, TIMED = [[100.0, 50.0, 70.0, 90.0], [90.0, 80.0, 60.0, 7.0]], [[4.0, 4.0, 5.0, 2.0], [8.0, 8.0, 9.0, 4.0]]


def test_rounds_of_warm_up_are_not_among_the_timings(monkeypatch: pytest.MonkeyPatch) -> None:
    timings = timed(monkeypatch, SLOW + TIMED, warmup=2)
    for timing, prefill in zip(timings, ([4.0, 8.0], [4.0, 8.0], [5.0, 9.0], [2.0, 4.0]), strict=True):
        assert timing.prefill == pytest.approx(prefill)
        assert timing.decode == pytest.approx([seconds / 10 for seconds in prefill])


def test_contenders_alternate_within_a_round_and_are_named_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    timings = timed(monkeypatch, [[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]], warmup=0)
    assert [timing.label for timing in timings] == ["stock", AGAIN, latency.KEEP_ALL, "random 0.5"]
    for number, timing in enumerate(timings, start=1):
        assert timing.prefill == pytest.approx([number, number + 4])


def test_the_processor_clock_is_another_one(monkeypatch: pytest.MonkeyPatch) -> None:
    timings = timed(monkeypatch, TIMED, warmup=0, clock="cpu")
    assert timings[0].prefill == pytest.approx([8.0, 16.0])


def by_hand(rows: list[float], text: int) -> float:
    """FLOPs of a prefill as pruning papers count them: per layer 4 n d^2 + 2 n^2 d + 3 n d m."""
    d, m = SHAPE.hidden_size, SHAPE.intermediate_size
    return sum(4 * (v + text) * d**2 + 2 * (v + text) ** 2 * d + 3 * (v + text) * d * m for v in rows)


def workload_model(workload: Workload) -> Any:
    return build_model(workload, torch.float32, CPU)


def test_selection_costs_reach_the_timings() -> None:
    """On a real small model: what costs nothing to choose has no overhead, SwiftVLM's scores and groups have one."""
    contenders = [("random", make_method("random"), 0.5), ("swiftvlm", make_method("swiftvlm"), 0.6)]
    shape = DecoderShape(hidden_size=64, intermediate_size=128, num_layers=8, num_heads=4, num_kv_heads=4)
    workload = Workload(shape, side=6, text_tokens=6, output_tokens=1)
    timings, weights = measure(workload, contenders, rounds=1, warmup=0, dtype=torch.float32)
    assert weights == pytest.approx(4 * sum(each.numel() for each in workload_model(workload).parameters()), rel=1e-3)
    overhead = {timing.label: timing.flops - by_hand(timing.rows_per_layer, 6) for timing in timings}
    assert overhead["stock"] == overhead[AGAIN] == overhead[latency.KEEP_ALL] == 0
    assert overhead["random"] == 0 and overhead["swiftvlm"] > 0
    rows = {timing.label: timing.rows_per_layer for timing in timings}
    assert rows["stock"] == rows[latency.KEEP_ALL] == [36] * 8 and sum(rows["random"]) < 36 * 8


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_the_default_dtype_is_left_as_it_was(dtype: torch.dtype) -> None:
    assert torch.get_default_dtype() == torch.float32
    try:
        model = build_model(WORKLOAD, dtype, torch.device("cpu"))
        assert model.dtype == dtype and not model.training
        assert torch.get_default_dtype() == torch.float32
        with pytest.raises(Exception, match="no_such_kernel"):
            build_model(WORKLOAD, dtype, torch.device("cpu"), attn="no_such_kernel")
        assert torch.get_default_dtype() == torch.float32, "changed by a failure"
    finally:
        torch.set_default_dtype(torch.float32)


def test_what_cannot_meet_its_budget_is_named_before_anything_runs() -> None:
    asked = [("half", make_method("random"), 0.5), ("late", make_method("fastv", {"layers": "3"}), 0.25)]
    possible, refused = feasible(WORKLOAD, asked)
    assert [label for label, *_ in possible] == ["half"]
    assert set(refused) == {"late"} and "feasible" in refused["late"]
    with pytest.raises(BudgetError):
        measure(WORKLOAD, asked, rounds=1, on_run=lambda: pytest.fail("ran"))


def test_the_machine_is_described_without_its_name() -> None:
    facts = machine_facts(torch.device("cpu"))
    assert facts["device"] == "cpu" and facts["threads"] == torch.get_num_threads() and facts["name"]
    assert facts["cpu_capability"] == torch.backends.cpu.get_cpu_capability()
    assert platform.node() not in json.dumps(facts)


def test_rounds_that_look_inside_come_after_the_timed_ones() -> None:
    """Parts that add up, every single step, the cache of what was kept, and a peak of each contender's own."""
    contenders = [("random", make_method("random"), 0.5)]
    workload = Workload(SHAPE, side=6, text_tokens=6, output_tokens=3, batch_size=2)
    told: list[int] = []
    timings, _ = measure(
        workload, contenders, rounds=1, warmup=1, part_rounds=2, dtype=torch.float32, on_run=lambda: told.append(1)
    )
    assert len(told) == runs_of(contenders, 2, 2) == 4 * (2 + 2 + 1)
    for timing in timings:
        assert len(timing.prefill) == 1 and len(timing.steps) == 2 * 3
        assert tuple(timing.parts) == PARTS and all(len(found) == 2 for found in timing.parts.values())
        assert all(seconds >= 0 for found in timing.parts.values() for seconds in found)
        # keys and values: 64 wide, float32, both prompts
        assert timing.cache_bytes == sum(2 * (rows + 6) * 64 * 4 * 2 for rows in timing.rows_per_layer)
    stock, _, engine, random = timings
    assert stock.parts["selection"] == [0, 0] and min(random.parts["selection"]) > 0
    assert random.cache_bytes < stock.cache_bytes == engine.cache_bytes
    assert stock.peak_memory == timings[1].peak_memory > 0 and random.peak_memory < stock.peak_memory


def test_a_batch_costs_what_its_prompts_cost() -> None:
    found = [
        measure(
            Workload(SHAPE, side=6, text_tokens=6, output_tokens=1, batch_size=batch),
            [("fastv", make_method("fastv", {"layers": "1"}), 0.5)],
            rounds=1,
            warmup=0,
            dtype=torch.float32,
        )[0]
        for batch in (1, 3)
    ]
    for one, three in zip(*found, strict=True):
        assert three.flops == pytest.approx(3 * one.flops) and three.rows_per_layer == one.rows_per_layer


def test_a_gpu_has_done_everything_before_the_clock_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[str] = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: waited.append(str(device)))
    model = SimpleNamespace(device=torch.device("cuda:0"))
    latency._Bench(model, {}, WORKLOAD, "wall").now()
    assert waited == ["cuda:0"]
    latency._Bench(SimpleNamespace(device=CPU), {}, WORKLOAD, "wall").now()
    assert waited == ["cuda:0"]
