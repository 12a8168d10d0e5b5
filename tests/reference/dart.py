"""DART (arXiv:2502.11494): pivots by key norm, then the rows that are least alike to one pivot after the other."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Literal

from reference.declared import Case, MethodOracle
from reference.full_length import Run, State, keep_visual, key_rows, run_full_length, top
from reference.options import Changes, at, keeps, same_counts
from reference.vision import start_state
from torch import Tensor

PIVOTS = 4


def dart(
    model: Any,
    inputs: Mapping[str, Tensor],
    generated: Sequence[int] = (),
    *,
    boundary: int,
    count: int,
    order: Literal["norm", "official"] = "norm",
) -> Run:
    """Keep ``count`` visual tokens: four pivots, and those least alike to four visual and four text pivots.

    ``scores`` holds the key norms of the visual rows; ``raters`` the text pivots as slots in the prompt.
    """
    decoder = model.model.language_model

    def edit(state: State, entered: State | None, record: Run) -> State:
        if entered is None:
            raise ValueError("boundary is 0, DART needs an executed layer: 1 or more")
        norms = key_rows(decoder, boundary - 1, entered, range(len(entered.rows))).double().abs().sum(dim=1)
        record.scores.append(norms[entered.visual])
        image, text = pivots(norms, state.visual), pivots(norms, state.question)
        record.raters = [state.rows[place].index for place in text]
        if count >= len(state.visual):
            return keep_visual(state, state.visual, record)
        pool = [place for place in state.visual if place not in image]
        features = decoder.norm(state.hidden).double()
        visited = pivot_order(image, text, order)
        taken = least_alike(features[visited], features[pool], picks_per_pivot(count))
        return keep_visual(state, [*image, *(pool[number] for number in taken)], record)

    return run_full_length(model, start_state(model, inputs), generated, {boundary: edit})


def pivots(norms: Tensor, places: Sequence[int]) -> list[int]:
    """The four of these places with the largest norms, falling."""
    if len(places) < PIVOTS:
        raise ValueError(f"{len(places)} rows, DART needs {PIVOTS} pivots among them")
    return [places[number] for number in top(PIVOTS, norms[list(places)])]


def pivot_order(image: Sequence[int], text: Sequence[int], order: Literal["norm", "official"]) -> list[int]:
    """Places of the pivots in the order of their turns.

    The published code walks through a Python set of places, whose order follows from the places alone.
    """
    return list(set([*image, *text])) if order == "official" else [*image, *text]


def picks_per_pivot(count: int) -> list[int]:
    """How many rows each of the eight pivots takes so that ``count`` rows are kept with the four visual pivots."""
    if count < PIVOTS:
        raise ValueError(f"count is {count}, the {PIVOTS} visual pivots are always kept")
    each, rest = divmod(count - PIVOTS, 2 * PIVOTS)
    return [each + 1 if number < rest else each for number in range(2 * PIVOTS)]


def least_alike(turns: Tensor, pool: Tensor, picks: Sequence[int]) -> list[int]:
    """Numbers of the pool's rows that are taken: at each turn those of lowest cosine that are still there."""
    taken: list[int] = []
    for pivot, number in zip(turns, picks, strict=True):
        cosines = (pool @ pivot / (pool.norm(dim=1) * pivot.norm())).tolist()
        left = [index for index in range(len(pool)) if index not in taken]
        taken.extend(sorted(left, key=lambda index: (cosines[index], index))[:number])
    return taken


ORACLES = (
    MethodOracle(
        method="dart",
        cases={
            # 46 others: the first six pivots take six, the last two five
            "norm": Case({"layers": (2,), "counts": (50,)}, partial(dart, boundary=2, count=50)),
            "official": Case(
                {"layers": (3,), "counts": (36,), "order": "official"},
                partial(dart, boundary=3, count=36, order="official"),
            ),
            "pivots-alone": Case({"layers": (1,), "counts": (4,)}, partial(dart, boundary=1, count=4)),
        },
        options={
            "layers": Changes((5,), at(5)),
            "counts": Changes((30,), keeps(30)),
            # 196 of 576
            "schedule": Changes("paper", keeps(196 // 4), (("layers", (2,)),), budget=1 / 3),
            "order": Changes("official", same_counts),
        },
        least=PIVOTS,
    ),
)
