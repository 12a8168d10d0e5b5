"""The form of a file of published numbers: one table of a paper, every column with what it measures.

A column says whether it may stand beside one of ours; that is checked against `measures.yaml`, so that a score with
OCR tokens cannot pass for one without.
"""

from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from swiftvlm_eval.results.benchmarks import Benchmark, BenchmarkTable, Kind
from swiftvlm_eval.results.bounds import Amount, Score, one_line
from swiftvlm_eval.results.files import LARGEST_RECORD, require_regular

SHIPPED = Path(__file__).resolve().parents[1] / "published"
NOT_STATED = "not stated"
# Figures that are no scores: key in a file -> attribute of `columns.yaml` (of FLOPs the file says which).
FIGURES = {"flops_t": None, "prefill_ms": "prefill_ms", "total_s": "total_s"}
_ROW_KEYS = ("method", "variant", "budget", "executed_tokens", "seeds", "stdev")


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Measure(_Strict):
    """What one of our columns measures, in the words of `measures.yaml`."""

    metric: str
    split: str
    protocol: Literal["lmms_eval", "official"]


@cache
def measures() -> dict[str, Measure]:
    """Reads `measures.yaml`."""
    content = yaml.safe_load(Path(__file__).with_name("measures.yaml").read_text(encoding="utf-8"))
    return {key: Measure.model_validate(entry) for key, entry in content.items()}


class Source(_Strict):
    """Where numbers come from: a paper's title, its arXiv id and the number of the table."""

    title: str
    arxiv: str = Field(pattern=r"^\d{4}\.\d{4,5}$")
    table: int = Field(gt=0, le=1000)


class PublishedColumn(_Strict):
    """One column of scores.

    Attributes:
        metric: What is scored, with its variant.
        split: What it is scored on; `not stated` if the paper is silent.
        protocol: `lmms_eval`, `official`, the name of the paper's own harness, or `not stated`.
        comparable: Key of our column it may stand beside, or False.
        reason: Why it may not; with `comparable: false` only.
        title: Heading; that of our column by default.
        group: Group mean it belongs to; that of our column by default, none where there is none.
        digits: Decimals printed.
    """

    metric: str = Field(min_length=1)
    split: str = Field(min_length=1)
    protocol: str = Field(min_length=1)
    comparable: str | Literal[False]
    reason: str | None = None
    title: str | None = None
    group: Kind | None = None
    digits: int | None = Field(default=None, ge=0, le=6)

    @model_validator(mode="after")
    def _reason_is_given(self) -> "PublishedColumn":
        if (self.comparable is False) != (self.reason is not None):
            raise ValueError("a column with `comparable: false` gives its `reason`, and no other does")
        return self


class PublishedFigure(_Strict):
    """FLOPs or times of a paper.

    Attributes:
        convention: What was counted or timed, on what.
        comparable: `paper_tflops` (70 text tokens) or `executed_tflops` of ours, or False. Times never are.
        reason: Why it is not comparable.
    """

    convention: str = Field(min_length=1)
    comparable: Literal["paper_tflops", "executed_tflops", False]
    reason: str | None = None

    @model_validator(mode="after")
    def _reason_is_given(self) -> "PublishedFigure":
        if (self.comparable is False) != (self.reason is not None):
            raise ValueError("a figure with `comparable: false` gives its `reason`, and no other does")
        return self


class PublishedRow(_Strict):
    """One row of a paper's table.

    Attributes:
        method: Method name; ours where it is a registered one.
        variant: What distinguishes rows of one method, as the paper calls it.
        budget: Visual tokens per decoder layer, or a share where `visual_tokens` is null.
        executed_tokens: Visual tokens per layer that were really executed, where the paper says so.
        seeds: Runs the scores are means of, where the paper says so.
        stdev: Standard deviation over the seeds by column.
        values: Scores by column and figures by name.
    """

    method: str = Field(min_length=1)
    variant: str | None = None
    budget: Amount = Field(gt=0)
    executed_tokens: Amount | None = None
    seeds: int | None = Field(default=None, ge=1, le=10_000)
    stdev: dict[str, Amount] = {}
    values: dict[str, Score]

    @model_validator(mode="before")
    @classmethod
    def _collect_values(cls, content: Any) -> Any:
        """In the file the figures stand beside the other keys."""
        if not isinstance(content, dict) or "values" in content:
            return content
        own = {key: content[key] for key in _ROW_KEYS if key in content}
        return {**own, "values": {key: value for key, value in content.items() if key not in own}}

    @property
    def label(self) -> str:
        """Method and variant."""
        return f"{self.method} ({self.variant})" if self.variant else self.method


class PublishedTable(_Strict):
    """One table of a paper.

    Attributes:
        source: Where it was printed.
        model: Model name as readers know it.
        pretrained: Checkpoint of ours the numbers are compared with.
        visual_tokens: Visual tokens entering the decoder; None if it differs by image.
        columns: What each column measures, in printing order.
        figures: What FLOPs and times mean.
        notes: What must be known to read the numbers.
        rows: The rows.
    """

    source: Source
    model: str
    pretrained: str
    visual_tokens: int | None = Field(gt=0, le=10**6)
    columns: dict[str, PublishedColumn] = {}
    figures: dict[Literal["flops_t", "prefill_ms", "total_s"], PublishedFigure] = {}
    notes: tuple[str, ...]
    rows: tuple[PublishedRow, ...] = Field(min_length=1)

    def share(self, row: PublishedRow) -> float:
        """Returns a row's budget as a share of the visual tokens."""
        return row.budget / self.visual_tokens if self.visual_tokens else row.budget


class _UniqueKeys(yaml.SafeLoader):
    """Refuses a key given twice, of which YAML would silently keep the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]  # type: ignore[no-untyped-call]
        twice = sorted(str(key) for key, count in Counter(map(str, keys)).items() if count > 1)
        if twice:
            raise yaml.constructor.ConstructorError(None, None, f"given twice: {', '.join(twice)}", node.start_mark)
        return super().construct_mapping(node, deep)


def shipped_tables() -> list[Path]:
    """The published tables that come with the package, by file name."""
    return sorted(SHIPPED.glob("*.yaml"))


def load_published(path: Path, table: BenchmarkTable) -> PublishedTable:
    """Reads one file of published numbers.

    Args:
        path: YAML in the format of the shipped ones.
        table: Our benchmark columns.

    Raises:
        ValueError: The file is not such a table, or claims what cannot be compared; the message names the file, the
            field, what it holds and what is allowed.
    """
    try:
        text = require_regular(path, LARGEST_RECORD).read_text(encoding="utf-8")
        content = PublishedTable.model_validate(yaml.load(text, Loader=_UniqueKeys))  # noqa: S506 (a safe loader)
    except OSError as error:
        raise ValueError(f"{path.name} cannot be read: {error.strerror}") from error
    except (ValidationError, yaml.YAMLError, UnicodeDecodeError, RecursionError, TypeError) as error:
        raise ValueError(f"{path.name} is not a table of published numbers: {one_line(error)}") from error
    wrong = [*_wrong_columns(content, table), *_wrong_rows(content)]
    if wrong:
        raise ValueError(f"{path.name}: {'; '.join(wrong[:5])}")
    return content


def _wrong_columns(content: PublishedTable, table: BenchmarkTable) -> list[str]:
    wrong = []
    used: dict[str, str] = {}
    for key, column in content.columns.items():
        if key in {*_ROW_KEYS, *FIGURES, "values"}:
            wrong.append(f"columns.{key}: the key is taken; allowed is any other")
        if column.comparable is False:
            continue
        ours = measures().get(column.comparable)
        if ours is None or column.comparable not in table.benchmarks:
            known = ", ".join(key for key in measures() if key in table.benchmarks)
            wrong.append(f"columns.{key}.comparable is {column.comparable!r}; allowed are false and {known}")
        else:
            wrong += [f"columns.{key}.{reason}" for reason in _differences(column, ours)]
        if column.comparable in used:
            wrong.append(f"columns.{key}.comparable is {column.comparable!r}, as columns.{used[column.comparable]} is")
        used[column.comparable] = key
    for name, figure in content.figures.items():
        if name != "flops_t" and figure.comparable is not False:
            wrong.append(f"figures.{name}.comparable is {figure.comparable!r}; allowed is false")
    return wrong


def _differences(column: PublishedColumn, ours: Measure) -> list[str]:
    cure = "state that if it is so, or `comparable: false` with a reason"
    found = []
    if column.metric != ours.metric:
        found.append(f"metric is {column.metric!r}, our {column.comparable} is {ours.metric!r}; {cure}")
    if column.split not in (ours.split, NOT_STATED):
        found.append(f"split is {column.split!r}, our {column.comparable} is {ours.split!r}; {cure}")
    if column.protocol in ("lmms_eval", "official") and column.protocol != ours.protocol:
        found.append(f"protocol is {column.protocol!r}, our {column.comparable} is {ours.protocol!r}; {cure}")
    return found


def _wrong_rows(content: PublishedTable) -> list[str]:
    wrong = []
    rows = Counter((row.label, content.share(row)) for row in content.rows)
    twice = [f"{label} {100 * share:.1f} %" for (label, share), count in rows.items() if count > 1]
    if twice:
        wrong.append(f"rows given twice (give them a variant): {', '.join(twice)}")
    for number, row in enumerate(content.rows):
        name = f"rows.{number} ({row.label} {row.budget:g})"
        unknown = sorted(set(row.values) - {*content.columns, *content.figures})
        if unknown:
            wrong.append(f"{name} has {', '.join(unknown)}, which neither `columns` nor `figures` describes")
        if set(row.stdev) - set(content.columns) or (row.stdev and row.seeds is None):
            wrong.append(f"{name}.stdev goes with `seeds` and names columns")
        if content.share(row) > 1:
            wrong.append(f"{name}: budget {row.budget:g} is more than all visual tokens")
    return wrong


def printed_benchmark(key: str, column: PublishedColumn, table: BenchmarkTable) -> Benchmark:
    """Returns the column a board prints: heading, decimals and group from the file, else from our column."""
    ours = None if column.comparable is False else table.benchmarks[column.comparable]
    return Benchmark(
        key=key,
        task=f"published, {column.protocol}",
        metric=column.metric,
        title=column.title or (ours.title if ours else key),
        group=column.group or (ours.group if ours else None),
        protocol=None,
        scale=1,
        digits=column.digits if column.digits is not None else ours.digits if ours else 1,
        literature=f"{column.metric}; split {column.split}; protocol {column.protocol}",
        documents=None,
        reduction="mean",
        clusters="published",
    )
