"""The machine-readable leaderboard: what stands in `leaderboard.json`, as typed models and as a JSON schema.

The schema is committed beside this file (`leaderboard.schema.json`) and published with every site. A change that a
reader would notice raises `SCHEMA_VERSION`.
"""

import json
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from swiftvlm_eval.leaderboard.board import Board, Cell, Mark, Row, Section

SCHEMA_VERSION: Literal[1] = 1
SCHEMA_FILE = "leaderboard.schema.json"
DATA_FILE = "leaderboard.json"


class _Published(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class PublishedRecord(_Published):
    """A run record that a row was made from."""

    id: str = Field(description="Names configuration and task set: 12 hex digits.")
    file: str | None = Field(description="Path of the record within the site; null where it is not published.")
    sha256: str | None = Field(description="SHA-256 of that file.")
    samples: str | None = Field(description="Path of the per-sample file (gzipped JSONL) within the site, or null.")
    created: str | None = Field(description="Time of the run, ISO 8601.")


class PublishedCell(_Published):
    """One score or mean."""

    score: float | None = Field(description="On the printed scale of the benchmark; null for a mean.")
    stderr: float | None = Field(description="Standard error of the score, over images where the log names them.")
    documents: int | None = Field(description="Documents scored.")
    relative: float | None = Field(description="Percent of the unpruned model's score, or mean of such.")
    low: float | None = Field(description="Lower end of the 95 % interval of `relative`.")
    high: float | None = Field(description="Upper end of it.")
    mark: Mark = Field(
        description="best of its budget; tied: no row is significantly better; untested; off_budget: the row did not "
        "execute what it was asked for and takes no part in the other marks."
    )
    p_best: float | None = Field(description="Adjusted p-value of the hypothesis that no row of the budget is better.")
    executed: float | None = Field(description="Mean visual tokens per decoder layer that were executed.")
    asked: float | None = Field(description="The budget in the same unit.")
    rank: tuple[int, int] | None = Field(description="Ends of the 95 % interval of its place in its budget, 1 best.")


class PublishedRow(_Published):
    """One method at one budget."""

    key: str = Field(description="Names the configuration within its board for good.")
    label: str = Field(description="The method, and what tells it from its neighbours.")
    method: str | None = Field(description="Method name; null for a model class of lmms-eval itself.")
    budget: float | None = Field(description="Share of the visual tokens, in (0, 1]; null where not recorded.")
    is_vanilla: bool = Field(description="Whether this is the unpruned model, the denominator of `relative`.")
    options: dict[str, JsonValue] = Field(description="Options of the method.")
    scores: dict[str, PublishedCell] = Field(description="By key of `benchmarks`.")
    means: dict[str, PublishedCell] = Field(description="By key of `groups`.")
    figures: dict[str, float | None] = Field(description="Token counts, operations and times.")
    notes: tuple[str, ...] = Field(description="What a reader must know about the row.")
    reproduce: dict[str, str] = Field(description="Commands and files that make the row again, by kind.")
    records: tuple[PublishedRecord, ...] = Field(description="What it was made from; empty for published numbers.")


class PublishedSection(_Published):
    """The rows of one budget, best first."""

    title: str = Field(description="Names the budget.")
    detectable: dict[str, float] = Field(
        description="By benchmark or group: smallest difference of two rows, in percent of vanilla, shown with a "
        "chance of 80 % at the 5 % level."
    )
    rows: tuple[PublishedRow, ...]


class PublishedBenchmark(_Published):
    """One column."""

    key: str
    title: str
    task: str = Field(description="lmms-eval task, or what a paper calls it.")
    metric: str
    group: str | None = Field(description="Mean that the column belongs to.")
    protocol: str | None = Field(description="Whose prompts and answer rules; null for a paper's own.")
    documents: int | None = Field(description="Documents of the whole benchmark, where that is fixed.")
    literature: str = Field(description="Which number papers report under this name.")


class PublishedBoard(_Published):
    """One model in one setting, or one table of a paper."""

    slug: str = Field(description="Stem of its pages: <slug>.md, <slug>.csv, <slug>.json.")
    title: str
    measured: bool = Field(description="False for numbers copied from a paper.")
    limited: bool = Field(description="Some run covers only a part of a benchmark.")
    pretrained: str | None = Field(description="Checkpoint name.")
    caption: tuple[str, ...]
    notes: tuple[str, ...]
    benchmarks: tuple[PublishedBenchmark, ...]
    groups: dict[str, tuple[str, ...]] = Field(description="Benchmark keys that each mean is taken over.")
    sections: tuple[PublishedSection, ...]


class PublishedLeaderboard(_Published):
    """All boards of a site. Everything in it comes from records: treat texts as text, never as markup."""

    format: Literal["swiftvlm-eval/leaderboard"]
    schema_version: Literal[1]
    updated: str | None = Field(description="Time of the latest run, ISO 8601 in UTC; null without one.")
    boards: tuple[PublishedBoard, ...]


def json_schema() -> str:
    """Returns the JSON schema (draft 2020-12) of `leaderboard.json`."""
    schema = PublishedLeaderboard.model_json_schema(mode="serialization")
    return (
        json.dumps({"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}, indent=2, sort_keys=True)
        + "\n"
    )


def published_board(board: Board, records: dict[str, tuple[PublishedRecord, ...]]) -> PublishedBoard:
    """Returns a board as it stands in `leaderboard.json`.

    Args:
        board: A measured or a published board.
        records: Row key -> what the row was made from.
    """
    return PublishedBoard(
        slug=board.slug,
        title=board.title,
        measured=board.measured,
        limited=board.limited,
        pretrained=board.pretrained,
        caption=board.caption,
        notes=board.notes,
        benchmarks=tuple(
            PublishedBenchmark(**each.model_dump(include=set(PublishedBenchmark.model_fields)))
            for each in board.benchmarks
        ),
        groups={str(group): keys for group, keys in board.groups.items()},
        sections=tuple(_section(section, records) for section in board.sections),
    )


def _section(section: Section, records: dict[str, tuple[PublishedRecord, ...]]) -> PublishedSection:
    return PublishedSection(
        title=section.title,
        detectable=dict(section.detectable),
        rows=tuple(_row(row, records.get(row.key, ())) for row in section.rows),
    )


def _row(row: Row, records: tuple[PublishedRecord, ...]) -> PublishedRow:
    options: dict[str, JsonValue] = json.loads(json.dumps(dict(row.options)))
    return PublishedRow(
        key=row.key,
        label=row.label,
        method=row.method,
        budget=row.budget,
        is_vanilla=row.is_vanilla,
        options=options,
        scores={key: _cell(cell) for key, cell in row.cells.items()},
        means={str(group): _cell(cell) for group, cell in row.means.items()},
        figures=dict(row.figures),
        notes=row.notes,
        reproduce=dict(row.reproduce),
        records=records,
    )


def _cell(cell: Cell) -> PublishedCell:
    return PublishedCell(**{name: getattr(cell, name) for name in PublishedCell.model_fields})
