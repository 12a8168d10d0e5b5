"""What a method looks like: one colour and one marker a name, the same on every page and picture.

Registered names have a line in `looks.yaml`. Any other name takes the pair of colour and marker, free of those lines,
whose hash together with the name is smallest: it depends on nothing but the name, and a new line in the table moves
only the names that had its pair.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from functools import cache
from itertools import product
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, model_validator

from swiftvlm_eval.leaderboard.board import Row


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Colour(_Frozen):
    """One hue, as hexadecimal on white paper and on the dark page."""

    light: str
    dark: str


class Marker(_Frozen):
    """One shape: matplotlib's name, and its path for SVG."""

    plot: str
    path: str


class Look(_Frozen):
    """Names of a colour and a marker; hollow for a variant of a method beside its first row."""

    colour: str
    marker: str
    hollow: bool = False


class Looks(_Frozen):
    """The table of `looks.yaml`."""

    colours: dict[str, Colour]
    markers: dict[str, Marker]
    methods: dict[str, tuple[str, str]]

    @model_validator(mode="after")
    def _pairs_are_known_and_differ(self) -> "Looks":
        for name, (colour, marker) in self.methods.items():
            if colour not in self.colours or marker not in self.markers:
                raise ValueError(f"methods.{name}: no such colour or marker: {colour}, {marker}")
        if len(set(self.methods.values())) != len(self.methods):
            raise ValueError("two methods have the same colour and marker")
        return self

    def of(self, name: str) -> Look:
        """Returns the look of a method's name."""
        known = self.methods.get(name)
        free = [pair for pair in product(self.colours, self.markers) if pair not in set(self.methods.values())]
        colour, marker = known or min(free, key=lambda pair: _hash(f"{name}\n{pair[0]}\n{pair[1]}"))
        return Look(colour=colour, marker=marker)


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode(errors="surrogatepass")).digest()


@cache
def looks() -> Looks:
    """Reads `looks.yaml`."""
    path = Path(__file__).with_name("looks.yaml")
    return Looks.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))


def row_looks(rows: Sequence[Row]) -> dict[str, Look]:
    """Returns the look of each row by its key; of several variants of a method all but the one met most are hollow.

    Args:
        rows: Rows of one board; variants of a method differ in options, or in labels where there are none.
    """
    counts: dict[str, Counter[str]] = {}
    for row in rows:
        counts.setdefault(method_of(row), Counter())[variant(row)] += 1
    first = {name: min(found, key=lambda each: (-found[each], each)) for name, found in counts.items()}
    return {
        row.key: looks().of(method_of(row)).model_copy(update={"hollow": variant(row) != first[method_of(row)]})
        for row in rows
    }


def method_of(row: Row) -> str:
    """Returns the name that a row's look belongs to."""
    return row.method or row.label


def variant(row: Row) -> str:
    """Returns what the rows of several budgets share that are one method with the same options."""
    return json.dumps(row.options, sort_keys=True) if row.options else row.label
