"""Pure functions of attention that the vision tower and the decoder's scores share: rotation, attention rows."""

import torch
from torch import Tensor

KERNELS = ("sdpa", "eager", "flash_attention_2", "flash_attention_3")
"""Attention implementations of transformers for which masks are known."""


def rotate(states: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Applies rotary position embeddings (half-split layout, as in Llama).

    Args:
        states: queries or keys, [heads, n, head_dim].
        cos: [n, head_dim].
        sin: [n, head_dim].

    Returns:
        [heads, n, head_dim].
    """
    first, second = states.chunk(2, dim=-1)
    return states * cos + torch.cat((-second, first), dim=-1) * sin


def attention_rows(queries: Tensor, keys: Tensor, hidden: Tensor | None = None) -> Tensor:
    """Attention probabilities of a few query rows, softmax in float32.

    Args:
        queries: [heads, num_queries, head_dim].
        keys: [kv_heads, num_keys, head_dim]; fewer heads than queries means grouped-query attention.
        hidden: optional bool, [num_queries, num_keys]; True hides a key from a query.

    Returns:
        float32, [heads, num_queries, num_keys]; each row sums to one over the visible keys.
    """
    heads, num_queries, head_dim = queries.shape
    kv_heads = keys.shape[0]
    grouped = queries.reshape(kv_heads, (heads // kv_heads) * num_queries, head_dim).float()
    nothing = grouped.new_empty((1, 1, 1))  # beta 0 leaves it unread
    logits = torch.baddbmm(nothing, grouped, keys.float().transpose(1, 2), beta=0, alpha=head_dim**-0.5)
    logits = logits.reshape(heads, num_queries, -1)
    if hidden is not None:
        logits = logits.masked_fill(hidden, torch.finfo(torch.float32).min)
    return logits.softmax(dim=-1)
