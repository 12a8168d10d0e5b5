"""FLOPs of a prefill, in the convention of the pruning papers.

A decoder layer on n rows costs C(n) = 4 n d^2 + 2 n^2 d + 3 n d m (FastV, arXiv 2403.06764; d hidden size, m width of
the MLP): one FLOP per multiply-accumulate, the attention square in full. A counter that takes two per
multiply-accumulate, as torch's does, shows exactly twice as much. Grouped-query attention narrows two of the four
projections. What a selection costs is added by `efficiency.selection`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

PAPER_TEXT_TOKENS = 70
"""Text tokens with which the papers' 4.29 T for unpruned LLaVA-1.5-7B is reproduced."""
SYSTEM_TOKENS = 35
"""Of these, the ones before the image: LLaVA's system prompt and the name of the user's turn."""


@dataclass(frozen=True)
class DecoderShape:
    """The numbers of a decoder that its FLOPs depend on."""

    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int

    @classmethod
    def of_config(cls, config: Any) -> "DecoderShape":
        """The shape in a transformers config of a language model."""
        heads = config.num_attention_heads
        kv_heads = getattr(config, "num_key_value_heads", None) or heads
        return cls(config.hidden_size, config.intermediate_size, config.num_hidden_layers, heads, kv_heads)


LLAVA_7B = DecoderShape(4096, 11008, 32, 32, 32)
"""The Vicuna-7B decoder of LLaVA-1.5-7B and LLaVA-NeXT-7B."""


@dataclass(frozen=True)
class TowerShape:
    """The numbers of a vision tower that a selection's FLOPs depend on.

    Attributes:
        hidden_size: width of a patch row.
        num_heads: attention heads.
        patches: of one encoder input.
    """

    hidden_size: int
    num_heads: int
    patches: int

    @classmethod
    def of_config(cls, config: Any) -> "TowerShape":
        """The shape in a transformers config of a vision tower."""
        side = config.image_size // config.patch_size
        return cls(config.hidden_size, config.num_attention_heads, side * side)


CLIP_L = TowerShape(1024, 16, 576)
"""CLIP ViT-L/14 at 336 pixels, the tower of LLaVA-1.5 and LLaVA-NeXT."""


def layer_flops(rows: float, shape: DecoderShape) -> float:
    """FLOPs of one decoder layer on `rows` rows."""
    d, m = shape.hidden_size, shape.intermediate_size
    key_value = d * shape.num_kv_heads / shape.num_heads
    return rows * d * (2 * d + 2 * key_value) + 2 * rows**2 * d + 3 * rows * d * m


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
