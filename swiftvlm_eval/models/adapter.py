"""What the engine needs to know of a checkpoint; the only place that knows where transformers keeps things.

An adapter never knows pruning.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property, lru_cache
from typing import Any, cast

import torch
from torch import Tensor, nn

from swiftvlm_eval.efficiency.flops import DecoderShape, TowerShape
from swiftvlm_eval.pruning.method import VisualLayout


def visual_tokens_per_image(config: Any) -> int | None:
    """Visual tokens of every image, from a checkpoint's config; None where they depend on the image (LLaVA-NeXT)."""
    if config.model_type != "llava":
        return None
    return int(config.vision_config.image_size // config.vision_config.patch_size) ** 2


class UnsupportedModelError(TypeError):
    """A model that no adapter knows."""


class LlavaAdapter(ABC):
    """A LLaVA model seen through the few handles that pruning needs.

    Args:
        model: `LlavaForConditionalGeneration` or `LlavaNextForConditionalGeneration` of transformers.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = cast(Any, model)
        self.core: Any = self.model.model
        self.decoder: Any = self.core.language_model
        self.layers: Any = self.decoder.layers
        self.vision_tower: Any = self.core.vision_tower
        self.image_token_id: int = self.model.config.image_token_id

    @cached_property
    def shape(self) -> DecoderShape:
        """The decoder's shape."""
        return DecoderShape.of_config(self.decoder.config)

    @cached_property
    def tower_shape(self) -> TowerShape:
        """The vision tower's shape."""
        return TowerShape.of_config(self.model.config.vision_config)

    @property
    def attention_implementation(self) -> str:
        """The decoder's attention kernel, as transformers names it."""
        return str(self.decoder.config._attn_implementation)

    @cached_property
    def patches_per_side(self) -> int:
        """Patches along one side of an encoder input."""
        vision = self.model.config.vision_config
        return int(vision.image_size // vision.patch_size)

    def pruning_layers(self, method: str) -> tuple[int, ...] | None:
        """Boundaries that the checkpoint recommends for a method (config key `pruning_layers`), or None."""
        layers: Mapping[str, Sequence[int]] = getattr(self.model.config, "pruning_layers", None) or {}
        return tuple(layers[method]) if method in layers else None

    # the decoder layer, part by part

    def queries(self, layer: int, states: Tensor) -> Tensor:
        """[n, hidden_size] layer inputs -> unrotated queries [heads, n, head_dim]."""
        attention = self.layers[layer].self_attn
        return self._heads(attention, attention.q_proj, self.layers[layer].input_layernorm(states))

    def keys(self, layer: int, states: Tensor) -> Tensor:
        """[n, hidden_size] layer inputs -> unrotated keys [kv_heads, n, head_dim]."""
        attention = self.layers[layer].self_attn
        return self._heads(attention, attention.k_proj, self.layers[layer].input_layernorm(states))

    @staticmethod
    def _heads(attention: Any, projection: Any, states: Tensor) -> Tensor:
        projected: Tensor = projection(states)
        return projected.view(len(states), -1, attention.head_dim).transpose(0, 1)

    def rotary(self, like: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Cosine and sine tables, each [..., n, head_dim], for position ids [..., n] (fractions allowed)."""
        cos, sin = self.decoder.rotary_emb(like, position_ids=positions)
        return cos, sin

    # the vision tower

    @cached_property
    def feature_layer(self) -> nn.Module:
        """The encoder layer whose output feeds the projector."""
        index = self.model.config.vision_feature_layer
        if not isinstance(index, int):
            raise UnsupportedModelError(f"vision_feature_layer={index}: only a single layer is supported")
        layer: nn.Module = self.vision_tower.encoder.layers[index if index < 0 else index - 1]
        return layer

    def project(self, features: Tensor) -> Tensor:
        """Vision features [..., D] -> decoder rows [..., hidden_size]."""
        rows: Tensor = self.core.multi_modal_projector(features)
        return rows

    @abstractmethod
    def pack(self, tiles: Tensor, tiling: tuple[int, int] | None, image_size: Sequence[int] | None) -> Tensor:
        """The rows of one image as the decoder expects them.

        Args:
            tiles: [T, g * g, hidden_size], square grids of any size g, base view first.
            tiling: rows and columns of tiles of the fine view.
            image_size: (height, width) in pixels.

        Returns:
            [n, hidden_size].
        """

    @abstractmethod
    def layouts(self, image_inputs: Mapping[str, Any], visual_counts: Sequence[int]) -> list[VisualLayout]:
        """Where the visual tokens of every sample come from.

        Args:
            image_inputs: the model's image arguments (`pixel_values`, `image_sizes`).
            visual_counts: visual tokens of each sample of the batch.

        Raises:
            ValueError: the images do not add up to the tokens.
        """


def adapter_for(model: nn.Module) -> LlavaAdapter:
    """The adapter of a loaded model.

    Raises:
        UnsupportedModelError: not a LLaVA-1.5 or LLaVA-NeXT model of transformers.
    """
    from swiftvlm_eval.models.llava15 import Llava15Adapter
    from swiftvlm_eval.models.llava_next import LlavaNextAdapter

    kind = getattr(getattr(model, "config", None), "model_type", type(model).__name__)
    known = {"llava": Llava15Adapter, "llava_next": LlavaNextAdapter}
    if kind not in known:
        raise UnsupportedModelError(f"model_type={kind!r}: allowed are {', '.join(known)}")
    return known[kind](model)


@lru_cache(maxsize=64)
def single_grid_layout(views: int, side: int) -> VisualLayout:
    """Layout of `views` square grids of side x side patches, one after the other; shared, so not to be written to."""
    count = side * side
    patch = torch.arange(count).repeat(views)
    view = torch.arange(views).repeat_interleave(count)
    return VisualLayout(
        view=view,
        row=patch // side,
        column=patch % side,
        tile=view,
        patch=patch,
        grids=((side, side),) * views,
        image=view,
        tilings=(None,) * views,
        side=side,
    )
