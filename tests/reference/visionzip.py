"""VisionZip (arXiv:2412.04467): dominant tokens by class attention, the others merged by key similarity."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from reference.declared import Case, MethodOracle
from reference.full_length import Merged, Run, run_full_length, top
from reference.options import PAPER, Changes, Refused
from reference.vision import ClipLayer, feature_layer, pack, start_state, tiles
from torch import Tensor


class Zipped(NamedTuple):
    """One tile: dominant tokens (0 is the class token, in order), their vectors, and per group members and vector."""

    dominant: list[int]
    dominant_vectors: Tensor
    groups: list[list[int]]
    contextual_vectors: Tensor
    scores: Tensor


def target_places(rest: int, contextual: int) -> list[int]:
    """Places of the merge targets among the ``rest`` tokens that are not dominant."""
    if contextual == 0:
        return []
    step = max(1, rest // contextual)
    return list(range(0, rest, step))[:contextual]


def zip_tile(layer: ClipLayer, module: Any, dominant: int, contextual: int) -> Zipped:
    """Reduce one tile to ``dominant`` (class token included) plus ``contextual`` tokens; before the projector.

    ``layer`` is the executed CLIP layer whose output the projector reads, ``module`` its weights.
    """
    scores = layer.attention[:, 0, 1:].sum(dim=0)
    kept = [0, *sorted(index + 1 for index in top(dominant - 1, scores))]
    rest = [token for token in range(layer.after.shape[0]) if token not in kept]
    keys = module.self_attn.k_proj(module.layer_norm1(layer.before))
    heads = layer.attention.shape[0]
    metric = keys.reshape(len(keys), heads, -1).mean(dim=1)
    metric = metric / metric.norm(dim=1, keepdim=True)
    targets = [rest[place] for place in target_places(len(rest), contextual)]
    groups = [[target] for target in targets]
    for token in rest:
        if token not in targets:
            cosines = [float(metric[token] @ metric[target]) for target in targets]
            groups[cosines.index(max(cosines))].append(token)
    vectors = []
    for target, *others in groups:
        vector = layer.after[target]
        vectors.append(vector + layer.after[others].mean(dim=0) if others else vector)
    width = layer.after.shape[1]
    merged = torch.stack(vectors) if vectors else torch.empty(0, width)
    return Zipped(kept, layer.after[kept], groups, merged, scores)


@torch.no_grad()
def visionzip(
    model: Any,
    inputs: Mapping[str, Tensor],
    generated: Sequence[int] = (),
    *,
    dominant: int,
    contextual: int,
) -> Run:
    """Run VisionZip; the counts are per tile, and ``dominant`` counts the class token.

    ``sources`` holds ("cls", tile), ("patch", tile, patch) and ("merged", tile, group) in sequence order, and
    ``kept_indices[0]`` the dominant patches (tile * patches per tile + patch) in that order.
    """
    project = model.model.multi_modal_projector
    zipped = [zip_tile(*feature_layer(model, pixels), dominant, contextual) for pixels in tiles(inputs)]
    made: dict[tuple[Any, ...], Tensor] = {}
    record = Run(logits=torch.empty(0))
    for tile, part in enumerate(zipped):
        record.scores.append(part.scores)
        for token, vector in zip(part.dominant, part.dominant_vectors, strict=True):
            made[("cls", tile) if token == 0 else ("patch", tile, token - 1)] = vector
        for number, (members, vector) in enumerate(zip(part.groups, part.contextual_vectors, strict=True)):
            made[("merged", tile, number)] = vector
            record.merged.append(Merged(0, tuple((tile, token - 1) for token in members), vector))
    record.sources = _order(model, inputs, made)
    patches = len(zipped[0].scores)
    record.kept_indices.append([s[1] * patches + s[2] for s in record.sources if s[0] == "patch"])
    visual = project(torch.stack([made[source] for source in record.sources]))
    return run_full_length(model, start_state(model, inputs, visual, kind="made"), generated, {}, record)


def _order(model: Any, inputs: Mapping[str, Tensor], made: Mapping[tuple[Any, ...], Tensor]) -> list[tuple[Any, ...]]:
    """Sequence order: class token, patches, merged; for several tiles the base first, then all others together."""
    base = [source for source in made if source[1] == 0]
    if "image_sizes" not in inputs:
        return base
    vision = model.config.vision_config
    packing = pack(model, inputs["image_sizes"][0].tolist(), vision.image_size // vision.patch_size)
    raster = [("patch", tile, patch) for line in packing.stitched for tile, patch in line]
    others = [source for source in made if source[1] > 0]
    return [
        *base,
        *(source for source in raster if source in made),
        *(source for source in others if source[0] == "cls"),
        *(source for source in others if source[0] == "merged"),
    ]


def evenly(model: Any, inputs: Mapping[str, Tensor], generated: Sequence[int] = ()) -> Run:
    """45 dominant and 15 contextual tokens, spread evenly over the encoder inputs."""
    count = len(tiles(inputs))
    return visionzip(model, inputs, generated, dominant=45 // count, contextual=15 // count)


ORACLES = (
    MethodOracle(
        method="visionzip",
        cases={"evenly": Case({"counts": (45, 15)}, evenly)},
        options={
            "layers": Refused((3,), "visionzip acts before the decoder; allowed is 0"),
            # 45 with CLS, and 15 merged ones
            "counts": Changes((45, 15), lambda without, given: given.rows[0] == 60 and len(given.kept[0]) == 44),
            "schedule": Refused("paper", PAPER),
        },
        # CLS was counted among the kept
        made=lambda rest, merged, options, last: min(merged, rest + 1) if rest else 0,
    ),
)
