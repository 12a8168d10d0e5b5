"""What the page's script draws from: one JSON value, small, with the marks and figures of every row and its card."""

from collections.abc import Mapping, Sequence
from typing import Any

from swiftvlm_eval.leaderboard.board import Board, Cell, Row, Section
from swiftvlm_eval.leaderboard.columns import column_table
from swiftvlm_eval.leaderboard.methods import method_facts
from swiftvlm_eval.leaderboard.render.budgets import is_vanilla, section_code, section_heading, short_budget
from swiftvlm_eval.leaderboard.render.card import card, short
from swiftvlm_eval.leaderboard.render.cost import FLOPS, cost_attribute, cost_ratio, flops_unit
from swiftvlm_eval.leaderboard.render.looks import looks, method_of, row_looks
from swiftvlm_eval.leaderboard.render.text import digest
from swiftvlm_eval.results.benchmarks import Benchmark

COST_HELP = (
    "Operations of the prefill, selection included, as a share of vanilla's; the absolute count is on the card."
)
_MEAN_HELP = "Plain mean of the percentages of vanilla of {}."


def payload(
    boards: Sequence[Board], files: Mapping[str, Mapping[str, str]], links: Mapping[str, str]
) -> dict[str, Any]:
    """Returns what stands in the page's JSON block.

    Args:
        boards: Measured boards first, then published ones.
        files: Files of each board by their titles, by slug.
        links: Address of each record and per-sample file beside the page, by file name.
    """
    names = {method_of(row) for board in boards for row in board.rows}
    facts = method_facts()
    return {
        "markers": {name: marker.path for name, marker in looks().markers.items()},
        "methods": {
            name: {**facts[name].model_dump(exclude={"name"}), "arxiv": facts[name].arxiv}
            for name in sorted(names & facts.keys())
        },
        "boards": [board_payload(board, files.get(board.slug, {}), links) for board in boards],
    }


def board_payload(board: Board, files: Mapping[str, str], links: Mapping[str, str]) -> dict[str, Any]:
    """Returns one board."""
    factor, unit = flops_unit(board)
    styles = row_looks(board.rows)
    return {
        "slug": board.slug,
        "title": board.title,
        "measured": board.measured,
        "limited": board.limited,
        "lead": lead(board),
        "size": size(board),
        "notes": list(board.notes),
        "files": [[title, name] for title, name in files.items()],
        "columns": columns(board),
        "groups": {group: [column_table().groups[group], list(keys)] for group, keys in board.groups.items()},
        "flops": [factor, unit],
        "costs": _axes(board),
        "sections": [_section(board, section, styles, links) for section in board.sections],
    }


def lead(board: Board) -> str:
    """Returns the sentence below the heading: what must be known before any number."""
    return board.caption[0] if board.caption else ""


def size(board: Board) -> list[str]:
    """Returns how much was compared: questions, methods, budgets."""
    pruned = [section for section in board.sections if not is_vanilla(section)]
    counts = [
        max((row.cells[each.key].documents or 0 for row in board.rows if each.key in row.cells), default=0)
        for each in board.benchmarks
    ]
    methods = {method_of(row) for section in pruned for row in section.rows}
    sizes = [(sum(counts), "question"), (len(methods), "method"), (len(pruned), "budget")]
    return [f"{count:,} {word}{'' if count == 1 else 's'}" for count, word in sizes if count]


def columns(board: Board) -> list[dict[str, Any]]:
    """Returns the table's columns; `shown` are those that a reader sees first."""
    found = [_score_column(each) for each in board.benchmarks]
    names = column_table().groups
    titles = {each.key: each.title for each in board.benchmarks}
    for group, keys in board.groups.items():
        if len(keys) == 1:  # the same figures as its only benchmark
            continue
        text = _MEAN_HELP.format(", ".join(titles[key] for key in keys))
        found.append(_column(group, names[group], "mean", "higher", text, digits=1, group=group))
    if any(cost_ratio(board, row) is not None for row in board.rows):
        found.append(_column("cost", "cost", "figure", "lower", COST_HELP, digits=2, unit="×"))
    scored = bool(board.benchmarks)
    for column in column_table().columns:
        if all(row.figures.get(column.attribute) is None for row in board.rows):
            continue
        flops = column.attribute in FLOPS
        shown = column.attribute == "visual_tokens" or column.table == "timing"
        shown = shown and (not scored or column.summary is not None)
        found.append(
            _column(column.attribute, column.title, "figure", column.better, column.help, digits=column.digits)
            | {"unit": flops_unit(board)[1] if flops else column.unit, "shown": shown}
            | ({"between": list(column.between)} if column.between else {})
            | ({"factor": flops_unit(board)[0]} if flops else {})
        )
    order = {"score": 0, "mean": 1, "figure": 2}
    first = {"visual_tokens": 0, "cost": 1}
    return sorted(found, key=lambda each: (order[each["kind"]], first.get(each["key"], 2)))


def _score_column(benchmark: Benchmark) -> dict[str, Any]:
    protocols = column_table().protocols
    protocol = protocols[benchmark.protocol] if benchmark.protocol else "protocol as its paper states it"
    text = f"{benchmark.task}, {benchmark.metric}; {protocol}."
    return _column(benchmark.key, benchmark.title, "score", "higher", text, digits=benchmark.digits) | {
        "group": benchmark.group or ""
    }


def _column(key: str, title: str, kind: str, better: str, text: str, **more: Any) -> dict[str, Any]:
    return {"key": key, "title": title, "kind": kind, "better": better, "help": text, "shown": True, **more}


def _axes(board: Board) -> list[dict[str, str]]:
    """Costs that accuracy can be drawn against."""
    found = []
    if any(cost_ratio(board, row) is not None for row in board.rows):
        what = "as printed" if cost_attribute(board) == "paper_tflops" else "executed"
        found.append({"key": "cost", "title": f"prefill FLOPs {what}, × vanilla"})
    if sum(row.figures.get("prefill_ms") is not None for row in board.rows) > 1:
        found.append({"key": "prefill_ms", "title": "prefill time, ms"})
    return found


def _section(board: Board, section: Section, styles: Mapping[str, Any], links: Mapping[str, str]) -> dict[str, Any]:
    places = {row.key: place for place, row in enumerate(section.rows)}
    shown = {column["key"] for column in columns(board)}
    pairs: dict[str, list[list[float | None]]] = {}
    for each in section.comparisons:
        if each.column in shown and each.first in places and each.second in places:
            figures: list[float | None] = [round(value, 2) for value in (each.difference, each.low, each.high)]
            figures.append(short(each.p))  # rounded, it could cross the level
            pairs.setdefault(each.column, []).append([places[each.first], places[each.second], *figures])
    return {
        "code": section_code(section),
        "title": section_heading(section),
        "short": "vanilla" if is_vanilla(section) else short_budget(section.rows[0].budget),
        "vanilla": is_vanilla(section),
        "detectable": {column: short(value) for column, value in section.detectable.items()},
        "pairs": pairs,
        "rows": [_row(board, row, styles[row.key], links) for row in section.rows],
    }


def row_id(board: Board, row: Row) -> str:
    """Returns what stands for a row in addresses."""
    return digest(f"{board.slug}\n{row.key}")


def _row(board: Board, row: Row, look: Any, links: Mapping[str, str]) -> dict[str, Any]:
    name = method_of(row)
    detail = row.label[len(name) + 2 : -1] if row.label.startswith(f"{name} (") and row.label.endswith(")") else ""
    cells: dict[str, Cell] = {**row.cells, **{str(group): cell for group, cell in row.means.items()}}
    figures = {key: short(value) for key, value in row.figures.items() if value is not None}
    ratio = cost_ratio(board, row)
    return {
        "id": row_id(board, row),
        "label": row.label,
        "name": name if detail else row.label,
        "method": name,
        "detail": detail,
        "look": [look.colour, look.marker, look.hollow],
        "vanilla": row.is_vanilla,
        "cells": {key: _cell(cell) for key, cell in cells.items()},
        "figures": figures | ({} if ratio is None else {"cost": short(ratio)}),
        "notes": list(row.notes),
        "card": card(row, links),
    }


_CELL = {
    **{"score": "s", "relative": "r", "low": "l", "high": "h", "stderr": "e"},
    **{"p_best": "p", "executed": "x", "asked": "a"},
}


def _cell(cell: Cell) -> dict[str, Any]:
    """One score with one-letter names, what is missing left out."""
    found: dict[str, Any] = {
        key: short(value) for name, key in _CELL.items() if (value := getattr(cell, name)) is not None
    }
    found |= {"m": cell.mark} if cell.mark else {}
    found |= {} if cell.documents is None else {"n": cell.documents}
    return found | ({} if cell.rank is None else {"k": list(cell.rank)})
