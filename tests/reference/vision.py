"""From processor outputs to decoder rows: CLIP layer by layer, the projector, and the packing of LLaVA-NeXT."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import torch
from reference.full_length import Row, State
from torch import Tensor


class ClipLayer(NamedTuple):
    """One CLIP layer as executed: its input, its output (tokens, width) and its attention (heads, tokens, tokens)."""

    before: Tensor
    after: Tensor
    attention: Tensor


@torch.no_grad()
def clip_layers(tower: Any, pixels: Tensor, *, interpolate: bool = False) -> list[ClipLayer]:
    """Run the CLIP tower on one tile (3, height, width) and return every layer; token 0 is the class token."""
    hidden = tower.pre_layrnorm(tower.embeddings(pixels[None], interpolate_pos_encoding=interpolate))[0]
    heads = tower.config.num_attention_heads
    layers = []
    for layer in tower.encoder.layers:
        normed = layer.layer_norm1(hidden)
        attention = layer.self_attn
        size = normed.shape[1] // heads
        query, key, value = attention.q_proj(normed), attention.k_proj(normed), attention.v_proj(normed)
        weights, mixed = [], []
        for start in range(0, heads * size, size):
            cut = slice(start, start + size)
            weights.append(torch.softmax(query[:, cut] * size**-0.5 @ key[:, cut].T, dim=1))
            mixed.append(weights[-1] @ value[:, cut])
        middle = hidden + attention.out_proj(torch.cat(mixed, dim=1))
        after = middle + layer.mlp(layer.layer_norm2(middle))
        layers.append(ClipLayer(hidden, after, torch.stack(weights)))
        hidden = after
    return layers


def feature_layer(model: Any, pixels: Tensor, *, interpolate: bool = False) -> tuple[ClipLayer, Any]:
    """The executed CLIP layer whose output the projector reads, together with its module."""
    tower = model.model.vision_tower
    # hidden-state tuples start with the embeddings, so that entry -1 is the output of the last layer
    number = len(tower.encoder.layers) + model.config.vision_feature_layer
    return clip_layers(tower, pixels, interpolate=interpolate)[number], tower.encoder.layers[number]


def tiles(inputs: Mapping[str, Tensor]) -> list[Tensor]:
    """Pixel values of each tile (3, height, width); LLaVA-1.5 has one, tile 0 of LLaVA-NeXT is the base."""
    pixels = inputs["pixel_values"].float()
    return list(pixels[0]) if pixels.dim() == 5 else [pixels[0]]


class Packing(NamedTuple):
    """Visual block of LLaVA-NeXT.

    ``entries`` has one (tile, patch) per visual token, or None for a newline. ``grids`` are lists of rows of visual
    indices, newlines left out: the base tile, then the unpadded stitched grid. ``stitched`` is the stitched grid of
    (tile, patch) before unpadding.
    """

    entries: list[tuple[int, int] | None]
    grids: list[list[list[int]]]
    stitched: list[list[tuple[int, int]]]


def best_tiling(height: int, width: int, pinpoints: Sequence[Sequence[int]]) -> tuple[int, int]:
    """The (height, width) that keeps the most pixels of the image, then wastes the fewest; the first one wins ties."""
    choices = []
    for order, (full_height, full_width) in enumerate(pinpoints):
        scale = min(full_width / width, full_height / height)
        kept = min(int(width * scale) * int(height * scale), width * height)
        choices.append((-kept, full_height * full_width - kept, order, (full_height, full_width)))
    best: tuple[int, int] = min(choices)[-1]
    return best


def pack(model: Any, image_size: Sequence[int], side: int) -> Packing:
    """Packing of one image of original ``image_size`` (height, width) when each tile yields side x side tokens."""
    height, width = int(image_size[0]), int(image_size[1])
    tile_pixels = model.config.vision_config.image_size
    full_height, full_width = best_tiling(height, width, model.config.image_grid_pinpoints)
    tile_rows, tile_columns = full_height // tile_pixels, full_width // tile_pixels
    stitched = []
    for row in range(tile_rows * side):
        line = []
        for column in range(tile_columns * side):
            tile = 1 + (row // side) * tile_columns + column // side
            line.append((tile, (row % side) * side + column % side))
        stitched.append(line)
    grid = unpad(stitched, height, width)
    entries: list[tuple[int, int] | None] = [(0, patch) for patch in range(side * side)]
    grids = [[[row * side + column for column in range(side)] for row in range(side)], []]
    for line in grid:
        grids[1].append(list(range(len(entries), len(entries) + len(line))))
        entries.extend(line)
        entries.append(None)
    return Packing(entries, grids, stitched)


def unpad(grid: list[list[Any]], height: int, width: int) -> list[list[Any]]:
    """Cut the rows or columns of the grid that only show the padding around an image of the given original size."""
    rows, columns = len(grid), len(grid[0])
    if width / height > columns / rows:
        border = (rows - int(round(height * (columns / width), 7))) // 2
        return grid[border : rows - border]
    border = (columns - int(round(width * (rows / height), 7))) // 2
    return [line[border : columns - border] for line in grid]


@torch.no_grad()
def visual_tokens(model: Any, inputs: Mapping[str, Tensor]) -> Tensor:
    """Projected visual tokens (N, hidden size) as the unpruned model feeds them to its decoder."""
    per_tile: list[Tensor] = []
    for pixels in tiles(inputs):
        layer, _ = feature_layer(model, pixels)
        per_tile.append(model.model.multi_modal_projector(layer.after[1:]))
    if "image_sizes" not in inputs:
        return per_tile[0]
    packing = pack(model, inputs["image_sizes"][0].tolist(), int(per_tile[0].shape[0] ** 0.5))
    newline = model.model.image_newline
    return torch.stack([newline if entry is None else per_tile[entry[0]][entry[1]] for entry in packing.entries])


@torch.no_grad()
def start_state(
    model: Any,
    inputs: Mapping[str, Tensor],
    visual: Tensor | None = None,
    kind: Literal["visual", "made"] = "visual",
) -> State:
    """Rows that enter the decoder: text embeddings with the visual block in place of the image placeholders.

    ``visual`` replaces the visual block, possibly by one of another length; positions are 0, 1, 2, ... in any case.
    Padding is left out. Text rows are labelled with their slot in the prompt with all its placeholders.
    """
    ids = inputs["input_ids"][0]
    if "attention_mask" in inputs:
        ids = ids[inputs["attention_mask"][0].bool()]
    is_image = (ids == model.config.image_token_id).tolist()
    first, count = is_image.index(True), sum(is_image)
    if is_image[first : first + count] != [True] * count or is_image[-1]:
        raise ValueError("the reference takes one image, followed by text")
    text = model.model.language_model.embed_tokens(ids.masked_fill(torch.tensor(is_image), 0)).float()
    visual = visual_tokens(model, inputs) if visual is None else visual
    rows = [Row("text", slot) for slot in range(first)]
    rows += [Row(kind, index) for index in range(visual.shape[0])]
    rows += [Row("text", slot) for slot in range(first + count, len(is_image))]
    hidden = torch.cat([text[:first], visual, text[first + count :]])
    return State(tuple(rows), hidden, tuple(float(i) for i in range(len(rows))), len(rows))
