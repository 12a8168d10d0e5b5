"""Latency of methods on a model of a given shape with random weights: paired, interleaved, in one process.

Every round runs the stock model, the stock model again (A/A), the engine with nothing pruned, and every method, on the
same inputs. Nothing but the clock is read in these rounds. The parts of a prefill, the single steps of decoding and
the memory are looked at in rounds of their own, since looking costs time.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from swiftvlm_eval.efficiency.cost import executed_cost
from swiftvlm_eval.efficiency.flops import prefill_flops
from swiftvlm_eval.efficiency.memory import cache_bytes, peak_memory, weight_bytes
from swiftvlm_eval.efficiency.parts import watched
from swiftvlm_eval.efficiency.workload import Workload, build_inputs, build_model
from swiftvlm_eval.pruning.budget import BudgetError
from swiftvlm_eval.pruning.contract import PruningMethod
from swiftvlm_eval.pruning.prune import prune

Clock = Literal["wall", "cpu"]
Contender = tuple[str, PruningMethod, float]
"""Label, method, and budget as a share."""
WARMUP = 2
"""Rounds before the timed ones."""
PART_ROUNDS = 3
"""Rounds in which the parts are timed, if nothing else is said."""
STOCK, AGAIN, KEEP_ALL = "stock", "stock again", "engine, nothing pruned"


@dataclass
class Timing:
    """One contender.

    Attributes:
        label: its name.
        prefill: seconds of the prefill, one entry a round.
        decode: seconds of a decoding step, mean over the steps of a round; a step decodes a token for every prompt.
        rows_per_layer: visual rows in each layer, mean over the prompts of the batch.
        flops: of the prefill of the whole batch, selection included.
        parts: seconds by part of the prefill, one entry a round of those that look at parts.
        steps: seconds of every single decoding step in these rounds.
        cache_bytes: keys and values after the prefill.
        peak_memory: bytes of tensors above weights and inputs, in a prefill and one decoding step.
    """

    label: str
    prefill: list[float] = field(default_factory=list)
    decode: list[float] = field(default_factory=list)
    rows_per_layer: list[float] = field(default_factory=list)
    flops: float = 0.0
    parts: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    steps: list[float] = field(default_factory=list)
    cache_bytes: int | None = None
    peak_memory: int | None = None


def runs_of(contenders: Sequence[Any], rounds: int, part_rounds: int = 0) -> int:
    """How often `measure` runs a model: in every round the stock model twice, the bare engine, every contender."""
    return (3 + len(contenders)) * (rounds + part_rounds + (1 if part_rounds else 0))


def feasible(workload: Workload, contenders: Sequence[Contender]) -> tuple[list[Contender], dict[str, str]]:
    """The contenders that can meet their budget on this decoder; the reason of every other one, by label."""
    possible, refused = [], {}
    for label, method, budget in contenders:
        try:
            method.plan(workload.visual_tokens, workload.shape.num_layers, budget)
        except BudgetError as error:
            refused[label] = str(error)
        else:
            possible.append((label, method, budget))
    return possible, refused


@dataclass
class _Bench:
    """A model with its inputs and its clock."""

    model: Any
    inputs: dict[str, torch.Tensor]
    workload: Workload
    clock: Clock

    def now(self) -> float:
        """Seconds, when everything that was asked of a GPU is done."""
        if self.model.device.type == "cuda":
            torch.cuda.synchronize(self.model.device)
        return time.perf_counter() if self.clock == "wall" else time.process_time()

    def prefill(self) -> Any:
        return self.model(**self.inputs, use_cache=True, logits_to_keep=1)

    def step(self, output: Any, number: int) -> Any:
        """One decoding step; its words are given, so that no contender decodes other ones."""
        ids = torch.full((self.workload.batch_size, 1), 20 + number, device=self.model.device)
        return self.model(input_ids=ids, past_key_values=output.past_key_values, use_cache=True)


def measure(
    workload: Workload,
    contenders: Sequence[Contender],
    *,
    rounds: int = 10,
    warmup: int = WARMUP,
    part_rounds: int = 0,
    dtype: torch.dtype = torch.bfloat16,
    device: torch.device | None = None,
    attn: str = "sdpa",
    clock: Clock = "wall",
    on_run: Callable[[], None] = lambda: None,
) -> tuple[list[Timing], int]:
    """Times all contenders.

    Args:
        workload: shape and lengths.
        contenders: what is compared with the stock model.
        rounds: timed rounds.
        warmup: rounds before them.
        part_rounds: further rounds, in which the parts are timed; then one for the memory. 0 leaves both out.
        dtype: weights and activations.
        device: default the CPU.
        attn: attention kernel.
        clock: `wall`, or `cpu` time of this process (robust on shared machines; use one thread).
        on_run: called after every run of a model; there are `runs_of(contenders, warmup + rounds, part_rounds)`.

    Returns:
        The timings, of which the first three are the stock model, itself again, and the bare engine; and the bytes of
        the model's weights.

    Raises:
        BudgetError: a budget that a method cannot meet on this decoder, before anything is run.
    """
    from swiftvlm_eval.pruning.registry import make_method

    for _, method, budget in contenders:
        method.plan(workload.visual_tokens, workload.shape.num_layers, budget)
    model = build_model(workload, dtype, device or torch.device("cpu"), attn)
    bench = _Bench(model, build_inputs(workload, model), workload, clock)
    runs: list[tuple[Timing, Any]] = [
        (Timing(STOCK), None),
        (Timing(AGAIN), None),
        (Timing(KEEP_ALL), (make_method("vanilla"), 1.0)),
    ]
    runs += [(Timing(label), (method, budget)) for label, method, budget in contenders]
    looks = [_timed] * (warmup + rounds) + ([_parts] * part_rounds + [_memory] if part_rounds else [])
    for number, look in enumerate(looks):
        for timing, method in runs:
            with torch.inference_mode(), nullcontext() if method is None else prune(model, *method) as session:
                look(bench, timing, session)
            if number < warmup:
                timing.prefill.clear()
                timing.decode.clear()
            on_run()
    return [timing for timing, _ in runs], weight_bytes(model)


def _timed(bench: _Bench, timing: Timing, session: Any) -> None:
    """An untouched run: the clock is read at its ends, and between prefill and decoding."""
    workload, steps = bench.workload, max(1, bench.workload.output_tokens)
    start = bench.now()
    output = bench.prefill()
    prefilled = bench.now()
    for number in range(workload.output_tokens):
        output = bench.step(output, number)
    end = bench.now()
    timing.prefill.append(prefilled - start)
    timing.decode.append((end - prefilled) / steps)
    if session is None:
        timing.rows_per_layer = [float(workload.visual_tokens)] * workload.shape.num_layers
        flops = prefill_flops(timing.rows_per_layer, workload.text_tokens, workload.shape)
        timing.flops = flops * workload.batch_size
    else:
        traces, tower = session.traces, session.adapter.tower.shape
        layers = zip(*(trace.rows_per_layer for trace in traces), strict=True)
        timing.rows_per_layer = [sum(layer) / len(layer) for layer in layers]
        timing.flops = sum(executed_cost(session.method, trace, workload.shape, tower).executed for trace in traces)


def _parts(bench: _Bench, timing: Timing, session: Any) -> None:
    """A run with the clock read at every seam of the prefill, and after every decoding step."""
    with watched(bench.model, session, bench.now) as spans:
        start = bench.now()
        output = bench.prefill()
        split = spans.split(bench.now() - start)
    for part, seconds in split.items():
        timing.parts[part].append(seconds)
    timing.cache_bytes = cache_bytes(output.past_key_values)
    for number in range(bench.workload.output_tokens):
        start = bench.now()
        output = bench.step(output, number)
        timing.steps.append(bench.now() - start)


def _memory(bench: _Bench, timing: Timing, session: Any) -> None:
    """A run whose allocations are counted."""
    with peak_memory(bench.model.device) as peak:
        bench.step(bench.prefill(), 0)
    timing.peak_memory = peak.size
