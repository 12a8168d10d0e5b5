"""Every option of every method changes the answer, in the way its docstring says, or is refused by name.

The table holds one case for each option of each registered method. An option without a case fails.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import pytest
import torch
from tiny_models import make_image, make_inputs, tiny_llava

from swiftvlm_eval import make_method, method_names, prune
from swiftvlm_eval.pruning.budget import BudgetError
from swiftvlm_eval.pruning.registry import method_class

N, LAYERS = 144, 16


@dataclass(frozen=True)
class Answer:
    """What a prefill of 144 visual tokens in 16 layers showed.

    Attributes:
        rows: visual rows of each layer.
        kept: per stage the visual indices in the sequence.
        boundaries: of the stages.
        logits: of the first generated token.
        end: position id of the first generated token in the last layers.
    """

    rows: list[int]
    kept: list[list[int]]
    boundaries: list[int]
    logits: torch.Tensor
    end: int


Judge = Callable[[Answer, Answer], bool]


@dataclass(frozen=True)
class Changes:
    """The option set to `value` gives another answer than without it, and `judge(without, with)` holds."""

    value: Any
    judge: Judge
    base: tuple[tuple[str, Any], ...] = ()
    budget: float = 0.4


@dataclass(frozen=True)
class Refused:
    """The option set to `value` is refused; the message holds `says`."""

    value: Any
    says: str
    budget: float = 0.4


@dataclass(frozen=True)
class Unused:
    """The option exists because every method has it, and has nothing to change here."""

    value: Any
    because: str


def at(*boundaries: int) -> Judge:
    """Edits happen at these boundaries."""
    return lambda without, given: given.boundaries == list(boundaries) != without.boundaries


def keeps(*counts: int) -> Judge:
    """So many visual tokens stay after each stage, rows that were merged left out."""
    return lambda without, given: [len(kept) for kept in given.kept] == list(counts)


def grid(stride: int) -> set[int]:
    """Every stride-th row and column of 12 x 12."""
    return {row * 12 + column for row in range(0, 12, stride) for column in range(0, 12, stride)}


def same_counts(without: Answer, given: Answer) -> bool:
    """Other tokens, as many of them."""
    return without.rows == given.rows and without.kept != given.kept


def same_start(without: Answer, given: Answer) -> bool:
    """What changes comes after the choice of the first stage."""
    return without.kept[0] == given.kept[0] and without.rows == given.rows


def more_rows(without: Answer, given: Answer) -> bool:
    """As many edits, each with more rows left."""
    fewer = [a <= b for a, b in zip(without.rows, given.rows, strict=True)]
    return without.boundaries == given.boundaries and all(fewer) and without.rows[-1] < given.rows[-1]


THREE = (3, 6, 9)
STAGED = (("layers", THREE),)
SWIFT = (*STAGED, ("counts", (60, 12, 40, 8, 20)))
PAPER = "has paper schedules for the shares"
NONE = "has no schedule=paper"
V1 = (("scale", 2.0),)
GRID = "takes form and grid instead"
CASES: dict[str, dict[str, Changes | Refused | Unused]] = {
    "vanilla": {
        "layers": Refused((3,), "vanilla keeps every token"),
        "counts": Refused((30,), "vanilla keeps every token"),
        "schedule": Unused("paper", "every schedule of no pruning is the same"),
    },
    "random": {
        "layers": Changes((5,), at(5)),
        "counts": Changes((30,), keeps(30)),
        "schedule": Refused("paper", NONE),
    },
    "fastv": {
        "layers": Changes((5,), at(5)),
        "counts": Changes((30,), keeps(30)),
        # 166 of 576
        "schedule": Changes("paper", keeps(round(166 / 4)), (("layers", (2,)),), budget=1 / 3),
        "scope": Changes("visual", same_counts),
    },
    "pdrop": {
        "layers": Changes(THREE, at(*THREE)),
        "counts": Changes((70, 40, 10), keeps(70, 40, 10)),
        # a quarter three times, truncated; at these layers the exact counts are others
        "schedule": Changes("paper", keeps(36, 9, 2), STAGED, budget=1 / 3),
        # not renumbered after the last edit either
        "positions": Changes("keep", lambda without, given: same_start(without, given) and given.end > without.end),
    },
    "feather": {
        "layers": Changes((3, 6), at(3, 6)),
        "counts": Changes((60, 20), keeps(60, 20)),
        "schedule": Changes("paper", lambda without, given: grid(3) <= set(given.kept[0]), budget=1 / 3),
        "mode": Changes(
            "union",
            # 43 by score and 16 on the grid; then 0.09 of what that gave
            lambda without, given: (
                43 <= len(given.kept[0]) <= 59
                and grid(3) <= set(given.kept[0])
                and len(given.kept[1]) == int(0.09 * len(given.kept[0]))
            ),
            budget=1 / 3,
        ),
        "stride": Changes(
            2,
            lambda without, given: grid(2) <= set(given.kept[0]) and not grid(2) <= set(without.kept[0]),
            (("counts", (60, 20)),),
        ),
        "keep_ratio": Changes(
            0.5, lambda without, given: 72 <= len(given.kept[0]) <= 88, (("mode", "union"),), budget=1 / 3
        ),
    },
    "sparsevlm": {
        "layers": Changes(THREE, at(*THREE)),
        # of the 64, 43 and 17 rows that are dropped, 20, 13 and 6 are recycled into 3, 2 and 1
        "counts": Changes((80, 40, 25), lambda without, given: sorted({*given.rows}) == [26, 42, 83, 144]),
        # 300 of 576
        "schedule": Changes("paper", lambda without, given: len(given.kept[0]) == 75, STAGED, budget=1 / 3),
    },
    "sparsevlm_plus": {
        "layers": Changes(THREE, at(*THREE)),
        "counts": Changes((80, 40, 25), keeps(80, 40, 25)),
        "schedule": Changes("paper", keeps(75, 50, round(118 / 4)), STAGED, budget=1 / 3),
        "heads": Changes(1, same_counts, STAGED),
    },
    "sparsevlm_v1": {
        "layers": Changes((2, 4, 6, 9), at(2, 4, 6, 9), V1),
        "counts": Refused((30,), "counts by scale and bias", 1 / 3),
        "schedule": Refused("paper", NONE, 1 / 3),
        "scale": Changes(2.0, lambda without, given: more_rows(given, without), budget=1 / 3),
        "bias": Changes(20.0, more_rows, V1),
    },
    "swiftvlm": {
        "layers": Changes(THREE, at(*THREE)),
        "counts": Changes((60, 12, 40, 8, 20), keeps(60, 40, 20)),
        # 34 of 576 in the last stage, where the exact schedule has 40
        "schedule": Changes("paper", keeps(36, 18, round(34 / 4)), STAGED, budget=2 / 9),
        "scope": Changes("all", same_counts, SWIFT),
        "anchors": Changes("top", same_start, SWIFT),
        "merged_position": Changes("mean", same_start, SWIFT),
        "merge": Changes(
            False,
            # nothing merged, and what is dropped stays away
            lambda without, given: (
                set(given.kept[2]) < set(given.kept[1]) < set(given.kept[0])
                and given.rows[3] == len(given.kept[0])
                and without.rows[3] > len(without.kept[0])
                and bool(set(without.kept[1]) - set(without.kept[0]))
            ),
            STAGED,
        ),
        "bypass": Changes(
            False,
            # merged rows still enter, but no token returns
            lambda without, given: (
                set(given.kept[1]) <= set(given.kept[0])
                and given.rows[3] == without.rows[3] > len(given.kept[0])
                and bool(set(without.kept[1]) - set(without.kept[0]))
            ),
            SWIFT,
        ),
    },
    "visionzip": {
        "layers": Changes((3,), at(3)),
        # 45 with CLS, and 15 merged ones
        "counts": Changes((45, 15), lambda without, given: given.rows[0] == 60 and len(given.kept[0]) == 44),
        "schedule": Refused("paper", PAPER),
    },
    "downsample": {
        "layers": Refused((3,), GRID),
        "counts": Refused((30,), GRID),
        "schedule": Unused("paper", "no paper has a schedule of it; the command for FLOPs asks every method"),
        "form": Changes("pool", lambda without, given: without.rows == given.rows),
        "grid": Changes(5, lambda without, given: given.rows == [25] * LAYERS),
    },
}


def test_every_option_has_a_case() -> None:
    assert set(CASES) == set(method_names()), "a registered method has no cases here, or a case has no method"
    for name in method_names():
        options = {option.name for option in fields(method_class(name))}
        missing = ", ".join(sorted(options - set(CASES[name])))
        assert not missing, f"{name} has the option {missing}, but no case in this file shows what it changes: add one"
        assert set(CASES[name]) <= options, f"{name} has no option {set(CASES[name]) - options}"


def answer(name: str, options: dict[str, Any], budget: float) -> Answer:
    model, processor = tiny_llava(grid=12, layers=LAYERS)
    inputs = make_inputs(processor, make_image(150, 110, seed=3))
    with prune(model, make_method(name, options), budget=budget) as session, torch.no_grad():
        session.sample_keys = ["sample"]
        logits = model(**inputs, logits_to_keep=1).logits[0, -1]
        trace, end = session.traces[0], int(session._segments[-1].next_positions)
    assert trace.num_visual == N and torch.isfinite(logits).all()
    kept = [stage.kept_indices for stage in trace.stages]
    return Answer(trace.rows_per_layer, kept, [stage.boundary for stage in trace.stages], logits, end)


@pytest.mark.parametrize(("name", "option"), [(name, option) for name in CASES for option in CASES[name]])
def test_an_option_does_what_it_says(name: str, option: str) -> None:
    case = CASES[name][option]
    if isinstance(case, Refused):
        with pytest.raises((BudgetError, ValueError), match=case.says):
            answer(name, {option: case.value}, case.budget)
        return
    if isinstance(case, Unused):
        assert torch.equal(answer(name, {}, 0.4).logits, answer(name, {option: case.value}, 0.4).logits)
        return
    base = {key: value for key, value in case.base if key != option}
    without = answer(name, base, case.budget)
    given = answer(name, {**base, option: case.value}, case.budget)
    same = torch.allclose(without.logits, given.logits, atol=1e-3)
    assert not same, f"{name}: {option}={case.value} changed nothing"
    assert case.judge(without, given)


@pytest.mark.parametrize(
    ("name", "option", "values", "base"),
    [
        ("swiftvlm", "anchors", ("strided", "top", "floor_step"), SWIFT),
        ("swiftvlm", "merged_position", ("anchor", "mean", "round"), SWIFT),
        ("downsample", "form", ("low_res", "pool", "blur"), ()),
    ],
)
def test_all_values_of_an_option_differ(name: str, option: str, values: tuple[str, ...], base: Any) -> None:
    found = [answer(name, {**dict(base), option: value}, 0.4).logits for value in values]
    for number, one in enumerate(found):
        assert not any(torch.allclose(one, other, atol=1e-4) for other in found[:number]), values[number]
