"""Makes what a board says fit to be shown: names from records may be long, invisible, or those of our own pages."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from swiftvlm_eval.leaderboard.board import Board, Row, Section
from swiftvlm_eval.leaderboard.render.text import digest, plain, shown_name
from swiftvlm_eval.results.store import Problem

_RESERVED = ("index", "published")
# A board of that name would write the file of another board's pairs.
_ENDING = "-pairs"
_LONGEST_SLUG = 80


def tidy_sections(sections: Sequence[Section]) -> tuple[Section, ...]:
    """Returns sections whose labels and file names are single lines of bounded length."""
    return tuple(
        replace(section, title=plain(section.title), rows=tuple(_tidy_row(row) for row in section.rows))
        for section in sections
    )


def _tidy_row(row: Row) -> Row:
    return replace(
        row,
        label=shown_name(row.label),
        method=None if row.method is None else shown_name(row.method),
        files=tuple(plain(name) for name in row.files),
        notes=tuple(plain(note) for note in row.notes),
    )


def tidy_board(board: Board) -> Board:
    """Returns a board whose texts are single lines without control characters."""
    return replace(
        board,
        caption=tuple(plain(sentence) for sentence in board.caption),
        notes=tuple(plain(note) for note in board.notes),
        sections=tidy_sections(board.sections),
    )


def tidy_problems(problems: Sequence[Problem]) -> list[Problem]:
    """Returns problems whose file names and reasons are single lines without control characters."""
    return [replace(each, file=plain(each.file), reason=plain(each.reason)) for each in problems]


def page_names(slugs: Mapping[str, str]) -> dict[str, str]:
    """Returns file name stems that are short, no page of our own, and different also where case does not count.

    Args:
        slugs: Wanted stem by a key that names the board for good (its setting).
    """
    made = {key: _page_name(key, slug) for key, slug in slugs.items()}
    counts = Counter(name.casefold() for name in made.values())
    return {key: f"{name}-{digest(key)}" if counts[name.casefold()] > 1 else name for key, name in made.items()}


def _page_name(key: str, slug: str) -> str:
    if len(slug) > _LONGEST_SLUG:
        return f"{slug[: _LONGEST_SLUG - 9].rstrip('-.')}-{digest(key)}"
    taken = slug == _RESERVED[0] or slug.startswith(_RESERVED[1]) or slug.endswith(_ENDING)
    return f"{slug}-{digest(key)}" if taken else slug
