"""Drift on documents: one unpruned prefill and one for each method, at every boundary where tokens may come back."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from swiftvlm_eval.analysis.contenders import Contender, prefill, stages_of
from swiftvlm_eval.analysis.drift import ARMS, SIZE_CLASSES, Waiting, by_group_size, drift, size_class
from swiftvlm_eval.analysis.mean_interval import mean_interval
from swiftvlm_eval.analysis.sampled_prompts import Prompt, naming
from swiftvlm_eval.analysis.watching import Look, Watcher, watched
from swiftvlm_eval.models.checkpoint import Checkpoint
from swiftvlm_eval.pruning.contract import PruningMethod
from swiftvlm_eval.pruning.merging import Bypass
from swiftvlm_eval.pruning.prompt import sample_seed

SIZES = ("all", *(size_class(first) for first, _ in SIZE_CLASSES))
MEASURES = ("relative", "cosine")


def require_bypass(label: str, method: PruningMethod) -> None:
    """Refuses a method whose tokens never come back.

    Raises:
        ValueError: names it.
    """
    if not method.rows_return:
        raise ValueError(
            f"methods={label!r}: what leaves never comes back, so there is no bypassed state to compare; allowed are "
            "methods with a bypass"
        )


def drift_of(prompt: Prompt, checkpoint: Checkpoint, contenders: Sequence[Contender], seed: int) -> dict[str, Any]:
    """One document: distances of each contender at each re-entry.

    Raises:
        RuntimeError: something failed; the message names the document.
    """
    with naming(prompt.key):
        methods = []
        for own in re_entries(prompt, checkpoint, contenders, seed):
            stages = []
            for boundary, waiting, unpruned in own:
                drawn = torch.Generator().manual_seed(sample_seed(seed, f"{prompt.key}/{boundary}", 0))
                rows = by_group_size(drift(waiting, unpruned, drawn), waiting.members)
                groups = int(waiting.members.max()) + 1
                stages.append({"boundary": boundary, "waiting": len(waiting.index), "groups": groups, "rows": rows})
            methods.append(stages)
        return {"task": prompt.task, "doc_id": prompt.doc_id, "num_visual": prompt.num_visual, "methods": methods}


def re_entries(
    prompt: Prompt, checkpoint: Checkpoint, contenders: Sequence[Contender], seed: int
) -> list[list[tuple[int, Waiting, torch.Tensor]]]:
    """Of every contender its re-entries: boundary, the tokens that wait there, and the unpruned states [N, hidden].

    Raises:
        ValueError: as `looks_of` and `waiting_at`.
    """
    boundaries = {at for one in contenders for at in stages_of(one, checkpoint, prompt.num_visual)}
    watcher = Watcher(at=tuple(sorted(boundaries)), with_states=True)
    prefill(checkpoint, watcher, None, prompt, seed)
    return [
        [
            (look.stage.boundary, waiting_at(look, contender.label), watcher.seen.states[look.stage.boundary])
            for look in looks_of(prompt, checkpoint, contender, seed)
        ]
        for contender in contenders
    ]


def looks_of(prompt: Prompt, checkpoint: Checkpoint, contender: Contender, seed: int) -> list[Look]:
    """The stages of a contender at which tokens wait.

    Raises:
        ValueError: there is none: everything was kept.
    """
    looks: list[Look] = []
    prefill(checkpoint, watched(contender.method, looks.append), contender.budget, prompt, seed)
    found = [look for look in looks if look.carry is not None]
    if not found:
        raise ValueError(f"{contender.label}: no token waits at any stage; allowed is a budget at which some do")
    return found


def waiting_at(look: Look, label: str) -> Waiting:
    """What a method computed of its waiting tokens.

    Raises:
        ValueError: it leaves no `merging.Bypass`, gives nothing to be scored, or makes no merged rows.
    """
    carry = look.carry
    if not isinstance(carry, Bypass) or look.candidates is None or look.index is None:
        raise ValueError(f"{label}: its stages leave no merging.Bypass; allowed are methods that do")
    if not len(carry.groups.merged):
        raise ValueError(f"{label}: it makes no merged rows, so nothing is aligned; allowed is one group or more")
    order = look.index.argsort(dim=0)
    return Waiting(look.candidates[order], carry.index, carry.states, carry.groups.members)


def drift_summary(contenders: Sequence[Contender], found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Means over documents with intervals, by method, re-entry, group size and arm, and differences between arms.

    Args:
        contenders: of every document, in its order.
        found: of `drift_of`.
    """
    methods = []
    for number, contender in enumerate(contenders):
        stages = [stage for document in found for stage in document["methods"][number]]
        told = [_stage(stages, at) for at in sorted({stage["boundary"] for stage in stages})]
        methods.append({**contender.described, "re_entries": told})
    return {"methods": methods}


def _stage(stages: Sequence[Mapping[str, Any]], boundary: int) -> dict[str, Any]:
    """All documents at one re-entry."""
    own = [stage for stage in stages if stage["boundary"] == boundary]
    by_key = [{(row["arm"], row["size"]): row for row in stage["rows"]} for stage in own]
    rows = []
    for arm in ARMS:
        for size in SIZES:
            there = [table[arm, size] for table in by_key if (arm, size) in table]
            if there:
                told = {measure: mean_interval([row[measure] for row in there]) for measure in MEASURES}
                rows.append({"arm": arm, "size": size, "tokens": sum(row["tokens"] for row in there), **told})
    against = {}
    for control in ("stored", "other"):
        both = [(table["aligned", "all"], table[control, "all"]) for table in by_key if (control, "all") in table]
        if both:  # paired: aligned less control
            against[control] = {
                measure: mean_interval([one[measure] - two[measure] for one, two in both]) for measure in MEASURES
            }
    counts = {name: mean_interval([stage[name] for stage in own]) for name in ("waiting", "groups")}
    return {"boundary": boundary, **counts, "rows": rows, "aligned_less": against}
