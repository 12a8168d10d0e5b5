"""Which cells of which table are missing, each with the command that fills it."""

import json
import re
import shlex
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cache
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field

from swiftvlm_eval.leaderboard.compute.entries import SETTING_KEYS, VANILLA
from swiftvlm_eval.results.benchmarks import Benchmark, BenchmarkTable
from swiftvlm_eval.results.record import RunRecord
from swiftvlm_eval.results.store import StoredRun

_DIGITS = 3  # budgets that agree in so many decimals are one section of a board
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,79}")
# The protocol's image modes, which the sweep takes by itself.
_USUAL_IMAGES = (None, "pad", "anyres")


class DefaultGrid(BaseModel):
    """What a model's table is meant to hold; the fields are explained at the top of `grids.yaml`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    set: str
    budgets: tuple[str, ...] = Field(min_length=1)
    visual_tokens: int = Field(gt=0)
    layers: int = Field(gt=0)
    unmet: tuple[tuple[str, str, str], ...] = ()

    def refusal(self, typed: str, budget: float) -> str:
        """Returns why a method refuses a budget while it runs; empty if nothing is known against it.

        Args:
            typed: The method with its options as typed.
            budget: Share of the visual tokens.
        """
        reasons = (why for name, text, why in self.unmet if name == typed and abs(Fraction(text) - budget) < 1e-9)
        return next(reasons, "")


@cache
def default_grids() -> tuple[DefaultGrid, ...]:
    """Returns the shipped grids."""
    text = Path(__file__).with_name("grids.yaml").read_text(encoding="utf-8")
    return tuple(DefaultGrid.model_validate(entry) for entry in yaml.safe_load(text))


@dataclass(frozen=True)
class WantedCell:
    """One method at one budget.

    Attributes:
        typed: The method with its options as typed on a command line.
        name: Its name in records.
        options: Every option, as records hold them.
        budget: Share of the visual tokens.
        seed: Seed of a method that draws at random; None for the others, whose seed does not matter.
        impossible: Why this model cannot have it; empty if it can.
    """

    typed: str
    name: str
    options: Mapping[str, object] = field(default_factory=dict)
    budget: float = 1.0
    seed: int | None = None
    impossible: str = ""

    def is_of(self, record: RunRecord) -> bool:
        """Whether a record is a run of this cell."""
        method = record.method
        if method.name != self.name:
            return False
        if self.name == VANILLA:
            return True
        same_budget = method.budget is not None and round(method.budget, _DIGITS) == round(self.budget, _DIGITS)
        same_seed = self.seed is None or record.settings.seed == self.seed
        return same_budget and same_seed and _plain(method.options) == _plain(self.options)


@dataclass(frozen=True)
class Setting:
    """How the rows of one table were run, as far as a sweep can be told."""

    revision: str | None = None
    dtype: str | None = None
    image_mode: str | None = None

    @property
    def words(self) -> str:
        """For people."""
        parts = [self.dtype, self.image_mode, f"revision {self.revision}" if self.revision else None]
        return ", ".join(part for part in parts if part) or "default setting"

    @property
    def arguments(self) -> list[str]:
        """For the sweep."""
        given = {
            "--dtype": self.dtype,
            "--revision": self.revision,
            "--image-mode": None if self.image_mode in _USUAL_IMAGES else self.image_mode,
        }
        return [part for name, value in given.items() if value is not None for part in (name, value)]


@dataclass(frozen=True)
class Gap:
    """A cell with the benchmarks that it lacks.

    Attributes:
        cell: Method and budget.
        benchmarks: What is missing, in printing order.
        command: The sweep that runs it.
    """

    cell: WantedCell
    benchmarks: tuple[Benchmark, ...]
    command: str


@dataclass(frozen=True)
class WantedTable:
    """The gaps of one table.

    Attributes:
        model: Checkpoint.
        setting: How its rows were run.
        cells: Cells times benchmarks that the table is meant to hold.
        gaps: What is missing.
        impossible: Cells that this model cannot have.
        rows_there: Records that were found for this table.
    """

    model: str
    setting: Setting
    cells: int
    gaps: tuple[Gap, ...]
    impossible: tuple[WantedCell, ...]
    rows_there: int

    @property
    def missing(self) -> int:
        """Cells times benchmarks that are missing."""
        return sum(len(gap.benchmarks) for gap in self.gaps)


def wanted_tables(
    model: str,
    cells: Sequence[WantedCell],
    benchmarks: Sequence[str],
    runs: Iterable[StoredRun],
    table: BenchmarkTable,
) -> list[WantedTable]:
    """Compares what a model's tables are meant to hold with the records.

    Every setting (data type, revision, image mode) in which complete records of the model exist is a table of its own;
    without any there is one, in the sweep's own setting.

    Args:
        model: Checkpoint, as records name it.
        cells: Methods and budgets.
        benchmarks: Keys of benchmark columns.
        runs: Records; those with a limit, an offset or generation arguments of their own do not count.
        table: The benchmark columns.

    Raises:
        ValueError: A benchmark is unknown.
    """
    unknown = sorted(set(benchmarks) - set(table.benchmarks))
    if unknown:
        raise ValueError(f"benchmarks={', '.join(unknown)}: allowed are {', '.join(table.benchmarks)}")
    columns = tuple(table.benchmarks[key] for key in table.benchmarks if key in set(benchmarks))
    there: dict[Setting, list[RunRecord]] = defaultdict(list)
    for run in runs:
        if run.record.model.pretrained == model and _counts(run.record):
            there[_setting(run.record)].append(run.record)
    found = there or {Setting(): []}
    order = sorted(found, key=lambda setting: (-len(found[setting]), setting.words))
    return [_table(model, setting, cells, columns, found[setting], table) for setting in order]


def _counts(record: RunRecord) -> bool:
    settings = record.settings
    whole = settings.limit is None and not settings.offset and settings.gen_kwargs is None
    odd = [value for value in (record.model.revision, settings.dtype, settings.image_mode) if not _plain_word(value)]
    return whole and not odd and record.status == "complete"


def _plain_word(value: str | None) -> bool:
    return value is None or _WORD.fullmatch(value) is not None


def _setting(record: RunRecord) -> Setting:
    said = record.configuration
    assert {"revision", "dtype", "image_mode"} <= set(SETTING_KEYS)
    return Setting(*(None if said[key] is None else str(said[key]) for key in ("revision", "dtype", "image_mode")))


def _table(
    model: str,
    setting: Setting,
    cells: Sequence[WantedCell],
    columns: Sequence[Benchmark],
    records: Sequence[RunRecord],
    table: BenchmarkTable,
) -> WantedTable:
    gaps = []
    possible = [cell for cell in cells if not cell.impossible]
    for cell in possible:
        own = [record for record in records if cell.is_of(record)]
        lacking = tuple(each for each in columns if not any(_has(record, each) for record in own))
        if lacking:
            gaps.append(Gap(cell, lacking, _command(model, setting, cell, lacking, table)))
    impossible = tuple(cell for cell in cells if cell.impossible)
    return WantedTable(model, setting, len(possible) * len(columns), tuple(gaps), impossible, len(records))


def _has(record: RunRecord, column: Benchmark) -> bool:
    result = record.tasks.get(column.task)
    score = result.metrics.get(column.metric) if result else None
    return score is not None and score.value is not None


def _command(
    model: str, setting: Setting, cell: WantedCell, columns: Sequence[Benchmark], table: BenchmarkTable
) -> str:
    keys = {column.key for column in columns}
    named = [name for name, members in table.sets.items() if set(members) == keys]
    tasks = named or list(dict.fromkeys(column.task for column in columns))
    parts = ["swiftvlm-eval", "sweep", "--model", model, "--methods", cell.typed]
    parts += ["--budgets", budget_text(cell.budget) if cell.name != VANILLA else "1/3"]
    parts += ["--seeds", str(cell.seed)] if cell.seed else []
    return shlex.join([*parts, "--tasks", ",".join(tasks), *setting.arguments, "--out", "results"])


def budget_text(share: float) -> str:
    """Returns a share as people type it: a fraction where it is one with a small denominator."""
    near = Fraction(share).limit_denominator(2880)
    return str(near) if abs(float(near) - share) < 1e-9 and share < 1 else repr(share)


def _plain(options: Mapping[str, object]) -> str:
    return json.dumps(options, sort_keys=True, default=str)


def wanted_text(tables: Sequence[WantedTable]) -> str:
    """Returns the gaps as a shell script: comments, and one command a line."""
    lines: list[str] = []
    for each in tables:
        lines += [f"# {_head(each)}"]
        for gap in each.gaps:
            lines += [
                f"# {_cell_words(gap.cell)}: {', '.join(column.title for column in gap.benchmarks)}",
                gap.command,
            ]
        lines += [f"# not wanted: {_cell_words(cell)}: {cell.impossible}" for cell in each.impossible]
        lines.append("")
    return "\n".join(lines)


def wanted_markdown(tables: Sequence[WantedTable]) -> str:
    """Returns the gaps as a Markdown page: per table the cells of each benchmark, then the commands."""
    lines = ["# Wanted runs", ""]
    for each in tables:
        lines += [f"## {_head(each)}", ""]
        counts = Counter(column.title for gap in each.gaps for column in gap.benchmarks)
        rows = [f"| {title} | {count} |" for title, count in counts.items()]
        lines += ["| benchmark | cells missing |", "|---|---|", *rows, ""] if rows else ["Nothing is missing.", ""]
        if each.gaps:
            lines += ["```", *(gap.command for gap in each.gaps), "```", ""]
        if each.impossible:
            names = "; ".join(_cell_words(cell) for cell in each.impossible)
            lines += [f"Budgets that a method cannot meet on this model: {names}.", ""]
    return "\n".join(lines)


def _head(each: WantedTable) -> str:
    return f"{each.model}, {each.setting.words}: {each.missing} of {each.cells} cells missing"


def _cell_words(cell: WantedCell) -> str:
    budget = "" if cell.name == VANILLA else f" {budget_text(cell.budget)}"
    return f"{cell.typed}{budget}{f' seed {cell.seed}' if cell.seed else ''}"
