"""The break-even picture of a latency run: share of the visual tokens kept against the time of the prefill.

Below the line at 1 a method pays for its own selection; the broken line is what the FLOPs of the layers alone promise.
"""

from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from swiftvlm_eval.leaderboard.compute.latency import (
    LatencyRow,
    break_even,
    curve_name,
    curves,
    implied_time,
    latency_rows,
)
from swiftvlm_eval.leaderboard.render.looks import Look, looks
from swiftvlm_eval.leaderboard.render.plots import LONGEST_LABEL, STYLE, plain_label
from swiftvlm_eval.results.latency_record import ENGINE, LatencyRecord

_LEGEND_WIDTH = 2.9
_WIDTH = 7.2


def break_even_picture(record: LatencyRecord) -> Figure:
    """Draws the methods of a run, with 95 % intervals, one line through the budgets of each.

    Args:
        record: Of a steady run.

    Raises:
        ValueError: The stock model differs from itself, so that no ratio of this run may be shown.
    """
    if not record.again.steady:
        raise ValueError("the stock model differs from itself in this run: no times relative to it are drawn")
    found, styles = curves(record), _styles(record)
    with matplotlib.rc_context(STYLE):
        across = max(int(_WIDTH / _LEGEND_WIDTH), 1)
        lines = -(-(len(found) + 2) // across)
        figure = Figure(figsize=(_WIDTH, 4.4 + 0.17 * lines), layout="constrained")
        axis = figure.subplots()
        _draw_promise(axis, record)
        for name, rows in found.items():
            _draw_method(axis, name, rows, styles[name])
        bare = next(row for row in latency_rows(record) if row.role == ENGINE)
        _draw_points(axis, [bare], looks().of("vanilla"), "engine, nothing pruned")
        axis.set_xlim(0, 1.04)
        axis.set_ylim(bottom=0)
        axis.set_xlabel(f"share of the {record.workload.visual_tokens} visual tokens kept, mean over layers, executed")
        axis.set_ylabel("prefill time, unpruned = 1 (with vision tower)")
        figure.legend(loc="outside lower center", frameon=False, ncols=across, fontsize=7.5)
        figure.suptitle(plain_label(title(record)), fontsize=10)
    return figure


def title(record: LatencyRecord) -> str:
    """Says in one line what was run where."""
    model, settings, machine = record.model, record.settings, record.machine
    name = model.name or f"{model.num_layers} layers of {model.hidden_size}"
    batch = f"batch {record.workload.batch_size}"
    return f"{name}, N = {record.workload.visual_tokens}, {batch}, {settings.dtype}, {settings.attn}, {machine.name}"


def _styles(record: LatencyRecord) -> dict[str, Look]:
    """The look of each curve; of several variants of a method all but the first are hollow."""
    found: dict[str, Look] = {}
    seen: dict[str, str] = {}
    for each in record.contenders:
        if each.method is not None:
            name = curve_name(each)
            first = seen.setdefault(each.method, name)
            found[name] = looks().of(each.method).model_copy(update={"hollow": name != first})
    return found


def _draw_promise(axis: Axes, record: LatencyRecord) -> None:
    """The unpruned time as a line, what is slower shaded, and the time that the layers' FLOPs promise."""
    shares = np.linspace(0, 1, 101)
    axis.axhspan(1, 10, color="#777777", alpha=0.10, linewidth=0)
    axis.axhline(1, color="#333333", linewidth=1.0, label="unpruned: above it selection costs more than it saves")
    promised = [implied_time(record, float(share)) for share in shares]
    axis.plot(shares, promised, color="#555555", linestyle="--", linewidth=1.0, label="FLOPs of the decoder layers")


def _draw_method(axis: Axes, name: str, rows: Sequence[LatencyRow], look: Look) -> None:
    points = [(row.share, row.prefill_time[0]) for row in rows if row.prefill_time is not None]
    axis.plot(*zip(*points, strict=True), color=looks().colours[look.colour].light, linewidth=0.8, alpha=0.6)
    label = plain_label(name, LONGEST_LABEL)
    _draw_points(axis, rows, look, f"{label}: {break_even(points).words}" if len(points) > 1 else label)


def _draw_points(axis: Axes, rows: Sequence[LatencyRow], look: Look, label: str) -> None:
    colour = looks().colours[look.colour].light
    measured = [(row.share, row.prefill_time) for row in rows if row.prefill_time is not None]
    ys = [middle for _, (middle, _, _) in measured]
    # An interval of medians need not contain the median; a bar cannot have negative length.
    ends: Any = np.clip([[middle - low, high - middle] for _, (middle, low, high) in measured], 0, None).T
    axis.errorbar(
        [share for share, _ in measured],
        ys,
        yerr=ends,
        fmt=looks().markers[look.marker].plot,
        color=colour,
        markerfacecolor="white" if look.hollow else colour,
        markersize=5,
        elinewidth=0.9,
        label=label,
    )
    top = max(high for _, (_, _, high) in measured)
    axis.set_ylim(top=max(axis.get_ylim()[1] if axis.get_ylim()[1] < 10 else 0, 1.15, 1.05 * top))
