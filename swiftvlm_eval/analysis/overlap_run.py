"""Overlap on documents: one unpruned prefill and one for each method, and what follows from all of them."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from swiftvlm_eval.analysis.contenders import Contender, prefill, stages_of
from swiftvlm_eval.analysis.equal_flops import TOLERANCE, budget_of_equal_cost
from swiftvlm_eval.analysis.mean_interval import mean_interval
from swiftvlm_eval.analysis.overlap import hits, low_then_high
from swiftvlm_eval.analysis.sampled_prompts import Prompt, naming
from swiftvlm_eval.analysis.watching import Watcher
from swiftvlm_eval.efficiency.cost import executed_cost, planned_cost
from swiftvlm_eval.models.checkpoint import Checkpoint

TOPS = (0.05, 0.10)
"""Shares of N that count as what the unpruned model looks at most."""
BOTTOM, TOP = 0.50, 0.10
"""Shares of the matrix: worst-scored at an earlier layer, best-scored at a later one."""


def at_equal_flops(contenders: Sequence[Contender], checkpoint: Checkpoint, prompt: Prompt) -> list[Contender]:
    """The contenders with budgets at which they execute what the first one does, on a prompt of that length.

    Raises:
        ValueError: a contender without a stage, or one that cannot meet any budget.
    """
    shape, tower = checkpoint.adapter.decoder.shape, checkpoint.adapter.tower.shape
    first, found = contenders[0], []

    def cost(contender: Contender, share: float) -> float:
        method = contender.method.with_recommended(checkpoint.adapter.recommended_layers)
        plan = method.plan(prompt.num_visual, shape.num_layers, share)
        return planned_cost(method, plan, prompt.num_text, shape, tower).executed

    for contender in contenders:
        stages_of(Contender(contender.label, contender.method, first.budget), checkpoint, prompt.num_visual)
        budget = first.budget
        if contender is not first:
            own = contender
            target = cost(first, first.budget)
            budget = budget_of_equal_cost(lambda share, own=own: cost(own, share), target, first.budget)  # type: ignore[misc]
        found.append(Contender(contender.label, contender.method, budget))
    return found


def overlap_of(prompt: Prompt, checkpoint: Checkpoint, contenders: Sequence[Contender], seed: int) -> dict[str, Any]:
    """One document: what each contender holds at its last stage, and the matrix of layers.

    Raises:
        RuntimeError: something failed; the message names the document.
    """
    with naming(prompt.key):
        layers = checkpoint.adapter.decoder.shape.num_layers
        watcher = Watcher(at=tuple(range(layers)))
        prefill(checkpoint, watcher, None, prompt, seed)
        scores = torch.stack([watcher.seen.scores[boundary].cpu() for boundary in range(layers)])
        matrix, top = low_then_high(scores, BOTTOM, TOP)
        methods = [_held(prompt, checkpoint, contender, scores, seed) for contender in contenders]
        return {
            "task": prompt.task,
            "doc_id": prompt.doc_id,
            "num_visual": prompt.num_visual,
            "methods": methods,
            "low_then_high": matrix,
            "top": top,
        }


def _held(
    prompt: Prompt, checkpoint: Checkpoint, contender: Contender, scores: torch.Tensor, seed: int
) -> dict[str, Any]:
    trace = prefill(checkpoint, contender.method, contender.budget, prompt, seed)
    last = trace.stages[-1]
    held = last.kept_indices
    if not held:
        raise ValueError(f"{contender.label}: every row stands for several tokens; allowed are methods that keep some")
    shape, tower = checkpoint.adapter.decoder.shape, checkpoint.adapter.tower.shape
    return {
        "boundary": last.boundary,
        "held": len(held),
        "mean_rows": trace.mean_visual_tokens,
        "tflops": executed_cost(contender.method, trace, shape, tower).executed / 1e12,
        "hits": [list(hits(held, scores[last.boundary], share)) for share in TOPS],
    }


def overlap_summary(contenders: Sequence[Contender], found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What the documents say together: means with intervals by method, differences from the first, and the matrix.

    Args:
        contenders: of every document, in its order.
        found: of `overlap_of`.
    """
    methods: list[dict[str, Any]] = []
    for number, contender in enumerate(contenders):
        own = [document["methods"][number] for document in found]
        tflops = [one["tflops"] / document["methods"][0]["tflops"] for one, document in zip(own, found, strict=True)]
        ratio = sum(tflops) / len(tflops)
        methods.append(
            {
                **contender.described,
                "boundaries": sorted({one["boundary"] for one in own}),
                "held": mean_interval([one["held"] for one in own]),
                "mean_rows": mean_interval([one["mean_rows"] for one in own]),
                "tflops": mean_interval([one["tflops"] for one in own]),
                "flops_of_first": ratio,
                "equal_flops": abs(ratio - 1) <= TOLERANCE,
                "chance": mean_interval(
                    [one["held"] / document["num_visual"] for one, document in zip(own, found, strict=True)]
                ),
                "overlap": {f"{share:.2f}": _overlap(found, number, place) for place, share in enumerate(TOPS)},
            }
        )
    return {"methods": methods, "low_then_high": _matrix(found), "bottom": BOTTOM, "top": TOP}


def _overlap(found: Sequence[Mapping[str, Any]], number: int, place: int) -> dict[str, Any]:
    """Overlap of one method at one share, by task, too, and its difference from the first method, paired."""

    def share(document: Mapping[str, Any], which: int) -> float:
        held, top = document["methods"][which]["hits"][place]
        return float(held / top)

    own = [share(document, number) for document in found]
    tasks = sorted({document["task"] for document in found})
    by_task = {
        task: mean_interval([one for one, document in zip(own, found, strict=True) if document["task"] == task])
        for task in tasks
    }
    less_first = mean_interval([one - share(document, 0) for one, document in zip(own, found, strict=True)])
    return {**mean_interval(own), "values": own, "by_task": by_task, "less_first": less_first}


def _matrix(found: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Mean share by earlier and later layer, counted from 1."""
    cells = []
    for early, row in enumerate(found[0]["low_then_high"]):
        for offset in range(len(row)):
            values = [document["low_then_high"][early][offset] / document["top"] for document in found]
            told = mean_interval(values)
            cells.append({"early": early + 1, "late": early + offset + 2, **told})
    return cells
