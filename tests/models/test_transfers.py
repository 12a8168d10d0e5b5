"""How inputs get to the model's device. There is no CUDA device here: what is asked of a tensor is written down."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tiny_checkpoint import in_memory

from swiftvlm_eval.models.checkpoint import Checkpoint


class Told:
    """Stands for a tensor; every step gives another one that knows the way to it."""

    def __init__(self, dtype: torch.dtype, way: tuple[Any, ...] = ()) -> None:
        self.dtype = dtype
        self.way = way

    def is_floating_point(self) -> bool:
        return self.dtype.is_floating_point

    def pin_memory(self) -> "Told":
        return Told(self.dtype, (*self.way, "pinned"))

    def to(self, what: Any, non_blocking: bool = False) -> "Told":
        dtype = what if isinstance(what, torch.dtype) else self.dtype
        return Told(dtype, (*self.way, str(what), *(["no wait"] if non_blocking else [])))


def moved(device: str) -> dict[str, Told]:
    model = SimpleNamespace(device=torch.device(device), dtype=torch.float16)
    inputs: Any = {"input_ids": Told(torch.int64), "pixel_values": Told(torch.float32)}
    found: Any = Checkpoint.to_device(SimpleNamespace(model=model), inputs)  # type: ignore[arg-type]
    return found


def test_to_cuda_goes_pinned_memory_without_a_wait() -> None:
    found = moved("cuda:1")
    assert found["input_ids"].way == ("pinned", "cuda:1", "no wait")
    # what is pinned is as small as what travels
    assert found["pixel_values"].way == ("torch.float16", "pinned", "cuda:1", "no wait")


@pytest.mark.parametrize("device", ["cpu", "mps"])
def test_elsewhere_nothing_is_pinned(device: str) -> None:
    found = moved(device)
    assert found["input_ids"].way == (device,) and found["pixel_values"].way == ("torch.float16", device)


def test_on_a_cpu_values_are_those_of_the_host() -> None:
    own = in_memory(grid=4, layers=2)
    host = own.encode_on_host(["USER: Why? ASSISTANT:"], [[]])
    there = own.to_device(host)
    assert there.keys() == host.keys() and all(torch.equal(there[name], host[name]) for name in host)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_cuda_device_gets_the_same_values() -> None:
    own = in_memory(grid=4, layers=2)
    host = {"pixel_values": torch.randn(3, 5), "input_ids": torch.arange(7)}
    own.model.to("cuda", torch.float16)
    there = own.to_device(host)
    assert torch.equal(there["pixel_values"].cpu(), host["pixel_values"].half())
    assert torch.equal(there["input_ids"].cpu(), host["input_ids"]) and there["input_ids"].is_cuda
