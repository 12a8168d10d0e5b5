"""Scores of visual tokens as pure tensor functions: attention rows, rotations, ordered top-k, token change."""

import torch
from torch import Tensor


def rotate(states: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Applies rotary position embeddings (half-split layout, as in Llama).

    Args:
        states: queries or keys, [heads, tokens, head_dim].
        cos: [tokens, head_dim].
        sin: [tokens, head_dim].

    Returns:
        [heads, tokens, head_dim].
    """
    first, second = states.chunk(2, dim=-1)
    return states * cos + torch.cat((-second, first), dim=-1) * sin


def attention_rows(queries: Tensor, keys: Tensor, visible: Tensor | None = None) -> Tensor:
    """Attention probabilities of a few query rows, softmax in float32.

    Args:
        queries: [heads, num_queries, head_dim].
        keys: [kv_heads, num_keys, head_dim]; fewer heads than queries means grouped-query attention.
        visible: optional bool, [num_queries, num_keys]; False hides a key from a query.

    Returns:
        float32, [heads, num_queries, num_keys]; each row sums to one over the visible keys.
    """
    heads, num_queries, head_dim = queries.shape
    kv_heads = keys.shape[0]
    grouped = queries.reshape(kv_heads, (heads // kv_heads) * num_queries, head_dim).float()
    logits = grouped @ keys.float().transpose(1, 2) * head_dim**-0.5
    logits = logits.reshape(heads, num_queries, -1)
    if visible is not None:
        logits = logits.masked_fill(~visible, torch.finfo(torch.float32).min)
    return logits.softmax(dim=-1)


def top_k(scores: Tensor, count: int) -> Tensor:
    """Indices of the `count` largest scores, ascending.

    Ties go to the lower index and NaN counts as the lowest score, so that the result does not depend on a back-end.

    Args:
        scores: [n].
        count: how many, clamped to n.

    Returns:
        int64, [min(count, n)], ascending.
    """
    return ranking(scores)[:count].sort().values


def ranking(scores: Tensor) -> Tensor:
    """All indices by descending score; ties by ascending index.

    Args:
        scores: [n].

    Returns:
        int64, [n].
    """
    clean = scores.float().nan_to_num(nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf)
    return clean.argsort(dim=0, descending=True, stable=True)


def rater_weights(visual: Tensor, question: Tensor) -> Tensor:
    """Which text rows may rate the image (SparseVLM, arXiv 2410.04417, section 3.2), as weights that sum to one.

    A text row rates if its share of the visual rows' softmax similarity to the question is above average; if none is
    (all equal), every one rates.

    Args:
        visual: [N, hidden_size], visual rows of the decoder's input.
        question: [Q, hidden_size], text rows after the image, Q >= 1.

    Returns:
        float32, [Q]; 1 / (number of raters) for a rater, else 0.
    """
    share = (visual.float() @ question.float().T).softmax(dim=1).mean(dim=0)
    rates = share > share.mean()
    rates = rates | ~rates.any()
    return rates / rates.sum()
