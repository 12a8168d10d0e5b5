"""The methods with at most one drop: no pruning, a given random subset, and FastV (arXiv:2403.06764)."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from reference.full_length import Run, State, keep_visual, last_row_scores, run_full_length, top
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
