"""A grid as a file: entries of one method with its options, its budgets and its seeds.

    - method: vanilla
    - method: pdrop[positions=keep]
      budgets: [1/3, 128/576]
    - method: random
      budgets: [1/3]
      seeds: [0, 1, 2]

Methods and budgets are written as on the command line. Every value is read as the text that was typed, because plain
YAML takes `3:10:14` for a time of day and `010` for eight.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from swiftvlm_eval.pruning.budget import REFERENCE_VISUAL_TOKENS, parse_budget
from swiftvlm_eval.pruning.registry import make_method
from swiftvlm_eval.results.files import require_regular
from swiftvlm_eval.sweep.configurations import Configuration, make_grid, parse_methods

FIELDS = ("method", "budgets", "seeds")
LARGEST_GRID = 1 << 20
"""Bytes of a grid file."""
_LARGEST_SEED = 2**63 - 1
_SHOWN = 60


class GridFileError(ValueError):
    """A grid file that cannot be read; the message names file, entry, field, value and what is allowed."""


@dataclass(frozen=True)
class GridFile:
    """What a grid file says.

    Attributes:
        grid: the configurations, in the order of the file.
        budgets: the budgets as typed, each once.
    """

    grid: tuple[Configuration, ...]
    budgets: tuple[str, ...]


class _AsTyped(yaml.SafeLoader):
    """PyYAML's safe loader, but scalars stay text, and a key that stands twice is refused."""

    yaml_implicit_resolvers: Any = {}

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        """See `SafeConstructor.construct_mapping`."""
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        if twice := sorted({key for key in keys if keys.count(key) > 1}):
            raise yaml.constructor.ConstructorError(
                None, None, f"{twice[0]!r} stands twice in one entry", node.start_mark
            )
        return super().construct_mapping(node, deep)


def read_grid(path: Path, visual_tokens: int | None = REFERENCE_VISUAL_TOKENS) -> GridFile:
    """Reads a grid file.

    Args:
        path: a YAML file, as above. A method given as a path to a file is code, which runs.
        visual_tokens: as of `make_grid`.

    Raises:
        GridFileError: it cannot be read, is no list of entries, an entry has a field that is unknown, missing or
            malformed, or two entries name the same configuration.
    """
    entries = _entries(path)
    grid: dict[str, tuple[int, Configuration]] = {}
    typed: dict[str, None] = {}
    for number, entry in enumerate(entries, 1):
        where = f"grid={path}, entry {number}"
        cells, budgets = _cells(entry, where, visual_tokens)
        typed |= dict.fromkeys(budgets)
        for cell in cells:
            earlier, _ = grid.setdefault(repr(sorted(asdict(cell).items())), (number, cell))
            if earlier != number:
                raise GridFileError(f"{where}: {cell.label} stands in entry {earlier} already; allowed is once")
    return GridFile(tuple(cell for _, cell in grid.values()), tuple(typed))


def _entries(path: Path) -> list[Any]:
    """The list that the file is."""
    form = f"allowed is a YAML list of entries with {', '.join(FIELDS)}"
    try:
        text = require_regular(path, LARGEST_GRID).read_text(encoding="utf-8")
        entries = yaml.load(text, Loader=_AsTyped)  # noqa: S506 (a safe loader)
    except OSError as error:
        raise GridFileError(f"grid={path}: cannot be read ({error.strerror}); {form}") from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else " ".join(str(error).split())
        raise GridFileError(f"grid={path}: no YAML ({reason}); {form}") from error
    except ValueError as error:
        raise GridFileError(f"grid={path}: {error}") from error
    if not isinstance(entries, list) or not entries:
        found = "an empty file" if not entries else f"a {type(entries).__name__}"
        raise GridFileError(f"grid={path}: {found}; {form}")
    return entries


def _cells(entry: Any, where: str, visual_tokens: int | None) -> tuple[list[Configuration], list[str]]:
    """The configurations of one entry, and its budgets as typed."""
    if not isinstance(entry, Mapping):
        raise GridFileError(f"{where}: {_shown(entry)}; allowed is a mapping with {', '.join(FIELDS)}")
    for field in entry:
        if field not in FIELDS:
            raise GridFileError(f"{where}, {_shown(field)}: unknown field; allowed are {', '.join(FIELDS)}")
    name, options = _method(entry, where)
    draws = make_method(name, options).draws
    budgets, seeds = _budgets(entry, where, name, visual_tokens), [0]
    if "seeds" in entry:
        if not draws:
            raise GridFileError(
                f"{where}, seeds={_shown(entry['seeds'])}: {name} draws nothing at random; allowed is none"
            )
        seeds = _seeds(entry, where)
    cells = make_grid([(name, options)], budgets or ["1"], seeds, visual_tokens)
    return cells, budgets


def _method(entry: Mapping[Any, Any], where: str) -> tuple[str, dict[str, str]]:
    """Name and options."""
    text = entry.get("method")
    field = f"{where}, method={_shown(text)}"
    if not isinstance(text, str):
        raise GridFileError(f"{field}: allowed is one method, as name or name[option=value;option=value]")
    try:
        methods = parse_methods(text)
    except (ValueError, TypeError, OSError) as error:
        raise GridFileError(f"{field}: {error}") from error
    if len(methods) > 1:
        raise GridFileError(f"{field}: {len(methods)} methods; allowed is one in each entry")
    return methods[0]


def _budgets(entry: Mapping[Any, Any], where: str, name: str, visual_tokens: int | None) -> list[str]:
    """The budgets as typed; none for vanilla, which has no choice."""
    if name == "vanilla":
        if "budgets" in entry:
            raise GridFileError(
                f"{where}, budgets={_shown(entry['budgets'])}: vanilla keeps everything; allowed is to leave them out"
            )
        return []
    typed = _texts(entry, where, "budgets", "a list of at least one, such as [1/3, 128/576]")
    shares: dict[float, str] = {}
    for text in typed:
        try:
            share = parse_budget(text, visual_tokens)
        except ValueError as error:
            raise GridFileError(f"{where}, budgets={_shown(text)}: {error}") from error
        if share in shares:
            raise GridFileError(
                f"{where}, budgets={_shown(text)}: the same as {shares[share]!r}; allowed is each share once"
            )
        shares[share] = text
    return typed


def _seeds(entry: Mapping[Any, Any], where: str) -> list[int]:
    """Seeds of a method that draws."""
    allowed = "a list of different whole numbers from 0, such as [0, 1, 2]"
    typed = _texts(entry, where, "seeds", allowed)
    for text in typed:
        if not (text.isascii() and text.isdecimal() and len(text) < 20 and int(text) <= _LARGEST_SEED):
            raise GridFileError(f"{where}, seeds={_shown(text)}: allowed is {allowed}")
    seeds = [int(text) for text in typed]
    if len(set(seeds)) < len(seeds):
        raise GridFileError(f"{where}, seeds={_shown(typed)}: one of them twice; allowed is {allowed}")
    return seeds


def _texts(entry: Mapping[Any, Any], where: str, field: str, allowed: str) -> list[str]:
    """A field that is a list of texts."""
    values = entry.get(field)
    if not isinstance(values, list) or not values:
        raise GridFileError(f"{where}, {field}={_shown(values)}: allowed is {allowed}")
    for value in values:
        if not isinstance(value, str):
            raise GridFileError(f"{where}, {field}={_shown(value)}: allowed is {allowed}")
    return [value.strip() for value in values]


def _shown(value: Any) -> str:
    """A value for a message, not longer than a line."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        text = f"[{', '.join(_shown(part) if isinstance(part, str) else '...' for part in value)}]"
    else:
        text = "none" if value is None else repr(value) if isinstance(value, str) else type(value).__name__
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
