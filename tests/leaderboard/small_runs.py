"""Small runs on one task, and ways to look at what a leaderboard made of them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fake_runs import description, samples_of, write_run

from swiftvlm_eval.leaderboard.board import Board, Row
from swiftvlm_eval.results import Problem

RIGHT = [1.0] * 6 + [0.0] * 2  # vanilla answers 6 of 8


def one_run(
    folder: Path, method: str, scores: list[float], *, stamp: str = "20260102_030405", **arguments: Any
) -> Path:
    run = arguments.pop("run", None) or description(method)
    prompt = arguments.pop("prompt", "question {}")
    lines = samples_of(scores, "exact_match", run, prompt=prompt)
    return write_run(folder / method, {"gqa": ("exact_match", lines)}, stamp=stamp, **arguments)


def row_of(board: Board, label: str) -> Row:
    (row,) = [row for row in board.rows if row.label == label]
    return row


def reasons(problems: Sequence[Problem]) -> str:
    return "\n".join(f"{problem.file}: {problem.reason}" for problem in problems)
