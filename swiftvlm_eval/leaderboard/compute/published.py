"""Numbers printed in papers, as boards of their own.

They go through the same renderers as measured boards, with relative columns computed from the paper's own vanilla
row, and never share a ranking with measured rows.
"""

import math
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from swiftvlm_eval.leaderboard.board import Board, Cell, Row, Section
from swiftvlm_eval.leaderboard.columns import column_table
from swiftvlm_eval.leaderboard.compute.caption import mean_sentences
from swiftvlm_eval.leaderboard.compute.entries import VANILLA
from swiftvlm_eval.leaderboard.compute.means import mean_members
from swiftvlm_eval.leaderboard.compute.paper_table import FIGURES, PublishedRow, PublishedTable, printed_benchmark
from swiftvlm_eval.leaderboard.compute.rows import BUDGET_DIGITS
from swiftvlm_eval.leaderboard.compute.scores import marked
from swiftvlm_eval.leaderboard.render.names import tidy_board
from swiftvlm_eval.results.benchmarks import Benchmark, BenchmarkTable, Group


@dataclass(frozen=True)
class Paper:
    """A published table with its board; `row_key` of a published row is the key of its row on the board."""

    table: PublishedTable
    board: Board


def row_key(row: PublishedRow) -> str:
    """Names a row within its table."""
    return f"{row.label} {row.budget:g}"


def published_boards(tables: Sequence[PublishedTable], benchmarks: BenchmarkTable) -> list[Paper]:
    """Turns published tables into boards; files with parts of one table get numbered pages."""
    papers: list[Paper] = []
    for content in tables:
        board = published_board(content, benchmarks)
        same = sum(paper.board.slug.partition("-part-")[0] == board.slug for paper in papers)
        papers.append(Paper(content, replace(board, slug=f"{board.slug}-part-{same + 1}") if same else board))
    return papers


def published_board(content: PublishedTable, table: BenchmarkTable) -> Board:
    """Turns a published table into a board; percent is relative to the paper's own vanilla row."""
    benchmarks = tuple(printed_benchmark(key, column, table) for key, column in content.columns.items())
    base = next((row for row in content.rows if row.method == VANILLA), None)
    ours = {key: column.comparable for key, column in content.columns.items() if column.comparable is not False}
    kinds = {each.key: each.group for each in benchmarks if base and base.values.get(each.key)}
    groups = mean_members(kinds, table, ours)
    source = content.source
    return tidy_board(
        Board(
            slug=f"published-{re.sub(r'[^a-z0-9]+', '-', source.arxiv)}-table{source.table}",
            title=f"{content.model}, as printed in arXiv {source.arxiv}, table {source.table}",
            measured=False,
            benchmarks=benchmarks,
            groups=groups,
            sections=_sections(content, base, groups),
            caption=(
                f"Source: {source.title}, arXiv {source.arxiv}, table {source.table}.",
                *_columns(content, table),
                *_means(groups, benchmarks),
            ),
            notes=(*content.notes, *_seeds(content)),
            pretrained=content.pretrained,
        )
    )


def _means(groups: Mapping[Group, tuple[str, ...]], benchmarks: Sequence[Benchmark]) -> list[str]:
    """Says what the means are, and that they are not copied."""
    said = mean_sentences(groups, benchmarks)
    return [*said, "Percentages and means are computed here from the printed scores."] if said else []


def _columns(content: PublishedTable, table: BenchmarkTable) -> list[str]:
    """Says what each column is; columns that say the same share a sentence."""
    said: dict[str, list[str]] = defaultdict(list)
    for key, column in content.columns.items():
        compared = "" if column.comparable else f"; compared with none of ours: {column.reason}"
        what = f"{column.metric}; split: {column.split}; protocol: {column.protocol}{compared}"
        said[what].append(printed_benchmark(key, column, table).title)
    titles = {column.attribute: column.title for column in column_table().columns}
    for name, figure in content.figures.items():
        compared = "" if figure.comparable else f"; compared with none of ours: {figure.reason}"
        said[f"{figure.convention}{compared}"].append(titles[_attribute(content, name)])
    return [f"{', '.join(names)}: {what}." for what, names in said.items()]


def _seeds(content: PublishedTable) -> list[str]:
    return [f"{row_key(row)}: mean of {row.seeds} seeds" for row in content.rows if row.seeds is not None]


def _attribute(content: PublishedTable, name: str) -> str:
    """Returns the attribute of `columns.yaml` under which a figure is shown."""
    return FIGURES.get(name) or content.figures["flops_t"].comparable or "executed_tflops"


def _sections(
    content: PublishedTable, base: PublishedRow | None, groups: Mapping[Group, tuple[str, ...]]
) -> tuple[Section, ...]:
    by_budget: dict[tuple[bool, float], list[PublishedRow]] = defaultdict(list)
    for row in content.rows:
        by_budget[row.method != VANILLA, -round(content.share(row), BUDGET_DIGITS)].append(row)
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
    labels = [row.label for row in rows]
    keys = sorted({key for row in rows for key in row.values} & set(content.columns))
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
            key=row_key(row),
            label=label,
            method=row.method,
            budget=content.share(row),
            is_vanilla=row.method == VANILLA,
            cells={key: cells[label] for key, cells in columns.items() if label in cells},
            means={group: cells[label] for group, cells in means.items() if label in cells},
            figures=_figures(content, row, base),
        )
        for label, row in zip(labels, rows, strict=True)
    ]
    return tuple(sorted(made, key=_rank))


def _cell(row: PublishedRow, key: str, base: PublishedRow | None) -> Cell:
    reference, spread = base.values.get(key) if base else None, row.stdev.get(key)
    return Cell(
        score=row.values[key],
        stderr=None if spread is None or row.seeds is None else spread / math.sqrt(row.seeds),
        relative=100 * row.values[key] / reference if reference else None,
    )


def _ratios(columns: Mapping[str, Mapping[str, Cell]], members: Sequence[str], label: str) -> list[float]:
    cells = [columns[key][label] for key in members if label in columns.get(key, {})]
    return [cell.relative for cell in cells if cell.relative is not None]


def _rank(row: Row) -> tuple[float | str, ...]:
    means = [row.means.get(group) for group in column_table().row_order]
    return (*(-(cell.relative or 0.0) if cell else 0.0 for cell in means), row.label)


def _figures(content: PublishedTable, row: PublishedRow, base: PublishedRow | None) -> dict[str, float | None]:
    figures = {_attribute(content, name): row.values.get(name) for name in content.figures}
    figures["visual_tokens"] = row.executed_tokens
    if base is not None and row is not base:
        figures["implied_speedup"] = _ratio(base, row, "flops_t")
        figures["prefill_speedup"] = _ratio(base, row, "prefill_ms")
        figures["total_speedup"] = _ratio(base, row, "total_s")
    return figures


def _ratio(base: PublishedRow, row: PublishedRow, key: str) -> float | None:
    return base.values[key] / row.values[key] if key in base.values and row.values.get(key) else None
