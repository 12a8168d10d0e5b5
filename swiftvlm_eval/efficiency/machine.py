"""The machine a latency run ran on, as far as a reader of its times needs to know it."""

import platform
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch


def machine_facts(device: torch.device) -> dict[str, Any]:
    """What a reader needs to know of the machine: processor or GPU by `name`, threads, instructions. No host name.

    `cpu_capability` is the widest set of vector instructions that torch uses; `bfloat16_instructions` whether the
    processor multiplies bfloat16 itself (where it does not, bfloat16 is emulated, and several times slower than
    float32).
    """
    facts: dict[str, Any] = {"device": device.type, "threads": torch.get_num_threads()}
    if device.type == "cuda":
        return facts | {"name": torch.cuda.get_device_name(device), "cuda": torch.version.cuda}
    flags: set[str] = set()
    name = platform.processor() or platform.machine()
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            key, _, value = line.partition(":")
            name = value.strip() if key.strip() == "model name" else name
            flags |= set(value.split()) if key.strip() == "flags" else set()
    native = bool(flags & {"avx512_bf16", "amx_bf16"}) if flags else None
    capability = torch.backends.cpu.get_cpu_capability()
    return facts | {"name": name, "cpu_capability": capability, "bfloat16_instructions": native}
