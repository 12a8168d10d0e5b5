"""Counts what a piece of code asks of the device: operations that compute, and points at which the host waits.

On CUDA torch itself reports every wait. Elsewhere they are counted where they would be: where a tensor's values or a
size that depends on them are read.
"""

import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch.utils._python_dispatch import TorchDispatchMode

NOTHING_COMPUTED = {"_unsafe_view", "detach", "empty", "empty_like", "lift_fresh", "new_empty", "empty_strided"}
"""Operations beside views that leave all values as they are, or undefined."""
READS_VALUES = {"_local_scalar_dense", "nonzero", "masked_select", "_unique2", "unique_dim", "equal", "is_nonzero"}
"""Operations whose result, or its size, the host must wait for."""
LEAVES_THE_DEVICE = ("cpu", "tolist", "numpy")


class Counted(TorchDispatchMode):
    """Counts while it is active.

    Attributes:
        operations: name -> how often it was computed; views and empty tensors do not count.
        waits: name -> how often the host waited, or would have on a device.
    """

    def __init__(self) -> None:
        super().__init__()
        self.operations: Counter[str] = Counter()
        self.waits: Counter[str] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Runs an operation and notes it."""
        name = func.overloadpacket.__name__
        if not func.is_view and name not in NOTHING_COMPUTED:
            self.operations[name] += 1
        if name in READS_VALUES or (name in ("index", "index_put", "index_put_") and _by_mask(args[1])):
            self.waits[name] += 1
        return func(*args, **(kwargs or {}))


def _by_mask(indices: Any) -> bool:
    """Whether one of the indices is a mask, whose rows must be counted first."""
    return any(index is not None and index.dtype in (torch.bool, torch.uint8) for index in indices)


@contextmanager
def counted() -> Iterator[Counted]:
    """Counts what the block does."""
    found = Counted()
    on_device = torch.cuda.is_available()
    with warnings.catch_warnings(record=True) as said, found:
        warnings.simplefilter("always")
        if on_device:
            torch.cuda.set_sync_debug_mode("warn")
            try:
                yield found
            finally:
                torch.cuda.set_sync_debug_mode("default")
        else:
            with patch.multiple(torch.Tensor, **{name: _noting(found, name) for name in LEAVES_THE_DEVICE}):
                yield found
    if on_device:
        found.waits = Counter({"cuda": sum("synchronizing CUDA operation" in str(one.message) for one in said)})


def _noting(found: Counted, name: str) -> Callable[..., Any]:
    """A method of tensors that notes that it was called; calls inside it are part of it."""
    stock = getattr(torch.Tensor, name)

    def noting(self: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        if not getattr(self, "_left", False):
            found.waits[name] += 1
        result = stock(self, *args, **kwargs)
        if isinstance(result, torch.Tensor):
            result = result.detach()  # without a device it would be the tensor itself
            result._left = True  # type: ignore[attr-defined]  # what is on the host may be read there
        return result

    return noting
