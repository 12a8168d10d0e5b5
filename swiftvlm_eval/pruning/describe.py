"""What a method says of itself, as data: its words, where it acts, its options, presets and plans.

Everything is read off the method, so a new one needs no entry here. No model is loaded; asking for families imports
their adapters.
"""

import inspect
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, fields
from typing import Any, get_type_hints

from swiftvlm_eval.pruning.budget import REFERENCE_VISUAL_TOKENS, StageRows
from swiftvlm_eval.pruning.composed import Composed
from swiftvlm_eval.pruning.contract import PruningMethod
from swiftvlm_eval.pruning.schedule import Plan, Stage
from swiftvlm_eval.pruning.servable import why_not_servable

REFERENCE_LAYERS = 32
"""Decoder layers of LLaVA-7B, in which papers name their boundaries."""
_BUDGETS = tuple(percent / 100 for percent in range(1, 100))
_TRIED = (1 / 9, 2 / 9, 1 / 3, 1 / 2, 3 / 4)
_ENTRY = re.compile(r"(\w+)(?: \([^)]*\))?:\s*(.*)")
_KINDS = {"integer": "whole number", "number": "number", "string": "text", "boolean": "true or false", "null": "none"}
_BOUNDS = {
    "minimum": "at least {}",
    "exclusiveMinimum": "above {}",
    "maximum": "at most {}",
    "exclusiveMaximum": "below {}",
    "multipleOf": "a multiple of {}",
    "minItems": "at least {} of them",
    "maxItems": "at most {} of them",
    "minLength": "at least {} characters",
    "maxLength": "at most {} characters",
    "pattern": "matching {}",
}


@dataclass(frozen=True)
class Option:
    """One option of a method.

    Attributes:
        name: as it is typed.
        type: in words, with bounds.
        allowed: all values it may have, None where they cannot be listed.
        required: whether it has no default.
        default: what it is when it is left out.
        value: what it is in this method.
        meaning: from the class's docstring; empty where that says nothing.
    """

    name: str
    type: str
    allowed: tuple[Any, ...] | None
    required: bool
    default: Any
    value: Any
    meaning: str


def parts_of(method: PruningMethod) -> list[PruningMethod]:
    """The methods that act one after the other, in their order; of a single method itself."""
    return [*parts_of(method.first), *parts_of(method.then)] if isinstance(method, Composed) else [method]


def module_docstring(method: PruningMethod) -> str:
    """What the file of a single method says of it; empty where it says nothing."""
    return inspect.cleandoc(sys.modules[type(method).__module__].__doc__ or "")


def class_docstring(method: PruningMethod) -> str:
    """What its class says before the sections of its docstring; empty where nobody wrote one."""
    text = inspect.cleandoc(type(method).__dict__.get("__doc__") or "")
    written = not text.startswith(f"{type(method).__name__}(")  # else dataclasses put the signature there
    return re.split(r"^\w+:$", text, maxsplit=1, flags=re.MULTILINE)[0].strip() if written else ""


# options


def options_of(method: PruningMethod) -> list[Option]:
    """Every option of a single method, in the order of its fields."""
    cls, found = type(method), meanings(type(method))
    options = []
    for option in fields(cls):
        kind, allowed = _kind(_hint(cls, option))
        made = option.default_factory is not MISSING
        default = option.default_factory() if option.default_factory is not MISSING else option.default
        required = default is MISSING and not made
        value, default = getattr(method, option.name), None if required else default
        options.append(Option(option.name, kind, allowed, required, default, value, found.get(option.name, "")))
    return options


def meanings(cls: type) -> dict[str, str]:
    """Attribute -> what the docstrings of a class and its bases say of it; the class itself comes first."""
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        found |= _attributes(inspect.cleandoc(base.__dict__.get("__doc__") or ""))
    return found


def _attributes(docstring: str) -> dict[str, str]:
    """The section `Attributes:` of a docstring, each entry in one line."""
    found: dict[str, str] = {}
    name, indent = "", 0
    lines = docstring.splitlines()
    for line in lines[lines.index("Attributes:") + 1 :] if "Attributes:" in lines else []:
        depth = len(line) - len(line.lstrip())
        if line.strip() and not depth:
            break
        entry = _ENTRY.fullmatch(line.strip())
        if entry and depth <= (indent or depth):
            name, indent = entry[1], depth
            found[name] = entry[2]
        elif name:
            found[name] = f"{found[name]} {line.strip()}".strip()
    return found


def _hint(cls: type, option: "Field[Any]") -> Any:
    """An option's type; as it is written where it cannot be looked up."""
    if not isinstance(option.type, str):
        return option.type
    try:
        return get_type_hints(cls, include_extras=True)[option.name]
    except NameError:
        return option.type


def _kind(hint: Any) -> tuple[str, tuple[Any, ...] | None]:
    """A type in words, and all its values where they can be listed."""
    from pydantic import PydanticSchemaGenerationError, PydanticUserError, TypeAdapter

    try:
        schema = TypeAdapter(hint).json_schema()
    except (PydanticSchemaGenerationError, PydanticUserError):
        return str(hint), None
    return _words(schema, str(hint)), _values(schema)


def _words(schema: Mapping[str, Any], otherwise: str) -> str:
    if "anyOf" in schema:
        return ", or ".join(_words(part, otherwise) for part in schema["anyOf"])
    if "enum" in schema or "const" in schema:
        values = schema.get("enum", [schema.get("const")])
        return f"{'one of ' if len(values) > 1 else ''}{', '.join(map(str, values))}"
    if schema.get("type") == "array":
        kind = "list"
        if "items" in schema:
            kind = f"list of: {_words(schema['items'], otherwise)}"
        elif "prefixItems" in schema:
            each = ", ".join(_words(part, otherwise) for part in schema["prefixItems"])
            return f"list of {len(schema['prefixItems'])} ({each})"
    else:
        kind = _KINDS.get(str(schema.get("type")), otherwise)
    bounds = [words.format(schema[key]) for key, words in _BOUNDS.items() if key in schema]
    return " ".join([kind, *([", ".join(bounds)] if bounds else [])])


def _values(schema: Mapping[str, Any]) -> tuple[Any, ...] | None:
    if "anyOf" in schema:
        parts = [_values(part) for part in schema["anyOf"]]
        return None if None in parts else tuple(value for part in parts for value in part or ())
    if "enum" in schema or "const" in schema:
        return tuple(schema.get("enum", [schema.get("const")]))
    kind = schema.get("type")
    return (True, False) if kind == "boolean" else (None,) if kind == "null" else None


# where it acts


def schedules_of(method: PruningMethod) -> list[tuple[int, ...]]:
    """The boundaries in a decoder of 32 layers, once for every choice that budgets from 1 % to 99 % lead to.

    Returns:
        In the order of rising budgets; empty for a method that never acts.

    Raises:
        ValueError: its option `layers` fits no such decoder.
    """
    found: dict[tuple[int, ...], None] = {}
    refused: ValueError | None = None
    for budget in _BUDGETS:
        try:
            if isinstance(method, Composed) or method.layers_for(budget):
                found[method.boundaries(REFERENCE_LAYERS, budget)] = None
        except ValueError as error:
            refused = error
    if refused is not None and not found:
        raise refused
    if not found:  # a method with a `plan` of its own may act all the same
        found = {tuple(stage.boundary for stage in plan.stages): None for plan in _tried_plans(method) if plan.stages}
    return list(found)


def position_rules(method: PruningMethod) -> list[str]:
    """The position rules in the order in which the stages take them up; options and parts count."""
    found: dict[str, None] = {}
    for part in parts_of(method):
        stages = [
            Stage(boundary, 1, last=boundary == boundaries[-1])
            for boundaries in schedules_of(part)
            for boundary in boundaries
        ]
        found |= dict.fromkeys([part.rule_at(stage) for stage in stages] or [part.position_rule])
    return list(found)


def not_servable(method: PruningMethod) -> str:
    """Why no serving engine can run a method with these options (`pruning.servable`); empty where one can."""
    boundaries = (boundary for boundaries in schedules_of(method) for boundary in boundaries)
    return why_not_servable(boundaries, position_rules(method))


def merges_rows(method: PruningMethod) -> bool:
    """Whether a plan of the method has merged rows, for 576 tokens and the budgets of its presets and some others."""
    return any(stage.merged for plan in _tried_plans(method) for stage in plan.stages)


def _tried_plans(method: PruningMethod) -> Iterator[Plan]:
    shares = {share for part in parts_of(method) for share in (*part.presets, *part.paper_presets)}
    for budget in sorted({*_TRIED, *shares}):
        try:
            yield method.plan(REFERENCE_VISUAL_TOKENS, REFERENCE_LAYERS, budget)
        except ValueError:
            continue


# presets


def presets_of(
    method: PruningMethod, presets: Mapping[float, Sequence[StageRows]], num_visual: int = REFERENCE_VISUAL_TOKENS
) -> list[dict[str, Any]]:
    """Published schedules, by rising budget.

    Args:
        method: a single method.
        presets: its `presets` or `paper_presets`.
        num_visual: N for the rows.

    Returns:
        Dicts with `budget` (share of N), `stages` (`kept` and `merged` as shares of N; merged None where it follows
        from what is kept) and `rows` (`kept` and `merged` of `num_visual`).
    """
    follows = method.merged_rule() is not None
    found = []
    for share, stages in sorted(presets.items()):
        shares = [
            {"kept": kept, "merged": 0.0 if not method.merges_rows else None if follows else merged}
            for kept, merged in stages
        ]
        rows = method.preset_counts(num_visual, share, {share: stages}) or ()
        counts = [{"kept": kept, "merged": merged} for kept, merged in rows]
        found.append({"budget": share, "stages": shares, "rows": counts})
    return found


# families


def _offers() -> dict[str, frozenset[str]]:
    from swiftvlm_eval.models.adapter import adapter_class
    from swiftvlm_eval.models.families import FAMILIES

    return {name: adapter_class(family).offered() for name, family in FAMILIES.items()}


def lacking(needs: frozenset[str]) -> dict[str, list[str]]:
    """Family -> those of the needs that its adapter does not offer, sorted."""
    return {family: sorted(needs - offered) for family, offered in _offers().items()}


# everything


def outline(method: PruningMethod) -> dict[str, Any]:
    """What a method is, as plain data; methods one after the other have the words of all.

    Raises:
        ValueError: its option `layers` fits no decoder of 32 layers.
    """
    parts, schedules = parts_of(method), schedules_of(method)
    return {
        "name": method.name,
        "title": " + ".join(part.title for part in parts),
        "source": "; ".join(dict.fromkeys(part.source for part in parts)),
        "code": "; ".join(dict.fromkeys(part.code for part in parts)),
        "summary": "; then ".join(part.summary for part in parts),
        "position_rule": ", then ".join(position_rules(method)),
        "needs": sorted(method.needs),
        "draws": method.draws,
        "adaptive": method.adaptive,
        "merges_rows": merges_rows(method),
        "boundaries": sorted({boundary for boundaries in schedules for boundary in boundaries}),
        "boundaries_by_budget": [list(boundaries) for boundaries in schedules],
        "servable": not (reason := not_servable(method)),
        "not_servable_because": reason,
    }


def describe(method: PruningMethod) -> dict[str, Any]:
    """The outline with options, presets and the families that offer what is needed.

    Methods one after the other have these in `parts`, each in a description of its own.

    Raises:
        ValueError: as `outline`.
    """
    parts = parts_of(method)
    single = method if len(parts) == 1 else None
    return {
        **outline(method),
        "families": [family for family, missing in lacking(method.needs).items() if not missing],
        "options": [vars(option) for option in options_of(single)] if single else [],
        "presets": presets_of(single, single.presets) if single else [],
        "paper_presets": presets_of(single, single.paper_presets) if single else [],
        "parts": [] if single else [describe(part) for part in parts],
    }


def steps_of(plan: Plan) -> list[dict[str, Any]]:
    """A plan by runs of layers that see equal rows.

    Returns:
        Dicts with `layers` ([first, last], counted from 1), `rows` (that each of them sees), and `stage`: the edit
        before them, None for the layers before the first one. A stage has `boundary`, `kept`, `merged`, `part` and
        `scored_by_layer` (counted from 1; None where no decoder layer scores).
    """
    steps: list[dict[str, Any]] = []
    edges = [*(stage.boundary for stage in plan.stages), plan.num_layers]
    if edges[0] > 0:
        steps.append({"layers": [1, edges[0]], "rows": plan.num_visual, "stage": None})
    for stage, end in zip(plan.stages, edges[1:], strict=True):
        scorer = None if stage.scored_by is None else stage.boundary + (stage.scored_by == "next")
        about = {"boundary": stage.boundary, "kept": stage.kept, "merged": stage.merged, "scored_by_layer": scorer}
        about["part"] = stage.part
        steps.append({"layers": [stage.boundary + 1, end], "rows": stage.kept + stage.merged, "stage": about})
    return steps
