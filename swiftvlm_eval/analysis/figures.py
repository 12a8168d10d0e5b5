"""Pictures of the analyses: overlap with its matrix of layers, and drift by group size.

Colours are those of Okabe and Ito; every arm also has a marker, so that the pictures read in grey. The same numbers
give the same bytes.
"""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from swiftvlm_eval.analysis.drift_run import MEASURES, SIZES

_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8A6D00")
ARM_LOOKS = {
    "aligned": ("#0072B2", "o", "aligned by the own group"),
    "stored": ("#D55E00", "s", "no alignment"),
    "other": ("#009E73", "^", "random other group's offset"),
}
"""Arm -> colour, marker, name."""
ENDS = ("low", "high")
"""Ends of an interval."""
_AXES = {"relative": "distance / length of the unpruned state", "cosine": "cosine with the unpruned state"}
STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
}


def overlap_picture(summary: Mapping[str, Any], title: str) -> Figure:
    """One panel a share with a box a method (mean and interval, chance), and the matrix of layers.

    Args:
        summary: of `overlap_run.overlap_summary`.
        title: above the picture.
    """
    methods = summary["methods"]
    shares = list(methods[0]["overlap"])
    with matplotlib.rc_context(STYLE):
        height = 1.6 + 0.62 * max(len(methods), 3)
        figure = Figure(figsize=(4.2 * (len(shares) + 1), height + 0.6), layout="constrained")
        panels = figure.subplots(1, len(shares) + 1)
        for axis, share in zip(panels, shares, strict=False):
            _boxes(axis, methods, share)
        for axis in panels[1 : len(shares)]:
            axis.set_yticklabels([])
        _matrix(figure, panels[-1], summary)
        figure.suptitle(plain(title), fontsize=10)
    return figure


def _boxes(axis: Axes, methods: Sequence[Mapping[str, Any]], share: str) -> None:
    for place, method in enumerate(methods):
        told, colour = method["overlap"][share], _COLOURS[place % len(_COLOURS)]
        axis.boxplot(
            [told["values"]],
            positions=[place],
            orientation="horizontal",
            widths=0.55,
            showfliers=False,
            patch_artist=True,
            boxprops={"facecolor": colour, "alpha": 0.25},
            medianprops={"color": colour},
        )
        _interval(axis, told, place, colour)
        axis.plot([method["chance"]["mean"]] * 2, [place - 0.35, place + 0.35], color="#555555", linestyle=":")
    axis.set_yticks(range(len(methods)), [_label(method) for method in methods])
    axis.set_ylim(len(methods) - 0.4, -0.6)
    axis.set_xlim(-0.02, 1.02)
    axis.set_xlabel("share held (dot: mean; dotted: chance)")
    axis.set_title(f"the unpruned model's top {100 * float(share):.0f} % there", fontsize=9)


def _interval(axis: Axes, told: Mapping[str, Any], place: float, colour: str) -> None:
    low, high = (told["mean"] if told[end] is None else told[end] for end in ENDS)
    axis.plot([low, high], [place, place], color=colour, linewidth=2)
    axis.plot(told["mean"], place, marker="o", color=colour)


def _label(method: Mapping[str, Any]) -> str:
    """Name, budget, and what is not as the comparison needs it."""
    cost = "" if method["equal_flops"] else f"\nNOT equal FLOPs: x{method['flops_of_first']:.3f}"
    return f"{plain(method['label'])}\nbudget {method['budget']:.3g}, {method['held']['mean']:.0f} held{cost}"


def _matrix(figure: Figure, axis: Axes, summary: Mapping[str, Any]) -> None:
    cells = summary["low_then_high"]
    layers = max(cell["late"] for cell in cells)
    values = np.full((layers, layers), np.nan)
    for cell in cells:
        values[cell["early"] - 1, cell["late"] - 1] = cell["mean"]
    image = axis.imshow(values, cmap="viridis", vmin=0, extent=(0.5, layers + 0.5, layers + 0.5, 0.5))
    axis.set_xlabel(f"layer of the top {100 * summary['top']:.0f} %")
    axis.set_ylabel(f"layer of the bottom {100 * summary['bottom']:.0f} %")
    axis.set_title("share of the later top that was in the earlier bottom", fontsize=9)
    figure.colorbar(image, ax=axis, shrink=0.8)


def drift_picture(summary: Mapping[str, Any], title: str) -> Figure:
    """A column for each method and re-entry, a row for each measure; means with intervals by group size.

    Args:
        summary: of `drift_run.drift_summary`.
        title: above the picture.
    """
    columns = [(method, stage) for method in summary["methods"] for stage in method["re_entries"]]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(max(6.0, 3.6 * len(columns)), 6.2), layout="constrained")
        panels = figure.subplots(len(MEASURES), len(columns), squeeze=False, sharey="row")
        for (method, stage), column in zip(columns, panels.T, strict=True):
            for measure, axis in zip(MEASURES, column, strict=True):
                _arms(axis, stage, measure)
            name = f"{plain(method['label'])} {method['budget']:.3g}"
            column[0].set_title(f"{name}\nback before layer {stage['boundary'] + 1}", fontsize=9)
            column[-1].set_xlabel("tokens in the group (hollow: one document)")
        for measure, axis in zip(MEASURES, panels[:, 0], strict=True):
            axis.set_ylabel(_AXES[measure])
        handles, labels = panels[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False)
        figure.suptitle(plain(title), fontsize=10)
    return figure


def _arms(axis: Axes, stage: Mapping[str, Any], measure: str) -> None:
    sizes = [size for size in SIZES if any(row["size"] == size and row["arm"] != "live" for row in stage["rows"])]
    for number, (arm, (colour, marker, label)) in enumerate(ARM_LOOKS.items()):
        own = [(sizes.index(row["size"]), row[measure]) for row in stage["rows"] if row["arm"] == arm]
        for sure, face in ((True, colour), (False, "white")):  # hollow: one document, so no interval
            part = [(place, told) for place, told in own if (told["low"] is not None) == sure]
            xs = np.array([place for place, _ in part]) + 0.16 * (number - 1)
            means = np.array([told["mean"] for _, told in part])
            low, high = (np.array([told[end] if sure else told["mean"] for _, told in part]) for end in ENDS)
            spread = np.clip([means - low, high - means], 0, None)
            look: dict[str, Any] = {
                "color": colour,
                "marker": marker,
                "markerfacecolor": face,
                "linestyle": "",
                "capsize": 2,
            }
            axis.errorbar(xs, means, yerr=spread, label=label if sure else None, **look)
    for row in stage["rows"]:
        if row["arm"] == "live":
            axis.axhline(row[measure]["mean"], color="#555555", linestyle=":", label="tokens that did not wait")
    axis.set_xticks(range(len(sizes)), sizes)
    axis.grid(True, axis="y", color="#dddddd", linewidth=0.6)


def plain(text: str) -> str:
    """Keeps names from being read as mathematics."""
    return "".join(sign if sign.isprintable() else " " for sign in text).replace("$", r"\$")


def to_png(figure: Figure) -> bytes:
    """PNG without dates or versions."""
    buffer = io.BytesIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(buffer, format="png", dpi=150, metadata={"Software": None})
    return buffer.getvalue()
