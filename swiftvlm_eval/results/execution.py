"""Sums what our model class reports per sample into one description of a task's execution and timing."""

from collections.abc import Mapping

import numpy as np

from swiftvlm_eval.results.record import Execution, Timing
from swiftvlm_eval.runs.report import SampleReport


class ExecutionSum:
    """Collects token counts, rows per layer and FLOPs of a task's samples."""

    def __init__(self) -> None:
        """Starts with no sample."""
        self._values: dict[str, list[float]] = {}
        self._rows: list[list[float]] = []
        self._selections: list[Mapping[str, float]] = []
        self._first_visual_tokens: float | None = None

    def add(self, report: SampleReport) -> None:
        """Adds one sample; a report without rows per layer (a response-cache hit) is left out."""
        rows, mean_rows = report.rows, report.mean_rows
        if rows is None or mean_rows is None or not report.visual_tokens:
            return
        if self._rows and len(rows) != len(self._rows[0]):
            raise ValueError(f"rows_per_layer covers {len(rows)} decoder layers, earlier samples {len(self._rows[0])}")
        self._rows.append(rows)
        if report.selection_flops_t is not None:
            self._selections.append(report.selection_flops_t)
        values = {
            "text_tokens": report.text_tokens,
            "attributed_mean": report.attributed_mean,
            "flops_t": report.flops_t,
            "flops_paper_t": report.flops_paper_t,
            "visual_tokens": report.visual_tokens,
            "mean_rows": mean_rows,
            "share": mean_rows / report.visual_tokens,
        }
        if self._first_visual_tokens is None:
            self._first_visual_tokens = float(report.visual_tokens)
        for key, value in values.items():
            if value is not None:
                self._values.setdefault(key, []).append(float(value))

    def _mean(self, key: str) -> float | None:
        """Returns the mean over the samples, None unless every sample has the value."""
        values = self._values.get(key, [])
        return float(np.mean(values)) if values and len(values) == len(self._rows) else None

    def _selection(self) -> dict[str, float] | None:
        """Returns the mean of every item, 0 where a sample lacks it; None unless every sample has a selection."""
        if len(self._selections) != len(self._rows):
            return None
        items = sorted({item for selection in self._selections for item in selection})
        return {item: float(np.mean([each.get(item, 0.0) for each in self._selections])) for item in items}

    def result(self, planned_mean: float | None) -> Execution | None:
        """Returns the means, None without any sample.

        Args:
            planned_mean: Planned mean visual rows per layer of the task's first document.
        """
        if not self._rows or self._first_visual_tokens is None:
            return None
        return Execution(
            samples=len(self._rows),
            visual_tokens=float(np.mean(self._values["visual_tokens"])),
            text_tokens=self._mean("text_tokens"),
            rows_per_layer=tuple(float(value) for value in np.mean(self._rows, axis=0)),
            mean_visual_tokens=float(np.mean(self._values["mean_rows"])),
            executed_share=float(np.mean(self._values["share"])),
            planned_share=None if planned_mean is None else planned_mean / self._first_visual_tokens,
            attributed_mean_visual_tokens=self._mean("attributed_mean"),
            executed_tflops=self._mean("flops_t"),
            paper_tflops=self._mean("flops_paper_t"),
            selection_tflops=self._selection(),
        )


class TimingSum:
    """Collects prefill and total times of a task's samples."""

    def __init__(self) -> None:
        """Starts with no sample."""
        self._samples = 0
        self._prefill: list[float] = []
        self._total: list[float] = []

    def add(self, report: SampleReport) -> None:
        """Adds one sample; times that are missing are not counted."""
        self._samples += 1
        if report.prefill_s is not None:
            self._prefill.append(report.prefill_s)
        if report.total_s is not None:
            self._total.append(report.total_s)

    def result(self) -> Timing | None:
        """Returns median, quartiles and total; None if no sample was timed."""
        if not self._prefill and not self._total:
            return None
        quartiles: list[float | None] = [None, None, None]
        if self._prefill:
            quartiles = [float(value) * 1000 for value in np.quantile(self._prefill, [0.25, 0.5, 0.75])]
        return Timing(
            samples=max(len(self._prefill), len(self._total)),
            prefill_ms_q25=quartiles[0],
            prefill_ms_median=quartiles[1],
            prefill_ms_q75=quartiles[2],
            total_s=float(np.sum(self._total)) if len(self._total) == self._samples else None,
        )
