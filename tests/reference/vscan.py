"""VScan (arXiv:2505.22654): patches that stand out in a window or in the image, merged; then attention midway."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from reference.declared import Case, MethodOracle
from reference.full_length import Edit, Merged, Run, run_full_length, top
from reference.options import Changes, at, keeps, same_counts
from reference.per_tile import (
    Source,
    class_scores,
    enter,
    grid_side,
    in_sequence,
    layer_number,
    middle_stage,
    nothing,
    packing_of,
    spread,
    tower_layers,
    unit,
)
from reference.vision import tiles
from torch import Tensor

SPANS = 4
"""Windows on each side of the grid."""
PAPER_LAYER, PAPER_FEATURES = 5, 22
"""0-based layer of the local scores, and the one that feeds the projector, in the tower of 24 layers."""


def windows(side: int) -> list[list[int]]:
    """Patches of each of the sixteen windows, row by row."""
    edges = [span * side // SPANS for span in range(SPANS + 1)]
    return [
        [line * side + column for line in range(edges[i], edges[i + 1]) for column in range(edges[j], edges[j + 1])]
        for i in range(SPANS)
        for j in range(SPANS)
    ]


def choose(local: Tensor, whole: Tensor, count: int) -> list[int]:
    """About half of ``count`` patches by the local score, evenly over the windows, the others by the global one."""
    quota = count // 2 // SPANS**2
    kept = []
    for window in windows(round(len(local) ** 0.5)) if quota else []:
        if len(window) < quota:
            raise ValueError(f"{quota} patches of a window of {len(window)}")
        kept += [window[place] for place in top(quota, local[window])]
    rest = [patch for patch in range(len(whole)) if patch not in kept]
    kept += [rest[place] for place in top(count - len(kept), whole[rest])]
    return sorted(kept)


def merge(rows: Tensor, kept: Sequence[int]) -> list[tuple[list[int], Tensor]]:
    """Members and mean of every kept row, when each row that is dropped joins the one most like it."""
    directions = unit(rows.double())
    members = [[row] for row in kept]
    for row in range(len(rows)):
        if row not in kept:
            likeness = [float(directions[row] @ directions[other]) for other in kept]
            members[likeness.index(max(likeness))].append(row)
    return [(group, rows[group].sum(dim=0) / len(group)) for group in members]


@torch.no_grad()
def vscan(
    model: Any,
    inputs: Mapping[str, Tensor],
    generated: Sequence[int] = (),
    *,
    boundary: int,
    counts: tuple[int, int],
    local_layer: int | None = None,
) -> Run:
    """Reduces the tiles to ``counts[0]`` projected rows and keeps ``counts[1]`` of them from ``boundary`` on."""
    record, vectors, shown = nothing(), dict[Source, Tensor](), tiles(inputs)
    number = layer_number(model)
    nearby = round(PAPER_LAYER / PAPER_FEATURES * number) if local_layer is None else local_layer
    patches = grid_side(model) ** 2
    for tile, (pixels, count) in enumerate(zip(shown, spread(counts[0], len(shown)), strict=True)):
        layers = tower_layers(model, pixels)
        local, whole = (class_scores(layers[layer], mean=True) for layer in (nearby, number))
        record.scores += [local, whole]
        kept = choose(local, whole, count) if count < patches else list(range(patches))
        for members, vector in merge(model.model.multi_modal_projector(layers[number].after[1:]), kept):
            vectors["patch", tile, members[0]] = vector
            record.merged.append(Merged(0, tuple((tile, member) for member in members), vector))
    sources = in_sequence(packing_of(model, inputs), list(vectors), ())
    state = enter(model, inputs, record, sources, torch.stack([vectors[source] for source in sources]))
    edits: dict[int, Edit] = {boundary: middle_stage(model, boundary, boundary, counts[1])}
    return run_full_length(model, state, generated, edits, record)


def case(counts: tuple[int, int], *, last: int = 8, **options: Any) -> Case:
    """A case with these rows per stage."""
    run = partial(vscan, boundary=last, counts=counts, **options)
    return Case({"layers": (0, last), "counts": counts, **options}, run)


ORACLES = (
    MethodOracle(
        method="vscan",
        score_layers={0: None, 8: 8},
        cases={
            # two of each window of LLaVA-1.5; the tiles of LLaVA-NeXT are too small for a local part
            "two-a-window": case((66, 20)),
            "no-local": case((31, 9), last=5),
            "four-a-window": case((129, 25), last=3),
            "other-layer": case((90, 30), local_layer=1),
        },
        options={
            "layers": Changes((0, 4), at(0, 4)),
            "counts": Changes((70, 30), keeps(70, 30)),
            # 288 and 96 of 576
            "schedule": Changes("paper", keeps(72, 24), (("layers", (0, 4)),), budget=1 / 3),
            "local_layer": Changes(1, same_counts),
        },
        rewrites=True,
    ),
)
