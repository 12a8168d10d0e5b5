"""All boards as one HTML page that works from disk: nothing is fetched, and only our own script may run.

The page holds plain tables for readers without scripts, and one JSON value from which the script draws the rest. Text
from records is escaped by the template engine; in the JSON value angle brackets and ampersands are escaped, too, so
that no text ends the block. A policy in the head names the hashes of our style and our script, and allows no other.
"""

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from swiftvlm_eval.leaderboard.board import Board
from swiftvlm_eval.leaderboard.columns import TableName
from swiftvlm_eval.leaderboard.render.grid import Figure, Heading, figures, headings
from swiftvlm_eval.leaderboard.render.looks import looks
from swiftvlm_eval.leaderboard.render.payload import columns, lead, payload, size

TEMPLATES = Path(__file__).with_name("templates")
SCRIPTS = ("base", "state", "values", "table", "chart", "card", "page")
MARKS = {"best": "● ", "tied": "≈ ", "untested": "? ", "off_budget": "⚑ ", "": ""}
_TABLES: tuple[TableName, ...] = ("cost", "timing")
# From so many columns on the pictures stand above the table, not beside it.
_WIDE = 11


@dataclass(frozen=True)
class _StaticRow:
    label: str
    figures: Sequence[Figure]


@dataclass(frozen=True)
class _StaticSection:
    title: str
    rows: Sequence[_StaticRow]


@dataclass(frozen=True)
class _Part:
    board: Board
    name: str
    lead: str
    size: Sequence[str]
    files: Mapping[str, str]
    wide: bool
    headings: Sequence[Heading]
    sections: Sequence[_StaticSection]


@dataclass(frozen=True)
class Neighbours:
    """Files that stand beside the page, so that it may link to them.

    Attributes:
        boards: Files of each board by their titles, by the board's slug.
        records: Address, relative to the page, of each record and per-sample file, by file name.
        pages: Other pages, file name by title.
    """

    boards: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    records: Mapping[str, str] = field(default_factory=dict)
    pages: Mapping[str, str] = field(default_factory=dict)


def html_page(boards: Sequence[Board], problems: Mapping[str, Sequence[str]], beside: Neighbours | None = None) -> str:
    """Returns the page.

    Args:
        boards: Measured boards first, then published ones; they never share a table.
        problems: What was refused or left out, one line each, by heading.
        beside: Files that the page may link to.
    """
    near = beside or Neighbours()
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    files = {slug: {title: quote(name) for title, name in own.items()} for slug, own in near.boards.items()}
    style, script = _style(environment), _script()
    return environment.get_template("page.html.j2").render(
        parts=[_part(board, files.get(board.slug, {})) for board in boards],
        problems=problems,
        beside={title: quote(name) for title, name in near.pages.items()},
        marks=MARKS,
        style=style,
        script=script,
        hashes={"style": _hash(style), "script": _hash(script)},
        data=script_json(payload(boards, files, near.records)),
    )


def script_json(value: object) -> Markup:
    """Returns JSON that no browser takes for the end of its script block.

    Raises:
        ValueError: A figure is not finite; better no page than one that only looks whole.
    """
    text = json.dumps(value, sort_keys=True, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    for sign in "<>&\u2028\u2029":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return Markup(text.encode("utf-8", "backslashreplace").decode())  # a surrogate that nothing pairs stays an escape


def themes() -> dict[str, dict[str, str]]:
    """Returns the colours of both themes, those of the methods included, by the names of their CSS variables."""
    ground = yaml.safe_load((TEMPLATES / "theme.yaml").read_text(encoding="utf-8"))
    return {
        name: {**colours, **{f"c-{key}": getattr(colour, name) for key, colour in looks().colours.items()}}
        for name, colours in ground.items()
    }


def _style(environment: Environment) -> Markup:
    found = themes()

    def theme(name: str) -> str:
        return " ".join(f"--{key}: {value};" for key, value in found[name].items())

    return Markup(environment.get_template("styles.css.j2").render(theme=theme, colours=looks().colours))


def _script() -> Markup:
    parts = (TEMPLATES / "script" / f"{name}.js" for name in SCRIPTS)
    body = "\n".join(part.read_text(encoding="utf-8") for part in parts)
    return Markup(f'"use strict";\n(() => {{\n{body}}})();\n')


def _hash(text: str) -> str:
    """Returns what a content security policy calls a script or a style."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _part(board: Board, files: Mapping[str, str]) -> _Part:
    sections = [
        _StaticSection(section.title, [_StaticRow(row.label, figures(board, row, *_TABLES)) for row in section.rows])
        for section in board.sections
    ]
    return _Part(
        board=board,
        name=short_title(board),
        lead=lead(board),
        size=size(board),
        files=files,
        wide=sum(each["shown"] for each in columns(board)) >= _WIDE,
        headings=headings(board, *_TABLES),
        sections=sections,
    )


def short_title(board: Board) -> str:
    """Returns a board's name for a list of boards."""
    if not board.measured:
        head, _, printed = board.title.partition(", as printed in ")
        return f"{printed or head}"
    return board.title.partition(" (")[0]
