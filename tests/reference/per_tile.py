"""What methods that choose inside each encoder input ("tile") share: spreading counts, tower rows, row order."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from reference.full_length import Edit, Row, Run, State, keep_visual, last_row_scores, top, visual_indices
from reference.vision import ClipLayer, Packing, clip_layers, pack, start_state
from torch import Tensor

Source = tuple[str, int, int]
"""Where a row comes from: ("patch", tile, patch), or another word for a row that belongs to no patch, and a number."""


def spread(count: int, parts: int) -> list[int]:
    """As even as whole numbers allow, the first parts one larger."""
    each, left = divmod(count, parts)
    return [each + (part < left) for part in range(parts)]


def layer_number(model: Any) -> int:
    """0-based number of the CLIP layer whose output the projector reads."""
    number: int = len(model.model.vision_tower.encoder.layers) + model.config.vision_feature_layer
    return number


def tower_layers(model: Any, pixels: Tensor) -> list[ClipLayer]:
    """Every executed CLIP layer of one tile."""
    return clip_layers(model.model.vision_tower, pixels)


def class_scores(layer: ClipLayer, *, mean: bool = False) -> Tensor:
    """Attention of the class token to the patches, heads summed or averaged."""
    rows = layer.attention[:, 0, 1:]
    return rows.mean(dim=0) if mean else rows.sum(dim=0)


def head_mean_keys(layer: ClipLayer, module: Any) -> Tensor:
    """Key projections of all tokens, averaged over heads, of unit length."""
    keys = module.self_attn.k_proj(module.layer_norm1(layer.before))
    metric = keys.reshape(len(keys), layer.attention.shape[0], -1).mean(dim=1)
    unit: Tensor = metric / metric.norm(dim=1, keepdim=True)
    return unit


def grid_side(model: Any) -> int:
    """Patches on one side of a tile."""
    vision = model.config.vision_config
    side: int = vision.image_size // vision.patch_size
    return side


def packing_of(model: Any, inputs: Mapping[str, Tensor]) -> Packing:
    """The packing of the visual block; LLaVA-1.5 has one tile and no newline."""
    side = grid_side(model)
    if "image_sizes" in inputs:
        return pack(model, inputs["image_sizes"][0].tolist(), side)
    lines = [[line * side + column for column in range(side)] for line in range(side)]
    return Packing([(0, patch) for patch in range(side * side)], [lines], [])


def in_sequence(packing: Packing, sources: Sequence[Source], words: Sequence[str]) -> list[Source]:
    """Row order of several tiles.

    The base tile comes in its own order; then the patches of the other tiles in the raster order of the stitched grid,
    padding included; then the rows of the other tiles that belong to no patch, kind after kind in the order of
    ``words``, and of one kind tile after tile.
    """
    others = {source for source in sources if source[1] > 0}
    raster = [("patch", tile, patch) for line in packing.stitched for tile, patch in line]
    return [
        *(source for source in sources if source[1] == 0),
        *(source for source in raster if source in others),
        *(source for word in words for source in sources if source[0] == word and source in others),
    ]


def enter(model: Any, inputs: Mapping[str, Tensor], record: Run, sources: Sequence[Source], visual: Tensor) -> State:
    """Decoder input with these rows in place of the visual block, positions compact; notes the kept indices.

    A patch is labelled with its visual index; a row that stands for no patch, or for one that only shows padding, is
    a made one.
    """
    packing = packing_of(model, inputs)
    index = {entry: number for number, entry in enumerate(packing.entries) if entry is not None}
    labels = []
    for number, (word, tile, patch) in enumerate(sources):
        known = word == "patch" and (tile, patch) in index
        labels.append(Row("visual", index[tile, patch]) if known else Row("made", number))
    state = start_state(model, inputs, visual, kind="made")
    before = state.visual[0]
    rows = (*state.rows[:before], *labels, *state.rows[before + len(labels) :])
    state = replace(state, rows=rows)
    record.kept_indices.append(visual_indices(state))
    return state


def middle_stage(model: Any, boundary: int, layer: int, count: int, *, compact: bool = True) -> Edit:
    """Keeps the ``count`` visual rows that the last row attends to most in ``layer``, the last run or the next one."""
    decoder = model.model.language_model

    def edit(state: State, entered: State | None, record: Run) -> State:
        seen = entered if layer == boundary - 1 else state
        if seen is None:
            raise ValueError("boundary is 0, no layer has been executed")
        scores = last_row_scores(decoder, layer, seen, seen.visual, scope="full")
        record.scores.append(scores)
        new = keep_visual(state, [state.visual[index] for index in top(min(count, len(scores)), scores)], record)
        return new.reindexed() if compact else new

    return edit


def unit(vectors: Tensor) -> Tensor:
    """Rows of length 1."""
    return vectors / vectors.norm(dim=1, keepdim=True).clamp(min=1e-12)


def nothing() -> Run:
    """An empty record."""
    return Run(logits=torch.empty(0))
