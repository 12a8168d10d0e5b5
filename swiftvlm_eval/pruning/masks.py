"""Padding and attention masks for left-padded, ragged sequences, in the form that each attention kernel expects."""

from collections.abc import Sequence

import torch
from torch import Tensor


def attention_mask(
    implementation: str, lengths: Sequence[int], width: int, num_queries: int, new_keys: int, like: Tensor
) -> Tensor | None:
    """The mask of one layer call.

    Keys are `width` prompt rows, of which the last `lengths[b]` are real, and `new_keys` rows generated since; the
    queries are the last `num_queries` keys.

    Args:
        implementation: one of `models.attention.KERNELS`.
        lengths: real prompt rows of each sample.
        width: prompt rows of the padded batch.
        num_queries: rows of this call.
        new_keys: keys beyond the prompt, those of this call included (0 in prefill).
        like: gives device and dtype.

    Returns:
        None where the kernel's own causality is right; else for sdpa bool [B, 1, q, k], for eager additive of the same
        shape, for flash attention bool [B, k].
    """
    total = width + new_keys
    padded = min(lengths) < width
    flash = implementation.startswith("flash")
    if not padded and (num_queries == 1 or flash or (implementation == "sdpa" and num_queries == total)):
        return None
    columns = torch.arange(total, device=like.device)
    first = torch.tensor([width - length for length in lengths], device=like.device)
    real = columns >= first[:, None]
    if flash:
        return real
    rows = columns[total - num_queries :, None]
    visible = (columns <= rows) & real[:, None, None, :]
    visible = visible | (columns == rows)  # a padding row sees itself, so that no row is empty
    if implementation == "sdpa":
        return visible
    blocked = torch.zeros(visible.shape, dtype=like.dtype, device=like.device)
    return blocked.masked_fill(~visible, torch.finfo(like.dtype).min)


def left_padded(parts: Sequence[Sequence[Tensor]], width: int | None = None) -> Tensor:
    """Rows of each sample in pieces [m, D] -> [B, width, D], zeros in front of the shorter ones.

    The width is that of the longest sample, unless it is given.
    """
    lengths = [sum(map(len, pieces)) for pieces in parts]
    width = max(lengths) if width is None else width
    if len(parts) == 1 and len(parts[0]) == 1 and lengths[0] == width:
        return parts[0][0][None]
    missing = [width - length for length in lengths]
    like = parts[0][0]
    padding = like.new_zeros((max(missing), like.shape[1])) if any(missing) else like[:0]
    pieces = [piece for part, count in zip(parts, missing, strict=True) for piece in (padding[:count], *part)]
    return torch.cat(pieces).view(len(parts), width, -1)
