"""The methods with at most one drop: no pruning, a given random subset, and FastV (arXiv:2403.06764)."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Literal

from reference.declared import Case, MethodOracle
from reference.full_length import Run, State, keep_visual, last_row_scores, run_full_length, top
from reference.options import NO_PAPER, Changes, Refused, Unused, at, keeps, same_counts
from reference.vision import start_state
from torch import Tensor


def vanilla(model: Any, inputs: Mapping[str, Tensor], generated: Sequence[int] = ()) -> Run:
    """Run the unpruned model."""
    return run_full_length(model, start_state(model, inputs), generated, {})


def random_drop(
    model: Any,
    inputs: Mapping[str, Tensor],
    generated: Sequence[int] = (),
    *,
    kept_indices: Sequence[int],
    boundary: int,
    reindex: bool = False,
) -> Run:
    """Keep the given visual indices from ``boundary`` on, in raster order, whatever drew them."""

    def edit(state: State, entered: State | None, record: Run) -> State:
        wanted = set(kept_indices)
        new = keep_visual(state, [place for place in state.visual if state.rows[place].index in wanted], record)
        return new.reindexed() if reindex else new

    return run_full_length(model, start_state(model, inputs), generated, {boundary: edit})


def fastv(
    model: Any,
    inputs: Mapping[str, Tensor],
    generated: Sequence[int] = (),
    *,
    boundary: int,
    count: int,
    scope: Literal["full", "visual"] = "full",
) -> Run:
    """Keep the ``count`` visual tokens that the last prompt row attends to most in layer ``boundary - 1``."""
    decoder = model.model.language_model

    def edit(state: State, entered: State | None, record: Run) -> State:
        if entered is None:
            raise ValueError("boundary is 0, FastV needs an executed layer: 1 or more")
        scores = last_row_scores(decoder, boundary - 1, entered, entered.visual, scope=scope)
        record.scores.append(scores)
        return keep_visual(state, [state.visual[index] for index in top(count, scores)], record)

    return run_full_length(model, start_state(model, inputs), generated, {boundary: edit})


ORACLES = (
    MethodOracle(
        method="vanilla",
        free=True,
        cases={"all": Case({}, vanilla)},
        options={
            "layers": Refused((3,), "vanilla keeps every token"),
            "counts": Refused((30,), "vanilla keeps every token"),
            "schedule": Unused("paper", "every schedule of no pruning is the same"),
        },
    ),
    MethodOracle(
        method="random",
        free=True,
        no_cases="which rows stay is what the generator draws; its tests are about seeds",
        options={
            "layers": Changes((5,), at(5)),
            "counts": Changes((30,), keeps(30)),
            "schedule": Refused("paper", NO_PAPER),
        },
    ),
    MethodOracle(
        method="fastv",
        score_layers={2: 1},
        cases={
            "k2": Case({"layers": (2,), "counts": (50,)}, partial(fastv, boundary=2, count=50)),
            "k3": Case({"layers": (3,), "counts": (20,)}, partial(fastv, boundary=3, count=20)),
            "visual-softmax": Case(
                {"layers": (2,), "counts": (50,), "scope": "visual"},
                partial(fastv, boundary=2, count=50, scope="visual"),
            ),
        },
        options={
            "layers": Changes((5,), at(5)),
            "counts": Changes((30,), keeps(30)),
            # 166 of 576
            "schedule": Changes("paper", keeps(round(166 / 4)), (("layers", (2,)),), budget=1 / 3),
            "scope": Changes("visual", same_counts),
        },
    ),
)
