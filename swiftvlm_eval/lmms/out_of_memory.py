"""A batch that does not fit into memory: how that is seen, and how it is answered in halves."""

import gc
from collections.abc import Callable, Iterator
from typing import TypeVar

import torch

Batch = TypeVar("Batch")
Answers = TypeVar("Answers")

# Said by plain RuntimeErrors: the allocator of the CPU, that of Apple's GPUs, and libraries of CUDA that allocate.
_SAID = ("DefaultCPUAllocator: can't allocate memory", "MPS backend out of memory", "_STATUS_ALLOC_FAILED")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that a tensor did not fit.

    On a CPU that is rare: Linux promises memory that it does not have, and ends the process later.
    """
    if isinstance(error, torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _SAID)


def release(device: torch.device) -> None:
    """Gives back what a failed batch held: its tensors, and what the allocator keeps of them."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def in_halves(
    attempt: Callable[[Batch, int], Answers | None], batch: Batch, halves: Callable[[Batch], list[Batch]]
) -> Iterator[Answers]:
    """Answers of a batch, part by part in order: whole if it fits, else each half in the same way.

    Args:
        attempt: the answers of a part, None if it does not fit; is told how many batches did not since the last
            answer, so that these numbers add up to all of them.
        batch: what is to be answered.
        halves: of a part that does not fit.
    """
    waiting, failures = [batch], 0
    while waiting:
        part = waiting.pop()
        answers = attempt(part, failures)
        if answers is None:
            failures += 1
            waiting += reversed(halves(part))
        else:
            failures = 0
            yield answers
