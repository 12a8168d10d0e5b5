"""PyramidDrop (arXiv:2410.17247): staged drops scored with the layer about to run, positions numbered anew."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Literal

from reference.declared import Case, MethodOracle
from reference.full_length import Edit, Run, State, keep_visual, last_row_scores, run_full_length, top
from reference.options import STAGED, THREE, Changes, at, keeps, same_start
from reference.vision import start_state
from torch import Tensor


def pyramid_drop(
    model: Any,
    inputs: Mapping[str, Tensor],
    generated: Sequence[int] = (),
    *,
    boundaries: Sequence[int],
    counts: Sequence[int],
    positions: Literal["reindex", "keep"] = "reindex",
) -> Run:
    """Keep ``counts[j]`` visual tokens from ``boundaries[j]`` on.

    With "reindex" the decode position in each layer is that of the full prompt less the tokens dropped before it.
    """
    decoder = model.model.language_model

    def stage(boundary: int, count: int) -> Edit:
        def edit(state: State, entered: State | None, record: Run) -> State:
            scores = last_row_scores(decoder, boundary, state, state.visual, scope="full")
            record.scores.append(scores)
            new = keep_visual(state, [state.visual[index] for index in top(count, scores)], record)
            return new.reindexed() if positions == "reindex" else new

        return edit

    edits = {boundary: stage(boundary, count) for boundary, count in zip(boundaries, counts, strict=True)}
    return run_full_length(model, start_state(model, inputs), generated, edits)


def geometric_counts(visual_tokens: int, ratios: Sequence[float]) -> list[int]:
    """Tokens after each stage, every ratio taken of the initial number and truncated."""
    return [int(visual_tokens * ratio) for ratio in ratios]


ORACLES = (
    MethodOracle(
        method="pdrop",
        score_layers={3: 3, 6: 6, 9: 9},
        cases={
            "compact": Case(
                {"layers": (3, 6, 9), "counts": (70, 40, 10)},
                partial(pyramid_drop, boundaries=(3, 6, 9), counts=(70, 40, 10)),
            ),
            "keep": Case(
                {"layers": (3, 6, 9), "counts": (70, 40, 10), "positions": "keep"},
                partial(pyramid_drop, boundaries=(3, 6, 9), counts=(70, 40, 10), positions="keep"),
            ),
        },
        options={
            "layers": Changes(THREE, at(*THREE)),
            "counts": Changes((70, 40, 10), keeps(70, 40, 10)),
            # a quarter three times, truncated; at these layers the exact counts are others
            "schedule": Changes("paper", keeps(36, 9, 2), STAGED, budget=1 / 3),
            # not renumbered after the last edit either
            "positions": Changes(
                "keep", lambda without, given: same_start(without, given) and given.end > without.end
            ),
        },
    ),
)
