"""Garbage collection while a sweep runs."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def what_is_there_kept() -> Iterator[None]:
    """Spares what is there already from garbage collection: each run collects twice, and libraries are large."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
