"""Hours and memory against numbers worked out by hand."""

import json

import pytest
from command_line import run

from swiftvlm_eval.efficiency.run_estimate import CLIP_L_MACS, Gpu, Part, document_seconds, memory_gib, run_hours
from swiftvlm_eval.models.shape import LLAVA_7B

A100 = Gpu(tflops=312, utilization=0.4, step_ms=25)


def test_the_tower_by_hand() -> None:
    assert CLIP_L_MACS == 190_612_291_584  # 24 layers of 7,260,340,224 + 681,838,592


def test_a_document_by_hand() -> None:
    # 2 x (4.29 + 0.1906) T over 124.8 T/s is 71.8 ms, and three steps of 25 ms follow the first token
    assert document_seconds(4.29, 1, 4, A100) == pytest.approx(0.1468, abs=1e-4)
    assert document_seconds(4.29, 1, 1, A100) == pytest.approx(0.0718, abs=1e-4)
    assert document_seconds(4.29, 5, 1, A100) == pytest.approx(0.0840, abs=1e-4)


def test_hours_add_up_over_the_parts() -> None:
    parts = [Part(10_000, 4), Part(5_000, 24)]
    # 10,000 x 0.1468 s + 5,000 x 0.6468 s
    assert run_hours(4.29, 1, parts, A100) == pytest.approx((1468 + 3234) / 3600, rel=1e-3)


def test_memory_of_llava_7b() -> None:
    found = memory_gib(LLAVA_7B, 704, 1)
    # the checkpoint has 7,063,427,072 parameters
    assert found["weights"] == pytest.approx(2 * 7_063_427_072 / 2**30, rel=0.01)
    assert found["cache"] == pytest.approx(704 * 0.5 / 1024, rel=1e-6)  # half a MiB a row
    assert 13.5 < sum(found.values()) < 15.5


def test_the_command_calls_it_an_estimate_and_adds_up() -> None:
    status, output, said = run("estimate", "--methods", "vanilla,fastv", "--budgets", "192")
    assert status == 0 and said.startswith("ESTIMATE by arithmetic for one GPU of 312 TFLOPS")
    assert "documents: 61786 of refcoco, refcoco+, refcocog, textvqa, gqa, sqa, mme, mmb, pope" in said
    told = json.loads(run("estimate", "--methods", "vanilla,fastv", "--budgets", "192", "--json")[1])
    hours = {one["method"]: one["hours"] for one in told["hours"]}
    # 26,488 boxes of 24 tokens and 35,298 short answers of 4
    seconds = 26_488 * (0.0718 + 23 * 0.025) + 35_298 * (0.0718 + 3 * 0.025)
    assert hours["vanilla"] == pytest.approx(seconds / 3600, rel=2e-3) and hours["fastv"] < hours["vanilla"]
    assert told["total_hours"] == pytest.approx(sum(hours.values())) and told["estimate"] is True
    assert f"{hours['vanilla']:.2f} h vanilla 1" in said and "memory: 14." in said


def test_what_is_not_feasible_is_named() -> None:
    _, _, said = run("estimate", "--methods", "vanilla,fastv", "--budgets", "1/30", "--tasks", "gqa")
    assert "not feasible: fastv 1/30" in said and "documents: 12578 of gqa" in said


def test_an_unknown_task_is_named_with_what_is_allowed() -> None:
    status, _, said = run("estimate", "--tasks", "paper,refkoko")
    assert status == 1 and "tasks='refkoko': allowed are" in said and "textvqa" in said
