"""What an oracle declares of its method, and the collection of all oracles.

Every module in this folder that is the oracle of a method has a tuple `ORACLES` of `MethodOracle`. The tests of
methods read from it what they cannot ask the method itself, because it would then be its own judge.
"""

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import reference
from reference.full_length import Run
from reference.options import OptionCase

Slow = Callable[..., Run]
"""(model, inputs, generated tokens) -> what the slow implementation saw."""


@dataclass(frozen=True)
class Case:
    """The method with these options at this budget is what `run` computes."""

    options: Mapping[str, Any]
    run: Slow
    budget: str | None = None


def makes_nothing(rest: int, merged: int, options: Mapping[str, Any], last: bool) -> int:
    """Rows made of `rest` rows that are dropped, `merged` having been planned: none."""
    return 0


@dataclass(frozen=True, kw_only=True)
class MethodOracle:
    """What is true of a method by its paper.

    Attributes:
        method: its name.
        score_layers: boundary -> 0-based layer whose projections score there, in a 16-layer decoder; None at a stage
            that asks no layer of the decoder; empty if the method asks for no attention of the decoder at all.
        cases: name -> options and their slow implementation.
        no_cases: why there are none.
        options: name of each option -> what setting it does.
        scale: options without which the method knows few budgets only; other tests build it with them.
        made: (rows dropped, merged rows planned, options, whether the last stage) -> rows that the stage makes.
        returns: options -> whether dropped tokens may come back at a later stage.
        raster: whether the visual rows stand in the order of their tokens.
        rewrites: whether rows that are kept change their content.
        everywhere: whether every planned count can be executed; False if the tower or the tiles may refuse some.
    """

    method: str
    score_layers: Mapping[int, int | None] = field(default_factory=dict)
    cases: Mapping[str, Case] = field(default_factory=dict)
    no_cases: str = ""
    options: Mapping[str, OptionCase]
    scale: Mapping[str, Any] = field(default_factory=dict)
    made: Callable[[int, int, Mapping[str, Any], bool], int] = makes_nothing
    returns: Callable[[Mapping[str, Any]], bool] = lambda options: False
    raster: bool = True
    rewrites: bool = False
    everywhere: bool = True


@cache
def oracles() -> dict[str, MethodOracle]:
    """Every declared oracle, by method."""
    found: dict[str, MethodOracle] = {}
    for module in pkgutil.iter_modules(reference.__path__):
        if not module.name.startswith("test_"):
            declared = getattr(importlib.import_module(f"reference.{module.name}"), "ORACLES", ())
            found.update({oracle.method: oracle for oracle in declared})
    return found


def oracle_of(name: str) -> MethodOracle:
    """The oracle of a method.

    Raises:
        LookupError: it has none; the message says what is missing.
    """
    if name not in oracles():
        raise LookupError(
            f"the method {name} has no oracle: write a slow, plain implementation of it in tests/reference/ and "
            f"declare it there, ORACLES = (MethodOracle(method={name!r}, score_layers=..., cases=..., options=...),)"
        )
    return oracles()[name]
