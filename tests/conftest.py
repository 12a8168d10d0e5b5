"""Settings of the whole suite."""

import gc
import os

import pytest

# Test runners in several processes fix the width of a terminal; each test that needs one says so itself.
for name in ("COLUMNS", "LINES"):
    os.environ.pop(name, None)

# Collecting makes hundreds of thousands of objects that stay: nothing to look through for the garbage collector, which
# lmms-eval calls twice a run and which would take a second each time.
gc.disable()


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop() -> None:
    """What is there stays there, unseen; garbage of the tests is collected as ever."""
    gc.collect()
    gc.freeze()
    gc.enable()


def pytest_sessionfinish() -> None:
    """The interpreter ends as ever."""
    gc.unfreeze()
