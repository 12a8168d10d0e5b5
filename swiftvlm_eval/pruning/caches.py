"""What each decoder layer's cache holds of the prompt, and the removal of rows after the layer has run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from swiftvlm_eval.pruning.arrangement import Scattered
from swiftvlm_eval.pruning.rows import SampleRows


@dataclass(frozen=True)
class Segment:
    """A run of layers that see the same sequence.

    Attributes:
        lengths: real rows per sample.
        width: rows of the padded batch.
        next_ids: float32, [A, B, 1], position ids of the first generated token in these layers.
    """

    lengths: tuple[int, ...]
    width: int
    next_ids: Tensor


def following_ids(rows: Sequence[SampleRows]) -> Tensor:
    """float32, [A, B, 1], the position ids that follow each sequence."""
    known = [sample.next_id for sample in rows]
    if all(following is not None for following in known):
        found = [following for following in known if following is not None]
        return (found[0] if len(found) == 1 else torch.cat(found))[None, :, None]
    return torch.stack([sample.position_ids[:, -1:] for sample in rows], dim=1) + 1


def evict(
    cache: Any, rows: Sequence[SampleRows], kept: Mapping[int, Tensor], segment: Segment
) -> tuple[Segment, list[SampleRows]]:
    """Removes visual rows from the cache of one layer that has run; text rows stay. Waits for the device.

    Args:
        cache: the layer's entry of a `DynamicCache`; keys and values [B, kv_heads, width, head_dim] are replaced.
        rows: what the layer holds of every sample.
        kept: sample -> int64, visual indices that stay; samples without an entry keep all.
        segment: of this layer, before.

    Returns:
        The layer's segment and rows from now on.
    """
    chosen, left = [], list(rows)
    for number, sample in enumerate(rows):
        stays = torch.ones(len(sample), dtype=torch.bool, device=sample.places.device)
        if number in kept:
            stays[sample.visual] = torch.isin(sample.index, kept[number][kept[number] >= 0])
        where = stays.nonzero()[:, 0]
        new_row = stays.cumsum(dim=0) - 1
        visual = stays[sample.visual]
        left[number] = replace(
            sample,
            places=sample.places[where],
            arrangement=Scattered(new_row[sample.text], new_row[sample.visual[visual]]),
            ids=sample.position_ids[:, where],
            start=None,
            index=sample.index[visual],
        )
        chosen.append(where + segment.width - len(sample))
    lengths = tuple(len(sample) for sample in left)
    width = max(lengths)
    for name in ("keys", "values"):
        whole = getattr(cache, name)
        smaller = whole.new_zeros((*whole.shape[:2], width, whole.shape[3]))
        for number, where in enumerate(chosen):
            smaller[number, :, width - lengths[number] :] = whole[number][:, where]
        setattr(cache, name, smaller)
    return Segment(lengths, width, segment.next_ids), left
