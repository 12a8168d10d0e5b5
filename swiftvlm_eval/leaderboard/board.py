"""What a leaderboard holds: plain values, ready to be rendered in any format.

A `Board` is one model in one setting. Published numbers become boards of their own kind (`measured` is False), so
that both go through the same renderers and never share a ranking.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from swiftvlm_eval.results.benchmarks import Benchmark, Group
from swiftvlm_eval.results.record import RunRecord

Mark = Literal["", "best", "tied", "untested", "off_budget"]


@dataclass(frozen=True)
class Cell:
    """One score.

    Attributes:
        score: On the printed scale.
        stderr: Its standard error on the printed scale, cluster-robust where the log names the images.
        documents: Documents scored.
        relative: Percent of vanilla's score.
        low: Lower end of the 95 % interval of `relative`.
        high: Upper end.
        mark: `best` of its budget; `tied` if no row is significantly better, `untested` if that could not be tested,
            `off_budget` if the row did not execute what it was asked for and takes no part in the other marks.
        p_best: P-value of the hypothesis that no row of the budget is better, adjusted for all of them.
        executed: Mean visual tokens per decoder layer, the measured ones.
        asked: The budget in the same unit.
        rank: Ends of the 95 % interval of its place among the rows of its budget, 1 the best; None where untested.
    """

    score: float | None = None
    stderr: float | None = None
    documents: int | None = None
    relative: float | None = None
    low: float | None = None
    high: float | None = None
    mark: Mark = ""
    p_best: float | None = None
    executed: float | None = None
    asked: float | None = None
    rank: tuple[int, int] | None = None


@dataclass(frozen=True)
class Comparison:
    """Two rows of one budget on one benchmark or group, on the documents that both have.

    Attributes:
        column: Benchmark key or group.
        first: Key of a row.
        second: Key of the other one.
        difference: First less second, in percent of vanilla.
        low: Lower end of its 95 % interval.
        high: Upper end.
        p: P-value of no difference, adjusted for all pairs of the column and budget.
    """

    column: str
    first: str
    second: str
    difference: float
    low: float
    high: float
    p: float


@dataclass(frozen=True)
class Row:
    """One method at one budget.

    Attributes:
        key: Stable identifier of the configuration.
        label: What the reader sees: the method, and whatever tells it from its neighbours.
        method: Method name; None for a model class of lmms-eval itself.
        budget: Nominal share of the visual tokens; None if not recorded.
        is_vanilla: The unpruned model.
        cells: Scores by benchmark key.
        means: Group means by group; only `relative`, `low`, `high` and the mark are set.
        figures: Values of the columns of `columns.yaml` by attribute.
        options: Options of the method, for the reader of CSV, JSON and HTML.
        files: Names of the files the row was made from.
        records: The run records behind the row.
        notes: What the reader must know about this row.
        reproduce: Commands and files that make the row again, by kind (`sweep`, `lmms_eval`); empty where the records
            do not tell enough.
    """

    key: str
    label: str
    method: str | None
    budget: float | None
    is_vanilla: bool
    cells: Mapping[str, Cell] = field(default_factory=dict)
    means: Mapping[Group, Cell] = field(default_factory=dict)
    figures: Mapping[str, float | None] = field(default_factory=dict)
    options: Mapping[str, object] = field(default_factory=dict)
    files: tuple[str, ...] = ()
    records: tuple[RunRecord, ...] = ()
    notes: tuple[str, ...] = ()
    reproduce: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Section:
    """The rows of one budget.

    Attributes:
        title: Names the budget.
        rows: Best first.
        comparisons: Every pair of rows on every column where both can be compared.
        detectable: Column -> the smallest difference of two rows, in percent of vanilla, that these documents show
            with a chance of 80 % at the 5 % level.
    """

    title: str
    rows: tuple[Row, ...]
    comparisons: tuple[Comparison, ...] = ()
    detectable: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Board:
    """One leaderboard.

    Attributes:
        slug: File name stem.
        title: Heading.
        measured: False for numbers taken from a paper.
        benchmarks: Benchmark columns in printing order.
        groups: Benchmark keys each group mean is taken over.
        sections: Vanilla first, then one section a budget, largest budget first.
        caption: Sentences below the heading: what was run, with what.
        notes: What is missing or must be kept in mind.
        pretrained: Checkpoint name.
        limited: Some run covers only part of a benchmark.
    """

    slug: str
    title: str
    measured: bool
    benchmarks: tuple[Benchmark, ...]
    groups: Mapping[Group, tuple[str, ...]]
    sections: tuple[Section, ...]
    caption: tuple[str, ...]
    notes: tuple[str, ...]
    pretrained: str | None
    limited: bool = False

    @property
    def rows(self) -> tuple[Row, ...]:
        """All rows, section by section."""
        return tuple(row for section in self.sections for row in section.rows)

    @property
    def vanilla(self) -> Row | None:
        """The unpruned model's row, None if there is none."""
        return next((row for row in self.rows if row.is_vanilla), None)
