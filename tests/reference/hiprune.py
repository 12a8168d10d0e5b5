"""HiPrune (arXiv:2508.00553): patches that a middle tower layer attends to, their neighbours, and a deep one's."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from reference.declared import Case, MethodOracle
from reference.full_length import Run, top
from reference.options import PAPER, Changes, Refused, keeps, same_counts
from reference.patch_choice import Tile, grid_side, run_patches
from torch import Tensor


def received(tile: Tile, number: int) -> Tensor:
    """Attention that each patch gets in a tower layer, mean over heads and all P + 1 queries: (P,)."""
    return tile.layers[number].attention.mean(dim=0).mean(dim=0)[1:]


def neighbours(patch: int, side: int) -> set[int]:
    """Patches one before, one after, one line above and one below in the flat numbering, cut to those there are."""
    return {min(max(patch + step, 0), side * side - 1) for step in (-1, 1, -side, side)}


def with_buffers(anchors: Sequence[int], side: int, count: int) -> set[int]:
    """Anchors, given the strongest first, and their neighbours; too many: the weakest anchors lose theirs."""
    buffered = len(anchors)
    while True:
        found = set(anchors).union(*(neighbours(anchor, side) for anchor in anchors[:buffered]))
        if len(found) <= count:
            return found
        buffered -= 1


def anchors_buffers_registers(middle: Tensor, deep: Tensor, side: int, count: int, alpha: float) -> list[int]:
    """``count`` patches in raster order, by the attention (P,) that they receive in a middle and in a deep layer."""
    kept = with_buffers(top(round(count * alpha / 5), middle), side, count)
    registers = [patch for patch in top(len(deep), deep) if patch not in kept]
    return sorted([*kept, *registers[: count - len(kept)]])


def middle_layer(feature_layer: int) -> int:
    """Tower layer of the anchors: the one that is as deep as 8 where the feature layer is 22."""
    return round(8 / 22 * feature_layer)


def hiprune(
    model: Any,
    inputs: Mapping[str, Tensor],
    generated: Sequence[int] = (),
    *,
    count: int,
    alpha: float = 0.1,
    object_layer: int | None = None,
) -> Run:
    """Keep ``count`` patches; ``object_layer`` names the layer of the anchors, counted from 0."""

    def choose(tile: Tile, rows: int) -> list[int]:
        number = middle_layer(tile.number) if object_layer is None else object_layer
        middle, deep = received(tile, number), received(tile, tile.number)
        return anchors_buffers_registers(middle, deep, grid_side(model), rows, alpha)

    return run_patches(model, inputs, generated, count=count, choose=choose)


WIDE = (("alpha", 1.0),)
ORACLES = (
    MethodOracle(
        method="hiprune",
        cases={
            "many": Case({"layers": (0,), "counts": (75,)}, partial(hiprune, count=75)),
            "no-anchors": Case({"layers": (0,), "counts": (23,)}, partial(hiprune, count=23)),
            "registers-only": Case(
                {"layers": (0,), "counts": (40,), "alpha": 0.0}, partial(hiprune, count=40, alpha=0.0)
            ),
            "half": Case({"layers": (0,), "counts": (62,), "alpha": 0.5}, partial(hiprune, count=62, alpha=0.5)),
            # tiles of 13 rows have 3 anchors, for whose neighbours there may be no room
            "full": Case({"layers": (0,), "counts": (63,), "alpha": 1.0}, partial(hiprune, count=63, alpha=1.0)),
            "crowded": Case({"layers": (0,), "counts": (15,), "alpha": 1.0}, partial(hiprune, count=15, alpha=1.0)),
            "feature-layer": Case(
                {"layers": (0,), "counts": (62,), "alpha": 0.5, "object_layer": 1},
                partial(hiprune, count=62, alpha=0.5, object_layer=1),
            ),
        },
        options={
            "layers": Refused((3,), "hiprune acts before the decoder; allowed is 0"),
            "counts": Changes((30,), keeps(30)),
            "schedule": Refused("paper", PAPER),
            "alpha": Changes(1.0, same_counts),
            "object_layer": Changes(1, same_counts, WIDE),
        },
    ),
)
