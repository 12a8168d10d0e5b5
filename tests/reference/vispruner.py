"""VisPruner (arXiv:2412.01818): patches of high class attention, and unlike ones of the rest."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from reference.declared import Case, MethodOracle
from reference.full_length import Run, top
from reference.options import PAPER, Changes, Refused, keeps, same_counts
from reference.patch_choice import Tile, cosines, run_patches
from torch import Tensor


def thinned(ranked: Sequence[int], cosine: list[list[float]], count: int) -> list[int]:
    """What is left of patches in descending order of their scores when lookalikes have gone, ``count`` of them.

    In each round every other patch is compared with all those between, and up to eight of the most alike ones go.
    """
    left = list(ranked)
    while len(left) > count:
        compared, others = left[0::2], left[1::2]
        alike = {a: max((cosine[a][b] for b in others), default=float("-inf")) for a in compared}
        going = min(8, len(left) - count, len(compared))
        # sorting keeps the order of equals, so the earlier one goes first and the survivors stay as they were
        most_alike_first = sorted(compared, key=lambda a: -alike[a])
        left = most_alike_first[going:] + others
    return left


def important_and_diverse(scores: Tensor, features: Tensor, count: int, ratio: float) -> list[int]:
    """Patches in raster order: ``int(count * ratio)`` by score, the others by unlikeness of (P, width) features."""
    important = int(count * ratio)
    ranked = top(len(scores), scores)
    diverse = thinned(ranked[important:], cosines(features).tolist(), count - important)
    return sorted(ranked[:important] + diverse)


def vispruner(
    model: Any, inputs: Mapping[str, Tensor], generated: Sequence[int] = (), *, count: int, ratio: float = 0.5
) -> Run:
    """Keep ``count`` patches, the share ``ratio`` of each tile's by class attention."""

    def choose(tile: Tile, rows: int) -> list[int]:
        return important_and_diverse(tile.class_attention().mean(dim=0), tile.patches, rows, ratio)

    return run_patches(model, inputs, generated, count=count, choose=choose)


def case(count: int, ratio: float) -> Case:
    return Case(
        {"layers": (0,), "counts": (count,), "important_ratio": ratio}, partial(vispruner, count=count, ratio=ratio)
    )


ORACLES = (
    MethodOracle(
        method="vispruner",
        cases={
            "half": Case({"layers": (0,), "counts": (62,)}, partial(vispruner, count=62)),
            # numbers of rows that leave an odd rest
            "odd": case(53, 0.5),
            "few": case(11, 0.5),
            "diverse-only": case(40, 0.0),
            "important-only": case(40, 1.0),
        },
        options={
            "layers": Refused((3,), "vispruner acts before the decoder; allowed is 0"),
            "counts": Changes((30,), keeps(30)),
            "schedule": Refused("paper", PAPER),
            "important_ratio": Changes(0.25, same_counts),
        },
    ),
)
