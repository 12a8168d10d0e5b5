"""Reads a batch as it enters the decoder: which rows are padding, text and visual tokens."""

from collections.abc import Mapping
from hashlib import blake2b
from typing import Any

import numpy as np
import torch
from torch import Tensor

from swiftvlm_eval.pruning.rows import SampleRows, initial_rows


def read_prompt(visual: Tensor, mask: Tensor | None, position_ids: Tensor | None, axes: int) -> list[SampleRows]:
    """The rows of every sample; one transfer from the device.

    Args:
        visual: bool, [B, L], which ids stand for visual tokens.
        mask: [B, L], 0 on the left where a prompt is padded; None where none is.
        position_ids: [B, L] or [axes or more, B, L], of which the last ones count (some models put a row for text in
            front); None numbers the batch 0..L-1, as the stock models do.
        axes: A, axes of the decoder's position ids.

    Raises:
        ValueError: another form of mask or position ids, padding that is not on the left, or an empty prompt.
    """
    batch, width = visual.shape
    if mask is not None and mask.dim() != 2:
        raise ValueError(f"attention_mask with {mask.dim()} dimensions: allowed is [batch, length]")
    if position_ids is None:
        position_ids = torch.arange(width, device=visual.device)[None]
    if position_ids.dim() == 2:
        position_ids = position_ids.expand(axes, batch, width)
    elif len(position_ids) < axes:
        raise ValueError(f"position_ids with {len(position_ids)} axes: this decoder has {axes}")
    position_ids = position_ids[-axes:].expand(axes, batch, width)
    on_host = _on_host(visual, mask, position_ids)
    found = []
    for sample in range(batch):
        is_real, is_visual, ids = on_host[:, sample]
        start = width - int(is_real.sum())
        if not is_real[start:].all() or start == width:
            raise ValueError("attention_mask: prompts must be padded on the left and hold at least one token")
        steady = axes == 1 and bool((np.diff(ids[start:]) == 1).all())
        rows = initial_rows(
            is_visual[start:].astype(bool).tolist(),
            position_ids[:, sample, start:],
            int(ids[start]) if steady else None,
        )
        found.append(rows)
    return found


def _on_host(visual: Tensor, mask: Tensor | None, position_ids: Tensor) -> "np.ndarray[Any, Any]":
    """[3, B, L] on the host: which rows are real, which visual, and the first axis of the position ids."""
    real = torch.ones_like(visual) if mask is None else mask.bool()
    kind = position_ids.dtype
    return torch.stack([real.to(kind), visual.to(kind), position_ids[0]]).cpu().numpy()


def refuse_tensors(arguments: Mapping[str, Any]) -> None:
    """Refuses arguments of the decoder's forward that hold tensors: dropping them would change the answer silently.

    Raises:
        ValueError: names them.
    """
    unknown = sorted(name for name, value in arguments.items() if _holds_tensor(value))
    if unknown:
        raise ValueError(f"{', '.join(unknown)}: tensors that the pruning engine does not know; allowed are none")


def _holds_tensor(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(_holds_tensor(part) for part in value.values())
    if isinstance(value, list | tuple):
        return any(_holds_tensor(part) for part in value)
    return isinstance(value, Tensor)


def sample_seed(seed: int, key: str, part: int) -> int:
    """A seed that depends on the run's seed, the sample's key and which of several methods draws, on nothing else."""
    named = f"{seed}:{key}" + (f":{part}" if part else "")
    return int.from_bytes(blake2b(named.encode(), digest_size=7).digest())
