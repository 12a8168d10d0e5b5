"""FLOPs of methods at budgets, as rows for a table; from plans alone, without weights."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from swiftvlm_eval.efficiency.flops import LLAVA_7B, DecoderShape, prefill_flops
from swiftvlm_eval.pruning.budget import BudgetError, parse_budget
from swiftvlm_eval.pruning.method import PruningMethod
from swiftvlm_eval.pruning.methods import make_method


def parse_shape(text: str) -> DecoderShape:
    """Reads `4096,11008,32,32` (hidden, intermediate, layers, heads) with optional kv heads.

    Raises:
        ValueError: not four or five positive whole numbers.
    """
    parts = [part.strip() for part in text.split(",")]
    if len(parts) not in (4, 5) or not all(part.isdigit() and int(part) for part in parts):
        raise ValueError(
            f"shape={text!r}: allowed is hidden,intermediate,layers,heads[,kv_heads], such as 4096,11008,32,32"
        )
    hidden, intermediate, layers, heads, *kv_heads = (int(part) for part in parts)
    return DecoderShape(hidden, intermediate, layers, heads, kv_heads[0] if kv_heads else heads)


def shape_of(model: str | None, shape: str) -> tuple[DecoderShape, Mapping[str, Sequence[int]]]:
    """The decoder's shape from an explicit text, a checkpoint's config or LLaVA-7B, with the config's pruning layers.

    Raises:
        ValueError: both are given, or the config cannot be read.
    """
    if model and shape:
        raise ValueError(f"model={model!r} and shape={shape!r}: give one of them")
    if model is None:
        return (parse_shape(shape) if shape else LLAVA_7B), {}
    from transformers import AutoConfig

    from swiftvlm_eval.demo import checkpoint_path

    try:
        config = AutoConfig.from_pretrained(str(checkpoint_path()) if model == "demo" else model)
    except (OSError, ValueError) as error:
        raise ValueError(f"model={model!r}: its config cannot be read ({str(error).splitlines()[0]})") from error
    found = DecoderShape.of_config(getattr(config, "text_config", config))
    return found, getattr(config, "pruning_layers", None) or {}


def flops_rows(
    methods: Sequence[tuple[str, Mapping[str, Any]]],
    budgets: Sequence[str],
    model: str | None = None,
    shape: str = "",
    visual_tokens: int = 576,
    text_tokens: int = 70,
) -> list[dict[str, Any]]:
    """One row per method, budget and schedule.

    Returns:
        Dicts with `method`, `budget`, `schedule`, `rows_per_layer` ([rows, layers] runs), `mean_visual_tokens`,
        `attributed_mean`, `attributed_tflops`, `tflops` (overhead included), `overhead_tflops` by item, `note`. A
        schedule that cannot be had has `tflops` None and the reason in `note`.

    Raises:
        ValueError: malformed budget, shape or option.
    """
    decoder, layers = shape_of(model, shape)
    rows: list[dict[str, Any]] = []
    for name, options in methods:
        method = make_method(name, options)
        variants = {"exact": method} if "schedule" in options else {"paper": method.as_published(), "exact": method}
        for budget in ["1"] if name == "vanilla" else budgets:
            share = parse_budget(budget)
            found = []
            for schedule, variant in variants.items():
                row = {"method": name, "budget": budget, "schedule": options.get("schedule", schedule)}
                found.append(row | _costs(variant, share, decoder, layers.get(name), visual_tokens, text_tokens))
            if found[0]["rows_per_layer"] in (None, found[-1]["rows_per_layer"]):
                found = found[-1:]  # nothing published at this budget, or the same
            rows += found
    return rows


def _costs(
    method: PruningMethod,
    share: float,
    decoder: DecoderShape,
    layers: Sequence[int] | None,
    visual_tokens: int,
    text_tokens: int,
) -> dict[str, Any]:
    row: dict[str, Any] = {"note": ""}
    try:
        plan = method.plan(visual_tokens, decoder.num_layers, share, layers)
    except BudgetError as error:
        empty: dict[str, Any] = {
            "rows_per_layer": None,
            "mean_visual_tokens": None,
            "tflops": None,
            "overhead_tflops": {},
        }
        return {**empty, "note": str(error)}
    overhead = method.overhead_flops(plan, decoder.hidden_size)
    attributed = method.attributed_plan(plan)
    if attributed is not None:
        flops = prefill_flops(attributed.rows_per_layer, text_tokens, decoder) / 1e12
        row["attributed_mean"] = attributed.mean_visual_tokens
        row["attributed_tflops"] = flops
        row["note"] = f"attributed: {attributed.mean_visual_tokens:.1f} tokens, {flops:.2f} T"
    if plan.adaptive and plan.stages:
        row["note"] = "expected count"
    return {
        **row,
        "rows_per_layer": [[rows, len(list(run))] for rows, run in groupby(plan.rows_per_layer)],
        "mean_visual_tokens": plan.mean_visual_tokens,
        "tflops": (prefill_flops(plan.rows_per_layer, text_tokens, decoder) + sum(overhead.values())) / 1e12,
        "overhead_tflops": {item: value / 1e12 for item, value in overhead.items()},
    }
