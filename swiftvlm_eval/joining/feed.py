"""An Atom feed (RFC 4287) of new rows: one entry a run record, newest first; equal boards give equal bytes."""

import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from xml.etree import ElementTree

from swiftvlm_eval.joining.schema import PublishedBoard, PublishedCell, PublishedRecord, PublishedRow, PublishedSection
from swiftvlm_eval.leaderboard.render.text import number, plain

FEED_FILE = "feed.xml"
MOST_ENTRIES = 100
_NAMESPACE = "http://www.w3.org/2005/Atom"
_NEVER = "1970-01-01T00:00:00Z"


def moment(created: str | None) -> str | None:
    """Returns a record's time in UTC as RFC 3339 writes it; None if it is none."""
    try:
        made = datetime.fromisoformat(created or "")
        return None if made.tzinfo is None else made.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (ValueError, OverflowError):
        return None


def feed(boards: Sequence[PublishedBoard], address: str = "") -> bytes:
    """Returns the feed.

    Args:
        boards: Boards; those with numbers from papers have no records and so no entries.
        address: Where the site will stand, with a slash at its end; links are relative without it.
    """
    ElementTree.register_namespace("", _NAMESPACE)
    root = ElementTree.Element(f"{{{_NAMESPACE}}}feed")
    entries = sorted(
        (
            (moment(record.created) or _NEVER, record.sha256 or record.id, record, row, section, board)
            for board in boards
            for section in board.sections
            for row in section.rows
            for record in row.records
        ),
        key=lambda entry: entry[:2],
        reverse=True,
    )
    _text(root, "title", "swiftvlm-eval leaderboards: new rows")
    _text(root, "id", uuid.uuid5(uuid.NAMESPACE_URL, address or "swiftvlm-eval leaderboards").urn)
    _text(root, "updated", entries[0][0] if entries else _NEVER)
    _text(_child(root, "author"), "name", "swiftvlm-eval")
    _child(root, "link", rel="alternate", type="text/html", href=f"{address}index.html")
    if address:
        _child(root, "link", rel="self", type="application/atom+xml", href=f"{address}{FEED_FILE}")
    seen: set[str] = set()
    for when, name, record, row, section, board in entries:
        if name not in seen and len(seen) < MOST_ENTRIES:
            seen.add(name)
            _entry(root, when, name, record, row, section, board, address)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="utf-8", xml_declaration=True) + b"\n"


def _entry(
    root: ElementTree.Element,
    when: str,
    name: str,
    record: PublishedRecord,
    row: PublishedRow,
    section: PublishedSection,
    board: PublishedBoard,
    address: str,
) -> None:
    entry = _child(root, "entry")
    _text(entry, "title", f"{board.title}: {row.label}, {section.title}")
    _text(entry, "id", uuid.uuid5(uuid.NAMESPACE_URL, f"swiftvlm-eval record {name}").urn)
    _text(entry, "updated", when)
    _child(entry, "link", rel="alternate", type="text/html", href=f"{address}index.html")
    if record.file:
        _child(entry, "link", rel="related", type="application/json", href=f"{address}{record.file}")
    titles = {benchmark.key: (benchmark.title, 1) for benchmark in board.benchmarks}
    scores = [f"{titles[key][0]} {_words(cell)}" for key, cell in row.scores.items() if key in titles]
    _text(entry, "summary", "; ".join(scores))


def _words(cell: PublishedCell) -> str:
    relative = "" if cell.relative is None else f" ({number(cell.relative, 1)} % of vanilla)"
    return f"{number(cell.score, 1)}{relative}"


def _child(parent: ElementTree.Element, name: str, **attributes: str) -> ElementTree.Element:
    return ElementTree.SubElement(parent, f"{{{_NAMESPACE}}}{name}", attributes)


def _text(parent: ElementTree.Element, name: str, text: str) -> None:
    """Adds plain text: the library escapes it, and what XML has no sign for is left out."""
    _child(parent, name).text = plain(text)
