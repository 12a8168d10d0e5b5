"""What a latency run found: paired ratios with intervals, the implied speed-up, and the machine it ran on."""

import platform
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import bootstrap

from swiftvlm_eval.efficiency.latency import AGAIN, Timing


def machine_facts(device: torch.device) -> dict[str, Any]:
    """What a reader needs to know of the machine: processor or GPU, threads, instructions. No host name.

    `cpu_capability` is the widest set of vector instructions that torch uses; `bfloat16_instructions` whether the
    processor multiplies bfloat16 itself (where it does not, bfloat16 is emulated, and several times slower than
    float32).
    """
    facts: dict[str, Any] = {"device": device.type, "threads": torch.get_num_threads()}
    if device.type == "cuda":
        return facts | {"gpu": torch.cuda.get_device_name(device), "cuda": torch.version.cuda}
    flags: set[str] = set()
    name = platform.processor() or platform.machine()
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            key, _, value = line.partition(":")
            name = value.strip() if key.strip() == "model name" else name
            flags |= set(value.split()) if key.strip() == "flags" else set()
    native = bool(flags & {"avx512_bf16", "amx_bf16"}) if flags else None
    capability = torch.backends.cpu.get_cpu_capability()
    return facts | {"cpu": name, "cpu_capability": capability, "bfloat16_instructions": native}


def ratio_interval(numerator: Sequence[float], denominator: Sequence[float]) -> tuple[float, float, float]:
    """Median of the paired ratios with a 95 % bootstrap interval."""
    ratios = np.asarray(numerator) / np.asarray(denominator)
    median = float(np.median(ratios))
    if len(ratios) < 3 or np.ptp(ratios) == 0:
        return median, float(ratios.min()), float(ratios.max())
    interval = bootstrap((ratios,), np.median, n_resamples=2000, method="percentile", rng=0).confidence_interval
    return median, float(interval.low), float(interval.high)


def latency_rows(timings: Sequence[Timing]) -> Iterator[dict[str, Any]]:
    """One row per contender: medians, paired speed-ups over stock, and the FLOPs-implied prefill speed-up.

    `of_implied` is the measured over the implied speed-up. The measured prefill holds the vision tower and the
    projector, which no decoder method makes faster, the implied one the decoder alone: with a tower that counts, 1 is
    out of reach.
    """
    stock = timings[0]
    for timing in timings:
        implied = stock.flops / timing.flops
        speedup = ratio_interval(stock.prefill, timing.prefill)
        yield {
            "contender": timing.label,
            "mean_visual_tokens": float(np.mean(timing.rows_per_layer)),
            "prefill_ms": 1000 * float(np.median(timing.prefill)),
            "decode_ms": 1000 * float(np.median(timing.decode)),
            "prefill_speedup": speedup,
            "decode_speedup": ratio_interval(stock.decode, timing.decode),
            "implied_speedup": implied,
            "of_implied": speedup[0] / implied,
            "peak_memory_mib": None if timing.peak_memory is None else timing.peak_memory / 2**20,
        }


def steady(rows: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the stock model, measured twice side by side, holds a ratio of 1 in both of its intervals."""
    twin = next(row for row in rows if row["contender"] == AGAIN)
    return all(twin[key][1] <= 1 <= twin[key][2] for key in ("prefill_speedup", "decode_speedup"))
