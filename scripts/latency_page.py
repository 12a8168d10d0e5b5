"""leaderboards/latency-*/latency.md: latency runs as tables, with the machine they ran on."""

import json
from pathlib import Path
from typing import Any

from swiftvlm_eval.leaderboard.render.markdown import table
from swiftvlm_eval.leaderboard.render.text import interval, markdown, number

CONTROLS = ("stock", "stock again", "engine, nothing pruned")
"""Rows that are no method."""

INTRODUCTION = """\
Every method beside the unpruned model in one process, in turn, on the same inputs; ratios are paired within a round,
with 95 % intervals by bootstrap over rounds. *Implied* is the speed-up of the decoder that the executed FLOPs imply,
selection included; *of implied* is the measured over the implied one. Weights are random: a method whose counts follow
the input (`sparsevlm_v1`) keeps other counts here than on a trained model."""
EMULATED = """\
* this processor has no bfloat16 instructions: products are emulated, several times slower than in float32, so that
  selection, most of which runs in float32, weighs less than elsewhere"""


def latency_page(folder: Path) -> str:
    """The page of one machine in Markdown.

    Args:
        folder: with a JSON file of `swiftvlm-eval latency --out` for every run.
    """
    runs = {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}
    lines = [
        "# Latency, random weights",
        "",
        *INTRODUCTION.splitlines(),
        "",
    ]
    for run in runs.values():
        lines += _run(run)
    return "\n".join(lines).rstrip() + "\n"


def _run(run: dict[str, Any]) -> list[str]:
    settings, machine = run["settings"], run["machine"]
    shape, workload = settings["workload"]["shape"], settings["workload"]
    methods = [row for row in run["rows"] if row["contender"] not in CONTROLS]
    least = min(methods, key=lambda row: row["of_implied"])
    most = max(methods, key=lambda row: row["of_implied"])
    again = run["rows"][1]["prefill_speedup"]
    where = machine.get("gpu") or f"{machine['cpu']} ({machine['cpu_capability']}), {machine['threads']} thread(s)"
    lines = [
        f"## {settings['dtype']}, {machine['device']}",
        "",
        f"* {markdown(where)}; {settings['clock']} time, {settings['rounds']} rounds, {settings['attn']} attention",
        f"* decoder: hidden {shape['hidden_size']}, MLP {shape['intermediate_size']}, {shape['num_layers']} layers,"
        f" {shape['num_heads']} heads; {workload['side'] ** 2} visual and {workload['text_tokens']} text tokens; a"
        f" vision tower of {workload['vision_layers']} layers of {workload['vision_width']}",
        f"* the unpruned model against itself: {_ratio(again)}"
        + ("" if run["steady"] else "; **it differs from itself: the machine was too busy**"),
        f"* of implied: from {least['of_implied']:.2f} ({markdown(least['contender'])}) to {most['of_implied']:.2f}"
        f" ({markdown(most['contender'])})",
    ]
    if machine.get("bfloat16_instructions") is False and settings["dtype"] == "bfloat16":
        lines.append(EMULATED)
    lines += [f"* not measured: {markdown(label)}: {markdown(why)}" for label, why in run["refused"].items()]
    header = ["", "tokens", "prefill ms", "speed-up [95 %]", "implied", "of implied", "decode ms", "speed-up [95 %]"]
    body = [
        [
            markdown(row["contender"]),
            f"{row['mean_visual_tokens']:.1f}",
            f"{row['prefill_ms']:.0f}",
            _ratio(row["prefill_speedup"]),
            f"{row['implied_speedup']:.2f}",
            f"{row['of_implied']:.2f}",
            f"{row['decode_ms']:.1f}",
            _ratio(row["decode_speedup"]),
        ]
        for row in run["rows"]
    ]
    versions = ", ".join(f"{name} {run['versions'][name]}" for name in ("torch", "transformers"))
    return [*lines, "", table(header, body), "", f"{versions}; commit {(run['commit'] or 'unknown')[:7]}.", ""]


def _ratio(found: list[float]) -> str:
    middle, low, high = found
    return f"{number(middle, 2)} {interval(low, high, 2)}"
