"""The profile as a picture, after figure 4 of arXiv 2602.03134: x by layer, with intervals and the chosen layers."""

import io
from typing import Any

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from swiftvlm_eval.analysis.layer_choice import Choice
from swiftvlm_eval.analysis.profile_statistics import Profile

_STYLE: dict[Any, Any] = {
    "svg.hashsalt": "swiftvlm-eval",
    "svg.fonttype": "path",
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
}

_LINES = ("--", ":", "-.", (0, (6, 2)), (0, (1, 3)))


def profile_plot(profile: Profile, choice: Choice, model: str) -> tuple[bytes, bytes]:
    """The picture as PNG and as SVG; the same profile gives the same bytes.

    Args:
        profile: drawn.
        choice: its layers are marked.
        model: named in the title.
    """
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(6.4, 3.6), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        layers = list(profile.of_layers())
        for number, (task, relative) in enumerate(profile.by_task.items()):
            style = _LINES[number % len(_LINES)]
            axes.plot(layers, relative, color="#999999", linewidth=0.8, linestyle=style, zorder=1, label=task)
        below = [max(0.0, x - low) for x, low in zip(profile.x, profile.low, strict=True)]
        above = [max(0.0, high - x) for x, high in zip(profile.x, profile.high, strict=True)]
        axes.errorbar(
            layers,
            profile.x,
            yerr=[below, above],
            color="#0072B2",
            marker="o",
            markersize=4,
            capsize=2,
            linewidth=1.4,
            label="mean over tasks, 95 %",
        )
        chosen = [profile.of_layers()[layer] for layer in choice.layers]
        axes.plot(
            choice.layers, chosen, "D", markersize=9, markerfacecolor="none", color="#D55E00", zorder=3, label="chosen"
        )
        axes.axhline(1.0, color="#666666", linewidth=0.8, linestyle="--")
        axes.set_xlabel("layer whose tokens the layers from 3 on see")
        axes.set_ylabel("x: score relative to all tokens")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend(fontsize=7, frameon=False)
        named = ", ".join(map(str, choice.layers)) or "none"
        # a name with dollar signs would be read as a formula
        axes.set_title(f"{model}: chosen layers {named}", parse_math=False)
        return tuple(_bytes(figure, kind) for kind in ("png", "svg"))  # type: ignore[return-value]


def _bytes(figure: Figure, kind: str) -> bytes:
    stream = io.BytesIO()
    about: dict[str, Any] = {"Date": None} if kind == "svg" else {"Software": None}
    figure.savefig(stream, format=kind, dpi=150, metadata=about)
    return stream.getvalue()
