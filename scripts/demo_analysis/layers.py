"""On layers: the profile, the choice, and how it lies beside the paper's."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from demo_analysis.words import told
from swiftvlm_eval.leaderboard.render.markdown import table

PAPERS_LAYERS, PAPERS_DEPTH = (3, 11, 15), 32
"""Of LLaVA-1.5-7B (arXiv 2602.03134, section 4.1)."""


def layers_values(folder: Path) -> dict[str, Any]:
    """What is said of the layers.

    Args:
        folder: of select-layers.
    """
    profile = json.loads((folder / "profile.json").read_text())
    choice = json.loads((folder / "layers.json").read_text())
    depth = profile["model"]["num_layers"]
    wins = [(each["layers"], each["share"]) for each in choice["stability"]["wins"]]
    (first, share), (second, next_share) = wins[:2]
    (documents,) = {task["documents"] for task in profile["tasks"].values()}
    return {
        "depth": depth,
        "documents": documents,
        "split": profile["settings"]["split"],
        "chosen": _list(choice["layers"]),
        "boundaries": _list(choice["boundaries"]),
        "first": f"{{{_list(first)}}}",
        "first_share": f"{share:.0%}",
        "second": f"{{{_list(second)}}}",
        "second_share": f"{next_share:.0%}",
        "clear": share >= 0.95,
        "papers": _list(PAPERS_LAYERS),
        "papers_depth": PAPERS_DEPTH,
        "papers_places": _places(PAPERS_LAYERS, PAPERS_DEPTH),
        "places": _places(choice["layers"], depth),
        "saved": f"{profile['shared']['decoder_prefill_flops_saved']:.0%}",
        "table": _table(profile, choice["layers"]),
        **_largest_fall(profile),
    }


def _largest_fall(profile: dict[str, Any]) -> dict[str, Any]:
    """Where x falls most from one layer to the next, and which task falls most there."""
    rows = profile["layers"]
    place = min(range(1, len(rows)), key=lambda at: rows[at]["x"] - rows[at - 1]["x"])
    by_task = {name: task["relative"][place] for name, task in profile["tasks"].items()}
    hardest = min(by_task, key=lambda name: by_task[name])
    return {
        "fall": rows[place]["layer"],
        "x_before": f"{rows[place - 1]['x']:.3f}",
        "x_after": f"{rows[place]['x']:.3f}",
        "hardest": hardest,
        "hardest_share": f"{by_task[hardest]:.0%}",
        "other_share": f"{min(value for name, value in by_task.items() if name != hardest):.0%}",
    }


def _table(profile: dict[str, Any], chosen: Sequence[int]) -> str:
    body = []
    for place, row in enumerate(profile["layers"]):
        mark = " (chosen)" if row["layer"] in chosen else ""
        relative = [f"{task['relative'][place]:.3f}" for task in profile["tasks"].values()]
        body.append([f"{row['layer']}{mark}", told(row["x"], row["low"], row["high"], 3), *relative])
    return table(["layer", "x [95 %]", *profile["tasks"]], body)


def _list(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))


def _places(layers: Sequence[int], depth: int) -> str:
    return ", ".join(f"{layer / depth:.0%}" for layer in layers)
