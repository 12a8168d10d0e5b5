"""CDPruner (arXiv:2506.10967) without its text tower: patches whose projected features span the largest volume."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Literal

import torch
from reference.declared import Case, MethodOracle
from reference.full_length import Run
from reference.options import PAPER, Changes, Refused, keeps, same_counts
from reference.patch_choice import Tile, cosines, look, run_patches
from reference.vision import start_state
from torch import Tensor

Relevance = Literal["none", "embed"]


def largest_volume(kernel: Tensor, count: int) -> list[int]:
    """``count`` rows of a kernel (P, P) in the order in which they are picked.

    Each one multiplies the determinant of the picked part of the kernel by as much as possible: by its residual, what
    is left of its diagonal entry once the directions of those before it are taken out.
    """
    kernel = kernel.double()
    residual = kernel.diagonal().clone()
    directions: list[Tensor] = []
    picked: list[int] = []
    while len(picked) < count:
        left = residual.tolist()
        best = max((i for i in range(len(left)) if i not in picked), key=lambda i: (left[i], -i))
        new = kernel[best].clone()
        for direction in directions:
            new -= direction[best] * direction
        new /= max(left[best], 1e-12) ** 0.5
        directions.append(new)
        residual = residual - new.square()
        picked.append(best)
    return picked


def conditional_kernel(features: Tensor, relevance: Tensor) -> Tensor:
    """Cosines of (P, width) features, every row and column weighed by its relevance (P,)."""
    cosine = cosines(features)
    cosine.fill_diagonal_(1.0)
    weight = relevance.double()
    return weight[:, None] * cosine * weight[None, :]


def scaled(closeness: Tensor) -> Tensor:
    """Any numbers, brought to the range from almost 0 to 1; equal ones are 1."""
    lowest, highest = closeness.min(), closeness.max()
    if lowest == highest:
        return torch.ones_like(closeness)
    return (closeness - lowest + 1e-6) / (highest - lowest)


def text_relevance(model: Any, inputs: Mapping[str, Tensor], projected: Sequence[Tensor]) -> list[Tensor]:
    """Per tile, how close each patch is to the mean embedding of the text after the image, scaled over all tiles."""
    start = start_state(model, inputs)
    text = start.hidden[start.visual[-1] + 1 :].double().mean(dim=0)
    rows = torch.cat([*projected]).double()
    closeness = (rows * text).sum(dim=1) / (rows.norm(dim=1) * text.norm())
    return list(scaled(closeness).split([len(part) for part in projected]))


@torch.no_grad()
def cdpruner(
    model: Any,
    inputs: Mapping[str, Tensor],
    generated: Sequence[int] = (),
    *,
    count: int,
    relevance: Relevance = "none",
) -> Run:
    """Keep ``count`` patches; with "none" every patch is as relevant as any other."""
    projected = [model.model.multi_modal_projector(tile.patches) for tile in look(model, inputs)]
    weights = [torch.ones(len(part)) for part in projected]
    if relevance == "embed":
        weights = text_relevance(model, inputs, projected)
    kernels = iter([conditional_kernel(*of_tile) for of_tile in zip(projected, weights, strict=True)])

    def choose(tile: Tile, rows: int) -> list[int]:
        return sorted(largest_volume(next(kernels), rows))

    return run_patches(model, inputs, generated, count=count, choose=choose)


ORACLES = (
    MethodOracle(
        method="cdpruner",
        # fewer rows a tile than the 64 dimensions of the projected features
        cases={
            "many": Case({"layers": (0,), "counts": (48,)}, partial(cdpruner, count=48)),
            "few": Case({"layers": (0,), "counts": (11,)}, partial(cdpruner, count=11)),
            "embed": Case(
                {"layers": (0,), "counts": (48,), "relevance": "embed"},
                partial(cdpruner, count=48, relevance="embed"),
            ),
            "embed-few": Case(
                {"layers": (0,), "counts": (11,), "relevance": "embed"},
                partial(cdpruner, count=11, relevance="embed"),
            ),
        },
        options={
            "layers": Refused((3,), "cdpruner acts before the decoder; allowed is 0"),
            "counts": Changes((30,), keeps(30)),
            "schedule": Refused("paper", PAPER),
            "relevance": Changes("embed", same_counts, all_values=("none", "embed")),
        },
    ),
)
