"""Memory of a latency run: what it will need, what there is, and the peak of one prefill by the allocator's own count.

The peak of a block is that of tensors above what was there when it began (weights, inputs). On CUDA it is the caching
allocator's; on a CPU it is summed from the allocations and releases that torch's profiler reports, since a process'
resident set only grows and does not tell contenders apart. Buffers that a math library takes without torch's
allocator are in neither.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.autograd.profiler import profile

from swiftvlm_eval.efficiency.free_memory import free_memory
from swiftvlm_eval.efficiency.run_estimate import CUDA_CONTEXT
from swiftvlm_eval.efficiency.workload import Workload, build_model

PEAK_METHODS = {"cuda": "cuda_allocator", "cpu": "cpu_allocator_events"}
"""Device -> how its peak is found."""


@dataclass
class Peak:
    """Most bytes of tensors at a time above those at the start of a block; None while it runs."""

    size: int | None = None


@contextmanager
def peak_memory(device: torch.device) -> Iterator[Peak]:
    """Finds the peak of a block. It slows a CPU: not for blocks that are timed.

    Args:
        device: where its tensors are.
    """
    found = Peak()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        yield found
        torch.cuda.synchronize(device)
        found.size = torch.cuda.max_memory_allocated(device) - before
        return
    with _native_log_dropped(), profile(profile_memory=True, use_kineto=False) as profiled:  # type: ignore[no-untyped-call]
        yield found
    now = most = 0
    events = [event for event in profiled.kineto_results.events() if event.name() == "[memory]"]
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        most = max(most, now)
    found.size = most


@contextmanager
def _native_log_dropped() -> Iterator[None]:
    """Keeps what torch's profiler writes to the process' standard error, beginning and end of it, off the terminal."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        sys.stderr.flush()
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def cache_bytes(cache: Any) -> int:
    """Bytes of the keys and values that a cache of transformers holds, padding included."""
    return sum(
        tensor.numel() * tensor.element_size() for layer in cache.layers for tensor in (layer.keys, layer.values)
    )


def weight_bytes(model: Any) -> int:
    """Bytes of a model's parameters and buffers; one on `meta` tells what they would be."""
    return sum(tensor.numel() * tensor.element_size() for tensor in [*model.parameters(), *model.buffers()])


def needed_bytes(workload: Workload, dtype: torch.dtype, device: torch.device, attn: str = "sdpa") -> dict[str, int]:
    """What the unpruned run needs, by item; weights and cache exactly, the activations of the largest layer estimated.

    Args:
        workload: the run.
        dtype: of weights and activations.
        device: a GPU needs room for its libraries.
        attn: attention kernel; eager keeps its scores.
    """
    shape, size, batch = workload.shape, dtype.itemsize, workload.batch_size
    rows = workload.visual_tokens + workload.text_tokens + workload.output_tokens
    decoder = rows * (3 * shape.intermediate_size + 6 * shape.hidden_size)
    decoder += 2 * shape.num_heads * rows**2 if attn == "eager" else 0
    tower = workload.encoder_inputs * (workload.side**2 + 1) * 14 * workload.vision_width
    return {
        "weights": weight_bytes(build_model(workload, dtype, torch.device("meta"))),
        "cache": size * batch * 2 * shape.num_layers * shape.key_width * rows,
        "activations": size * batch * max(decoder, tower),
        "context": CUDA_CONTEXT if device.type == "cuda" else 0,
    }


def available_bytes(device: torch.device, root: Path = Path("/")) -> int | None:
    """Bytes that are free now, within the limit of a container; None where the system does not tell.

    Args:
        device: whose memory.
        root: of the file system.
    """
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return free_memory(root)


def check_fits(workload: Workload, dtype: torch.dtype, device: torch.device, attn: str = "sdpa") -> None:
    """Refuses a run that does not fit, before anything is built. Arguments as of `needed_bytes`.

    Raises:
        ValueError: names what is needed and what there is.
    """
    there = available_bytes(device)
    needed = needed_bytes(workload, dtype, device, attn)
    total = sum(needed.values())
    if there is None or total <= there:
        return
    items = ", ".join(f"{item} {size / 2**30:.1f}" for item, size in needed.items() if size)
    name, kind = workload.name or "of these numbers", str(dtype).removeprefix("torch.")
    raise ValueError(
        f"shape {name}, dtype {kind}, batch_size {workload.batch_size}: needs {total / 2**30:.1f} GiB ({items}), but "
        f"{device} has {there / 2**30:.1f} GiB free; allowed is what fits: half precision, a smaller batch or shape"
    )
