"""The sizes of a decoder, as read from a config of transformers."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class DecoderShape:
    """The numbers of a decoder that its costs depend on.

    Attributes:
        hidden_size: width of a row.
        intermediate_size: width of the MLP.
        num_layers: decoder layers.
        num_heads: query heads.
        num_kv_heads: key and value heads; fewer than query heads means grouped-query attention.
        head_dim: width of a head; None takes hidden_size / num_heads. Heads times this need not be the hidden size
            (Qwen3-4B: 32 heads of 128 on rows of 2560).
    """

    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int | None = None

    @property
    def query_width(self) -> int:
        """Width of all query heads together."""
        return self.hidden_size if self.head_dim is None else self.num_heads * self.head_dim

    @property
    def key_width(self) -> int:
        """Width of all key heads together."""
        return self.query_width * self.num_kv_heads // self.num_heads

    @classmethod
    def of_config(cls, config: Any) -> "DecoderShape":
        """The shape in a transformers config of a language model."""
        heads = config.num_attention_heads
        kv_heads = getattr(config, "num_key_value_heads", None) or heads
        head_dim = getattr(config, "head_dim", None)
        usual = head_dim is None or head_dim * heads == config.hidden_size
        return cls(
            config.hidden_size,
            config.intermediate_size,
            config.num_hidden_layers,
            heads,
            kv_heads,
            None if usual else head_dim,
        )


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

LLAVA_7B = DecoderShape(4096, 11008, 32, 32, 32)
"""The Vicuna-7B decoder of LLaVA-1.5-7B and LLaVA-NeXT-7B."""
