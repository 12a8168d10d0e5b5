"""The benchmark table: which lmms-eval number is printed in which column.

The table is data (`benchmarks.yaml`), so that adding a benchmark touches no code.
"""

from collections import defaultdict
from functools import cache
from pathlib import Path
from typing import Literal, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

TABLE = Path(__file__).with_name("benchmarks.yaml")

# What a column tests, and the means that are shown: those three, and one over all columns of a named set.
Kind = Literal["localization", "non_localization", "official"]
Group = Literal["localization", "non_localization", "paper_next", "official"]
Protocol = Literal["lmms_eval", "official"]
Reduction = Literal["mean", "mme", "circular", "subset_f1"]


class Benchmark(BaseModel):
    """One benchmark column; the fields are explained at the top of `benchmarks.yaml`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    key: str
    task: str
    metric: str
    title: str
    group: Kind | None
    protocol: Protocol | None  # None only for a published column, which says whose it is in its own words
    scale: float = Field(gt=0)
    digits: int = Field(ge=0, le=6)
    literature: str
    documents: int | None = Field(gt=0)
    reduction: Reduction
    clusters: str


class BenchmarkTable(BaseModel):
    """All columns in printing order, and the named sets of them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    benchmarks: dict[str, Benchmark]
    sets: dict[str, tuple[str, ...]]

    @model_validator(mode="after")
    def _sets_name_known_columns(self) -> "BenchmarkTable":
        for name, keys in self.sets.items():
            unknown = sorted(set(keys) - set(self.benchmarks))
            if unknown:
                raise ValueError(f"sets.{name} names unknown benchmarks {unknown}; known: {sorted(self.benchmarks)}")
        tasks = [(entry.task, entry.metric) for entry in self.benchmarks.values()]
        if len(set(tasks)) != len(tasks):
            raise ValueError("two benchmarks read the same task and metric")
        return self

    @model_validator(mode="after")
    def _protocols_are_not_mixed(self) -> "BenchmarkTable":
        """A mean over columns of two protocols would be a number that nobody can compare with anything."""
        together: dict[str, set[Protocol]] = defaultdict(set)
        for key, entry in self.benchmarks.items():
            if entry.protocol is None:
                raise ValueError(f"benchmarks.{key}: protocol is null; allowed are {', '.join(get_args(Protocol))}")
            together[f"group {entry.group}"].add(entry.protocol)
            for name, keys in self.sets.items():
                if key in keys:
                    together[f"sets.{name}"].add(entry.protocol)
        for name, protocols in together.items():
            if len(protocols) > 1:
                raise ValueError(f"{name} mixes the protocols {sorted(protocols)}; allowed is one")
        return self

    def of_tasks(self, tasks: set[str]) -> tuple[Benchmark, ...]:
        """Returns the columns whose lmms-eval task is among `tasks`, in printing order."""
        return tuple(entry for entry in self.benchmarks.values() if entry.task in tasks)


def load_benchmarks(path: Path = TABLE) -> BenchmarkTable:
    """Reads a benchmark table.

    Args:
        path: YAML file in the format of the shipped `benchmarks.yaml`.

    Raises:
        ValueError: The file is not such a table; the message names the file and the field.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        entries = {key: Benchmark(key=key, **entry) for key, entry in content["benchmarks"].items()}
        return BenchmarkTable(benchmarks=entries, sets=content["sets"])
    except OSError as error:
        raise ValueError(f"benchmark table {path.name} cannot be read: {error.strerror}") from error
    except (ValidationError, yaml.YAMLError, UnicodeDecodeError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path.name} is not a benchmark table: {error}") from error


@cache
def shipped_benchmarks() -> BenchmarkTable:
    """Returns the benchmark table that comes with the package."""
    return load_benchmarks()
