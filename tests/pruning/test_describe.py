"""Descriptions of methods: docstrings and types by hand, and families as their loaded models have them."""

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import pytest
from pydantic import Field

from swiftvlm_eval.models.adapter import adapter_class, adapter_for
from swiftvlm_eval.models.families import FAMILIES
from swiftvlm_eval.pruning.contract import PruningMethod, RowEdit, Signals
from swiftvlm_eval.pruning.describe import (
    class_docstring,
    describe,
    lacking,
    meanings,
    merges_rows,
    options_of,
    presets_of,
    schedules_of,
    steps_of,
)
from swiftvlm_eval.pruning.registry import make_method
from swiftvlm_eval.pruning.schedule import Plan, Stage
from swiftvlm_eval.pruning.work import PromptWork, Work
from swiftvlm_eval.testing.tiny_models import tiny_llava, tiny_llava_next


class Above:
    """Above.

    Attributes:
        one: from above.
        two: from above,
            in two lines; with: a colon.

    Raises:
        three: no attribute.
    """


class Below(Above):
    """Below.

    Attributes:
        one (int): from below.
    """


@dataclass(frozen=True, kw_only=True)
class Typed(PruningMethod):
    name: ClassVar[str] = "typed"
    title: ClassVar[str] = "Typed"
    source: ClassVar[str] = "test"
    summary: ClassVar[str] = "test"

    word: Literal["a", "b"] | None = None
    only: Literal["x"] = "x"
    flag: bool = True
    part: Annotated[float, Field(gt=0, le=1)] = 0.5
    grid: Annotated[int, Field(ge=1)] | None = None
    pair: tuple[int, str] = (1, "a")
    some: Annotated[tuple[float, ...], Field(min_length=1)] = (0.5,)
    mixed: float | Literal["auto"] = "auto"
    odd: "int | nowhere" = 3  # type: ignore[name-defined]  # noqa: F821

    def layers_for(self, budget: float | None) -> tuple[int, ...]:
        return (4, 9) if (budget or 1) < 0.5 else (12, 20)

    def select(self, signals: Signals) -> RowEdit:
        return signals.keep_all()

    def work(self, prompt: PromptWork) -> Work:
        return Work()


def test_docstrings_of_the_bases_count_and_the_class_comes_first() -> None:
    assert meanings(Below) == {"one": "from below.", "two": "from above, in two lines; with: a colon."}


def test_a_signature_is_no_docstring() -> None:
    assert class_docstring(Typed()) == ""
    assert (
        class_docstring(make_method("fastv")) == "FastV with K = 2 unless `layers` says otherwise (some peers use 3)."
    )


@pytest.mark.parametrize(
    ("option", "type_", "allowed"),
    [
        ("layers", "list of: whole number, or auto:FILE, or none", None),
        ("word", "one of a, b, or none", ("a", "b", None)),
        ("only", "x", ("x",)),
        ("flag", "true or false", (True, False)),
        ("part", "number above 0, at most 1", None),
        ("grid", "whole number at least 1, or none", None),
        ("pair", "list of 2 (whole number, text)", None),
        ("some", "list of: number at least 1 of them", None),
        ("mixed", "number, or auto", None),
        ("odd", "int | nowhere", None),
    ],
)
def test_types_in_words(option: str, type_: str, allowed: tuple[Any, ...] | None) -> None:
    found = next(said for said in options_of(Typed()) if said.name == option)
    assert (found.type, found.allowed) == (type_, allowed)


def test_boundaries_of_every_budget_once() -> None:
    assert schedules_of(Typed()) == [(4, 9), (12, 20)]
    assert schedules_of(Typed(layers=(3, 5))) == [(3, 5)]
    assert schedules_of(make_method("vanilla")) == []
    with pytest.raises(ValueError, match="layers="):
        schedules_of(Typed(layers=(3, 99)))


def test_a_method_with_a_plan_of_its_own_acts_where_its_plans_do() -> None:
    class Planned(Typed):
        def layers_for(self, budget: float | None) -> tuple[int, ...]:
            return ()

        def plan(self, num_visual: int, num_layers: int, budget: float | None = None, layers: Any = None) -> Plan:
            return Plan(num_visual, num_layers, (Stage(7 if (budget or 1) < 0.5 else 9, 3),))

    assert schedules_of(Planned()) == [(7,), (9,)]


def test_merged_rows_are_those_of_plans() -> None:
    found = {text: merges_rows(make_method(text)) for text in ("fastv", "visionzip", "sparsevlm", "swiftvlm")}
    assert found == {"fastv": False, "visionzip": True, "sparsevlm": True, "swiftvlm": True}
    assert not merges_rows(make_method("swiftvlm[merge=false]"))
    assert merges_rows(make_method("visionzip+random[layers=16]"))


def test_presets_as_shares_and_rows() -> None:
    zipped = make_method("visionzip")
    assert presets_of(zipped, zipped.presets)[-1] == {
        "budget": 192 / 576,
        "stages": [{"kept": 162 / 576, "merged": 30 / 576}],
        "rows": [{"kept": 162, "merged": 30}],
    }
    sparse = make_method("sparsevlm")  # what is recycled follows from what is pruned: no share says it
    last = presets_of(sparse, sparse.presets)[-1]
    assert [stage["merged"] for stage in last["stages"]] == [None] * 3
    assert [row["kept"] for row in last["rows"]] == [300, 200, 110] and all(row["merged"] for row in last["rows"])
    ablated = make_method("swiftvlm[merge=false]")
    assert not any(stage["merged"] for preset in presets_of(ablated, ablated.presets) for stage in preset["stages"])


def test_steps_by_hand() -> None:
    stages = (Stage(0, 50, 5), Stage(3, 20, scored_by="previous"), Stage(4, 20, scored_by="next", part=1))
    steps = steps_of(Plan(100, 6, stages))
    assert [(step["layers"], step["rows"]) for step in steps] == [([1, 3], 55), ([4, 4], 20), ([5, 6], 20)]
    assert [tuple(step["stage"].items()) for step in steps] == [
        (("boundary", 0), ("kept", 50), ("merged", 5), ("scored_by_layer", None), ("part", 0)),
        (("boundary", 3), ("kept", 20), ("merged", 0), ("scored_by_layer", 3), ("part", 0)),
        (("boundary", 4), ("kept", 20), ("merged", 0), ("scored_by_layer", 5), ("part", 1)),
    ]
    assert steps_of(Plan(100, 6)) == [{"layers": [1, 6], "rows": 100, "stage": None}]


def test_families_are_asked_without_a_model() -> None:
    for model in (tiny_llava()[0], tiny_llava_next()[0]):
        adapter = adapter_for(model)
        assert adapter_class(FAMILIES[adapter.family]).offered() == adapter.offers
        assert type(adapter.tower) is type(adapter).tower_class


def test_a_family_that_lacks_a_need_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    zipped = make_method("visionzip")
    assert describe(zipped)["families"] == list(FAMILIES)
    monkeypatch.setattr("swiftvlm_eval.models.adapter.TowerPart.offers", frozenset({"patch_features", "patch_keys"}))
    assert lacking(zipped.needs) == {family: ["cls_attention"] for family in FAMILIES}
    assert describe(zipped)["families"] == []
