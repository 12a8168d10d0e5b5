"""PruMerge and PruMerge+ (arXiv:2403.15388): tokens that the class token singles out, each with its like added."""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from reference.declared import Case, MethodOracle
from reference.full_length import Merged, Run, run_full_length, top
from reference.options import PAPER, Changes, Refused, keeps
from reference.per_tile import (
    Source,
    enter,
    in_sequence,
    layer_number,
    nothing,
    packing_of,
    spread,
    tower_layers,
    unit,
)
from reference.vision import tiles
from torch import Tensor

NEIGHBOURS = 32


class Seen(NamedTuple):
    """Of the patches of a tile: class attention, unit keys, features before the projector."""

    scores: Tensor
    keys: Tensor
    features: Tensor


class Chosen(NamedTuple):
    """Of a tile: centres in order (a patch may come twice), their rows, and the patches that nobody kept."""

    centres: list[int]
    rows: list[Tensor]
    complement: list[int]


def see(model: Any, pixels: Tensor) -> Seen:
    """Queries and keys of the layer after the feature layer (or of that one if it is the last), in a single head."""
    layers, modules = tower_layers(model, pixels), model.model.vision_tower.encoder.layers
    number = layer_number(model)
    scored = min(number + 1, len(layers) - 1)
    normed = modules[scored].layer_norm1(layers[scored].before)
    query = modules[scored].self_attn.q_proj(normed)[0].double()
    keys = modules[scored].self_attn.k_proj(normed).double()
    scores = torch.softmax(keys @ query / keys.shape[1] ** 0.5, dim=0)
    return Seen(scores[1:].float(), unit(keys[1:]), layers[number].after[1:])


def outlier_share(scores: Sequence[Tensor]) -> float:
    """Share of the scores of all tiles above the third quartile by one and a half times the quartiles' distance."""
    values = np.concatenate([part.numpy() for part in scores])
    first, third = np.percentile(values, [25, 75])
    return float((values > third + 1.5 * (third - first)).sum() / len(values))


def merge(seen: Seen, centres: Sequence[int]) -> Chosen:
    """Adds to every centre its 32 nearest others, each times its score.

    The others are the remaining entries of the list of centres, and the patches outside of it; for every entry that
    repeats another one, the lowest of these patches is neither a neighbour nor anything else.
    """
    outside = [patch for patch in range(len(seen.scores)) if patch not in centres]
    complement = outside[len(centres) - len(set(centres)) :]
    rows = []
    for place, centre in enumerate(centres):
        others = [*(other for entry, other in enumerate(centres) if entry != place), *complement]
        likeness = [float(seen.keys[other] @ seen.keys[centre]) for other in others]
        nearest = sorted(range(len(others)), key=lambda entry: (-likeness[entry], entry))[:NEIGHBOURS]
        rows.append(seen.features[centre] + weighted(seen, [others[entry] for entry in nearest]))
    return Chosen(list(centres), rows, complement)


def weighted(seen: Seen, patches: Sequence[int]) -> Tensor:
    """Sum of patches, each times its score."""
    found = torch.zeros_like(seen.features[0])
    for patch in patches:
        found = found + seen.scores[patch] * seen.features[patch]
    return found


def every(patches: int, count: int) -> list[int]:
    """``count`` patches that stand at even distances, without the last one."""
    if count == 0:
        return []
    step = patches // count
    found = list(range(step // 2, patches - 1, step))[:count]
    return found if len(found) == count else [math.floor((place + 0.5) * patches / count) for place in range(count)]


def assemble(model: Any, inputs: Mapping[str, Tensor], generated: Sequence[int], centres_of: Any) -> Run:
    """Runs the decoder on the merged rows of all tiles and the one row of all that nobody kept."""
    seen = [see(model, pixels) for pixels in tiles(inputs)]
    chosen = [merge(part, centres) for part, centres in zip(seen, centres_of(seen), strict=True)]
    record, vectors = nothing(), dict[Source, Tensor]()
    for tile, part in enumerate(chosen):
        record.scores.append(seen[tile].scores)
        for place, (centre, row) in enumerate(zip(part.centres, part.rows, strict=True)):
            again = centre in part.centres[:place]
            vectors[("again", tile, place) if again else ("patch", tile, centre)] = row
            record.merged.append(Merged(0, (tile, centre), row))
    rest = [weighted(part, own.complement) for part, own in zip(seen, chosen, strict=True)]
    extra = torch.stack(rest).sum(dim=0)
    sources = in_sequence(packing_of(model, inputs), list(vectors), ("again",))
    visual = model.model.multi_modal_projector(torch.stack([*(vectors[source] for source in sources), extra]))
    state = enter(model, inputs, record, [*sources, ("rest", 0, 0)], visual)
    return run_full_length(model, state, generated, {}, record)


@torch.no_grad()
def prumerge(
    model: Any, inputs: Mapping[str, Tensor], generated: Sequence[int] = (), *, count: int | None = None
) -> Run:
    """``count`` rows of the whole sample and the one of the rest; as many as stand out if it is None."""

    def centres(seen: Sequence[Seen]) -> list[list[int]]:
        counts = outliers(seen) if count is None else spread(count, len(seen))
        return [top(each, part.scores) for each, part in zip(counts, seen, strict=True)]

    return assemble(model, inputs, generated, centres)


@torch.no_grad()
def prumerge_plus(
    model: Any,
    inputs: Mapping[str, Tensor],
    generated: Sequence[int] = (),
    *,
    counts: tuple[int, int] | None = None,
) -> Run:
    """(scored, spatial) samples of the whole sample and the row of the rest; None lets the scores decide."""

    def fixed(seen: Sequence[Seen]) -> list[list[int]]:
        scored, spatial = (spread(count, len(seen)) for count in counts or ())
        return [
            [*top(scored[tile], part.scores), *every(len(part.scores), spatial[tile])]
            for tile, part in enumerate(seen)
        ]

    def adaptive(seen: Sequence[Seen]) -> list[list[int]]:
        found = []
        for part, count in zip(seen, outliers(seen), strict=True):
            patches = len(part.scores)
            best = top(count, part.scores)
            ratio = outlier_share([tile.scores for tile in seen]) or 1 / patches
            step = max(1, int(int(1 / ratio) / 3))
            found.append([*best, *(patch for patch in range(0, patches - 1, step) if patch not in best)])
        return found

    return assemble(model, inputs, generated, adaptive if counts is None else fixed)


def outliers(seen: Sequence[Seen]) -> list[int]:
    """Rows of every tile when the share of outliers decides, at least one."""
    share = outlier_share([part.scores for part in seen])
    return [max(1, int(len(part.scores) * share)) for part in seen]


def case(run: Callable[..., Run], *counts: int) -> Case:
    """A case with these counts."""
    values: Any = {"count": counts[0]} if len(counts) == 1 else {"counts": counts}
    return Case({"layers": (0,), "counts": counts}, partial(run, **values))


NOT_HERE = "acts before the decoder; allowed is 0"
ORACLES = (
    MethodOracle(
        method="prumerge",
        cases={
            "few": case(prumerge, 23),
            "many": case(prumerge, 90),
            "adaptive": Case({"layers": (0,), "mode": "adaptive"}, prumerge),
        },
        options={
            "layers": Refused((3,), f"prumerge {NOT_HERE}"),
            # and the row of the rest
            "counts": Changes((30,), lambda without, given: keeps(30)(without, given) and given.rows[0] == 31),
            "schedule": Refused("paper", PAPER),
            "mode": Refused("adaptive", "takes no budget"),
        },
        made=lambda rest, merged, options, last: 1 if rest else 0,
        raster=False,
        rewrites=True,
    ),
    MethodOracle(
        method="prumerge_plus",
        cases={
            "even": case(prumerge_plus, 24, 24),
            "scored": case(prumerge_plus, 40, 13),
            # samples at even distances repeat most of what was chosen by score
            "repeated": case(prumerge_plus, 60, 50),
            "none-spatial": case(prumerge_plus, 20, 0),
            "adaptive": Case({"layers": (0,), "mode": "adaptive"}, prumerge_plus),
        },
        options={
            "layers": Refused((3,), f"prumerge_plus {NOT_HERE}"),
            "counts": Changes((30, 20), lambda without, given: given.rows[0] == 51 and 30 <= len(given.kept[0]) <= 50),
            # 96 and 96 of 576, and one: not the 48 of the exact schedule
            "schedule": Changes("paper", lambda without, given: given.rows[0] == 49, budget=1 / 3),
            "mode": Refused("adaptive", "takes no budget"),
        },
        # where a plan counts the samples at even distances among the merged rows, or with the kept ones
        made=lambda rest, merged, options, last: max(1, merged) if rest else 0,
        raster=False,
        rewrites=True,
    ),
)
