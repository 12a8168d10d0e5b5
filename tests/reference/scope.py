"""SCOPE (arXiv:2510.24214): patches that cover the others by similarity, weighed with class attention."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Literal

from reference.declared import Case, MethodOracle
from reference.full_length import Run
from reference.options import PAPER, Changes, Refused, keeps, same_counts
from reference.patch_choice import Tile, cosines, run_patches
from torch import Tensor


def coverage_gains(cosine: Tensor, covered: Tensor) -> Tensor:
    """By how much each candidate raises the coverage (P,) of all rows, chosen ones too: (P,)."""
    return (cosine - covered[:, None]).clamp(min=0).sum(dim=0)


def covering(
    weights: Tensor, features: Tensor, count: int, alpha: float, combine: Literal["multi", "add"]
) -> list[int]:
    """``count`` of the rows (P, width) in the order in which they are picked."""
    cosine, weight = cosines(features), weights.double() ** alpha
    covered = cosine.new_zeros(len(cosine))
    picked: list[int] = []
    while len(picked) < count:
        gains = coverage_gains(cosine, covered)
        worth = (gains * weight if combine == "multi" else gains + weight).tolist()
        rest = [i for i in range(len(worth)) if i not in picked]
        best = max(rest, key=lambda i: (worth[i], -i))
        picked.append(best)
        covered = covered.maximum(cosine[best])
    return picked


def scope(
    model: Any,
    inputs: Mapping[str, Tensor],
    generated: Sequence[int] = (),
    *,
    count: int,
    alpha: float = 1.0,
    combine: Literal["multi", "add"] = "multi",
) -> Run:
    """Keep ``count`` patches; the class attention is summed over heads."""

    def choose(tile: Tile, rows: int) -> list[int]:
        return sorted(covering(tile.class_attention().sum(dim=0), tile.patches, rows, alpha, combine))

    return run_patches(model, inputs, generated, count=count, choose=choose)


ORACLES = (
    MethodOracle(
        method="scope",
        cases={
            "many": Case({"layers": (0,), "counts": (62,)}, partial(scope, count=62)),
            "few": Case({"layers": (0,), "counts": (11,)}, partial(scope, count=11)),
            # without weights, gains are nearly equal once most rows are covered
            "coverage-only": Case(
                {"layers": (0,), "counts": (10,), "alpha": 0.0}, partial(scope, count=10, alpha=0.0)
            ),
            "light": Case({"layers": (0,), "counts": (40,), "alpha": 0.4}, partial(scope, count=40, alpha=0.4)),
            "heavy": Case({"layers": (0,), "counts": (40,), "alpha": 2.5}, partial(scope, count=40, alpha=2.5)),
            "added": Case(
                {"layers": (0,), "counts": (40,), "combine": "add"}, partial(scope, count=40, combine="add")
            ),
            "added-roots": Case(
                {"layers": (0,), "counts": (40,), "combine": "add", "alpha": 0.3},
                partial(scope, count=40, combine="add", alpha=0.3),
            ),
        },
        options={
            "layers": Refused((3,), "scope acts before the decoder; allowed is 0"),
            "counts": Changes((30,), keeps(30)),
            "schedule": Refused("paper", PAPER),
            "alpha": Changes(2.5, same_counts),
            "combine": Changes("add", same_counts, all_values=("multi", "add")),
        },
    ),
)
