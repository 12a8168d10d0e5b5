"""FasterVLM (arXiv:2412.01818, first version): the patches that the class token attends to most."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from reference.declared import Case, MethodOracle
from reference.full_length import Run, keep_visual, run_full_length, top
from reference.options import PAPER, Changes, Refused, keeps
from reference.patch_choice import Tile, look, run_patches
from reference.vision import start_state
from torch import Tensor


def most_attended(tile: Tile, count: int) -> list[int]:
    """The ``count`` best patches by the class token's attention, mean over heads, in raster order."""
    return sorted(top(count, tile.class_attention().mean(dim=0)))


def fastervlm(model: Any, inputs: Mapping[str, Tensor], generated: Sequence[int] = (), *, count: int) -> Run:
    """Keep ``count`` patches; the shorter prompt is numbered from 0."""
    return run_patches(model, inputs, generated, count=count, choose=most_attended)


@torch.no_grad()
def fastervlm_in_place(model: Any, inputs: Mapping[str, Tensor], generated: Sequence[int] = (), *, count: int) -> Run:
    """The same patches of a single tile, every row of the prompt with the position it has without pruning."""
    (tile,) = look(model, inputs)
    full = start_state(model, inputs)
    record = Run(logits=torch.empty(0))
    state = keep_visual(full, [full.visual[patch] for patch in most_attended(tile, count)], record)
    return run_full_length(model, state, generated, {}, record)


ORACLES = (
    MethodOracle(
        method="fastervlm",
        cases={
            "many": Case({"layers": (0,), "counts": (62,)}, partial(fastervlm, count=62)),
            "few": Case({"layers": (0,), "counts": (17,)}, partial(fastervlm, count=17)),
            "in-place": Case(
                {"layers": (0,), "counts": (62,), "positions": "keep"},
                partial(fastervlm_in_place, count=62),
                tiles=False,
            ),
        },
        options={
            "layers": Refused((3,), "fastervlm acts before the decoder; allowed is 0"),
            "counts": Changes((30,), keeps(30)),
            "schedule": Refused("paper", PAPER),
            # the same rows, and what follows them is not renumbered
            "positions": Changes(
                "keep", lambda without, given: without.kept == given.kept and given.end > without.end
            ),
        },
    ),
)
