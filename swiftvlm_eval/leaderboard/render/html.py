"""All boards as one HTML page that works from disk: sortable, filterable, with the run records inside."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from swiftvlm_eval.leaderboard.board import Board, Row
from swiftvlm_eval.leaderboard.columns import TableName
from swiftvlm_eval.leaderboard.render.grid import Figure, Heading, figures, headings

_TABLES: tuple[TableName, ...] = ("cost", "timing", "export")


@dataclass(frozen=True)
class Picture:
    """A picture inside the page: its alternative text and its SVG as base64."""

    text: str
    data: str

    @classmethod
    def of(cls, text: str, svg: bytes) -> "Picture":
        """Encodes an SVG file."""
        return cls(text, base64.b64encode(svg).decode())


@dataclass(frozen=True)
class _HtmlRow:
    section: str
    label: str
    figures: Sequence[Figure]
    record: str


@dataclass(frozen=True)
class _BoardPart:
    board: Board
    headings: Sequence[Heading]
    rows: Sequence[_HtmlRow]
    pictures: Sequence[Picture]


def html_page(
    boards: Sequence[Board], pictures: Mapping[str, Sequence[Picture]], problems: Mapping[str, Sequence[str]]
) -> str:
    """Returns the page.

    Everything from records is escaped by the template engine; the records themselves stand in a JSON block, whose
    angle brackets are escaped too, and are shown as text.

    Args:
        boards: Measured boards first, then published ones; they never share a table.
        pictures: Pictures by board slug.
        problems: What was refused or left out, one line each, by heading.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).with_name("templates")),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # What is no JSON would end the script; better no page than one that only looks whole.
    environment.policies["json.dumps_kwargs"] = {"sort_keys": True, "allow_nan": False}
    parts = [_part(board, pictures.get(board.slug, ())) for board in boards]
    records = {_record_key(board, row): _record(board, row) for board in boards for row in board.rows}
    return environment.get_template("page.html.j2").render(pages=parts, records=records, problems=problems)


def _part(board: Board, pictures: Sequence[Picture]) -> _BoardPart:
    rows = [
        _HtmlRow(section.title, row.label, figures(board, row, *_TABLES), _record_key(board, row))
        for section in board.sections
        for row in section.rows
    ]
    return _BoardPart(board, headings(board, *_TABLES), rows, pictures)


def _record_key(board: Board, row: Row) -> str:
    return f"{board.slug} {row.key}"


def _record(board: Board, row: Row) -> object:
    """Returns what a click on a row shows: its run records, or the source of a published row."""
    if board.measured:
        return {"files": row.files, "records": [record.model_dump(mode="json") for record in row.records]}
    scores = {key: cell.score for key, cell in row.cells.items()}
    return {"source": board.caption, "row": row.label, "scores": scores, "figures": dict(row.figures)}
