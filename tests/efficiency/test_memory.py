"""Memory: peaks of blocks whose allocations are known, and what does not fit."""

from pathlib import Path

import pytest
import torch
from transformers import DynamicCache

from swiftvlm_eval.efficiency import memory
from swiftvlm_eval.efficiency.memory import available_bytes, cache_bytes, check_fits, needed_bytes, peak_memory
from swiftvlm_eval.efficiency.workload import read_workload

CPU = torch.device("cpu")
MB = 250_000
"""Numbers of float32 in a million bytes."""


def test_the_peak_is_of_what_is_held_at_a_time() -> None:
    kept = torch.empty(50 * MB)  # before the block: not in it
    with peak_memory(CPU) as peak:
        first, second = torch.empty(4 * MB), torch.empty(8 * MB)
        del first
        third = torch.empty(2 * MB)
        del second, third
    assert peak.size == 12_000_000 and kept.numel() == 50 * MB
    with peak_memory(CPU) as smaller:
        torch.empty(3 * MB)
    assert smaller.size == 3_000_000, "a later block does not inherit the peak of an earlier one"
    with peak_memory(CPU) as nothing:
        pass
    assert nothing.size == 0


def test_temporaries_inside_an_operation_count() -> None:
    with peak_memory(CPU) as peak:
        torch.randn(100, 100).softmax(-1)
    assert peak.size >= 2 * 4 * 100 * 100


def test_standard_error_is_open_again_also_after_a_failure(capfd: pytest.CaptureFixture[str]) -> None:
    import os

    with pytest.raises(RuntimeError, match="inside"), peak_memory(CPU):
        os.write(2, b"hidden")
        raise RuntimeError("inside")
    os.write(2, b"shown")
    assert capfd.readouterr().err == "shown"


def test_a_gpu_is_asked_for_its_own_high_water_mark(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    answers = {"memory_allocated": 1000, "max_memory_allocated": 4000}
    for name in ("synchronize", "reset_peak_memory_stats", *answers):
        monkeypatch.setattr(torch.cuda, name, lambda device, name=name: calls.append(name) or answers.get(name))
    with peak_memory(torch.device("cuda")) as peak:
        calls.append("block")
    assert peak.size == 3000
    assert calls.index("reset_peak_memory_stats") < calls.index("block") < calls.index("max_memory_allocated")
    assert calls[calls.index("block") + 1] == "synchronize"


def test_a_cache_counts_every_layer_by_its_own_length() -> None:
    cache = DynamicCache()
    for layer, rows in enumerate((10, 10, 4)):
        cache.update(torch.zeros(2, 3, rows, 5, dtype=torch.float16), torch.zeros(2, 3, rows, 5).half(), layer)
    assert cache_bytes(cache) == 2 * (2 * 3 * 5 * 2) * (10 + 10 + 4)


@pytest.mark.parametrize(("shape", "parameters"), [("llava-1.5-7b", 7_063_427_072), ("llava-1.5-13b", 13_350_839_296)])
def test_the_weights_of_named_shapes_are_those_of_the_checkpoints(shape: str, parameters: int) -> None:
    """Counts as the hub states them; buffers of the rotary tables are beyond it."""
    found = needed_bytes(read_workload(shape), torch.float16, CPU)
    assert found["weights"] == pytest.approx(2 * parameters, rel=2e-4)
    assert found["context"] == 0 and needed_bytes(read_workload(shape), torch.float16, torch.device("cuda"))["context"]


def test_the_cache_that_is_planned_is_the_one_that_is_held() -> None:
    """32 layers, keys and values of 4096 in half precision, 576 + 64 + 8 rows, twice."""
    found = needed_bytes(
        read_workload("llava-1.5-7b", batch_size=2, text_tokens=64, output_tokens=8), torch.float16, CPU
    )
    assert found["cache"] == 2 * 32 * 2 * 4096 * 2 * (576 + 64 + 8)
    grouped = needed_bytes(read_workload("llava-next-mistral-7b"), torch.float16, CPU)
    assert grouped["cache"] == 32 * 2 * 1024 * 2 * (2928 + 64 + 8)


def test_what_does_not_fit_is_refused_before_it_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    workload = read_workload("llava-1.5-7b", batch_size=8)
    monkeypatch.setattr(memory, "available_bytes", lambda _: 10 * 2**30)
    with pytest.raises(ValueError, match=r"1\.5-7b, dtype float16, batch_size 8: needs 1\d\.\d GiB .* 10\.0 GiB"):
        check_fits(workload, torch.float16, CPU)
    monkeypatch.setattr(memory, "available_bytes", lambda _: 100 * 2**30)
    check_fits(workload, torch.float16, CPU)
    monkeypatch.setattr(memory, "available_bytes", lambda _: None)
    check_fits(workload, torch.float16, CPU)


def test_eager_attention_needs_its_scores() -> None:
    workload = read_workload("llava-next-vicuna-7b")
    eager, sdpa = (needed_bytes(workload, torch.float16, CPU, attn)["activations"] for attn in ("eager", "sdpa"))
    assert eager > 3 * sdpa


def test_what_is_free_is_within_the_machine_and_its_container(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = available_bytes(CPU)
    assert found is None or 0 <= found < 2**50
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (7, 100))
    assert available_bytes(torch.device("cuda")) == 7
    assert available_bytes(CPU, tmp_path) is None
    group = tmp_path / "sys" / "fs" / "cgroup"
    for folder in (tmp_path / "proc", group):
        folder.mkdir(parents=True)
    (tmp_path / "proc" / "meminfo").write_text("MemTotal:  100 kB\nMemFree:  1 kB\nMemAvailable:     40 kB\n")
    assert available_bytes(CPU, tmp_path) == 40 * 1024
    (group / "memory.current").write_text("1000\n")
    for limit, expected in (("max", 40 * 1024), ("6000", 5000), ("500", 0), ("9999999", 40 * 1024)):
        (group / "memory.max").write_text(f"{limit}\n")
        assert available_bytes(CPU, tmp_path) == expected
