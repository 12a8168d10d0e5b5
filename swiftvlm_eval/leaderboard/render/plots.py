"""Pictures of a board: accuracy against cost with a Pareto front, and bars for one budget.

The first eight colours are those of Okabe and Ito, safe for colour-blind readers, the others dark ones of Tol's; every
method also has its own marker or hatching, so that the pictures read in grey. The same board gives the same bytes: no
dates, fixed SVG ids, text as paths.
"""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from swiftvlm_eval.leaderboard.board import Board, Cell, Row, Section
from swiftvlm_eval.leaderboard.columns import column_table

_COLOURS = (
    *("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8A6D00"),
    *("#882255", "#AAAA00", "#332288", "#999999"),
)
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "h", "d")
_LEGEND_LINES = 22
_HATCHES = ("", "//", "..", "xx", "\\\\", "--", "oo", "++", "**", "||", "OO", "/.")
_STYLE: dict[Any, Any] = {
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
    "hatch.linewidth": 0.6,
}

# Attribute on the horizontal axis -> (file name part, axis label, ends of its own spread).
COSTS: Mapping[str, tuple[str, str, tuple[str, str] | None]] = {
    "executed_tflops": ("flops", "executed prefill FLOPs (T)", None),
    "paper_tflops": ("flops70", "prefill FLOPs at 70 text tokens (T)", None),
    "prefill_ms": ("prefill", "prefill time (ms), median and quartiles", ("prefill_ms_q25", "prefill_ms_q75")),
}


def board_pictures(board: Board) -> dict[str, tuple[str, Figure]]:
    """Draws the pictures a board has data for.

    Returns:
        By file name stem: the alternative text and the figure.
    """
    pictures: dict[str, tuple[str, Figure]] = {}
    for attribute, (name, label, _) in COSTS.items():
        # The paper's convention only repeats the executed figure on a measured board.
        if board.measured and attribute == "paper_tflops":
            continue
        if board.groups and sum(row.figures.get(attribute) is not None for row in board.rows) > 1:
            text = f"{board.title}: relative accuracy against {label.partition(',')[0]}"
            pictures[f"{board.slug}-{name}"] = (text, accuracy_against(board, attribute))
    for section in board.sections:
        if not any(row.is_vanilla for row in section.rows) and _has_bars(board, section):
            budget = section.rows[0].budget
            name = "unknown" if budget is None else f"{1000 * budget:03.0f}"
            text = f"{board.title}: relative accuracy by benchmark, {section.title}"
            pictures[f"{board.slug}-bars-{name}"] = (text, bars(board, section))
    return pictures


def _has_bars(board: Board, section: Section) -> bool:
    return any(cell.relative is not None for row in section.rows for cell in row.cells.values())


def accuracy_against(board: Board, attribute: str) -> Figure:
    """Draws relative accuracy of each group against a cost, with 95 % intervals and the Pareto front."""
    _, label, spread = COSTS[attribute]
    with matplotlib.rc_context(_STYLE):
        styles = _styles(board)
        columns = -(-(len(styles) + 1) // _LEGEND_LINES)
        size = (4.6 * len(board.groups) + 1.9 * columns, 4.0 if columns == 1 else 4.6)
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots(1, len(board.groups), squeeze=False)[0]
        for axis, group in zip(axes, board.groups, strict=True):
            points = [
                (row, x, cell)
                for row in board.rows
                if (x := row.figures.get(attribute)) is not None
                and (cell := row.means.get(group)) is not None
                and cell.relative is not None
            ]
            _draw_points(axis, points, _series(board), styles, spread)
            _draw_front(axis, [(x, cell.relative or 0.0) for _, x, cell in points])
            axis.set_title(_plain(column_table().groups[group]))
            axis.set_xlabel(label)
            axis.ticklabel_format(axis="x", scilimits=(-3, 5), useMathText=True)
            axis.set_ylabel("% of vanilla")
        _legend(figure, axes[0], styles, columns)
        figure.suptitle(_plain(board.title), fontsize=10)
    return figure


def _draw_points(
    axis: Axes,
    points: Sequence[tuple[Row, float, Cell]],
    series: Mapping[str, str],
    styles: Mapping[str, tuple[str, str]],
    spread: tuple[str, str] | None,
) -> None:
    for name in sorted({series[row.key] for row, _, _ in points}):
        own = sorted(((x, row, cell) for row, x, cell in points if series[row.key] == name), key=lambda p: p[0])
        colour, marker = styles[name]
        xs, ys = [x for x, _, _ in own], np.array([cell.relative or 0.0 for _, _, cell in own])
        lows = np.array([cell.low if cell.low is not None else cell.relative or 0.0 for _, _, cell in own])
        highs = np.array([cell.high if cell.high is not None else cell.relative or 0.0 for _, _, cell in own])
        # An interval need not contain the point estimate; a bar cannot have negative length.
        bars = {"yerr": np.clip([ys - lows, highs - ys], 0, None)}
        if spread is not None:
            ends = np.array([[row.figures.get(end) or x for end in spread] for x, row, _ in own])
            bars["xerr"] = np.clip([xs - ends[:, 0], ends[:, 1] - xs], 0, None)
        axis.errorbar(
            xs,
            ys,
            **bars,
            color=colour,
            marker=marker,
            markersize=6,
            linestyle=":",
            linewidth=0.8,
            elinewidth=1,
            capsize=2,
        )


def pareto_front(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Returns the (cost, accuracy) points that no other point beats at equal or lower cost, by rising cost."""
    front: list[tuple[float, float]] = []
    for cost, accuracy in sorted(points, key=lambda point: (point[0], -point[1])):
        if not front or accuracy > front[-1][1]:
            front.append((cost, accuracy))
    return front


def _draw_front(axis: Axes, points: Sequence[tuple[float, float]]) -> None:
    front = pareto_front(points)
    if len(front) > 1:
        xs, ys = zip(*front, strict=True)
        axis.plot(xs, ys, drawstyle="steps-post", color="#999999", linewidth=5, alpha=0.35, zorder=0.5)


def _legend(figure: Figure, axis: Axes, styles: Mapping[str, tuple[str, str]], columns: int) -> None:
    handles: list[Any] = [
        axis.plot([], [], color=colour, marker=marker, linestyle="", label=_plain(name))[0]
        for name, (colour, marker) in styles.items()
    ]
    handles += axis.plot([], [], color="#999999", linewidth=5, alpha=0.35, label="Pareto front")
    small = "small" if columns > 1 else None
    figure.legend(handles=handles, loc="outside right upper", frameon=False, ncols=columns, fontsize=small)


def bars(board: Board, section: Section) -> Figure:
    """Draws the relative accuracy of every benchmark at one budget, a bar for each row, with 95 % intervals."""
    benchmarks = [each for each in board.benchmarks if any(each.key in row.cells for row in section.rows)]
    series, styles, count = _series(board), _styles(board), len(section.rows)
    looks = [(styles[series[row.key]][0], _HATCHES[number % len(_HATCHES)]) for number, row in enumerate(section.rows)]
    with matplotlib.rc_context(_STYLE):
        size = (max(5.5, 1.8 + 1.7 * len(benchmarks)), 1.3 + 0.19 * max(count, 4))
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots(1, len(benchmarks), squeeze=False, sharey=True)[0]
        for axis, benchmark in zip(axes, benchmarks, strict=True):
            _draw_bars(axis, [row.cells.get(benchmark.key, Cell()) for row in section.rows], looks)
            axis.axvline(100, color="#333333", linewidth=0.8, linestyle="--")
            axis.set_title(_plain(benchmark.title), fontsize=9)
            axis.set_xlabel("% of vanilla")
            axis.grid(False, axis="y")
        axes[0].set_yticks(range(count), [_plain(row.label) for row in section.rows])
        axes[0].set_ylim(count - 0.4, -0.6)  # the best row on top
        figure.suptitle(f"{_plain(board.title)}: {_plain(section.title)}", fontsize=10)
    return figure


def _draw_bars(axis: Axes, cells: Sequence[Cell], looks: Sequence[tuple[str, str]]) -> None:
    """Draws one benchmark, a bar for each row from the top; `looks` are colours and hatchings."""
    for place, (cell, (colour, hatch)) in enumerate(zip(cells, looks, strict=True)):
        width = np.nan if cell.relative is None else cell.relative
        axis.barh(place, width, 0.8, edgecolor="white", facecolor=colour, hatch=hatch)
        if cell.relative is not None and cell.low is not None and cell.high is not None:
            errors = np.clip([[cell.relative - cell.low], [cell.high - cell.relative]], 0, None)
            axis.errorbar(cell.relative, place, xerr=errors, fmt="none", ecolor="#333333", elinewidth=0.8, capsize=1.5)


def _series(board: Board) -> dict[str, str]:
    """Names the series of each row: its method, or its label where one budget has several rows of a method."""
    several = any(
        len({row.label for row in section.rows}) > len({row.method for row in section.rows})
        for section in board.sections
    )
    return {row.key: row.label if several or row.method is None else row.method for row in board.rows}


def _styles(board: Board) -> dict[str, tuple[str, str]]:
    """Gives each series a colour and a marker: vanilla first, then by name, so that boards agree."""
    series = _series(board)
    names = sorted({(not row.is_vanilla, series[row.key]) for row in board.rows})
    return {
        name: ("#555555", "*")
        if not pruned
        # the markers move on by one with every round of colours, so that no two series have both alike
        else (_COLOURS[(place - 1) % len(_COLOURS)], _MARKERS[(place - 1 + (place - 1) // 12) % len(_MARKERS)])
        for place, (pruned, name) in enumerate(names, start=0 if names and not names[0][0] else 1)
    }


def _plain(text: str) -> str:
    """Keeps names from records from being read as mathematics or hidden from a legend."""
    single = "".join(sign if sign.isprintable() else " " for sign in text).replace("$", r"\$")
    return f" {single}" if single.startswith("_") else single


def render(figure: Figure, kind: str) -> bytes:
    """Returns a figure as `svg` or `png` bytes without dates or version marks."""
    buffer = io.BytesIO()
    metadata = {"Date": None, "Creator": None} if kind == "svg" else {"Software": None}
    with matplotlib.rc_context(_STYLE):
        figure.savefig(buffer, format=kind, dpi=150, metadata=metadata)
    return buffer.getvalue()
