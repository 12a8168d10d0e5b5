"""`batch_size=auto`: what it finds, how that is said, and what a run that goes on makes of it."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from lmms.test_out_of_memory import caption_of, recorded, small
from lmms.tiny_runs import QUESTIONS, TASK, checkpoint, make_model, make_requests

from swiftvlm_eval.efficiency.free_memory import free_memory
from swiftvlm_eval.lmms import fitting, sizing
from swiftvlm_eval.lmms.fitting import (
    agreed,
    estimated_bytes,
    estimated_size,
    largest_that_fits,
    longest,
)
from swiftvlm_eval.lmms.reporting import Reporting
from swiftvlm_eval.runs.journal import Journal

SHORT = {"max_new_tokens": 6}


@pytest.fixture
def by_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a device whose full memory is an error."""
    monkeypatch.setattr(sizing, "choice_on", lambda device: "trial")


@pytest.mark.parametrize("limit", [0, 1, 2, 3, 4, 7, 8, 100])
@pytest.mark.parametrize("most", [1, 2, 3, 8, 64])
def test_the_largest_power_of_two_is_found_upwards(limit: int, most: int) -> None:
    tried: list[int] = []
    found = largest_that_fits(lambda size: tried.append(size) or size <= limit, most)
    powers = [1, 2, 4, 8, 16, 32, 64]
    assert found == max([1, *(power for power in powers if power <= min(limit, most))])
    assert tried == powers[1 : len(tried) + 1] and 1 not in tried


@pytest.mark.parametrize(("limit", "expected"), [(1, 1), (3, 2), (4, 4), (50, 8)])
def test_a_trial_answers_the_longest_prompts_on_the_model_itself(limit: int, expected: int, by_trial: None) -> None:
    own, seen = small(limit)
    model = make_model("swiftvlm", own=own, budget=0.6, batch_size="auto")
    assert model.batch_size == "auto"
    answers = model.generate_until(make_requests(model, [SHORT] * 9))
    assert model.batch_size == expected
    tried = [size for size in (2, 4, 8) if size <= 2 * expected and size <= 9]
    batches = -(-9 // expected)
    assert seen[: len(tried)] == tried and len(seen) == len(tried) + batches  # and none was halved
    plain = make_model("swiftvlm", budget=0.6)
    assert [a.text for a in answers] == [a.text for a in plain.generate_until(make_requests(plain, [SHORT] * 9))]
    (run,) = [answer.token_counts.report.run for answer in answers if answer.token_counts.report.run]
    assert (run.batch_size, run.batch_size_choice) == (expected, "trial")
    assert all(answer.token_counts.report.total_s is None for answer in answers)  # of one at a time, too


def test_the_longest_prompts_are_tried_and_nothing_is_reported_or_drawn(
    by_trial: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, _ = small(2)
    model = make_model("vanilla", own=own, batch_size="auto", max_batch_size="4")
    sampled = {"max_new_tokens": 6, "do_sample": True, "temperature": 0.9}
    requests = make_requests(model, [sampled] * 6)
    events: list[Any] = []
    run, counts = model.answering.run, Reporting.counts
    monkeypatch.setattr(
        model.answering,
        "run",
        lambda batch, drawn=True: events.append(([r.args[-3] for r in batch.requests], drawn)) or run(batch, drawn),
    )
    monkeypatch.setattr(Reporting, "counts", lambda *args: events.append("told") or counts(*args))
    state = torch.get_rng_state()
    size = model.sizing.settled(model.answering, requests, lambda: [len(QUESTIONS[n]) for n in range(6)])
    assert size == 2
    assert events == [([3, 1], False), ([3, 1, 2, 0], False)]
    assert torch.equal(torch.get_rng_state(), state)


def test_a_limit_bounds_the_trial(by_trial: None) -> None:
    own, seen = small(50)
    model = make_model("vanilla", own=own, batch_size="auto", max_batch_size="3")
    model.generate_until(make_requests(model, [SHORT] * 5))
    assert model.batch_size == 2 and seen == [2, 2, 2, 1]


def test_another_failure_of_the_trial_is_no_finding(by_trial: None) -> None:
    own, _ = small(50)
    own.adapter.decoder.layers[3].register_forward_pre_hook(lambda *_: (_ for _ in ()).throw(RuntimeError("shape")))
    model = make_model("vanilla", own=own, batch_size="auto")
    with pytest.raises(RuntimeError, match=f"{TASK} doc_id 3, {TASK} doc_id 1: shape"):
        model.generate_until(make_requests(model, [SHORT] * 4))


def test_a_run_that_goes_on_keeps_its_size(by_trial: None, tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"

    def model(limit: int) -> tuple[Any, list[int]]:
        own, seen = small(limit)
        return make_model("vanilla", own=own, batch_size="auto", journal=Journal(path)), seen

    first, seen = model(2)
    first.generate_until(make_requests(first, [SHORT] * 6))
    assert seen == [2, 4, 2, 2, 2]
    lines = path.read_text().splitlines()
    assert json.loads(lines[0]) == {"settled": {"batch_size": 2, "choice": "trial"}}
    assert len(Journal(path)) == 6 == len(lines) - 1
    path.write_text("\n".join(lines[:3]) + "\n")  # killed after the first batch
    resumed, seen = model(50)  # more would fit by now
    answers = resumed.generate_until(make_requests(resumed, [SHORT] * 6))
    assert seen == [2, 2] and resumed.batch_size == 2
    runs = [answer.token_counts.report.run for answer in answers if answer.token_counts.report.run]
    assert {(run.batch_size, run.batch_size_choice) for run in runs} == {(2, "trial")}


def test_processes_take_the_smallest(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (agreed(8), agreed(None)) == (8, None)
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 3)

    def gathers(others: list[int | None]) -> None:
        def gather(found: list[int | None], own: int | None) -> None:
            found[:] = [own, *others]

        monkeypatch.setattr(torch.distributed, "all_gather_object", gather)

    gathers([4, None])
    assert (agreed(8), agreed(2), agreed(None)) == (4, 2, 4)
    gathers([None, None])
    assert agreed(None) is None


def test_the_group_that_comes_to_most_rows_is_tried() -> None:
    assert longest([[0, 2], [1, 3, 4]], [9, 1, 8, 7, 10]) == [4, 3, 1]
    assert longest([[0, 2], [1, 3]], [9, 1, 8, 7]) == [0, 2]


def test_an_estimate_on_a_cpu_is_called_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sizing, "free_memory", lambda: 1 << 40)
    record, _ = recorded(make_model("fastv", budget=0.5, batch_size="auto"), tmp_path / "run", "demo_gqa", limit=5)
    assert (record.settings.batch_size, record.settings.batch_size_choice) == (4, "estimate")
    assert record.tasks["demo_gqa"].timing is None
    assert "batch size 4 (auto, by estimate), " in " ".join(caption_of(record))
    assert "--batch-size 4 " in record.reproduce["sweep"]


def test_an_estimate_follows_the_free_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model("vanilla", batch_size="auto")
    requests = make_requests(model, [SHORT] * 20)
    longest_one = model.answering.encode(model.answering.read([requests[3]])).inputs
    each = estimated_bytes(model.checkpoint, longest_one, 6)
    monkeypatch.setattr(sizing, "free_memory", lambda: 2 * 5 * each)  # half of it holds five
    model.generate_until(requests)
    assert (model.batch_size, model.description.batch_size_choice) == (4, "estimate")
    monkeypatch.setattr(sizing, "processes", lambda: 2)  # which share the machine
    shared = make_model("vanilla", batch_size="auto")
    shared.generate_until(make_requests(shared, [SHORT] * 20))
    assert shared.batch_size == 2
    monkeypatch.setattr(sizing, "free_memory", lambda: None)
    blind = make_model("vanilla", batch_size="auto")
    with pytest.raises(ValueError, match="batch_size='auto': this system does not say how much memory is free"):
        blind.generate_until(make_requests(blind, [SHORT] * 2))


@pytest.mark.parametrize(("free", "size"), [(0, 1), (199, 1), (400, 2), (799, 2), (800, 4), (10**9, 16)])
def test_half_of_the_free_memory_may_be_needed(free: int, size: int) -> None:
    assert estimated_size(100, 16, free) == size


@pytest.mark.parametrize("family", ["llava", "llava_next"])
def test_the_estimate_counts_what_its_words_say(family: str) -> None:
    """By hand: hidden 64 and 128 wide MLPs in 12 layers, four bytes a number."""
    own = checkpoint(family)
    vision, text = own.model.config.vision_config, own.model.config.text_config
    inputs = {"input_ids": torch.zeros(1, 100, dtype=torch.long), "attention_mask": torch.ones(1, 100)}
    kv = 2 * 13 * text.hidden_size * 110 * 4  # as many key heads as heads
    rows = 100 * (8 * text.hidden_size + 3 * text.intermediate_size) * 4 + 100 * 100 * 4
    assert text.num_key_value_heads == text.num_attention_heads
    assert estimated_bytes(own, inputs, 10) == rows + kv
    assert estimated_bytes(own, inputs, 10, 3) == 3 * (rows + kv)
    side = vision.image_size
    pixels = torch.zeros(50, 3, side, side)
    patches = (side // vision.patch_size) ** 2 + 1
    layers = (vision.num_hidden_layers + 1) * vision.hidden_size + 8 * vision.intermediate_size
    tower = 50 * patches * layers * 4
    assert tower > rows
    assert estimated_bytes(own, {**inputs, "pixel_values": pixels}, 10) == 2 * pixels.numel() * 4 + tower + kv


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, None),
        ({"proc/meminfo": "MemTotal: 9 kB\nMemAvailable: 5 kB\n"}, 5120),
        ({"proc/meminfo": "MemAvailable: 5 kB\n", "sys/fs/cgroup/memory.max": "max\n"}, 5120),
        ({"sys/fs/cgroup/memory.max": "3000\n", "sys/fs/cgroup/memory.current": "1000\n"}, 2000),
        ({"sys/fs/cgroup/memory.max": "max\n", "sys/fs/cgroup/memory.current": "1000\n"}, 5120),
        (
            {
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "900\n",
                "sys/fs/cgroup/memory/memory.usage_in_bytes": "1000\n",
            },
            0,
        ),
    ],
)
def test_free_memory_is_within_the_limit_of_a_container(
    tmp_path: Path, files: dict[str, str], expected: int | None
) -> None:
    if files and "proc/meminfo" not in files:
        files = {"proc/meminfo": "MemAvailable: 5 kB\n", **files}
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    assert free_memory(tmp_path) == expected
    assert fitting.SHARE == 0.5
