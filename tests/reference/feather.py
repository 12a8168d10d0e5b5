"""FEATHER (arXiv:2412.13180): scores without rotary embedding, and a uniform grid added at the first stage."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from reference.declared import Case, MethodOracle
from reference.full_length import Edit, Run, State, keep_visual, last_row_scores, run_full_length, top
from reference.options import Changes, at, keeps
from reference.vision import pack, start_state
from torch import Tensor


def uniform_indices(grids: Sequence[Sequence[Sequence[int]]], stride: int) -> list[int]:
    """Every stride-th row and column of each grid of visual indices, from its first row and column."""
    return sorted(index for grid in grids for line in grid[::stride] for index in line[::stride])


def grids_of(model: Any, inputs: Mapping[str, Tensor], visual_tokens: int) -> list[list[list[int]]]:
    """Grids of visual indices: one square for LLaVA-1.5; base tile and unpadded stitched grid for LLaVA-NeXT."""
    if "image_sizes" in inputs:
        vision = model.config.vision_config
        return pack(model, inputs["image_sizes"][0].tolist(), vision.image_size // vision.patch_size).grids
    side = int(visual_tokens**0.5)
    return [[[row * side + column for column in range(side)] for row in range(side)]]


def fill(scores: Tensor, uniform: Sequence[int], count: int) -> list[int]:
    """Take the uniform tokens, then the best others until there are ``count``."""
    if len(uniform) > count:
        raise ValueError(f"count is {count}, the uniform grid alone has {len(uniform)}")
    best = [index for index in top(len(scores), scores) if index not in set(uniform)]
    return sorted([*uniform, *best[: count - len(uniform)]])


def union(scores: Tensor, uniform: Sequence[int], count: int) -> list[int]:
    """Take the ``count`` best tokens and the uniform ones; how many that are depends on the overlap."""
    return sorted({*top(count, scores), *uniform})


def feather_fill(
    model: Any,
    inputs: Mapping[str, Tensor],
    generated: Sequence[int] = (),
    *,
    boundaries: tuple[int, int],
    counts: tuple[int, int],
    stride: int,
) -> Run:
    """FEATHER with exact counts: the first stage fills the uniform grid up to ``counts[0]``."""

    def first(scores: Tensor, uniform: Sequence[int]) -> list[int]:
        return fill(scores, uniform, counts[0])

    return _feather(model, inputs, generated, boundaries, stride, first, lambda tokens: counts[1])


def feather_union(
    model: Any,
    inputs: Mapping[str, Tensor],
    generated: Sequence[int] = (),
    *,
    boundaries: tuple[int, int],
    keep_ratio: float,
    stride: int,
) -> Run:
    """FEATHER as published: union of best and uniform tokens, then the squared ratio of whatever that gave."""

    def first(scores: Tensor, uniform: Sequence[int]) -> list[int]:
        return union(scores, uniform, int(len(scores) * keep_ratio))

    return _feather(model, inputs, generated, boundaries, stride, first, lambda tokens: int(tokens * keep_ratio**2))


def _feather(
    model: Any,
    inputs: Mapping[str, Tensor],
    generated: Sequence[int],
    boundaries: tuple[int, int],
    stride: int,
    first: Any,
    second_count: Any,
) -> Run:
    decoder = model.model.language_model
    start = start_state(model, inputs)
    uniform = uniform_indices(grids_of(model, inputs, len(start.visual)), stride)

    def stage(number: int) -> Edit:
        def edit(state: State, entered: State | None, record: Run) -> State:
            if entered is None:
                raise ValueError("boundary is 0, FEATHER needs an executed layer: 1 or more")
            candidates = entered.visual
            scores = last_row_scores(decoder, boundaries[number] - 1, entered, candidates, scope="visual", rope=False)
            record.scores.append(scores)
            chosen = first(scores, uniform) if number == 0 else top(second_count(len(candidates)), scores)
            return keep_visual(state, [candidates[index] for index in chosen], record)

        return edit

    return run_full_length(model, start, generated, {boundaries[0]: stage(0), boundaries[1]: stage(1)})


def on_grid(stride: int) -> set[int]:
    """Every stride-th row and column of 12 x 12."""
    return {row * 12 + column for row in range(0, 12, stride) for column in range(0, 12, stride)}


LAYERS = {"layers": (4, 8)}
ORACLES = (
    MethodOracle(
        method="feather",
        score_layers={4: 3, 8: 7},
        cases={
            "fill": Case(
                {**LAYERS, "counts": (60, 20), "stride": 3},
                partial(feather_fill, boundaries=(4, 8), counts=(60, 20), stride=3),
            ),
            "fill-stride": Case(
                {**LAYERS, "counts": (60, 20), "stride": 2},
                partial(feather_fill, boundaries=(4, 8), counts=(60, 20), stride=2),
            ),
            "union": Case(
                {**LAYERS, "mode": "union"},
                partial(feather_union, boundaries=(4, 8), keep_ratio=0.3, stride=3),
                budget="1/3",
            ),
            "union-stride": Case(
                {**LAYERS, "mode": "union", "keep_ratio": 0.5, "stride": 5},
                partial(feather_union, boundaries=(4, 8), keep_ratio=0.5, stride=5),
                budget="1/3",
            ),
        },
        options={
            "layers": Changes((3, 6), at(3, 6)),
            "counts": Changes((60, 20), keeps(60, 20)),
            "schedule": Changes("paper", lambda without, given: on_grid(3) <= set(given.kept[0]), budget=1 / 3),
            "mode": Changes(
                "union",
                # 43 by score and 16 on the grid; then 0.09 of what that gave
                lambda without, given: (
                    43 <= len(given.kept[0]) <= 59
                    and on_grid(3) <= set(given.kept[0])
                    and len(given.kept[1]) == int(0.09 * len(given.kept[0]))
                ),
                budget=1 / 3,
            ),
            "stride": Changes(
                2,
                lambda without, given: on_grid(2) <= set(given.kept[0]) and not on_grid(2) <= set(without.kept[0]),
                (("counts", (60, 20)),),
            ),
            "keep_ratio": Changes(
                0.5, lambda without, given: 72 <= len(given.kept[0]) <= 88, (("mode", "union"),), budget=1 / 3
            ),
        },
    ),
)
