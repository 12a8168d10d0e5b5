"""FLOPs of methods at budgets, as rows for a table; from plans alone, without weights."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from swiftvlm_eval.efficiency.flops import LLAVA_7B, DecoderShape, prefill_flops
from swiftvlm_eval.pruning.budget import REFERENCE_VISUAL_TOKENS, BudgetError, parse_budget
from swiftvlm_eval.pruning.method import PruningMethod
from swiftvlm_eval.pruning.methods import make_method


def parse_shape(text: str) -> DecoderShape:
    """Reads `4096,11008,32,32` (hidden, intermediate, layers, heads) with optional kv heads.

    Raises:
        ValueError: not four or five positive whole numbers, or heads that do not divide what they share.
    """
    parts = [part.strip() for part in text.split(",")]
    if len(parts) not in (4, 5) or not all(part.isdigit() and int(part) for part in parts):
        raise ValueError(
            f"shape={text!r}: allowed is hidden,intermediate,layers,heads[,kv_heads], such as 4096,11008,32,32"
        )
    hidden, intermediate, layers, heads, *kv_heads = (int(part) for part in parts)
    shared = kv_heads[0] if kv_heads else heads
    if hidden % (2 * heads) or heads % shared:
        raise ValueError(
            f"shape={text!r}: hidden must be a multiple of twice the heads (rotary pairs), heads one of kv_heads"
        )
    return DecoderShape(hidden, intermediate, layers, heads, shared)


@dataclass(frozen=True)
class Decoder:
    """What a table of costs is computed for.

    Attributes:
        shape: sizes of the decoder.
        visual_tokens: N of an image.
        pruning_layers: boundaries that the checkpoint recommends, by method.
    """

    shape: DecoderShape
    visual_tokens: int
    pruning_layers: Mapping[str, Sequence[int]]


def decoder_of(model: str | None, shape: str, visual_tokens: int | None = None) -> Decoder:
    """The decoder of an explicit shape, of a checkpoint's config, or LLaVA-7B's.

    Args:
        model: hub id, folder, or `demo`.
        shape: as read by `parse_shape`.
        visual_tokens: N; None takes the config's, or 576.

    Raises:
        ValueError: both model and shape are given, the config cannot be read, or it leaves N open (LLaVA-NeXT).
    """
    if model and shape:
        raise ValueError(f"model={model!r} and shape={shape!r}: give one of them")
    if model is None:
        return Decoder(parse_shape(shape) if shape else LLAVA_7B, visual_tokens or REFERENCE_VISUAL_TOKENS, {})
    from transformers import AutoConfig

    from swiftvlm_eval.demo import checkpoint_path

    try:
        source = str(checkpoint_path()) if model == "demo" else model
        config = AutoConfig.from_pretrained(source, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise ValueError(f"model={model!r}: its config cannot be read ({str(error).splitlines()[0]})") from error
    if visual_tokens is None:
        if config.model_type != "llava":
            raise ValueError(f"visual_tokens: give a number, since the images of {model!r} have different ones")
        visual_tokens = (config.vision_config.image_size // config.vision_config.patch_size) ** 2
    shape_found = DecoderShape.of_config(getattr(config, "text_config", config))
    return Decoder(shape_found, visual_tokens, getattr(config, "pruning_layers", None) or {})


def flops_rows(
    methods: Sequence[tuple[str, Mapping[str, Any]]],
    budgets: Sequence[str],
    model: str | None = None,
    shape: str = "",
    visual_tokens: int | None = None,
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
    decoder = decoder_of(model, shape, visual_tokens)
    rows: list[dict[str, Any]] = []
    for name, options in methods:
        method = make_method(name, options)
        variants = {"exact": method} if "schedule" in options else {"paper": method.as_published(), "exact": method}
        for budget in ["1"] if name == "vanilla" else budgets:
            share = parse_budget(budget)
            found = []
            for schedule, variant in variants.items():
                row = {"method": name, "budget": budget, "schedule": options.get("schedule", schedule)}
                found.append(row | _costs(variant, share, decoder, text_tokens))
            if found[0]["rows_per_layer"] in (None, found[-1]["rows_per_layer"]):
                found = found[-1:]  # nothing published at this budget, or the same
            rows += found
    return rows


def _costs(method: PruningMethod, share: float, decoder: Decoder, text_tokens: int) -> dict[str, Any]:
    row: dict[str, Any] = {"note": ""}
    shape, layers = decoder.shape, decoder.pruning_layers.get(method.name)
    try:
        plan = method.plan(decoder.visual_tokens, shape.num_layers, share, layers)
    except BudgetError as error:
        empty: dict[str, Any] = {
            "rows_per_layer": None,
            "mean_visual_tokens": None,
            "tflops": None,
            "overhead_tflops": {},
        }
        return {**empty, "note": str(error)}
    overhead = method.overhead_flops(plan, shape.hidden_size)
    attributed = method.attributed_plan(plan)
    if attributed is not None:
        flops = prefill_flops(attributed.rows_per_layer, text_tokens, shape) / 1e12
        row["attributed_mean"] = attributed.mean_visual_tokens
        row["attributed_tflops"] = flops
        row["note"] = f"attributed: {attributed.mean_visual_tokens:.1f} tokens, {flops:.2f} T"
    if plan.adaptive and plan.stages:
        row["note"] = "expected count"
    return {
        **row,
        "rows_per_layer": [[rows, len(list(run))] for rows, run in groupby(plan.rows_per_layer)],
        "mean_visual_tokens": plan.mean_visual_tokens,
        "tflops": (prefill_flops(plan.rows_per_layer, text_tokens, shape) + sum(overhead.values())) / 1e12,
        "overhead_tflops": {item: value / 1e12 for item, value in overhead.items()},
    }
