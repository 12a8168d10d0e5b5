"""What every registered method must do; a new method is covered by being registered.

The checks ship with the package (`swiftvlm_eval.testing`), so that a method from outside passes the same ones.
"""

from collections.abc import Callable
from functools import partial

import pytest
from reference.declared import oracle_of

from swiftvlm_eval import make_method, method_names
from swiftvlm_eval.testing.checks import CHECKS, Subject


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", method_names())
def test_method(name: str, check: Callable[[Subject], None]) -> None:
    oracle = oracle_of(name)
    check(Subject(partial(make_method, name), oracle.scale, oracle.raster))
