"""The processes that share one sweep: this one alone, or those that `accelerate launch` or `torchrun` started."""

from collections.abc import Callable
from typing import Any, TypeVar

Found = TypeVar("Found")


class Processes:
    """What a process knows of the others.

    Args:
        device: as asked for; `cpu` keeps accelerators out of it.

    Raises:
        RuntimeError: several processes were started, but they cannot find each other.
    """

    def __init__(self, device: str = "auto") -> None:
        from accelerate import PartialState
        from accelerate.utils import get_int_from_env

        self._state: Any = PartialState(cpu=device == "cpu")
        started = get_int_from_env(["WORLD_SIZE"], 1)
        if started != self.count:
            raise RuntimeError(
                f"{started} processes were started, but accelerate knows {self.count}; on a machine without "
                "accelerators set ACCELERATE_USE_CPU=true or ask for --device cpu"
            )

    @property
    def count(self) -> int:
        """How many there are."""
        return int(self._state.num_processes)

    @property
    def number(self) -> int:
        """Which this one is, from 0."""
        return int(self._state.process_index)

    @property
    def first(self) -> bool:
        """Whether this is the one that writes records and talks to people."""
        return self.number == 0

    def device_for(self, device: str) -> str:
        """The device to load a model on: with several processes on accelerators, each takes its own."""
        if device in ("auto", "cuda") and self.count > 1 and self._state.device.type != "cpu":
            return str(self._state.device)
        return device

    def told(self, find: Callable[[], Found]) -> Found:
        """What the first process finds, on all of them; to be called by all."""
        from accelerate.utils import broadcast_object_list

        found: list[Any] = [find() if self.first else None]
        if self.count > 1:
            broadcast_object_list(found, from_process=0)
        result: Found = found[0]
        return result

    def one_after_the_other(self, load: Callable[[], Found]) -> Found:
        """Loads on the first process, then on the others, which find everything in the cache."""
        with self._state.main_process_first():
            return load()
