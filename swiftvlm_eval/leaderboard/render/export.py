"""Boards as CSV and JSON: the same figures as in the tables, unrounded."""

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import pandas as pd

from swiftvlm_eval.leaderboard.board import Board, Cell, Row
from swiftvlm_eval.leaderboard.columns import column_table
from swiftvlm_eval.leaderboard.render.pairs import ENDING, has_pairs
from swiftvlm_eval.leaderboard.render.text import spreadsheet
from swiftvlm_eval.results.store import Problem

_CELL_FIELDS = ("score", "stderr", "documents", "relative", "low", "high", "mark", "p_best", "executed", "asked")
_MEAN_FIELDS = ("relative", "low", "high", "mark", "p_best", "executed", "asked")


def board_csv(board: Board) -> str:
    """Returns one line a row; `<benchmark> relative` and the interval are percent of vanilla."""
    frame = pd.DataFrame([_flat(board, section.title, row) for section in board.sections for row in section.rows])
    text: str = frame.to_csv(index=False, float_format="%.10g", lineterminator="\n")
    return text


def _flat(board: Board, section: str, row: Row) -> dict[str, Any]:
    flat: dict[str, Any] = {
        "section": section,
        "method": spreadsheet(row.label),
        "budget": row.budget,
        "options": json.dumps(row.options, sort_keys=True),
    }
    for benchmark in board.benchmarks:
        cell = row.cells.get(benchmark.key)
        flat.update({f"{benchmark.key} {name}": value for name, value in _fields(cell, _CELL_FIELDS).items()})
    for group in board.groups:
        cell = row.means.get(group)
        flat.update({f"{group} {name}": value for name, value in _fields(cell, _MEAN_FIELDS).items()})
    flat.update({name: row.figures.get(name) for name in column_table().attributes})
    flat["files"] = "; ".join(spreadsheet(name) for name in row.files)
    flat["notes"] = spreadsheet("; ".join(row.notes))
    return flat


def _fields(cell: Cell | None, names: Sequence[str]) -> dict[str, Any]:
    """The fields of a cell with the ends of its place, 1 the best; empty where there is no cell."""
    low, high = (cell.rank if cell else None) or (None, None)
    return {name: getattr(cell, name, None) for name in names} | {"rank low": low, "rank high": high}


def board_json(board: Board) -> str:
    """Returns the whole board as JSON, but for the comparisons: the file named under `pairs` has them."""
    content = {
        "title": board.title,
        "measured": board.measured,
        "pretrained": board.pretrained,
        "caption": list(board.caption),
        "notes": list(board.notes),
        "benchmarks": {each.key: each.model_dump(exclude={"key"}) for each in board.benchmarks},
        "groups": {group: list(keys) for group, keys in board.groups.items()},
        "pairs": f"{board.slug}{ENDING}.csv" if has_pairs(board) else None,
        "sections": [
            {
                "title": section.title,
                "detectable": dict(section.detectable),
                "rows": [_row_json(row) for row in section.rows],
            }
            for section in board.sections
        ],
    }
    return json.dumps(content, indent=2, sort_keys=True, allow_nan=False) + "\n"


def _row_json(row: Row) -> dict[str, Any]:
    fields = asdict(replace(row, records=()))
    return {**fields, "records": [record.record_id for record in row.records]}


def problem_lists(problems: Sequence[Problem]) -> dict[str, list[str]]:
    """Returns `file: reason` lines by heading: what nothing was used of, then what was left out or must be known."""
    lists = {
        "Refused: these files could not be read, or hold what no run gives": [
            each for each in problems if each.refused
        ],
        "Left out, or to be kept in mind": [each for each in problems if not each.refused],
    }
    return {heading: lines for heading, found in lists.items() if (lines := problem_lines(found))}


def problem_lines(problems: Sequence[Problem]) -> list[str]:
    """Returns `file: reason` lines, sorted, each once."""
    return sorted({f"{problem.file}: {problem.reason}" for problem in problems})
