"""On overlap and drift."""

import json
from pathlib import Path
from typing import Any

from demo_analysis.words import told_mean
from swiftvlm_eval.leaderboard.render.markdown import table
from swiftvlm_eval.leaderboard.render.text import markdown

ARMS = {
    "aligned": "aligned by the own group",
    "stored": "as stored (no alignment)",
    "other": "moved by a random other group",
    "live": "tokens that did not wait",
}


def overlap_values(folder: Path) -> dict[str, Any]:
    """What is said of overlap.

    Args:
        folder: of `overlap`: bypass first, then dropping.
    """
    found = json.loads((folder / "overlap.json").read_text())
    header = ["method", "budget", "FLOPs of the first", "tokens held", "chance", "top 5 %", "top 10 %"]
    body = [
        [
            markdown(one["label"]),
            f"{one['budget']:.3f}",
            f"{one['flops_of_first']:.3f}" + ("" if one["equal_flops"] else " (not equal)"),
            f"{one['held']['mean']:.1f}",
            f"{one['chance']['mean']:.3f}",
            *(told_mean(share) for share in one["overlap"].values()),
        ]
        for one in found["methods"]
    ]
    more = {share: _turned(told["less_first"]) for share, told in found["methods"][1]["overlap"].items()}
    worst = max(found["low_then_high"], key=lambda cell: cell["mean"])
    return {
        "documents": found["methods"][0]["held"]["documents"],
        "clear": all(each["low"] > 0 for each in more.values()),
        "more_5": told_mean(more["0.05"]),
        "more_10": told_mean(more["0.10"]),
        "early": worst["early"],
        "late": worst["late"],
        "lost": f"{worst['mean']:.0%} [{worst['low']:.0%}, {worst['high']:.0%}]",
        "table": table(header, body),
    }


def _turned(found: dict[str, Any]) -> dict[str, Any]:
    """The same difference, seen from the other side."""
    return {"mean": -found["mean"], "low": -found["high"], "high": -found["low"]}


def drift_values(folder: Path) -> dict[str, Any]:
    """What is said of drift.

    Args:
        folder: of `drift`, for one method.
    """
    (method,) = json.loads((folder / "drift.json").read_text())["methods"]
    stages = method["re_entries"]
    body = [
        [
            f"before layer {stage['boundary'] + 1}",
            ARMS[row["arm"]],
            told_mean(row["relative"]),
            told_mean(row["cosine"]),
        ]
        for stage in stages
        for row in stage["rows"]
        if row["size"] == "all"
    ]
    farther = [
        str(stage["boundary"] + 1) for stage in stages if _of(stage, "aligned")["low"] > _of(stage, "live")["high"]
    ]
    nearer = [against["relative"] for stage in stages for against in stage["aligned_less"].values()]
    return {
        "clear": all(each["high"] < 0 for each in nearer),
        "farther": " and ".join(farther),
        "table": table(["may come back", "tokens", "distance / length [95 %]", "cosine [95 %]"], body, names=2),
    }


def _of(stage: dict[str, Any], arm: str) -> dict[str, Any]:
    """The relative distance of an arm, all group sizes together."""
    relative: dict[str, Any] = next(
        row["relative"] for row in stage["rows"] if row["arm"] == arm and row["size"] == "all"
    )
    return relative
