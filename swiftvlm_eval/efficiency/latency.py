"""Latency of methods on a model of a given shape with random weights: paired, interleaved, in one process.

Every round runs the stock model, the stock model again (A/A), the engine with nothing pruned, and every method, on the
same inputs. Figures are medians over rounds; ratios are taken within a round, so that whatever disturbs the machine
disturbs both sides. The A/A ratio must hold 1.00 in its interval, else the machine was too busy to measure.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

from swiftvlm_eval.efficiency.cost import executed_cost
from swiftvlm_eval.efficiency.flops import prefill_flops
from swiftvlm_eval.models.shape import DecoderShape
from swiftvlm_eval.pruning.budget import BudgetError
from swiftvlm_eval.pruning.contract import PruningMethod
from swiftvlm_eval.pruning.prune import prune

Clock = Literal["wall", "cpu"]
WARMUP = 2
"""Rounds before the timed ones."""
STOCK, AGAIN, KEEP_ALL = "stock", "stock again", "engine, nothing pruned"


@dataclass(frozen=True)
class Workload:
    """What is run.

    Attributes:
        shape: the decoder.
        side: patches along one side; side^2 visual tokens.
        text_tokens: of the prompt.
        output_tokens: decoded after the prefill, always as many.
        vision_layers: of the CLIP tower (24 in LLaVA).
        vision_width: its hidden size (1024 in LLaVA).
    """

    shape: DecoderShape
    side: int = 24
    text_tokens: int = 64
    output_tokens: int = 8
    vision_layers: int = 3
    vision_width: int = 64


@dataclass
class Timing:
    """One contender: seconds per round, and what was executed: rows, and FLOPs of the prefill, selection included."""

    label: str
    prefill: list[float] = field(default_factory=list)
    decode: list[float] = field(default_factory=list)
    peak_memory: int | None = None
    rows_per_layer: list[int] = field(default_factory=list)
    flops: float = 0.0


def runs_of(contenders: Sequence[Any], rounds: int) -> int:
    """How often `measure` runs a model: in every round the stock model twice, the bare engine, every contender."""
    return (3 + len(contenders)) * rounds


def feasible(
    workload: Workload, contenders: Sequence[tuple[str, PruningMethod, float]]
) -> tuple[list[tuple[str, PruningMethod, float]], dict[str, str]]:
    """The contenders that can meet their budget on this decoder; the reason of every other one, by label."""
    possible, refused = [], {}
    for label, method, budget in contenders:
        try:
            method.plan(workload.side**2, workload.shape.num_layers, budget)
        except BudgetError as error:
            refused[label] = str(error)
        else:
            possible.append((label, method, budget))
    return possible, refused


def build_model(workload: Workload, dtype: torch.dtype, device: torch.device, attn: str = "sdpa") -> Any:
    """A LLaVA of that shape. Weights are drawn, not zero: zero pages would be unrealistically fast to read."""
    shape = workload.shape
    text = LlamaConfig(
        vocab_size=1024,
        hidden_size=shape.hidden_size,
        intermediate_size=shape.intermediate_size,
        num_hidden_layers=shape.num_layers,
        num_attention_heads=shape.num_heads,
        num_key_value_heads=shape.num_kv_heads,
        max_position_embeddings=4096,
    )
    vision = CLIPVisionConfig(
        hidden_size=workload.vision_width,
        intermediate_size=4 * workload.vision_width,
        num_hidden_layers=workload.vision_layers,
        num_attention_heads=max(1, workload.vision_width // 64),
        image_size=14 * workload.side,
        patch_size=14,
    )
    config = LlavaConfig(
        text_config=text,
        vision_config=vision,
        image_token_id=3,
        vision_feature_layer=-2,
        image_seq_length=workload.side**2,
    )
    previous = torch.get_default_dtype()
    try:
        torch.set_default_dtype(dtype)
        with torch.device(device):
            model = LlavaForConditionalGeneration._from_config(config, attn_implementation=attn)
    finally:
        torch.set_default_dtype(previous)
    return model.eval()


def build_inputs(workload: Workload, model: Any) -> dict[str, torch.Tensor]:
    """One prompt: half the text before the image, half after it."""
    generator = torch.Generator().manual_seed(0)
    text = torch.randint(10, 1000, (workload.text_tokens,), generator=generator)
    before, after = text[: workload.text_tokens // 2], text[workload.text_tokens // 2 :]
    ids = torch.cat([before, torch.full((workload.side**2,), 3), after])[None].to(model.device)
    pixels = torch.randn(1, 3, 14 * workload.side, 14 * workload.side, generator=generator)
    return {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "pixel_values": pixels.to(model.device, model.dtype),
    }


def measure(
    workload: Workload,
    contenders: Sequence[tuple[str, PruningMethod, float]],
    *,
    rounds: int = 10,
    warmup: int = WARMUP,
    dtype: torch.dtype = torch.bfloat16,
    device: torch.device | None = None,
    attn: str = "sdpa",
    clock: Clock = "wall",
    on_run: Callable[[], None] = lambda: None,
) -> list[Timing]:
    """Times all contenders; the first three entries are the stock model, itself again, and the bare engine.

    Args:
        workload: shape and lengths.
        contenders: (label, method, budget share).
        rounds: timed rounds.
        warmup: rounds before them.
        dtype: weights and activations.
        device: default the CPU.
        attn: attention kernel.
        clock: `wall`, or `cpu` time of this process (robust on shared machines; use one thread).
        on_run: called after every prefill with its decoding; there are `runs_of(contenders, rounds + warmup)`.

    Raises:
        BudgetError: a budget that a method cannot meet on this decoder, before anything is run.
    """
    from swiftvlm_eval.pruning.registry import make_method

    for _, method, budget in contenders:
        method.plan(workload.side**2, workload.shape.num_layers, budget)
    model = build_model(workload, dtype, device or torch.device("cpu"), attn)
    inputs = build_inputs(workload, model)
    vanilla = make_method("vanilla")
    runs: list[tuple[Timing, Any]] = [(Timing(STOCK), None), (Timing(AGAIN), None), (Timing(KEEP_ALL), (vanilla, 1.0))]
    runs += [(Timing(label), (method, budget)) for label, method, budget in contenders]
    for number in range(warmup + rounds):
        for timing, method in runs:
            prefill, decode = _once(model, inputs, workload, method, timing, clock)
            if number >= warmup:
                timing.prefill.append(prefill)
                timing.decode.append(decode)
            on_run()
    return [timing for timing, _ in runs]


def _once(
    model: Any, inputs: dict[str, torch.Tensor], workload: Workload, pruning: Any, timing: Timing, clock: Clock
) -> tuple[float, float]:
    """Seconds of one prefill, and per decoded token."""
    cuda = model.device.type == "cuda"

    def now() -> float:
        if cuda:
            torch.cuda.synchronize(model.device)
        return time.perf_counter() if clock == "wall" else time.process_time()

    if cuda:
        torch.cuda.reset_peak_memory_stats(model.device)
    with torch.inference_mode(), nullcontext() if pruning is None else prune(model, *pruning) as session:
        start = now()
        output = model(**inputs, use_cache=True, logits_to_keep=1)
        prefilled = now()
        for step in range(workload.output_tokens):
            output = model(
                input_ids=torch.full((1, 1), 20 + step, device=model.device),
                past_key_values=output.past_key_values,
                use_cache=True,
            )
        end = now()
        if session is None:
            timing.rows_per_layer = [workload.side**2] * workload.shape.num_layers
            timing.flops = prefill_flops(timing.rows_per_layer, workload.text_tokens, workload.shape)
        else:
            trace, tower = session.traces[0], session.adapter.tower.shape
            timing.rows_per_layer = list(trace.rows_per_layer)
            timing.flops = executed_cost(session.method, trace, workload.shape, tower).executed
    if cuda:
        timing.peak_memory = max(timing.peak_memory or 0, torch.cuda.max_memory_allocated(model.device))
    return prefilled - start, (end - prefilled) / max(1, workload.output_tokens)
