"""V2Drop: staged drops of the visual rows that the layer just run has moved least."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from reference.declared import Case, MethodOracle
from reference.full_length import Edit, Run, State, keep_visual, run_full_length, top
from reference.options import STAGED, THREE, Changes, at, keeps
from reference.vision import start_state
from torch import Tensor


def v2drop(
    model: Any,
    inputs: Mapping[str, Tensor],
    generated: Sequence[int] = (),
    *,
    boundaries: Sequence[int],
    counts: Sequence[int],
) -> Run:
    """Keep ``counts[j]`` visual tokens, at least one, from ``boundaries[j]`` on.

    ``scores`` holds how far the candidates of each stage moved.
    """

    def stage(count: int) -> Edit:
        def edit(state: State, entered: State | None, record: Run) -> State:
            if entered is None:
                raise ValueError("boundary is 0, V2Drop needs an executed layer: 1 or more")
            moved = movement(entered.hidden[entered.visual], state.hidden[state.visual])
            record.scores.append(moved)
            return keep_visual(state, [state.visual[index] for index in top(max(1, count), moved)], record)

        return edit

    edits = {boundary: stage(count) for boundary, count in zip(boundaries, counts, strict=True)}
    return run_full_length(model, start_state(model, inputs), generated, edits)


def movement(before: Tensor, after: Tensor) -> Tensor:
    """Euclidean length of what was added to each row, (rows,)."""
    return (after.double() - before.double()).square().sum(dim=1).sqrt()


ORACLES = (
    MethodOracle(
        method="v2drop",
        free=True,
        cases={
            "three-stages": Case(
                {"layers": (3, 6, 9), "counts": (70, 40, 10)},
                partial(v2drop, boundaries=(3, 6, 9), counts=(70, 40, 10)),
            ),
            # the second stage scores rows by the layer that ran right after the first drop
            "next-to-each-other": Case(
                {"layers": (1, 2, 12), "counts": (60, 30, 1)},
                partial(v2drop, boundaries=(1, 2, 12), counts=(60, 30, 1)),
            ),
        },
        options={
            "layers": Changes(THREE, at(*THREE)),
            "counts": Changes((70, 40, 10), keeps(70, 40, 10)),
            # 161, 40 and 1 of 576, at least one
            "schedule": Changes("paper", keeps(40, 10, 1), STAGED, budget=2 / 9),
        },
    ),
)
