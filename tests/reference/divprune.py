"""DivPrune (arXiv:2503.02175): visual tokens of the decoder's input that lie as far apart as possible."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from reference.declared import Case, MethodOracle
from reference.full_length import Run, State, keep_visual, run_full_length
from reference.options import PAPER, Changes, Refused, keeps
from reference.patch_choice import cosines
from reference.vision import start_state
from torch import Tensor


def farthest_apart(vectors: Tensor, count: int) -> list[int]:
    """``count`` of the rows (N, width), in the order in which they are picked.

    The first one is farthest from its nearest neighbour; every other one is farthest from the nearest picked one.
    """
    distance = (1 - cosines(vectors)).tolist()
    everything = range(len(distance))
    nearest = [min((distance[i][j] for j in everything if j != i), default=0.0) for i in everything]
    picked = [nearest.index(max(nearest))] if count else []
    while len(picked) < count:
        rest = [i for i in everything if i not in picked]
        to_picked = [min(distance[i][j] for j in picked) for i in rest]
        picked.append(rest[to_picked.index(max(to_picked))])
    return picked


def divprune(model: Any, inputs: Mapping[str, Tensor], generated: Sequence[int] = (), *, count: int) -> Run:
    """Keep ``count`` of the N visual rows, newline rows among them, and number the prompt anew."""

    def edit(state: State, entered: State | None, record: Run) -> State:
        picked = farthest_apart(state.hidden[state.visual], count)
        return keep_visual(state, [state.visual[index] for index in picked], record).reindexed()

    return run_full_length(model, start_state(model, inputs), generated, {0: edit})


ORACLES = (
    MethodOracle(
        method="divprune",
        cases={
            "many": Case({"layers": (0,), "counts": (58,)}, partial(divprune, count=58)),
            "few": Case({"layers": (0,), "counts": (9,)}, partial(divprune, count=9)),
            "one": Case({"layers": (0,), "counts": (1,)}, partial(divprune, count=1)),
        },
        options={
            "layers": Refused((3,), "divprune acts before the decoder; allowed is 0"),
            "counts": Changes((30,), keeps(30)),
            "schedule": Refused("paper", PAPER),
        },
    ),
)
