"""PruneSID (arXiv:2603.09480): groups by principal directions, lookalikes suppressed, a quota for each group."""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from reference.declared import Case, MethodOracle
from reference.full_length import Run, run_full_length, top
from reference.options import PAPER, Changes, Refused
from reference.patch_choice import cosines, look, sequence, spread, visual_indices_of
from reference.vision import start_state
from torch import Tensor


class Group(NamedTuple):
    """Patches of one direction: those that suppression kept, in that order, then the others by score."""

    patches: list[int]
    kept: int


def directions_of(features: Tensor, groups: int) -> list[int]:
    """For each row (P, width) the number of its strongest singular direction, of the ``groups`` first ones."""
    squashed = features.double().sigmoid()
    centred = squashed - squashed.mean(dim=1, keepdim=True)
    _, _, right = torch.linalg.svd(centred.T, full_matrices=False)
    strength = right[:groups].abs().T.tolist()
    return [row.index(max(row)) for row in strength]


def mean_of_pairs(cosine: Tensor) -> float:
    """Mean cosine of all pairs of different rows."""
    size = len(cosine)
    return sum(float(cosine[i, i + 1 :].sum()) for i in range(size)) / (size * (size - 1) / 2)


def suppressed(ranked: Sequence[int], cosine: Tensor, threshold: float) -> Group:
    """One group, given by falling score: the best stays, those too alike to it are out, and so on."""
    candidates, kept = list(ranked), []
    while candidates:
        best, *others = candidates
        kept.append(best)
        candidates = [patch for patch in others if float(cosine[best, patch]) <= threshold]
    return Group([*kept, *(patch for patch in ranked if patch not in kept)], len(kept))


def upper_quotas(groups: Sequence[Group], total: int) -> list[int]:
    """The most that each group may give: at first few and unlike ones only, then more, until they suffice."""
    sizes = [len(group.patches) for group in groups]
    upper = [min(5 * math.ceil(total / 64), size, group.kept) for group, size in zip(groups, sizes, strict=True)]
    while sum(upper) < total and upper != sizes:
        upper = [min(most + 1, size) for most, size in zip(upper, sizes, strict=True)]
    return upper


def quotas(groups: Sequence[Group], total: int) -> list[int]:
    """Patches of each group, ``total`` - 1 of them, because the class token is a row, too."""
    upper = upper_quotas(groups, total)
    lower = [min(1, len(group.patches)) for group in groups]
    rest = max(0, total - 1 - sum(lower))
    unlike = torch.tensor([group.kept for group in groups], dtype=torch.float32)
    # single precision, halves to even
    steps = [0, *((unlike / unlike.sum()).cumsum(0) * rest).round().int().tolist()]
    found = [min(lower[g] + steps[g + 1] - steps[g], upper[g]) for g in range(len(groups))]
    for g in sorted(range(len(groups)), key=lambda g: (-groups[g].kept, g)):
        found[g] += max(0, min(upper[g] - found[g], total - 1 - sum(found)))
    return found


def principal_groups(scores: Tensor, features: Tensor, total: int) -> list[int]:
    """``total`` - 1 patches, group after group, by scores (P,) and features (P, width)."""
    directions = directions_of(features, max(1, int(total / 4)))
    cosine = cosines(features)
    threshold = total / 32 * mean_of_pairs(cosine)
    ranked = top(len(scores), scores)
    groups = [
        suppressed([patch for patch in ranked if directions[patch] == number], cosine, threshold)
        for number in range(max(1, int(total / 4)))
    ]
    return [
        patch for group, quota in zip(groups, quotas(groups, total), strict=True) for patch in group.patches[:quota]
    ]


@torch.no_grad()
def prunesid(model: Any, inputs: Mapping[str, Tensor], generated: Sequence[int] = (), *, count: int) -> Run:
    """Keep ``count`` rows, the class token of each tile among them: first of the base tile's, last of the others'."""
    shown = look(model, inputs)
    kept = [
        principal_groups(tile.class_attention().sum(dim=0), tile.patches, rows)
        for tile, rows in zip(shown, spread(count, len(shown)), strict=True)
    ]
    places = sequence(model, inputs, kept)
    record = Run(logits=torch.empty(0), kept_indices=[visual_indices_of(model, inputs, places)])
    rows = [shown[0].class_row]
    rows += [shown[tile].patches[patch] for tile, patch in places]
    rows += [tile.class_row for tile in shown[1:]]
    visual = model.model.multi_modal_projector(torch.stack(rows))
    return run_full_length(model, start_state(model, inputs, visual, kind="made"), generated, {}, record)


ORACLES = (
    MethodOracle(
        method="prunesid",
        cases={
            "many": Case({"layers": (0,), "counts": (62,)}, partial(prunesid, count=62)),
            "few": Case({"layers": (0,), "counts": (17,)}, partial(prunesid, count=17)),
            # nothing is suppressed, and quotas fill up
            "most": Case({"layers": (0,), "counts": (100,)}, partial(prunesid, count=100)),
        },
        options={
            "layers": Refused((3,), "prunesid acts before the decoder; allowed is 0"),
            # the class token is one of them
            "counts": Changes((30,), lambda without, given: given.rows[0] == 30 and len(given.kept[0]) == 29),
            "schedule": Refused("paper", PAPER),
        },
        raster=False,
    ),
)
