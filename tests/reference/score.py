"""SCoRe (CVPR 2026): weighted k-centre, far from what is kept and attended to by the class token."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Literal

from reference.declared import Case, MethodOracle
from reference.full_length import Run
from reference.options import PAPER, Changes, Refused, keeps, same_counts
from reference.patch_choice import Tile, cosines, run_patches
from torch import Tensor


def weighted_centres(weights: Tensor, features: Tensor, count: int, alpha: float) -> list[int]:
    """``count`` of the rows (P, width) in the order in which they are picked, the heaviest one first."""
    weight = weights.double().tolist()
    distance = (1 - cosines(features)).tolist()
    picked = [weight.index(max(weight))] if count else []
    while len(picked) < count:
        rest = [i for i in range(len(weight)) if i not in picked]
        worth = [min(distance[i][j] for j in picked) * weight[i] ** alpha for i in rest]
        picked.append(rest[worth.index(max(worth))])
    return picked


def score(
    model: Any,
    inputs: Mapping[str, Tensor],
    generated: Sequence[int] = (),
    *,
    count: int,
    alpha: float = 0.8,
    features: Literal["encoder", "projector"] = "encoder",
) -> Run:
    """Keep ``count`` patches that are far apart before the projector, or after it."""

    def choose(tile: Tile, rows: int) -> list[int]:
        vectors = tile.patches if features == "encoder" else model.model.multi_modal_projector(tile.patches)
        return sorted(weighted_centres(tile.class_attention().mean(dim=0), vectors, rows, alpha))

    return run_patches(model, inputs, generated, count=count, choose=choose)


ORACLES = (
    MethodOracle(
        method="score",
        cases={
            "many": Case({"layers": (0,), "counts": (62,)}, partial(score, count=62)),
            "few": Case({"layers": (0,), "counts": (11,)}, partial(score, count=11)),
            "distance-only": Case(
                {"layers": (0,), "counts": (40,), "alpha": 0.0}, partial(score, count=40, alpha=0.0)
            ),
            "heavy": Case({"layers": (0,), "counts": (40,), "alpha": 2.5}, partial(score, count=40, alpha=2.5)),
            "projected": Case(
                {"layers": (0,), "counts": (40,), "features": "projector"},
                partial(score, count=40, features="projector"),
            ),
        },
        options={
            "layers": Refused((3,), "score acts before the decoder; allowed is 0"),
            "counts": Changes((30,), keeps(30)),
            "schedule": Refused("paper", PAPER),
            "alpha": Changes(2.5, same_counts),
            "features": Changes("projector", same_counts, all_values=("encoder", "projector")),
        },
    ),
)
