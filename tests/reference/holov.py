"""HoloV (arXiv:2510.02912): a quota of rows for each of 16 runs of visual tokens, filled by class attention."""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Literal

import torch
from reference.declared import Case, MethodOracle
from reference.full_length import Run, run_full_length
from reference.options import PAPER, Changes, Refused, keeps, same_counts
from reference.patch_choice import look, tokens_of
from reference.vision import start_state, visual_tokens
from torch import Tensor

Overflow = Literal["redistribute", "official"]


def runs_of(length: int, parts: int = 16) -> list[list[int]]:
    """Consecutive numbers 0..length-1 in so many runs, fewer if there are not as many; the first ones are longer."""
    parts = min(parts, length)
    each, rest = divmod(length, parts)
    runs, first = [], 0
    for number in range(parts):
        size = each + (number < rest)
        runs.append(list(range(first, first + size)))
        first += size
    return runs


def run_score(scores: Tensor, features: Tensor) -> float:
    """Worth of one run, in double precision: attention (m,) and how unevenly alike its rows (m, width) are."""
    attention, rows = scores.double(), features.double()
    m = len(attention)
    if m == 1:
        return float(attention[0])
    unit = rows / (rows.norm(dim=1, keepdim=True) + 1e-6)
    alike = unit @ unit.T
    alike.fill_diagonal_(0.0)
    mean = alike.sum(dim=1, keepdim=True) / (m - 1)
    uneven = (alike - mean).square().sum(dim=1) / (m - 1)
    attention = 1000 * attention
    scale = attention.abs().mean() / (uneven.abs().mean() + 1e-6)
    return float((attention + 0.09 * uneven * scale).mean())


def by_weight(weights: Sequence[float]) -> list[int]:
    """Numbers of the runs, the heaviest first, ties to the lower one."""
    return sorted(range(len(weights)), key=lambda number: (-weights[number], number))


def quotas(worth: Sequence[float], count: int) -> tuple[list[int], list[int]]:
    """Rows of each run, whatever its size, and the runs by falling weight."""
    weights = [value / (sum(worth) + 1e-6) for value in worth]
    order = by_weight(weights)
    found = [math.floor(weight * count) for weight in weights]
    for number in order[: count - sum(found)]:
        found[number] += 1
    return found, order


def with_room(found: Sequence[int], sizes: Sequence[int], order: Sequence[int]) -> list[int]:
    """Quotas cut to the sizes of the runs, what is cut off given to the heaviest ones that have room."""
    cut = [min(quota, size) for quota, size in zip(found, sizes, strict=True)]
    surplus = sum(found) - sum(cut)
    for number in order:
        more = min(surplus, sizes[number] - cut[number])
        cut[number] += more
        surplus -= more
    return cut


def holistic(scores: Tensor, features: Tensor, count: int, overflow: Overflow) -> list[int]:
    """Places in the list of rows, as the decoder reads them; fewer than ``count`` if rows are lost."""
    runs = runs_of(len(scores))
    value = scores.tolist()
    found, order = quotas([run_score(scores[run], features[run]) for run in runs], count)
    if overflow == "redistribute":
        found = with_room(found, [len(run) for run in runs], order)
    kept: list[int] = []
    for run, quota in zip(runs, found, strict=True):
        best = run if quota >= len(run) else sorted(run, key=lambda place: (-value[place], place))[:quota]
        kept.extend(best)
    return sorted(kept) if overflow == "redistribute" else kept


@torch.no_grad()
def holov(
    model: Any,
    inputs: Mapping[str, Tensor],
    generated: Sequence[int] = (),
    *,
    count: int,
    overflow: Overflow = "redistribute",
) -> Run:
    """Keep ``count`` rows of those that show a patch; with "official", rows of zeros stand in for lost ones."""
    scores = [tile.class_attention().mean(dim=0) for tile in look(model, inputs)]
    # without the newline rows, which show no patch
    listed = sorted((token, tile, patch) for (tile, patch), token in tokens_of(model, inputs).items())
    tokens = visual_tokens(model, inputs)[[token for token, _, _ in listed]]
    attention = torch.stack([scores[tile][patch] for _, tile, patch in listed])
    kept = holistic(attention, tokens, count, overflow)
    record = Run(logits=torch.empty(0), kept_indices=[[listed[place][0] for place in kept]])
    visual = torch.cat([tokens[kept], tokens.new_zeros(count - len(kept), tokens.shape[1])])
    return run_full_length(model, start_state(model, inputs, visual, kind="made"), generated, {}, record)


ORACLES = (
    MethodOracle(
        method="holov",
        cases={
            "many": Case({"layers": (0,), "counts": (58,)}, partial(holov, count=58)),
            "few": Case({"layers": (0,), "counts": (11,)}, partial(holov, count=11)),
            # some runs are smaller than their quotas
            "full": Case({"layers": (0,), "counts": (110,)}, partial(holov, count=110)),
            "official": Case(
                {"layers": (0,), "counts": (58,), "overflow": "official"},
                partial(holov, count=58, overflow="official"),
            ),
            "official-full": Case(
                {"layers": (0,), "counts": (110,), "overflow": "official"},
                partial(holov, count=110, overflow="official"),
            ),
        },
        options={
            "layers": Refused((3,), "holov acts before the decoder; allowed is 0"),
            "counts": Changes((30,), keeps(30)),
            "schedule": Refused("paper", PAPER),
            # inside a run by attention, not in raster order
            "overflow": Changes("official", same_counts, all_values=("redistribute", "official")),
        },
    ),
)
