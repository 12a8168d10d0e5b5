"""Waiting tokens in two dimensions, beside what the unpruned model made of them (as in figure 7 of arXiv 2602.03134).

The plane is that of the two first principal components of the unpruned states of the tokens that waited; aligned and
stored states are laid into the same plane. A picture of one document, and no measure: `drift` has the distances.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from swiftvlm_eval.analysis.contenders import Contender
from swiftvlm_eval.analysis.drift import Waiting
from swiftvlm_eval.analysis.drift_run import re_entries
from swiftvlm_eval.analysis.figures import ARM_LOOKS, STYLE, plain
from swiftvlm_eval.analysis.sampled_prompts import Prompt, naming
from swiftvlm_eval.models.checkpoint import Checkpoint

FEWEST = 3
"""Tokens that span a plane."""


@dataclass(frozen=True)
class Projection:
    """The R waiting tokens of one document at one re-entry.

    Attributes:
        label: of the contender.
        boundary: decoder layers that had run.
        points: float64, [R, 2], by `unpruned`, `aligned` and `stored`.
        explained: share of the unpruned states' variance along each of the two axes.
    """

    label: str
    boundary: int
    points: Mapping[str, np.ndarray]
    explained: tuple[float, float]


def project(waiting: Waiting, unpruned: Tensor, label: str, boundary: int) -> Projection:
    """Lays the waiting tokens into the plane of their unpruned states.

    Args:
        waiting: of one sample at one re-entry.
        unpruned: [N, hidden_size], at the same boundary.
        label: of the contender.
        boundary: of the re-entry.

    Raises:
        ImportError: scikit-learn is missing; the message says what to install.
        ValueError: fewer than three tokens wait.
    """
    try:
        from sklearn.decomposition import PCA
    except ImportError as error:
        raise ImportError("project: needs scikit-learn: pip install 'swiftvlm-eval[projection]'") from error
    index = waiting.index
    if len(index) < FEWEST:
        raise ValueError(f"{label}: {len(index)} tokens wait after layer {boundary}; allowed are {FEWEST} or more")
    states = {"unpruned": unpruned[index], "aligned": waiting.candidates[index], "stored": waiting.stored}
    arrays = {name: rows.double().cpu().numpy() for name, rows in states.items()}
    plane = PCA(n_components=2, svd_solver="full").fit(arrays["unpruned"])
    first, second = (float(share) for share in plane.explained_variance_ratio_)
    points = {name: plane.transform(rows) for name, rows in arrays.items()}
    return Projection(label, boundary, points, (first, second))


def projections_of(
    prompt: Prompt, checkpoint: Checkpoint, contenders: Sequence[Contender], seed: int
) -> list[Projection]:
    """One document: every contender at every re-entry.

    Raises:
        ImportError, RuntimeError: as `project`; other failures name the document.
    """
    with naming(prompt.key):
        found = re_entries(prompt, checkpoint, contenders, seed)
        return [
            project(waiting, unpruned, contender.label, boundary)
            for contender, own in zip(contenders, found, strict=True)
            for boundary, waiting, unpruned in own
        ]


def projection_picture(projections: Sequence[Projection], title: str) -> Figure:
    """A panel for each projection; a line leads from every aligned token to its unpruned state.

    Args:
        projections: of one document.
        title: above the picture.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(max(5.0, 4.2 * len(projections)), 4.6), layout="constrained")
        panels = figure.subplots(1, len(projections), squeeze=False)[0]
        for axis, projection in zip(panels, projections, strict=True):
            ends: Any = projection.points
            for start, end in zip(ends["aligned"], ends["unpruned"], strict=True):
                axis.plot(*zip(start, end, strict=True), color="#bbbbbb", linewidth=0.5, zorder=1)
            axis.scatter(*ends["unpruned"].T, s=14, color="#555555", marker="x", label="unpruned", zorder=2)
            for arm in ("stored", "aligned"):
                colour, marker, label = ARM_LOOKS[arm]
                axis.scatter(*ends[arm].T, s=14, color=colour, marker=marker, label=label, alpha=0.8, zorder=3)
            axis.set_title(f"{plain(projection.label)}\nback before layer {projection.boundary + 1}", fontsize=9)
            axis.set_xlabel(f"first component ({projection.explained[0]:.0%} of the variance)")
            axis.set_ylabel(f"second component ({projection.explained[1]:.0%})")
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
        figure.suptitle(plain(title), fontsize=10)
    return figure
