"""Token merging (ToMe, arXiv:2210.09461) between attention and MLP of every layer of the vision tower."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from reference.declared import Case, MethodOracle
from reference.full_length import Run, run_full_length
from reference.options import PAPER, Changes, Refused
from reference.per_tile import enter, layer_number, nothing, spread, unit
from reference.vision import tiles
from torch import Tensor


class Rows(NamedTuple):
    """Rows of a tile, the class token first: vectors, and how many tokens each stands for."""

    vectors: Tensor
    sizes: Tensor


def at_most(rows: int, merges: Sequence[int]) -> list[int]:
    """What layers can merge of so many rows (the class token included) when each is asked for so much."""
    found = []
    for wanted in merges:
        found.append(min(wanted, (rows - 1) // 2))
        rows -= found[-1]
    return found


def schedule(patches: int, count: int, layers: int) -> list[int]:
    """Merges of every layer that leave ``count`` patches: as even as can be, the first layers more.

    A layer merges at most half of the rows that it finds besides the class token. What late layers cannot take is
    spread over the ones before them.
    """
    wanted = patches - count
    for each in range(patches + 1):
        merges = at_most(patches + 1, [each] * layers)
        surplus = sum(merges) - wanted
        if surplus >= 0:
            spare = [layer for layer in range(layers) if merges[layer] > 0]
            for layer in spare[len(spare) - surplus :]:
                merges[layer] -= 1
            return merges
    least = patches - sum(at_most(patches + 1, [patches] * layers))
    raise ValueError(f"{count} of {patches} patches: {layers} layers leave {least} at the least")


def links(keys: Tensor) -> list[tuple[float, int, int]]:
    """(cosine, even row, its best odd row) of every even row but the class token's; ``keys`` is (rows, size)."""
    metric = unit(keys.double())
    found = []
    for even in range(2, len(keys), 2):
        cosines = [float(metric[even] @ metric[odd]) for odd in range(1, len(keys), 2)]
        found.append((max(cosines), even, 1 + 2 * cosines.index(max(cosines))))
    return found


def merge(rows: Rows, keys: Tensor, count: int) -> Rows:
    """Merges the ``count`` strongest links: even rows that stay, then all odd rows as means weighed by size."""
    strongest = sorted(links(keys), key=lambda link: (-link[0], link[1]))[:count]
    gone = {even: odd for _, even, odd in strongest}
    vectors, sizes = [], []
    for even in range(0, len(rows.vectors), 2):
        if even not in gone:
            vectors.append(rows.vectors[even])
            sizes.append(rows.sizes[even])
    for odd in range(1, len(rows.vectors), 2):
        members = [odd, *(even for even, into in gone.items() if into == odd)]
        size = rows.sizes[members].sum()
        vectors.append((rows.vectors[members] * rows.sizes[members, None]).sum(dim=0) / size)
        sizes.append(size)
    return Rows(torch.stack(vectors), torch.stack(sizes))


def tower_layer(layer: Any, rows: Rows, heads: int, count: int, *, proportional: bool = True) -> Rows:
    """One CLIP layer: attention in which a key weighs as much as its size, merging, MLP."""
    normed = layer.layer_norm1(rows.vectors)
    attention = layer.self_attn
    size = normed.shape[1] // heads
    query, key, value = attention.q_proj(normed), attention.k_proj(normed), attention.v_proj(normed)
    mixed = []
    for start in range(0, heads * size, size):
        cut = slice(start, start + size)
        logits = query[:, cut] @ key[:, cut].T / size**0.5
        if proportional:
            logits = logits + rows.sizes.log()[None, :]
        mixed.append(torch.softmax(logits, dim=1) @ value[:, cut])
    middle = Rows(rows.vectors + attention.out_proj(torch.cat(mixed, dim=1)), rows.sizes)
    merged = merge(middle, key.reshape(len(key), heads, size).mean(dim=1), count) if count else middle
    return Rows(merged.vectors + layer.mlp(layer.layer_norm2(merged.vectors)), merged.sizes)


def merged_tile(model: Any, pixels: Tensor, merges: Sequence[int], *, proportional: bool = True) -> Rows:
    """What one tile becomes by the layer that the projector reads."""
    tower = model.model.vision_tower
    start = tower.pre_layrnorm(tower.embeddings(pixels[None]))[0]
    rows = Rows(start, torch.ones(len(start)))
    for layer, count in zip(tower.encoder.layers, merges, strict=False):
        rows = tower_layer(layer, rows, tower.config.num_attention_heads, count, proportional=proportional)
    return rows


@torch.no_grad()
def tome(
    model: Any,
    inputs: Mapping[str, Tensor],
    generated: Sequence[int] = (),
    *,
    count: int,
    proportional: bool = True,
) -> Run:
    """``count`` rows of the whole sample, tile after tile, in the order in which merging leaves them."""
    shown, found = tiles(inputs), []
    patches = (model.config.vision_config.image_size // model.config.vision_config.patch_size) ** 2
    for pixels, each in zip(shown, spread(count, len(shown)), strict=True):
        merges = schedule(patches, each, layer_number(model) + 1)
        found.append(merged_tile(model, pixels, merges, proportional=proportional).vectors[1:])
    visual = model.model.multi_modal_projector(torch.cat(found))
    record = nothing()
    sources = [("merged", tile, row) for tile, part in enumerate(found) for row in range(len(part))]
    state = enter(model, inputs, record, sources, visual)
    return run_full_length(model, state, generated, {}, record)


def case(count: int) -> Case:
    """A case with so many rows."""
    return Case({"layers": (0,), "counts": (count,)}, partial(tome, count=count))


ORACLES = (
    MethodOracle(
        method="tome",
        cases={"half": case(63), "many": case(101), "nearly-all": case(130)},
        options={
            "layers": Refused((3,), "tome acts before the decoder; allowed is 0"),
            "counts": Changes((60,), lambda without, given: given.rows == [60] * 16 and given.kept == [[]]),
            "schedule": Refused("paper", PAPER),
        },
        raster=False,
        rewrites=True,
        # the tower's layers bound how far its rows can be merged
        everywhere=False,
    ),
)
