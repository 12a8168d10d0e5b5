"""What the card of a row shows: everything from its records that a reader asks for, as plain JSON values."""

import json
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from pydantic import BaseModel

from swiftvlm_eval.leaderboard.board import Row
from swiftvlm_eval.results.record import Execution, RunRecord, TaskResult

_DIGITS = 7


def card(row: Row, links: Mapping[str, str]) -> dict[str, Any]:
    """Returns the part of a row that only its card shows.

    Args:
        row: The row.
        links: Address, relative to the page, of each record and per-sample file that lies beside it, by file name.
    """
    return {
        "options": {name: _typed(value) for name, value in row.options.items()},
        "asked": row.budget,
        "tasks": {name: _task(task) for record in row.records for name, task in record.tasks.items()},
        "runs": [_run(record, name, links) for record, name in zip(row.records, row.files, strict=False)],
        "files": [[name, links.get(name)] for name in row.files],
        "reproduce": dict(row.reproduce),
        "status": sorted({record.status for record in row.records}),
    }


def _run(record: RunRecord, name: str, links: Mapping[str, str]) -> dict[str, Any]:
    """Where one run was made; what its record adds in later versions is shown under its own name."""
    samples = record.samples_file
    facts: dict[str, dict[str, Any]] = {
        "model": _flat(record.model),
        "settings": _flat(record.settings),
        "software": {**record.software.versions, **_flat(record.software, leave=("versions",))},
        "run": {
            **_flat(record.origin, leave=("results_sha256",)),
            "status": record.status,
            "wall_time_s": record.wall_time_s,
        },
    }
    return {
        "file": name,
        "id": record.record_id,
        "facts": {part: {key: _typed(value) for key, value in values.items()} for part, values in facts.items()},
        "schedule": _typed(record.method.schedule),
        "source_sha256": record.method.source_sha256,
        "samples": None if samples is None else [samples.name, samples.lines, links.get(samples.name)],
    }


def _flat(part: BaseModel, leave: Sequence[str] = ()) -> dict[str, Any]:
    """Fields of a part of a record, those of a part within it beside them."""
    found: dict[str, Any] = {}
    for name, value in part:
        if name not in leave:
            found |= _flat(value) if isinstance(value, BaseModel) else {name: value}
    return found


def _task(task: TaskResult) -> dict[str, Any]:
    return {
        "expected": task.expected,
        "available": task.available,
        "answered": task.answered,
        "failed": task.failed,
        "clustered": task.clustered,
        "dataset": None if task.dataset is None else _typed(task.dataset),
        "prompts": task.prompts_sha256 and task.prompts_sha256[:12],
        "documents": task.documents_sha256 and task.documents_sha256[:12],
        "metrics": {name: [short(each.value), short(each.stderr), each.n] for name, each in task.metrics.items()},
        "execution": None if task.execution is None else _execution(task.execution),
        "timing": None if task.timing is None else _short_values(task.timing.model_dump()),
    }


def _execution(execution: Execution) -> dict[str, Any]:
    return {
        "layers": [[value, len(list(run))] for value, run in groupby(map(short, execution.rows_per_layer))],
        **_short_values(execution.model_dump(exclude={"rows_per_layer", "selection_tflops"})),
        "selection": _short_values(execution.selection_tflops or {}),
        "selection_counted": execution.selection_tflops is not None,
    }


def _short_values(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: short(value) for name, value in values.items()}


def short(value: float | None) -> float | None:
    """Returns a figure with as many digits as anybody reads, so that the page stays small."""
    return None if value is None else float(f"{value:.{_DIGITS}g}")


def _typed(value: object) -> str | None:
    """A setting as text; None where it was not recorded."""
    if value is None:
        return None
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True, ensure_ascii=False)
