"""Pictures of a board: accuracy against cost with a Pareto front, and bars for one budget.

A method has the colour and the marker of `looks.yaml` on every picture. The cost axis spans the methods; vanilla, far
to the right of them, is an arrow at the edge, and a row far below the others stands at the lower edge with its number.
The same board gives the same bytes: no dates, fixed SVG ids, text as paths.
"""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from swiftvlm_eval.leaderboard.board import Board, Cell, Row, Section
from swiftvlm_eval.leaderboard.columns import column_table
from swiftvlm_eval.leaderboard.render.budgets import is_vanilla, section_code, section_heading
from swiftvlm_eval.leaderboard.render.cost import FLOPS, flops_unit
from swiftvlm_eval.leaderboard.render.looks import Look, looks, method_of, row_looks, variant
from swiftvlm_eval.results.benchmarks import Group

_LEGEND_WIDTH = 1.75
LONGEST_LABEL = 36
STYLE: dict[Any, Any] = {
    "svg.hashsalt": "swiftvlm-eval",
    "svg.fonttype": "path",
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
}

# Attribute on the horizontal axis -> (file name part, axis label, ends of its own spread).
COSTS: Mapping[str, tuple[str, str, tuple[str, str] | None]] = {
    "executed_tflops": ("flops", "executed prefill FLOPs ({})", None),
    "paper_tflops": ("flops70", "prefill FLOPs at 70 text tokens ({})", None),
    "prefill_ms": ("prefill", "prefill time (ms), median and quartiles", ("prefill_ms_q25", "prefill_ms_q75")),
}


def board_pictures(board: Board) -> dict[str, tuple[str, Figure]]:
    """Draws the pictures a board has data for, the one that says most first.

    Returns:
        By file name stem: the alternative text and the figure.
    """
    pictures: dict[str, tuple[str, Figure]] = {}
    for attribute, (name, label, _) in COSTS.items():
        # The paper's convention only repeats the executed figure on a measured board.
        if board.measured and attribute == "paper_tflops":
            continue
        pruned = [row for row in board.rows if not row.is_vanilla]
        if board.groups and sum(row.figures.get(attribute) is not None for row in pruned) > 1:
            text = f"{board.title}: relative accuracy against {label.partition(' (')[0]}"
            pictures[f"{board.slug}-{name}"] = (text, accuracy_against(board, attribute))
    for section in board.sections:
        if not is_vanilla(section) and _has_bars(section):
            text = f"{board.title}: relative accuracy by benchmark, {section.title}"
            pictures[f"{board.slug}-bars-{section_code(section)}"] = (text, bars(board, section))
    return pictures


def _has_bars(section: Section) -> bool:
    return any(cell.relative is not None for row in section.rows for cell in row.cells.values())


def accuracy_against(board: Board, attribute: str) -> Figure:
    """Draws relative accuracy of each group against a cost, with 95 % intervals and the Pareto front."""
    _, label, spread = COSTS[attribute]
    factor, unit = flops_unit(board) if attribute in FLOPS else (1.0, "")
    styles = row_looks(board.rows)
    with matplotlib.rc_context(STYLE):
        width = 5.2 * max(len(board.groups), 1) + (1.6 if len(board.groups) == 1 else 0)
        entries = _entries(board, styles)
        across = max(int(width / _LEGEND_WIDTH), 1)
        figure = Figure(figsize=(width, 4.1 + 0.19 * -(-(len(entries) + 1) // across)), layout="constrained")
        axes = figure.subplots(1, len(board.groups), squeeze=False)[0]
        for axis, group in zip(axes, board.groups, strict=True):
            points = [
                (row, factor * x, cell)
                for row in board.rows
                if not row.is_vanilla
                and (x := row.figures.get(attribute)) is not None
                and (cell := row.means.get(group)) is not None
                and cell.relative is not None
            ]
            floor = _floor([cell.relative or 0.0 for _, _, cell in points])
            _draw_lines(axis, points, styles, floor)
            for place, (row, x, cell) in enumerate(sorted(points, key=lambda point: point[1])):
                ends = None if spread is None else [factor * (row.figures.get(end) or x / factor) for end in spread]
                _draw_point(axis, x, cell, styles[row.key], ends, floor, step=place % 2)
            _draw_front(axis, [(x, cell.relative or 0.0) for _, x, cell in points if cell.mark != "off_budget"], floor)
            _finish(axis, points, floor)
            axis.set_title(plain_label(group_title(board, group)), loc="left")
            axis.set_xlabel(label.format(unit))
            axis.set_ylabel("% of vanilla")
            _vanilla(axis, board, attribute, factor, unit or "ms")
        _legend(figure, axes[0], entries, across)
        figure.suptitle(plain_label(board.title), fontsize=11)
    return figure


def group_title(board: Board, group: Group) -> str:
    """Returns the name of a group's mean; that of its benchmark where it has only one."""
    keys = board.groups[group]
    alone = [benchmark.title for benchmark in board.benchmarks if benchmark.key in keys]
    return alone[0] if len(keys) == 1 and alone else column_table().groups[group]


def _entries(board: Board, styles: Mapping[str, Look]) -> dict[str, Look]:
    """Legend: each method once, and each of its variants by the longest label that it has."""
    labels: dict[tuple[str, str], list[str]] = {}
    for row in board.rows:
        if not row.is_vanilla:
            labels.setdefault((method_of(row), variant(row)), []).append(row.label)
    of = {(method_of(row), variant(row)): styles[row.key] for row in board.rows}
    return {max(found, key=lambda label: (len(label), label)): of[key] for key, found in sorted(labels.items())}


def _floor(values: Sequence[float]) -> float:
    """Lower fence of a box plot: rows below it would press the others together."""
    if not values:
        return 0.0
    low, high = np.quantile(values, [0.25, 0.75])
    return float(max(min(values), low - 1.5 * (high - low) - 1))


def _draw_point(
    axis: Axes, x: float, cell: Cell, look: Look, ends: Sequence[float] | None, floor: float, step: int
) -> None:
    """Draws one row; one below the floor stands on it, with its number, higher by `step` where another is near."""
    colour, y = looks().colours[look.colour].light, max(cell.relative or 0.0, floor)
    below = (cell.relative or 0.0) < floor
    options: dict[str, Any] = {}
    if cell.low is not None and cell.high is not None and not below:
        # An interval need not contain the point estimate; a bar cannot have negative length.
        options["yerr"] = np.clip([[y - cell.low], [cell.high - y]], 0, None)
    if ends is not None:
        options["xerr"] = np.clip([[x - ends[0]], [ends[1] - x]], 0, None)
    axis.errorbar(
        x,
        y,
        **options,
        fmt=looks().markers[look.marker].plot,
        color=colour,
        markersize=6,
        markerfacecolor="white" if look.hollow else colour,
        elinewidth=0.9,
        alpha=0.5 if cell.mark == "off_budget" else 1.0,
    )
    if below:
        text = f"{cell.relative:.0f} \N{DOWNWARDS ARROW}"
        axis.annotate(text, (x, y), (0, 5 + 8 * step), textcoords="offset points", fontsize=7, ha="center")


def _draw_lines(
    axis: Axes, points: Sequence[tuple[Row, float, Cell]], styles: Mapping[str, Look], floor: float
) -> None:
    """Draws a thin line through the budgets of one method with the same options."""
    lines: dict[tuple[str, str], list[tuple[float, float, str]]] = {}
    for row, x, cell in points:
        own = lines.setdefault((method_of(row), variant(row)), [])
        own.append((x, max(cell.relative or 0.0, floor), styles[row.key].colour))
    for own in lines.values():
        xs, ys, colours = zip(*sorted(own), strict=True)
        axis.plot(xs, ys, color=looks().colours[colours[0]].light, linewidth=0.7, alpha=0.5, zorder=1)


def pareto_front(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Returns the (cost, accuracy) points that no other point beats at equal or lower cost, by rising cost."""
    front: list[tuple[float, float]] = []
    for cost, accuracy in sorted(points, key=lambda point: (point[0], -point[1])):
        if not front or accuracy > front[-1][1]:
            front.append((cost, accuracy))
    return front


def _draw_front(axis: Axes, points: Sequence[tuple[float, float]], floor: float) -> None:
    front = [(cost, max(accuracy, floor)) for cost, accuracy in pareto_front(points)]
    if len(front) > 1:
        xs, ys = zip(*front, strict=True)
        axis.plot(xs, ys, drawstyle="steps-post", color="#999999", linewidth=5, alpha=0.35, zorder=0.5)


def _finish(axis: Axes, points: Sequence[tuple[Row, float, Cell]], floor: float) -> None:
    """Lets both axes span the methods, with few enough ticks that their labels keep apart."""
    ends = [end for _, _, cell in points for end in (cell.high, cell.relative) if end is not None]
    top = max([100.0, *ends])
    axis.set_ylim(floor - 0.06 * (top - floor), top + 0.07 * (top - floor))
    axis.xaxis.set_major_locator(MaxNLocator(6))
    axis.margins(x=0.07)


def _vanilla(axis: Axes, board: Board, attribute: str, factor: float, unit: str) -> None:
    """Vanilla's accuracy as a line, its cost as an arrow at the edge."""
    axis.axhline(100, color="#555555", linewidth=0.8, linestyle="--", zorder=0.8)
    cost = board.vanilla.figures.get(attribute) if board.vanilla else None
    if cost is not None:
        text = f"vanilla {factor * cost:.3g} {unit} \N{RIGHTWARDS ARROW}"
        axis.text(1, 1.01, text, transform=axis.transAxes, ha="right", va="bottom", fontsize=7.5, color="#333333")


def _legend(figure: Figure, axis: Axes, entries: Mapping[str, Look], across: int) -> None:
    handles: list[Any] = []
    for name, look in entries.items():
        colour = looks().colours[look.colour].light
        fill = "white" if look.hollow else colour
        marker = looks().markers[look.marker].plot
        handles += axis.plot(
            [],
            [],
            color=colour,
            marker=marker,
            markerfacecolor=fill,
            linestyle="",
            label=plain_label(name, LONGEST_LABEL),
        )
    handles += axis.plot([], [], color="#999999", linewidth=5, alpha=0.35, label="Pareto front")
    figure.legend(handles=handles, loc="outside lower center", frameon=False, ncols=across, fontsize=7.5)


def bars(board: Board, section: Section) -> Figure:
    """Draws the relative accuracy of every benchmark at one budget, a bar for each row, with 95 % intervals."""
    benchmarks = [each for each in board.benchmarks if any(each.key in row.cells for row in section.rows)]
    styles, count = row_looks(board.rows), len(section.rows)
    colours = [looks().colours[styles[row.key].colour].light for row in section.rows]
    with matplotlib.rc_context(STYLE):
        size = (max(5.5, 1.8 + 1.7 * len(benchmarks)), 1.3 + 0.19 * max(count, 4))
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots(1, len(benchmarks), squeeze=False, sharey=True)[0]
        for axis, benchmark in zip(axes, benchmarks, strict=True):
            _draw_bars(axis, [row.cells.get(benchmark.key, Cell()) for row in section.rows], colours)
            axis.axvline(100, color="#333333", linewidth=0.8, linestyle="--")
            axis.xaxis.set_major_locator(MaxNLocator(4))
            axis.set_title(plain_label(benchmark.title), fontsize=9)
            axis.set_xlabel("% of vanilla")
            axis.grid(False, axis="y")
        axes[0].set_yticks(range(count), [plain_label(row.label, LONGEST_LABEL) for row in section.rows])
        axes[0].set_ylim(count - 0.4, -0.6)  # the best row on top
        figure.suptitle(f"{plain_label(board.title)}: {plain_label(section_heading(section))}", fontsize=10)
    return figure


def _draw_bars(axis: Axes, cells: Sequence[Cell], colours: Sequence[str]) -> None:
    """Draws one benchmark, a bar for each row from the top."""
    for place, (cell, colour) in enumerate(zip(cells, colours, strict=True)):
        width = np.nan if cell.relative is None else cell.relative
        axis.barh(place, width, 0.7, facecolor=colour, alpha=0.8)
        if cell.relative is not None and cell.low is not None and cell.high is not None:
            errors = np.clip([[cell.relative - cell.low], [cell.high - cell.relative]], 0, None)
            axis.errorbar(cell.relative, place, xerr=errors, fmt="none", ecolor="#333333", elinewidth=0.8)


def plain_label(text: str, longest: int = 100) -> str:
    """Keeps names from records from being read as mathematics or hidden from a legend, or too long to be drawn."""
    single = "".join(sign if sign.isprintable() else " " for sign in text)
    if len(single) > longest:  # the end tells long names apart
        single = f"{single[: longest - 15]}\N{HORIZONTAL ELLIPSIS}{single[-14:]}"
    single = single.replace("$", r"\$")
    return f" {single}" if single.startswith("_") else single


def render(figure: Figure, kind: str) -> bytes:
    """Returns a figure as `svg` or `png` bytes without dates or version marks."""
    buffer = io.BytesIO()
    metadata = {"Date": None, "Creator": None} if kind == "svg" else {"Software": None}
    with matplotlib.rc_context(STYLE):
        figure.savefig(buffer, format=kind, dpi=150, metadata=metadata)
    return buffer.getvalue()
