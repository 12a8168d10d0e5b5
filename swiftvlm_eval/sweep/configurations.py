"""The cells of a sweep, and how methods, budgets, seeds and shards are written."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from swiftvlm_eval.models.adapter import FamilyAdapter
from swiftvlm_eval.pruning.budget import REFERENCE_VISUAL_TOKENS, parse_budget
from swiftvlm_eval.pruning.registry import make_method, method_names, read_method, split_outside_brackets
from swiftvlm_eval.pruning.selected_layers import PREFIX


@dataclass(frozen=True)
class Configuration:
    """One cell of the grid.

    Attributes:
        method: name or reference, or several with their options for methods one after the other.
        options: the method's options, as typed.
        budget: share of N; 1 for vanilla.
        seed: of methods that draw at random.
    """

    method: str
    budget: float
    options: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0

    @property
    def label(self) -> str:
        """For people: `fastv[layers=3] 0.333`."""
        options = ";".join(f"{key}={value}" for key, value in self.options.items())
        return f"{self.method}{f'[{options}]' if options else ''} {self.budget:.3g}" + (
            f" seed {self.seed}" if self.seed else ""
        )


def parse_methods(text: str) -> list[tuple[str, dict[str, str]]]:
    """Reads `vanilla,fastv[layers=3;scope=visual]`; `all` stands for every registered method, vanilla first.

    Each part is written as `pruning.registry` says.

    Raises:
        ValueError: malformed, unknown method or unknown option.
    """
    found: list[tuple[str, dict[str, str]]] = []
    for part in filter(None, split_outside_brackets(text, ",")):
        several = len(split_outside_brackets(part, "+")) > 1
        name, options = (part, {}) if several else read_method(part)
        names = sorted(method_names(), key=lambda known: known != "vanilla") if name == "all" else [name]
        for known in names:
            make_method(known, options)
            found.append((known, options))
    if not found:
        raise ValueError(f"methods={text!r}: allowed are all, {', '.join(method_names())}")
    return found


def make_grid(
    methods: Sequence[tuple[str, Mapping[str, Any]]],
    budgets: Sequence[str],
    seeds: Sequence[int] = (0,),
    visual_tokens: int | None = REFERENCE_VISUAL_TOKENS,
) -> list[Configuration]:
    """The configurations of a grid; vanilla stands in it once, and a method that draws at random once for every seed.

    Args:
        methods: (name, options).
        budgets: as typed.
        seeds: of methods that draw at random.
        visual_tokens: visual tokens of every image of the model; None where they depend on the image. As long as the
            model is not known, 576, so that counts pass.

    Raises:
        BudgetError: a malformed budget, or a count that says nothing for such a model.
    """
    shares = [parse_budget(budget, visual_tokens) for budget in budgets]
    grid = []
    for name, options in methods:
        draws = make_method(name, options).draws
        for share in [1.0] if name == "vanilla" else shares:
            for seed in seeds if draws else seeds[:1]:
                grid.append(Configuration(name, share, dict(options), seed))
    return list({json.dumps(asdict(cell), sort_keys=True): cell for cell in grid}.values())


def settled(configuration: Configuration, adapter: FamilyAdapter) -> Configuration:
    """The configuration with the boundaries of this model written out where it says `layers=auto:FILE`.

    So that its name, its record and its label say what was run, wherever the file is by then.

    Raises:
        ValueError: the layers were chosen for another model, or for fewer stages than a method has.
    """
    parts = split_outside_brackets(configuration.method, "+")
    if len(parts) == 1:
        return replace(configuration, options=_written_out(configuration.method, configuration.options, adapter))
    written = []
    for part in parts:
        name, options = read_method(part)
        own = ";".join(f"{key}={value}" for key, value in _written_out(name, options, adapter).items())
        written.append(f"{name}[{own}]" if own else name)
    return replace(configuration, method="+".join(written))


def _written_out(method: str, options: Mapping[str, Any], adapter: FamilyAdapter) -> Mapping[str, Any]:
    if not str(options.get("layers", "")).startswith(PREFIX):
        return options
    layers = make_method(method, options).for_model(adapter).layers
    return {**options, "layers": ":".join(map(str, layers if isinstance(layers, tuple) else ()))}


def parse_shard(text: str) -> slice:
    """Reads `3/16`: the third of sixteen equal parts of a grid, which are its 3rd, 19th, 35th ... configurations.

    Raises:
        ValueError: something else.
    """
    found = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", text.strip())
    part, parts = (int(number) for number in found.groups()) if found else (0, 0)
    if not 1 <= part <= parts:
        raise ValueError(f"shard={text!r}: allowed is K/N with K from 1 to N, such as 3/16")
    return slice(part - 1, None, parts)
