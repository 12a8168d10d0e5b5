"""ApET (arXiv:2602.19870): rows that a small basis of rows describes worst stay, the others join them."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Literal

import torch
from reference.declared import Case, MethodOracle
from reference.full_length import Edit, Merged, Run, State, keep_visual, run_full_length, top
from reference.options import Changes, at, keeps, same_counts
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

Mode = Literal["official", "clean"]


def farthest_points(rows: Tensor, count: int) -> list[int]:
    """Row numbers in the order of sampling: first the row farthest from the mean, then always the most distant one."""
    points = rows.double()
    apart = ((points - points.mean(dim=0)) ** 2).sum(dim=1).tolist()
    chosen = [apart.index(max(apart))]
    nearest = [float("inf")] * len(points)
    while len(chosen) < count:
        new = ((points - points[chosen[-1]]) ** 2).sum(dim=1).tolist()
        nearest = [min(pair) for pair in zip(nearest, new, strict=True)]
        able = [-1.0 if row in chosen else value for row, value in enumerate(nearest)]
        chosen.append(able.index(max(able)))
    return chosen


def errors(rows: Tensor, basis: Sequence[int]) -> Tensor:
    """Length of what is left of each row after its best description by the basis rows."""
    points = rows.double()
    base = points[list(basis)]
    gram = base @ base.T + 1e-5 * torch.eye(len(base), dtype=torch.float64)
    weights = torch.linalg.solve(gram, base @ points.T)
    return (points - weights.T @ base).norm(dim=1)


def join(rows: Tensor, kept: Sequence[int], receivers: Sequence[int]) -> dict[int, tuple[list[int], Tensor]]:
    """Receiver -> its members and their mean, when every row that is not kept joins the receiver most like it."""
    if not receivers:
        return {}
    directions, able = unit(rows.double()), sorted(receivers)
    members = {receiver: [receiver] for receiver in able}
    for row in range(len(rows)):
        if row not in kept:
            likeness = [float(directions[row] @ directions[receiver]) for receiver in able]
            members[able[likeness.index(max(likeness))]].append(row)
    return {receiver: (group, rows[group].mean(dim=0)) for receiver, group in members.items()}


def reduce(
    rows: Tensor, count: int, size: int, mode: Mode, placed: Literal["raster", "error"]
) -> dict[int, tuple[list[int], Tensor]]:
    """The kept rows of one set, ascending: row number -> rows that its content was made of, and its content.

    ``size`` is that of the basis; ``placed`` is the order of the places that basis vectors take in "official" mode.
    """
    if count >= len(rows):
        return {row: ([row], rows[row]) for row in range(len(rows))}
    basis = farthest_points(rows, min(size, len(rows)))
    error = errors(rows, basis)
    if mode == "official":
        if not size < count <= len(rows) - size:
            raise ValueError(f"{count} of {len(rows)} rows: allowed are {size + 1} to {len(rows) - size}")
        falling = top(count, error)
        own, filled = falling[: count - size], falling[count - size :]
        places = sorted(filled) if placed == "raster" else filled
        kept = {place: ([row], rows[row]) for place, row in zip(places, basis, strict=True)}
        kept |= join(rows, falling, own)
    else:
        error[basis] = -1.0
        own = top(max(count - len(basis), 0), error)
        kept = {row: ([row], rows[row]) for row in basis[:count]}
        kept |= join(rows, [*basis[:count], *own], own)
    return dict(sorted(kept.items()))


@torch.no_grad()
def apet(
    model: Any,
    inputs: Mapping[str, Tensor],
    generated: Sequence[int] = (),
    *,
    boundary: int,
    counts: tuple[int, int],
    basis: int = 10,
    mode: Mode = "official",
) -> Run:
    """Reduces every tile before the projector, then all visual rows together at ``boundary``."""
    record, vectors, shown = nothing(), dict[Source, Tensor](), tiles(inputs)
    for tile, (pixels, count) in enumerate(zip(shown, spread(counts[0], len(shown)), strict=True)):
        features = tower_layers(model, pixels)[layer_number(model)].after[1:]
        for patch, (members, vector) in reduce(features, count, basis, mode, "raster").items():
            vectors["patch", tile, patch] = vector
            record.merged.append(Merged(0, tuple((tile, member) for member in members), vector))
    sources = in_sequence(packing_of(model, inputs), list(vectors), ())
    visual = model.model.multi_modal_projector(torch.stack([vectors[source] for source in sources]))

    def second(state: State, entered: State | None, record: Run) -> State:
        hidden, places = state.hidden.clone(), state.visual
        kept = reduce(state.hidden[places], counts[1], basis, mode, "error")
        for row, (members, vector) in kept.items():
            hidden[places[row]] = vector
            record.merged.append(Merged(boundary, tuple(members), vector))
        rewritten = State(state.rows, hidden, state.positions, state.next_position)
        return keep_visual(rewritten, [places[row] for row in kept], record).reindexed()

    edits: dict[int, Edit] = {boundary: second}
    return run_full_length(model, enter(model, inputs, record, sources, visual), generated, edits, record)


def case(counts: tuple[int, int], *, last: int = 8, **options: Any) -> Case:
    """A case with these rows per stage."""
    given = {"layers": (0, last), "counts": counts, "start": "far", **options}
    return Case(given, partial(apet, boundary=last, counts=counts, **options))


ORACLES = (
    MethodOracle(
        method="apet",
        cases={
            "official": case((65, 30)),
            "small-basis": case((100, 20), basis=4),
            "early": case((120, 40), last=3, basis=6),
            "clean": case((70, 25), mode="clean"),
            "clean-small-basis": case((60, 20), last=5, mode="clean", basis=3),
            # no more rows than the basis has: in the tiles of LLaVA-NeXT, and in the second stage
            "clean-basis-alone": case((40, 8), mode="clean"),
        },
        options={
            "layers": Changes((0, 4), at(0, 4)),
            "counts": Changes((70, 30), keeps(70, 30)),
            # 288 and 96 of 576
            "schedule": Changes("paper", keeps(72, 24), (("layers", (0, 4)),), budget=1 / 3),
            "basis": Changes(4, same_counts),
            "mode": Changes("clean", same_counts, (("start", "far"),), all_values=("official", "clean")),
            "start": Changes("far", same_counts, all_values=("random", "far")),
        },
        rewrites=True,
        # the basis bounds what can be kept of a set
        everywhere=False,
    ),
)
