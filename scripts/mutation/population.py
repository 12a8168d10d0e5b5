"""Which faults there are, and a random sample of them; cosmic-ray's operators make them."""

from __future__ import annotations

import ast
import difflib
import hashlib
import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator, operator_names

_BITS = ("BitAnd", "BitOr", "BitXor", "RShift", "LShift")

Place = tuple[str, tuple[int, int], tuple[int, int]]


@dataclass(frozen=True)
class Mutant:
    """One fault.

    Attributes:
        file: path below the root, with slashes.
        line: where it begins, from 1.
        operator: cosmic-ray's name of what was done.
        occurrence: which of the operator's places in the file.
        diff: the changed lines, without context.
    """

    file: str
    line: int
    operator: str
    occurrence: int
    diff: str

    @property
    def name(self) -> str:
        """Short and stable while the file stays as it is."""
        return hashlib.sha256(f"{self.file} {self.operator} {self.occurrence} {self.diff}".encode()).hexdigest()[:8]

    def code(self, source: str) -> str:
        """The mutated source."""
        return _mutated(source, self.operator, self.occurrence) or source


def draw(root: Path, files: Sequence[str], count: int, seed: int) -> list[Mutant]:
    """A seeded sample: every place that can be mutated is as likely as any other, whatever can be done to it.

    Left out are faults that only an annotation shows, because annotations do not run.

    Raises:
        ValueError: there are fewer faults than asked for.
    """
    places: dict[Place, list[tuple[str, int]]] = defaultdict(list)
    sources = {file: (root / file).read_text(encoding="utf-8") for file in sorted(files)}
    for file, source in sources.items():
        for place, operator, occurrence in _places(file, source):
            places[place].append((operator, occurrence))
    chance = random.Random(seed)  # noqa: S311
    found: list[Mutant] = []
    for place in chance.sample(sorted(places), len(places)):
        if len(found) == count:
            break
        file, (line, _), _ = place
        for operator, occurrence in chance.sample(places[place], len(places[place])):
            mutated = _mutated(sources[file], operator, occurrence)
            if mutated is not None and _runs_differently(sources[file], mutated):
                found.append(Mutant(file, line, operator, occurrence, _diff(sources[file], mutated)))
                break
    if len(found) < count:
        raise ValueError(f"count={count}: {len(found)} places can be mutated in {len(sources)} files")
    return found


def _places(file: str, source: str) -> Iterator[tuple[Place, str, int]]:
    nodes = list(ast_nodes(get_ast(source)))
    for name in sorted(operator_names()):
        operator: Any = get_operator(name)
        if operator.arguments() or not _likely(name):  # with arguments: replaces variables that it must be told
            continue
        positions = (position for node in nodes for position in operator().mutation_positions(node))
        for occurrence, (start, end) in enumerate(positions):
            yield (file, tuple(start), tuple(end)), name, occurrence


def _likely(operator: str) -> bool:
    """Not `+` for `>>`: a mix of arithmetic and bits ends in a TypeError that any test notices."""
    kind, *pair = operator.rpartition("/")[2].split("_")
    if kind != "ReplaceBinaryOperator":
        return True
    before, after = pair
    return (before in _BITS) == (after in _BITS) and "Shift" not in after


def _mutated(source: str, operator: str, occurrence: int) -> str | None:
    mutated: str | None = mutate_code(source, get_operator(operator)(), occurrence)
    return mutated


def _runs_differently(source: str, mutated: str) -> bool:
    """Whether the two are Python, and differ in more than annotations."""
    try:
        return _running(source) != _running(mutated)
    except SyntaxError:
        return False


def _running(source: str) -> str:
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.AnnAssign):
            node.annotation = ast.Constant(None)
        elif isinstance(node, ast.arg):
            node.annotation = None
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            node.returns = None
    return ast.dump(tree)


def _diff(source: str, mutated: str) -> str:
    lines = difflib.unified_diff(source.splitlines(), mutated.splitlines(), lineterm="", n=0)
    return "\n".join(line for line in lines if not line.startswith(("---", "+++", "@@")))
