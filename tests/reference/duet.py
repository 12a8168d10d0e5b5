"""DUET-VLM (arXiv:2602.18846): VisionZip with contextual tokens from the better ones, then PyramidDrop by all text."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple

import torch
from reference.declared import Case, MethodOracle
from reference.full_length import Edit, Merged, Run, State, attention_rows, keep_visual, run_full_length, top
from reference.options import Changes, at, same_start
from reference.per_tile import (
    Source,
    class_scores,
    enter,
    head_mean_keys,
    in_sequence,
    layer_number,
    nothing,
    packing_of,
    spread,
    tower_layers,
)
from reference.vision import tiles
from torch import Tensor

WIDTH = 4
"""Candidates for each contextual token."""
Queries = Literal["all", "last"]


class Halves(NamedTuple):
    """Of a tile: patches that stay, ascending, and groups of patches that become one row each, the anchor first."""

    patches: list[int]
    groups: list[list[int]]


def choose(scores: Tensor, keys: Tensor, dominant: int, contextual: int) -> Halves:
    """``dominant`` counts the class token; ``keys`` are of unit length, one a patch."""
    falling = top(len(scores), scores)
    rest = falling[dominant - 1 :]
    pool = rest[: WIDTH * contextual]
    anchors = pool[:: max(1, len(pool) // contextual)][:contextual] if contextual else []
    groups = [[anchor] for anchor in anchors]
    for patch in pool:
        if patch not in anchors:
            likeness = [float(keys[patch] @ keys[anchor]) for anchor in anchors]
            groups[likeness.index(max(likeness))].append(patch)
    return Halves(sorted(falling[: dominant - 1]), groups)


def contextual_row(features: Tensor, group: Sequence[int]) -> Tensor:
    """The anchor plus the mean of those that joined it."""
    anchor, *others = group
    return features[anchor] + features[others].mean(dim=0) if others else features[anchor]


def first_stage(model: Any, inputs: Mapping[str, Tensor], record: Run, dominant: int, contextual: int) -> State:
    """The decoder's input: of each tile the class token, patches and contextual tokens."""
    shown, vectors = tiles(inputs), dict[Source, Tensor]()
    module = model.model.vision_tower.encoder.layers[layer_number(model)]
    shares = zip(shown, spread(dominant, len(shown)), spread(contextual, len(shown)), strict=True)
    for tile, (pixels, many, few) in enumerate(shares):
        layer = tower_layers(model, pixels)[layer_number(model)]
        scores = class_scores(layer)
        record.scores.append(scores)
        chosen = choose(scores, head_mean_keys(layer, module)[1:], many, few)
        vectors["cls", tile, 0] = layer.after[0]
        for patch in chosen.patches:
            vectors["patch", tile, patch] = layer.after[patch + 1]
        for number, group in enumerate(chosen.groups):
            vectors["merged", tile, number] = contextual_row(layer.after[1:], group)
            record.merged.append(Merged(0, tuple((tile, patch) for patch in group), vectors["merged", tile, number]))
    sources = in_sequence(packing_of(model, inputs), list(vectors), ("cls", "merged"))
    visual = model.model.multi_modal_projector(torch.stack([vectors[source] for source in sources]))
    return enter(model, inputs, record, sources, visual)


@torch.no_grad()
def duet(
    model: Any,
    inputs: Mapping[str, Tensor],
    generated: Sequence[int] = (),
    *,
    boundaries: Sequence[int],
    counts: tuple[int, int, int, int],
    queries: Queries = "all",
) -> Run:
    """``counts``: dominant and contextual rows before the decoder, then what stays at each of two boundaries."""
    decoder, record = model.model.language_model, nothing()
    start = first_stage(model, inputs, record, counts[0], counts[1])
    question = start.rows[start.visual[-1] + 1 :]

    def stage(boundary: int, count: int) -> Edit:
        def edit(state: State, entered: State | None, record: Run) -> State:
            asking = [place for place, row in enumerate(state.rows) if row in question]
            asking = asking if queries == "all" else asking[-1:]
            attention = attention_rows(decoder, boundary, state, asking, list(range(len(state.rows))))
            scores = attention.mean(dim=0).mean(dim=0)[state.visual]
            record.scores.append(scores)
            return keep_visual(state, [state.visual[index] for index in top(count, scores)], record).reindexed()

        return edit

    edits = {boundary: stage(boundary, count) for boundary, count in zip(boundaries, counts[2:], strict=True)}
    return run_full_length(model, start, generated, edits, record)


def case(
    counts: tuple[int, int, int, int], *, later: tuple[int, int] = (8, 12), queries: Queries | None = None
) -> Case:
    """A case with these rows."""
    options: Any = {} if queries is None else {"queries": queries}
    run = partial(duet, boundaries=later, counts=counts, **options)
    return Case({"layers": (0, *later), "counts": counts, **options}, run)


ORACLES = (
    MethodOracle(
        method="duet",
        # unless `counts` say otherwise nothing stays at the last stage, and so nothing asks
        score_layers={0: None, 8: 8, 12: None},
        cases={
            "three": case((45, 15, 30, 10)),
            "none-at-last": case((43, 12, 20, 0)),
            "early-last": case((45, 15, 30, 10), later=(3, 6), queries="last"),
            "no-contextual": case((50, 0, 25, 5)),
            # fewer than four candidates for each contextual token
            "short-pool": case((80, 20, 60, 30), later=(5, 9)),
        },
        options={
            "layers": Changes((0, 4, 9), at(0, 4, 9)),
            # 45 with CLS, and 15 made ones
            "counts": Changes(
                (45, 15, 30, 10),
                lambda without, given: sorted({*given.rows}) == [10, 30, 60] and len(given.kept[0]) == 44,
            ),
            # 300 and 7, 153, none of 576, rounded one by one
            "schedule": Changes(
                "paper",
                lambda without, given: sorted({*given.rows}) == [0, 38, 77] and len(given.kept[0]) == 74,
                (("layers", (0, 4, 9)),),
                budget=1 / 3,
            ),
            "queries": Changes("last", same_start, all_values=("all", "last")),
        },
        # CLS was counted among the kept
        made=lambda rest, merged, options, last: min(merged, rest + 1) if rest else 0,
    ),
)
