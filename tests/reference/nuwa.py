"""Nüwa (arXiv:2602.02951): grid anchors that gather their surroundings, then last-row attention in mid-decoder."""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from reference.declared import Case, MethodOracle
from reference.full_length import Edit, Run, State, keep_visual, run_full_length
from reference.options import Changes, at, keeps, same_start
from reference.per_tile import (
    class_scores,
    grid_side,
    layer_number,
    middle_stage,
    nothing,
    packing_of,
    spread,
    tower_layers,
    unit,
)
from reference.vision import Packing, start_state, tiles
from torch import Tensor

RADIUS = 280 / 1058
Spot = tuple[int, int]
"""Line and column on a grid."""


class Patches(NamedTuple):
    """Of some patches: class attention, affinity vectors, and features before the projector."""

    scores: Tensor
    affinity: Tensor
    features: Tensor


def candidates(lines: int, columns: int, scores: Sequence[float], each: int) -> list[int]:
    """Patches of a grid (row by row) that may become anchors: the best ``each`` of every cell of two by two.

    Cells do not reach beyond a last odd line or column. From four a cell on, every patch is a candidate.
    """
    if each >= 4:
        return list(range(lines * columns))
    found = []
    for line in range(0, lines - lines % 2, 2):
        for column in range(0, columns - columns % 2, 2):
            corner = line * columns + column
            cell = [corner, corner + 1, corner + columns, corner + columns + 1]
            found += sorted(cell, key=lambda patch: (-scores[patch], patch))[:each]
    return sorted(found)


def choose(lines: int, columns: int, scores: Tensor, count: int) -> list[int]:
    """The anchors of a view, ascending; cells give as many candidates as their share needs, more if these are few."""
    values = scores.tolist()
    for each in range(min(4, max(1, math.ceil(4 * count / (lines * columns)))), 5):
        able = candidates(lines, columns, values, each)
        if len(able) >= count:
            return sorted(sorted(able, key=lambda patch: (-values[patch], patch))[:count])
    raise ValueError(f"{count} anchors of {lines} x {columns} patches")


def threshold(scores: Sequence[float], quantile: float) -> float:
    """The quantile of the scores, interpolated between the two at its place."""
    ordered = sorted(scores)
    place = quantile * (len(ordered) - 1)
    lower = math.floor(place + 1e-9)
    share = max(place - lower, 0.0) if abs(place - lower) > 1e-9 else 0.0
    upper = min(lower + 1, len(ordered) - 1)
    return ordered[lower] + share * (ordered[upper] - ordered[lower])


def affinity(one: int, vectors: Tensor, spots: Sequence[Spot], reach: float) -> Tensor:
    """Affinity of one patch to all of its view: likeness times nearness; ``reach`` is the square of the radius."""
    alike = (vectors @ vectors[one]).clamp(min=0)
    steps = torch.tensor([math.dist(spots[one], spot) for spot in spots], dtype=vectors.dtype)
    near = (1 - steps / reach**0.5).clamp(min=0) if reach > 0 else (steps == 0).to(vectors.dtype)
    return alike * near


def gather(patches: Patches, spots: Sequence[Spot], anchors: Sequence[int], reach: float, quantile: float) -> Tensor:
    """Rows of the anchors: the most attended ones as they are, the others with their surroundings added."""
    vectors = unit(patches.affinity.double())
    features = patches.features.double()
    limit = threshold([float(patches.scores[anchor]) for anchor in anchors], quantile)
    rows = []
    for anchor in anchors:
        row = features[anchor]
        if float(patches.scores[anchor]) < limit:
            weights = affinity(anchor, vectors, spots, reach)
            weights = weights / (weights.sum() + 1e-8)
            weights[anchor] = 1.0
            row = weights @ features
        rows.append(row)
    return torch.stack(rows).float()


def spread_views(count: int, packing: Packing) -> list[int]:
    """Anchors of every view, when ``count`` rows (newlines included) are spread over the tiles."""
    sizes = [sum(len(line) for line in grid) for grid in packing.grids]
    left = count - packing.entries.count(None)
    if left < len(sizes):
        raise ValueError(f"{count} rows are fewer than the newlines and one anchor a view")
    if len(sizes) == 1:
        return [left]
    number = 1 + max(tile for line in packing.stitched for tile, _ in line)
    base = spread(left, number)[0]
    fine = min(left - base, sizes[1])
    return [left - fine, fine]


def tile_patches(model: Any, pixels: Tensor) -> Patches:
    """One tile: class attention of the feature layer, mean of the late hidden states, features."""
    layers = tower_layers(model, pixels)
    number = layer_number(model)
    # hidden state k is the output of layer k - 1
    late = [layers[index - 1].after for index in range(round(2 * len(layers) / 3), len(layers) + 1)]
    mean = torch.stack(late).double().mean(dim=0)
    return Patches(class_scores(layers[number]), mean[1:], layers[number].after[1:])


@torch.no_grad()
def nuwa(
    model: Any,
    inputs: Mapping[str, Tensor],
    generated: Sequence[int] = (),
    *,
    boundaries: Sequence[int],
    counts: Sequence[int],
    radius: float = RADIUS,
    quantile: float = 0.55,
) -> Run:
    """Anchors at ``boundaries[0]``, which is 0, and the best of all rows at ``boundaries[1]``; positions stay."""
    packing = packing_of(model, inputs)
    shown = [tile_patches(model, pixels) for pixels in tiles(inputs)]
    reach = radius * 2 * (grid_side(model) - 1) ** 2

    def first(state: State, entered: State | None, record: Run) -> State:
        start = state.visual[0]
        hidden = state.hidden.clone()
        kept = [index for index, entry in enumerate(packing.entries) if entry is None]
        for lines, count in zip(packing.grids, spread_views(counts[0], packing), strict=True):
            members = [index for line in lines for index in line]
            spots = [(line, column) for line, given in enumerate(lines) for column in range(len(given))]
            patches = _of_view(shown, [packing.entries[index] for index in members])
            record.scores.append(patches.scores)
            anchors = choose(len(lines), len(lines[0]), patches.scores, count)
            rows = model.model.multi_modal_projector(gather(patches, spots, anchors, reach, quantile))
            for anchor, row in zip(anchors, rows, strict=True):
                hidden[start + members[anchor]] = row
                kept.append(members[anchor])
        rewritten = State(state.rows, hidden, state.positions, state.next_position)
        return keep_visual(rewritten, [start + index for index in kept], record)

    second = middle_stage(model, boundaries[1], boundaries[1] - 1, counts[1], compact=False)
    edits: dict[int, Edit] = {boundaries[0]: first, boundaries[1]: second}
    return run_full_length(model, start_state(model, inputs), generated, edits, nothing())


def _of_view(shown: Sequence[Patches], members: Sequence[tuple[int, int] | None]) -> Patches:
    places = [entry for entry in members if entry is not None]
    parts = [torch.stack([shown[tile][part][patch] for tile, patch in places]) for part in range(3)]
    return Patches(*parts)


def case(options: Mapping[str, Any] | None = None, *, counts: tuple[int, int], last: int = 8) -> Case:
    """A case with these rows per stage."""
    layers = (0, last)
    run = partial(nuwa, boundaries=layers, counts=counts, **(options or {}))
    return Case({"layers": layers, "counts": counts, **(options or {})}, run)


ORACLES = (
    MethodOracle(
        method="nuwa",
        score_layers={0: None, 8: 7},
        cases={
            "few": case(counts=(70, 30)),
            # two or three patches a cell, other places
            "early": case(counts=(90, 12), last=3),
            # all patches are candidates; the fine view is full
            "many": case(counts=(130, 60)),
            "near": case({"radius": 0.05, "quantile": 0.3}, counts=(100, 20)),
            "alone": case({"radius": 0.001}, counts=(66, 20)),
            "all-gather": case({"quantile": 1.0}, counts=(60, 20)),
        },
        options={
            "layers": Changes((0, 4), at(0, 4)),
            "counts": Changes((70, 30), keeps(70, 30)),
            # 336 and 48 of 576
            "schedule": Changes("paper", keeps(84, 12), (("layers", (0, 4)),), budget=1 / 3),
            "radius": Changes(0.02, same_start),
            "quantile": Changes(0.9, same_start),
        },
        rewrites=True,
    ),
)
