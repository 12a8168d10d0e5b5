"""Cost figures of a row: tokens, FLOPs, times, and speed-ups over the unpruned model on the same documents."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from swiftvlm_eval.leaderboard.compute.entries import Entry
from swiftvlm_eval.results.record import Execution
from swiftvlm_eval.results.samples import SampleLine

# Two rows may only be timed against each other on the same hardware, in the same batches, by as many processes.
TIMING_KEYS = ("device", "batch_size", "world_size")


@dataclass(frozen=True)
class Times:
    """Times of one task's documents.

    Attributes:
        doc_ids: Documents that have both times [documents], ascending.
        prefill_s: Prefill times in seconds, above 0 [documents].
        total_s: Times of the whole answers in seconds, above 0 [documents].
    """

    doc_ids: NDArray[np.int64]
    prefill_s: NDArray[np.float64]
    total_s: NDArray[np.float64]


def times_of(lines: Sequence[SampleLine]) -> Times:
    """Collects the timed documents of one task; a time of 0 was not measured."""
    timed = [line for line in lines if (line.prefill_s or 0.0) > 0 and (line.total_s or 0.0) > 0]
    return Times(
        doc_ids=np.array([line.doc_id for line in timed], dtype=np.int64),
        prefill_s=np.array([line.prefill_s for line in timed], dtype=np.float64),
        total_s=np.array([line.total_s for line in timed], dtype=np.float64),
    )


def execution_figures(entry: Entry, tasks: Sequence[str]) -> dict[str, float | None]:
    """Returns tokens and FLOPs of an entry, averaged over the documents of `tasks` that report them."""
    executions = [task.execution for name in tasks if (task := entry.task(name)) and task.execution]
    share = _weighted(executions, "executed_share")
    planned = _weighted(executions, "planned_share")
    return {
        "visual_tokens": _weighted(executions, "mean_visual_tokens"),
        "executed_share": None if share is None else 100 * share,
        "planned_share": None if planned is None else 100 * planned,
        "attributed_tokens": _weighted(executions, "attributed_mean_visual_tokens"),
        "executed_tflops": _weighted(executions, "executed_tflops"),
        "paper_tflops": _weighted(executions, "paper_tflops"),
    }


def _weighted(executions: Sequence[Execution], attribute: str) -> float | None:
    values = [getattr(execution, attribute) for execution in executions]
    if not values or any(value is None for value in values):
        return None
    return float(np.average(values, weights=[execution.samples for execution in executions]))


def implied_speedup(entry: Entry, vanilla: Entry, tasks: Sequence[str]) -> float | None:
    """Returns vanilla's prefill FLOPs over the entry's, on the tasks both ran."""
    shared = [name for name in tasks if name in entry.tasks and name in vanilla.tasks]
    ours, base = (execution_figures(each, shared)["executed_tflops"] for each in (entry, vanilla))
    return None if not ours or base is None else base / ours


def timing_difference(entry: Entry, vanilla: Entry) -> str | None:
    """Says what forbids timing an entry against vanilla, None if nothing does."""
    differing = []
    for key in TIMING_KEYS:
        ours, base = _values(entry, key), _values(vanilla, key)
        if ours != base or len(base) > 1:
            differing.append(f"{key} {' / '.join(ours)} (vanilla: {' / '.join(base)})")
    return ", ".join(differing) or None


def _values(entry: Entry, key: str) -> list[str]:
    return sorted({str(getattr(run.record.settings, key)) for run in entry.runs})


def measured_figures(times: Mapping[str, Times]) -> dict[str, float | None]:
    """Returns prefill median and quartiles in ms and the total in s, over all timed documents."""
    prefill = np.concatenate([each.prefill_s for each in times.values()]) if times else np.array([])
    if prefill.size == 0:
        return dict.fromkeys(("prefill_ms", "prefill_ms_q25", "prefill_ms_q75", "total_s"))
    low, middle, high = 1000 * np.quantile(prefill, [0.25, 0.5, 0.75])
    total = sum(float(each.total_s.sum()) for each in times.values())
    return {
        "prefill_ms": float(middle),
        "prefill_ms_q25": float(low),
        "prefill_ms_q75": float(high),
        "total_s": total,
    }


def speedups(times: Mapping[str, Times], vanilla: Mapping[str, Times]) -> dict[str, float | None]:
    """Returns the median per-document prefill ratio with its 95 % interval, and the ratio of total times.

    The interval is the exact one from order statistics (`scipy.stats.quantile_test`): it describes the spread over
    documents, not drift of the machine between two runs. `swiftvlm-eval latency` interleaves runs to remove that.
    """
    ours, base = _shared(times, vanilla)
    ratios = base.prefill_s / ours.prefill_s
    if ratios.size == 0:
        return dict.fromkeys(("prefill_speedup", "prefill_speedup_low", "prefill_speedup_high", "total_speedup"))
    middle = float(np.median(ratios))
    interval: Any = stats.quantile_test(ratios, q=middle, p=0.5).confidence_interval(0.95)
    bounds = [float(bound) if np.isfinite(bound) else None for bound in (interval.low, interval.high)]
    return {
        "prefill_speedup": middle,
        "prefill_speedup_low": bounds[0],
        "prefill_speedup_high": bounds[1],
        "total_speedup": float(base.total_s.sum() / ours.total_s.sum()),
    }


def _shared(times: Mapping[str, Times], vanilla: Mapping[str, Times]) -> tuple[Times, Times]:
    """Restricts two rows to the documents both timed, task by task, in the same order."""
    parts: tuple[list[Times], list[Times]] = ([], [])
    for task in sorted(set(times) & set(vanilla)):
        _, ours, base = np.intersect1d(times[task].doc_ids, vanilla[task].doc_ids, return_indices=True)
        for part, row, chosen in zip(parts, (times[task], vanilla[task]), (ours, base), strict=True):
            part.append(Times(row.doc_ids[chosen], row.prefill_s[chosen], row.total_s[chosen]))
    joined = [
        Times(*(np.concatenate([getattr(each, name) for each in part] or [np.array([])]) for name in _TIME_FIELDS))
        for part in parts
    ]
    return joined[0], joined[1]


_TIME_FIELDS = ("doc_ids", "prefill_s", "total_s")
