"""FLOPs of a prefill, in the convention of the pruning papers.

A decoder layer on n rows costs C(n) = 4 n d^2 + 2 n^2 d + 3 n d m (FastV, arXiv 2403.06764; d hidden size, m width of
the MLP): one FLOP per multiply-accumulate, the attention square in full. A counter that takes two per
multiply-accumulate, as torch's does, shows exactly twice as much. Grouped-query attention narrows two of the four
projections. What a selection costs is added by `efficiency.selection`.
"""

from collections.abc import Sequence

from swiftvlm_eval.models.shape import DecoderShape

PAPER_TEXT_TOKENS = 70
"""Text tokens with which the papers' 4.29 T for unpruned LLaVA-1.5-7B is reproduced."""
SYSTEM_TOKENS = 35
"""Of these, the ones before the image: LLaVA's system prompt and the name of the user's turn."""


def layer_flops(rows: float, shape: DecoderShape) -> float:
    """FLOPs of one decoder layer on `rows` rows."""
    d, m = shape.hidden_size, shape.intermediate_size
    query, key = shape.query_width, shape.key_width
    return rows * d * (2 * query + 2 * key) + 2 * rows**2 * query + 3 * rows * d * m


def prefill_flops(visual_rows_per_layer: Sequence[float], text_tokens: float, shape: DecoderShape) -> float:
    """FLOPs of the decoder layers in prefill, selection not included.

    Args:
        visual_rows_per_layer: visual rows that each layer sees, merged rows included.
        text_tokens: n_t, text tokens of the prompt.
        shape: the decoder.

    Raises:
        ValueError: one entry per layer is needed.
    """
    if len(visual_rows_per_layer) != shape.num_layers:
        raise ValueError(f"{len(visual_rows_per_layer)} layers given, the decoder has {shape.num_layers}")
    return sum(layer_flops(rows + text_tokens, shape) for rows in visual_rows_per_layer)
