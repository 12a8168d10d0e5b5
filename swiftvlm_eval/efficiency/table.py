"""FLOPs of methods at budgets, as rows for a table; from plans alone, without weights."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

from swiftvlm_eval.efficiency.cost import planned_cost
from swiftvlm_eval.models.shape import CLIP_L, LLAVA_7B, DecoderShape, TowerShape
from swiftvlm_eval.pruning.budget import REFERENCE_VISUAL_TOKENS, BudgetError, parse_budget
from swiftvlm_eval.pruning.contract import PruningMethod
from swiftvlm_eval.pruning.registry import make_method


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
        tower: sizes of the vision tower.
        visual_tokens: N of an image.
        pruning_layers: boundaries that the checkpoint recommends, by method.
    """

    shape: DecoderShape
    tower: TowerShape
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
        count = visual_tokens or REFERENCE_VISUAL_TOKENS
        tower = replace(CLIP_L, patches=min(count, CLIP_L.patches))
        return Decoder(parse_shape(shape) if shape else LLAVA_7B, tower, count, {})
    from transformers import AutoConfig

    from swiftvlm_eval.models.checkpoint import source_of
    from swiftvlm_eval.models.families import visual_tokens_per_image

    try:
        config = AutoConfig.from_pretrained(source_of(model), trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise ValueError(f"model={model!r}: its config cannot be read ({str(error).splitlines()[0]})") from error
    if visual_tokens is None:
        visual_tokens = visual_tokens_per_image(config)
        if visual_tokens is None:
            raise ValueError(f"visual_tokens: give a number, since the images of {model!r} have different ones")
    shape_found = DecoderShape.of_config(getattr(config, "text_config", config))
    vision = getattr(config, "vision_config", None)
    tower = CLIP_L if vision is None else TowerShape.of_config(vision)
    return Decoder(shape_found, tower, visual_tokens, getattr(config, "pruning_layers", None) or {})


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
        `tflops` (all that is executed) = `layers_tflops` + the sum of `selection_tflops` by item, `paper_tflops`
        (70 text tokens, with `overhead_tflops` by item as the method's paper counts it, and the rows as that paper
        attributes them: `attributed_mean`), `note`. A schedule that cannot be had has `tflops` None and the reason in
        `note`.

    Raises:
        ValueError: malformed budget, shape or option.
    """
    decoder = decoder_of(model, shape, visual_tokens)
    rows: list[dict[str, Any]] = []
    for name, options in methods:
        method = make_method(name, options)
        variants = {"exact": method} if "schedule" in options else {"paper": method.as_published(), "exact": method}
        for budget in ["1"] if name == "vanilla" else budgets:
            share = parse_budget(budget, decoder.visual_tokens)
            found = []
            for schedule, variant in variants.items():
                row = {"method": method.name, "budget": budget, "schedule": options.get("schedule", schedule)}
                found.append(row | _costs(variant, share, decoder, text_tokens))
            if found[0]["rows_per_layer"] in (None, found[-1]["rows_per_layer"]):
                found = found[-1:]  # nothing published at this budget, or the same
            rows += found
    return rows


def _costs(method: PruningMethod, share: float, decoder: Decoder, text_tokens: int) -> dict[str, Any]:
    shape, method = decoder.shape, method.with_recommended(decoder.pruning_layers)
    try:
        plan = method.plan(decoder.visual_tokens, shape.num_layers, share)
    except BudgetError as error:
        empty = dict.fromkeys(("rows_per_layer", "mean_visual_tokens", "layers_tflops", "tflops", "paper_tflops"))
        return {**empty, "selection_tflops": {}, "overhead_tflops": {}, "note": str(error)}
    cost = planned_cost(method, plan, text_tokens, shape, decoder.tower)
    notes = ["expected count"] if plan.adaptive and plan.stages else []
    if cost.attributed_mean is not None:
        notes.append(f"the paper counts {cost.attributed_mean:.1f} tokens")
    return {
        "rows_per_layer": [[rows, len(list(run))] for rows, run in groupby(plan.rows_per_layer)],
        "mean_visual_tokens": plan.mean_visual_tokens,
        "layers_tflops": cost.layers / 1e12,
        "selection_tflops": {item: value / 1e12 for item, value in cost.selection.items()},
        "tflops": cost.executed / 1e12,
        "paper_tflops": cost.paper / 1e12,
        "overhead_tflops": {item: value / 1e12 for item, value in cost.overhead.items()},
        "attributed_mean": cost.attributed_mean,
        "note": "; ".join(notes),
    }
