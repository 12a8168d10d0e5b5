"""VLM-Pruner (arXiv:2512.02700): rows chosen outwards from four pivots, the dropped ones blended into the kept."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, NamedTuple

import torch
from reference.declared import Case, MethodOracle
from reference.full_length import Run, State, keep_visual, key_rows, run_full_length, top
from reference.options import Answer, Changes, at, keeps, same_counts
from reference.vision import pack, start_state
from torch import Tensor

Table = Sequence[Sequence[float]]
"""A number for each pair of visual rows."""
PIVOTS, CHUNK, CHANNELS, STEP = 4, 16, 256, 0.1


@dataclass(frozen=True)
class Options:
    """Hyper-parameters, with the published values."""

    mode: Literal["clean", "official"] = "clean"
    buffer: float = 0.5
    threshold: float = 0.8
    blend: float = 0.7


class GridPlace(NamedTuple):
    """Where a visual token is seen: in which view of the image, and there in which row and column."""

    view: int
    row: int
    column: int


def vlm_pruner(
    model: Any,
    inputs: Mapping[str, Tensor],
    generated: Sequence[int] = (),
    *,
    boundary: int,
    count: int,
    options: Options | None = None,
) -> Run:
    """Keep ``count`` visual tokens (fewer if the published loop stops short) and blend the others into them."""
    decoder, given = model.model.language_model, options or Options()
    start = start_state(model, inputs)
    grid = grid_places(model, inputs, len(start.visual))
    vision = model.config.vision_config
    side = vision.image_size // vision.patch_size

    def edit(state: State, entered: State | None, record: Run) -> State:
        if entered is None:
            raise ValueError("boundary is 0, VLM-Pruner needs an executed layer: 1 or more")
        keys = key_rows(decoder, boundary - 1, entered, entered.visual).double()
        norms = keys.abs().sum(dim=1)
        record.scores.append(norms)
        if count >= len(state.visual):
            return keep_visual(state, state.visual, record)
        states = state.hidden[state.visual]
        likeness = cosines(varied_channels(states.double())).tolist()
        where = [grid[state.rows[place].index] for place in state.visual]
        apart = [[grid_distance(one, other, side) for other in where] for one in where]
        kept = sorted(outwards(likeness, apart, farthest(keys, top(1, norms)[0], PIVOTS), count, given))
        hidden = state.hidden.clone()
        hidden[[state.visual[index] for index in kept]] = blended(states, likeness, kept, given.blend)
        return keep_visual(replace(state, hidden=hidden), [state.visual[index] for index in kept], record)

    return run_full_length(model, start, generated, {boundary: edit})


def grid_places(model: Any, inputs: Mapping[str, Tensor], tokens: int) -> list[GridPlace]:
    """Place of every visual token; the newline after a line stands one column behind its last patch."""
    if "image_sizes" not in inputs:
        side = int(tokens**0.5)
        return [GridPlace(0, index // side, index % side) for index in range(tokens)]
    vision = model.config.vision_config
    packing = pack(model, inputs["image_sizes"][0].tolist(), vision.image_size // vision.patch_size)
    found: dict[int, GridPlace] = {}
    for view, lines in enumerate(packing.grids):
        for row, line in enumerate(lines):
            found.update({index: GridPlace(view, row, column) for column, index in enumerate(line)})
            if view == 1:
                found[line[-1] + 1] = GridPlace(view, row, len(line))
    return [found[index] for index in range(tokens)]


def grid_distance(one: GridPlace, other: GridPlace, side: int) -> float:
    """Euclidean in grid steps, of the diagonal of a tile that has ``side`` steps a side; 1 between two views."""
    if one.view != other.view:
        return 1.0
    squares: int = (one.row - other.row) ** 2 + (one.column - other.column) ** 2
    return float(squares**0.5 / (side * 2**0.5))


def farthest(keys: Tensor, first: int, count: int) -> list[int]:
    """``count`` rows: the first one, then always the one whose nearest chosen row is farthest away."""
    chosen = [first]
    while len(chosen) < count:
        nearest = [min(float((key - keys[other]).norm()) for other in chosen) for key in keys]
        left = [index for index in range(len(keys)) if index not in chosen]
        chosen.append(max(left, key=lambda index: (nearest[index], -index)))
    return chosen


def varied_channels(states: Tensor, count: int = CHANNELS) -> Tensor:
    """The columns whose values differ most between the rows; all, if there are no more than ``count``."""
    if states.shape[1] <= count:
        return states
    variance = states.var(dim=0, correction=0)
    return states[:, sorted(top(count, variance))]


def cosines(rows: Tensor) -> Tensor:
    """(rows, rows)."""
    unit = rows / rows.norm(dim=1, keepdim=True)
    return unit @ unit.T


def redundancy(likeness: Table, apart: Table, chosen: Sequence[int], index: int, buffer: float) -> float:
    """Largest likeness to a chosen row, raised by the distance to the nearest chosen row."""
    away = min(apart[index][other] for other in chosen)
    return max(likeness[index][other] * (1 + buffer * away) for other in chosen)


def outwards(likeness: Table, apart: Table, pivots: Sequence[int], count: int, options: Options) -> list[int]:
    """Rows in the order in which they are chosen, the pivots first: pass after pass with a rising threshold."""
    chosen, passes = list(pivots), 0
    while len(chosen) < count:
        threshold = options.threshold + passes * STEP
        found = one_pass(likeness, apart, chosen, count, threshold, options.buffer)
        if not found and options.mode == "official":
            break
        chosen.extend(found)
        passes += 1
    return chosen


def one_pass(
    likeness: Table, apart: Table, before: Sequence[int], count: int, threshold: float, buffer: float
) -> list[int]:
    """What one pass adds to the rows chosen before it."""
    chosen = list(before)
    rest = [index for index in range(len(likeness)) if index not in chosen]
    at_start = {index: redundancy(likeness, apart, chosen, index, buffer) for index in rest}
    order = sorted(rest, key=lambda index: (at_start[index], index))
    for begin in range(0, len(order), CHUNK):
        chunk = order[begin : begin + CHUNK]
        fresh = {index: redundancy(likeness, apart, chosen, index, buffer) for index in chunk}
        accepted = [index for index in chunk if fresh[index] < threshold]
        if len(chosen) + len(accepted) > count:
            accepted = sorted(chunk, key=lambda index: fresh[index])[: count - len(chosen)]
        chosen.extend(accepted)
        if len(chosen) == count or (begin == 0 and not accepted):
            break
    return chosen[len(before) :]


def blended(states: Tensor, likeness: Table, kept: Sequence[int], blend: float) -> Tensor:
    """The kept rows after every dropped row has gone to the kept row that it is most alike to."""
    groups: dict[int, list[int]] = {place: [] for place in kept}
    for index in range(len(states)):
        if index not in groups:
            groups[max(kept, key=lambda place: (likeness[index][place], -place))].append(index)
    rows = []
    for place, members in groups.items():
        weights = [likeness[index][place] for index in members]
        row = states[place].double()
        if sum(weights) > 0:
            parts = [weight * states[index].double() for weight, index in zip(weights, members, strict=True)]
            mean = torch.stack(parts).sum(dim=0) / max(sum(weights), 1e-8)
            row = (1 - blend) * row + blend * mean
        rows.append(row.to(states.dtype))
    return torch.stack(rows)


def fewer_rows(without: Answer, given: Answer) -> bool:
    """The same start, and an end before the count is reached."""
    return set(given.kept[0]) <= set(without.kept[0]) and given.rows[-1] < without.rows[-1]


def same_rows(without: Answer, given: Answer) -> bool:
    """The choice stays, what the rows hold does not."""
    return without.kept == given.kept and without.rows == given.rows


ORACLES = (
    MethodOracle(
        method="vlmpruner",
        cases={
            "clean": Case({"layers": (2,), "counts": (50,)}, partial(vlm_pruner, boundary=2, count=50)),
            # several passes, and each threshold but the last leaves rows over
            "low-threshold": Case(
                {"layers": (2,), "counts": (100,), "threshold": 0.3, "blend": 0.4},
                partial(vlm_pruner, boundary=2, count=100, options=Options(threshold=0.3, blend=0.4)),
            ),
            "wide-buffer": Case(
                {"layers": (1,), "counts": (30,), "buffer": 3.0},
                partial(vlm_pruner, boundary=1, count=30, options=Options(buffer=3.0)),
            ),
            "official-stops-short": Case(
                {"layers": (3,), "counts": (20,), "mode": "official", "threshold": 0.2},
                partial(vlm_pruner, boundary=3, count=20, options=Options(mode="official", threshold=0.2)),
            ),
        },
        options={
            "layers": Changes((5,), at(5)),
            "counts": Changes((30,), keeps(30)),
            # 192 of 576
            "schedule": Changes("paper", keeps(192 // 4), (("layers", (2,)),), budget=1 / 3),
            "buffer": Changes(3.0, same_counts),
            "threshold": Changes(0.3, same_counts),
            "blend": Changes(0.0, same_rows),
            "mode": Changes("official", fewer_rows, (("threshold", 0.2),)),
        },
        least=PIVOTS,
        rewrites=True,
    ),
)
