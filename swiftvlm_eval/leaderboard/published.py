"""Numbers printed in papers, as boards of their own.

They go through the same renderers as measured boards, with relative columns computed from the paper's own vanilla
row, and never share a ranking with measured rows.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from swiftvlm_eval.leaderboard.board import Board, Cell, Row, Section
from swiftvlm_eval.leaderboard.columns import column_table
from swiftvlm_eval.leaderboard.entries import VANILLA
from swiftvlm_eval.leaderboard.scores import marked
from swiftvlm_eval.results.benchmarks import BenchmarkTable, Group

# Key in a published row -> attribute of `columns.yaml`.
_FIGURES = {"flops_t": "paper_tflops", "prefill_ms": "prefill_ms", "total_s": "total_s"}


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Source(_Strict):
    """Where numbers come from: a paper's title, its arXiv id and the number of the table."""

    title: str
    arxiv: str = Field(pattern=r"^\d{4}\.\d{4,5}$")
    table: int = Field(gt=0)


class PublishedRow(_Strict):
    """One row of a paper's table.

    Attributes:
        method: Registered method name.
        variant: What distinguishes rows of one method, as the paper calls it.
        budget: Visual tokens per decoder layer, or a share where `visual_tokens` is null.
        values: Scores by benchmark key, and `flops_t`, `prefill_ms`, `total_s`.
    """

    method: str
    variant: str | None = None
    budget: float = Field(gt=0)
    values: dict[str, float]

    @model_validator(mode="before")
    @classmethod
    def _collect_values(cls, content: Any) -> Any:
        """In the file the figures stand beside the other keys."""
        if not isinstance(content, dict) or "values" in content:
            return content
        own = {key: content[key] for key in ("method", "variant", "budget") if key in content}
        return {**own, "values": {key: value for key, value in content.items() if key not in own}}


class PublishedTable(_Strict):
    """One table of a paper.

    Attributes:
        source: Where it was printed.
        model: Model name as readers know it.
        pretrained: Checkpoint of ours the numbers are compared with.
        visual_tokens: Visual tokens entering the decoder; None if it differs by image.
        split: What was evaluated, as far as the paper says.
        notes: What must be known to read the numbers.
        rows: The rows.
    """

    source: Source
    model: str
    pretrained: str
    visual_tokens: int | None = Field(gt=0)
    split: str
    notes: tuple[str, ...]
    rows: tuple[PublishedRow, ...]

    def share(self, row: PublishedRow) -> float:
        """Returns a row's budget as a share of the visual tokens."""
        return row.budget / self.visual_tokens if self.visual_tokens else row.budget


def load_published(path: Path, table: BenchmarkTable) -> PublishedTable:
    """Reads one file of published numbers.

    Args:
        path: YAML in the format of `leaderboards/published/`.
        table: The benchmark columns the keys must come from.

    Raises:
        ValueError: The file is not such a table or uses an unknown key; the message names the file.
    """
    try:
        content = PublishedTable.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (ValidationError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path.name} is not a table of published numbers: {error}") from error
    rows = Counter((row.method, row.variant, row.budget) for row in content.rows)
    twice = [f"{method} {budget:g}" for (method, _, budget), count in rows.items() if count > 1]
    if twice:
        raise ValueError(f"{path.name}: rows given twice (give them a variant): {', '.join(twice)}")
    known = {*table.benchmarks, *_FIGURES}
    for row in content.rows:
        unknown = sorted(set(row.values) - known)
        if unknown:
            raise ValueError(f"{path.name}: row {row.method} {row.budget:g} has unknown keys {unknown}")
        if content.share(row) > 1:
            raise ValueError(f"{path.name}: row {row.method} has budget {row.budget:g}, more than all visual tokens")
    return content


def published_board(content: PublishedTable, table: BenchmarkTable) -> Board:
    """Turns a published table into a board; percent is relative to the paper's own vanilla row."""
    benchmarks = tuple(
        each for key, each in table.benchmarks.items() if any(key in row.values for row in content.rows)
    )
    base = next((row for row in content.rows if row.method == VANILLA), None)
    groups: dict[Group, tuple[str, ...]] = {
        group: tuple(each.key for each in benchmarks if each.group == group and base and each.key in base.values)
        for group in column_table().groups
    }
    groups = {group: keys for group, keys in groups.items() if keys}
    source = content.source
    return Board(
        slug=f"published-{re.sub(r'[^a-z0-9]+', '-', source.arxiv)}-table{source.table}",
        title=f"{content.model}, as printed in arXiv {source.arxiv}, table {source.table}",
        measured=False,
        benchmarks=benchmarks,
        groups=groups,
        sections=_sections(content, base, groups),
        caption=(f"Source: {source.title}, arXiv {source.arxiv}, table {source.table}.", content.split),
        notes=content.notes,
        pretrained=content.pretrained,
    )


def _sections(
    content: PublishedTable, base: PublishedRow | None, groups: Mapping[Group, tuple[str, ...]]
) -> tuple[Section, ...]:
    by_budget: dict[tuple[bool, float], list[PublishedRow]] = defaultdict(list)
    for row in content.rows:
        by_budget[row.method != VANILLA, -content.share(row)].append(row)
    return tuple(
        Section(_title(content, rows[0]), _rows(content, rows, base, groups))
        for _, rows in sorted(by_budget.items(), key=lambda item: item[0])
    )


def _title(content: PublishedTable, row: PublishedRow) -> str:
    if row.method == VANILLA:
        return "Vanilla"
    share = f"Budget {100 * content.share(row):.1f} %"
    count = content.visual_tokens
    return f"{share} ({row.budget:.0f} of {count} visual tokens per layer)" if count else share


def _rows(
    content: PublishedTable,
    rows: Sequence[PublishedRow],
    base: PublishedRow | None,
    groups: Mapping[Group, tuple[str, ...]],
) -> tuple[Row, ...]:
    labels = [f"{row.method} ({row.variant})" if row.variant else row.method for row in rows]
    keys = sorted({key for row in rows for key in row.values} - set(_FIGURES))
    columns = {
        key: marked(
            {name: _cell(row, key, base) for name, row in zip(labels, rows, strict=True) if key in row.values}, None
        )
        for key in keys
    }
    means = {
        group: marked(
            {
                label: Cell(relative=sum(ratios) / len(ratios))
                for label in labels
                if len(ratios := _ratios(columns, members, label)) == len(members)
            },
            None,
        )
        for group, members in groups.items()
    }
    made = [
        Row(
            key=f"{label} {row.budget:g}",
            label=label,
            method=row.method,
            budget=content.share(row),
            is_vanilla=row.method == VANILLA,
            cells={key: cells[label] for key, cells in columns.items() if label in cells},
            means={group: cells[label] for group, cells in means.items() if label in cells},
            figures=_figures(row, base),
        )
        for label, row in zip(labels, rows, strict=True)
    ]
    return tuple(sorted(made, key=_rank))


def _cell(row: PublishedRow, key: str, base: PublishedRow | None) -> Cell:
    reference = base.values.get(key) if base else None
    return Cell(score=row.values[key], relative=100 * row.values[key] / reference if reference else None)


def _ratios(columns: Mapping[str, Mapping[str, Cell]], members: Sequence[str], label: str) -> list[float]:
    cells = [columns[key][label] for key in members if label in columns.get(key, {})]
    return [cell.relative for cell in cells if cell.relative is not None]


def _rank(row: Row) -> tuple[float | str, ...]:
    means = [row.means.get(group) for group in column_table().row_order]
    return (*(-(cell.relative or 0.0) if cell else 0.0 for cell in means), row.label)


def _figures(row: PublishedRow, base: PublishedRow | None) -> dict[str, float | None]:
    figures: dict[str, float | None] = {name: row.values.get(key) for key, name in _FIGURES.items()}
    if base is not None and row is not base:
        ratios = {key: _ratio(base, row, key) for key in _FIGURES}
        figures["implied_speedup"] = ratios["flops_t"]
        figures["prefill_speedup"] = ratios["prefill_ms"]
        figures["total_speedup"] = ratios["total_s"]
    return figures


def _ratio(base: PublishedRow, row: PublishedRow, key: str) -> float | None:
    return base.values[key] / row.values[key] if key in base.values and row.values.get(key) else None
