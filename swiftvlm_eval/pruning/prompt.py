"""Reads a batch as it enters the decoder: which rows are padding, text and visual tokens."""

from collections.abc import Mapping
from hashlib import blake2b
from typing import Any

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
    real = torch.ones_like(visual) if mask is None else mask.bool()
    found = []
    for sample, (is_real, is_visual) in enumerate(torch.stack([real, visual], dim=1).tolist()):
        start = width - sum(is_real)
        if not all(is_real[start:]) or start == width:
            raise ValueError("attention_mask: prompts must be padded on the left and hold at least one token")
        found.append(initial_rows(is_visual[start:], position_ids[:, sample, start:]))
    return found


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
