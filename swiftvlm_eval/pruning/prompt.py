"""Reads a batch as it enters the decoder: which rows are padding, text and visual tokens."""

from collections.abc import Mapping
from hashlib import blake2b
from typing import Any

import numpy as np
import torch
from torch import Tensor

from swiftvlm_eval.pruning.rows import SampleRows, counted, initial_rows


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
    numbers, places = counted(width + 1, visual.device)
    given = position_ids is not None
    if position_ids is None:
        position_ids = places[None, :width]
    if position_ids.dim() == 2:
        position_ids = position_ids.expand(axes, batch, width)
    elif len(position_ids) < axes:
        raise ValueError(f"position_ids with {len(position_ids)} axes: this decoder has {axes}")
    position_ids = position_ids[-axes:].expand(axes, batch, width)
    kinds, ids = _on_host(visual, mask, position_ids[0] if given else None)
    found = []
    for sample in range(batch):
        is_visual, is_real = kinds[0, sample], kinds[-1, sample] if mask is not None else np.ones(width, dtype=bool)
        start = width - int(is_real.sum())
        if start == width or not is_real[start:].all():
            raise ValueError("attention_mask: prompts must be padded on the left and hold at least one token")
        own = ids[sample, start:] if given else np.arange(start, width)
        steady = int(own[0]) if axes == 1 and (np.diff(own) == 1).all() and own[0] == int(own[0]) else None
        found.append(
            initial_rows(is_visual[start:].tolist(), position_ids[:, sample, start:], steady, (numbers, places))
        )
    return found


def _on_host(visual: Tensor, mask: Tensor | None, ids: Tensor | None) -> tuple["np.ndarray", "np.ndarray"]:
    """What the host must know, in one transfer: bool [1 or 2, B, L], visual and real rows; [B, L] position ids."""
    parts = [visual] if mask is None else [visual, mask.bool()]
    if ids is None:
        return torch.stack(parts).cpu().numpy(), np.empty(0)
    whole = torch.stack([*(part.to(ids.dtype) for part in parts), ids]).cpu().numpy()
    return whole[:-1].astype(bool), whole[-1]


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
