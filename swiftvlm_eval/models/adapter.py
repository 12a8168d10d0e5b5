"""A checkpoint in three parts; the only place that knows where transformers keeps things.

`DecoderPart` takes a decoder layer apart, `TowerPart` the vision tower, and a `FamilyAdapter` adds where the visual
tokens of a prompt come from. Nothing here knows pruning.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from importlib import import_module
from typing import Any, ClassVar, cast

from torch import Tensor, nn

from swiftvlm_eval.models.families import Family, UnknownFamilyError, family_of
from swiftvlm_eval.models.layout import VisualLayout
from swiftvlm_eval.models.shape import DecoderShape, TowerShape


class UnsupportedModelError(TypeError):
    """A model that no adapter knows, or one with a setting that its adapter does not know."""


class DecoderPart:
    """The language model, layer by layer.

    Args:
        module: the language model inside the checkpoint (`model.model.language_model`).

    Attributes:
        position_axes: A, axes of its position ids: 1 for Llama and its like, 3 for multimodal rotary embeddings.
    """

    position_axes: ClassVar[int] = 1

    def __init__(self, module: Any) -> None:
        self.module = module
        self.layers: Any = module.layers

    @cached_property
    def shape(self) -> DecoderShape:
        """The decoder's shape."""
        return DecoderShape.of_config(self.module.config)

    @property
    def attention_implementation(self) -> str:
        """The decoder's attention kernel, as transformers names it."""
        return str(self.module.config._attn_implementation)

    @property
    def context(self) -> int:
        """Most positions of a prompt."""
        return int(self.module.config.max_position_embeddings)

    def check_one_device(self) -> None:
        """Refuses a decoder that is spread over devices: rows are gathered across its layers.

        Raises:
            ValueError: names the devices.
        """
        devices = sorted({str(next(layer.parameters()).device) for layer in self.layers})
        if len(devices) > 1:
            raise ValueError(f"decoder layers on {', '.join(devices)}: allowed is one device for all of them")

    def normed(self, layer: int, states: Tensor) -> Tensor:
        """[n, hidden_size] layer inputs under the norm before that layer's attention."""
        rows: Tensor = self.layers[layer].input_layernorm(states)
        return rows

    def queries(self, layer: int, states: Tensor, normed: bool = False) -> Tensor:
        """[n, hidden_size] layer inputs -> unrotated queries [heads, n, head_dim], normalised where the layer does.

        Args:
            layer: 0-based.
            states: layer inputs.
            normed: they are `normed` already.
        """
        attention = self.layers[layer].self_attn
        states = states if normed else self.normed(layer, states)
        return _heads(attention.q_proj(states), attention.head_dim, getattr(attention, "q_norm", None))

    def keys(self, layer: int, states: Tensor, normed: bool = False) -> Tensor:
        """[n, hidden_size] layer inputs -> unrotated keys [kv_heads, n, head_dim]; see `queries`."""
        attention = self.layers[layer].self_attn
        states = states if normed else self.normed(layer, states)
        return _heads(attention.k_proj(states), attention.head_dim, getattr(attention, "k_norm", None))

    def final_norm(self, states: Tensor) -> Tensor:
        """[..., hidden_size] rows under the norm that stands before the head."""
        normed: Tensor = self.module.norm(states)
        return normed

    @property
    def rotary_depends_on_length(self) -> bool:
        """Whether a position's rotation depends on how long the sequence is (scaled rotary embeddings)."""
        return getattr(self.module.rotary_emb, "rope_type", "default") in ("dynamic", "longrope")

    def rotary(self, like: Tensor, position_ids: Tensor) -> tuple[Tensor, Tensor]:
        """Cosine and sine tables, [B, n, head_dim] each.

        Args:
            like: gives device and dtype.
            position_ids: [A, B, n]; fractions are allowed.

        Raises:
            ValueError: not as many axes as this decoder's rotary embedding has. (It would broadcast silently.)
        """
        if position_ids.dim() != 3 or len(position_ids) != self.position_axes:
            raise ValueError(
                f"position_ids of shape {list(position_ids.shape)}: allowed is [{self.position_axes}, batch, length]"
            )
        ids = position_ids[0] if self.position_axes == 1 else position_ids
        cos, sin = self.module.rotary_emb(like, position_ids=ids)
        return cos, sin


def _heads(projected: Tensor, head_dim: int, norm: Any) -> Tensor:
    """[n, heads * head_dim] -> [heads, n, head_dim]; `norm` works on a head, or on the whole width."""
    if norm is not None and norm.weight.shape[-1] != head_dim:
        projected, norm = norm(projected), None
    heads = projected.view(len(projected), -1, head_dim)
    return (heads if norm is None else norm(heads)).transpose(0, 1)


class TowerPart:
    """A CLIP-like vision tower and its projector.

    Args:
        core: the multimodal model inside the checkpoint (`model.model`).
        config: the checkpoint's config.

    Attributes:
        offers: what the tower can show of a sample; a method's `needs` are compared with it.
    """

    offers: ClassVar[frozenset[str]] = frozenset(
        {"cls_attention", "patch_features", "patch_keys", "tower_states", "pixels", "image_resizing", "tower_rows"}
    )

    def __init__(self, core: Any, config: Any) -> None:
        self.module: Any = core.vision_tower
        self.projector: Any = core.multi_modal_projector
        self.config = config

    @cached_property
    def patches_per_side(self) -> int:
        """Patches along one side of an encoder input."""
        vision = self.config.vision_config
        return int(vision.image_size // vision.patch_size)

    @cached_property
    def shape(self) -> TowerShape:
        """The tower's shape."""
        return TowerShape.of_config(self.config.vision_config)

    @cached_property
    def layers(self) -> Any:
        """The encoder layers."""
        return self.module.encoder.layers

    @cached_property
    def feature_number(self) -> int:
        """The encoder layer whose output feeds the projector, 0-based."""
        index = self.config.vision_feature_layer
        if not isinstance(index, int):
            raise UnsupportedModelError(f"vision_feature_layer={index}: only a single layer is supported")
        return len(self.layers) + index if index < 0 else index - 1

    @property
    def feature_layer(self) -> nn.Module:
        """That layer itself."""
        layer: nn.Module = self.layers[self.feature_number]
        return layer

    def project(self, features: Tensor) -> Tensor:
        """Vision features [..., D] -> decoder rows [..., hidden_size]."""
        rows: Tensor = self.projector(features)
        return rows

    def queries(self, layer: int, states: Tensor) -> Tensor:
        """[T, n, D] layer inputs -> queries of its attention, [T, heads, n, head_dim], with bias, unscaled."""
        return self._heads("q_proj", layer, states)

    def keys(self, layer: int, states: Tensor) -> Tensor:
        """[T, n, D] layer inputs -> keys of its attention, [T, heads, n, head_dim], with bias, unscaled."""
        return self._heads("k_proj", layer, states)

    def _heads(self, projection: str, layer: int, states: Tensor) -> Tensor:
        module = self.layers[layer]
        attention = module.self_attn
        projected: Tensor = getattr(attention, projection)(module.layer_norm1(states))
        return projected.unflatten(-1, (attention.num_heads, attention.head_dim)).transpose(1, 2)


class FamilyAdapter(ABC):
    """A checkpoint seen through the few handles that pruning needs.

    Args:
        model: a conditional-generation model of transformers that has a vision tower, a projector and a decoder.

    Attributes:
        decoder: the language model.
        tower: vision tower and projector.
        core: what `generate()` calls, and what gathers image features.
        image_token_id: stands for every visual token in the prompt's ids.
        tower_class: what takes the family's vision tower apart.
    """

    tower_class: ClassVar[type[TowerPart]] = TowerPart

    def __init__(self, model: nn.Module) -> None:
        self.model = cast(Any, model)
        self.core: Any = self.model.model
        self.decoder = DecoderPart(self.core.language_model)
        self.tower = self.tower_class(self.core, self.model.config)
        self.image_token_id: int = self.model.config.image_token_id

    @property
    def family(self) -> str:
        """The family's name."""
        return str(self.model.config.model_type)

    @property
    def recommended_layers(self) -> Mapping[str, Sequence[int]]:
        """Boundaries that the checkpoint recommends, by name (config key `pruning_layers`): data, read by others."""
        return getattr(self.model.config, "pruning_layers", None) or {}

    @classmethod
    def offered(cls) -> frozenset[str]:
        """Words that every model of this family can give to a method; known without one."""
        return cls.tower_class.offers | {"decoder_input", "layer_keys", "layer_values", "module_io", "question_text"}

    @property
    def offers(self) -> frozenset[str]:
        """Words that this model can give to a method."""
        return self.offered()

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


def adapter_for(model: nn.Module) -> FamilyAdapter:
    """The adapter of a loaded model.

    Raises:
        UnsupportedModelError: no family of `models.families` has its model type.
    """
    try:
        family = family_of(getattr(getattr(model, "config", None), "model_type", type(model).__name__))
    except UnknownFamilyError as error:
        raise UnsupportedModelError(str(error)) from error
    return adapter_class(family)(model)


def adapter_class(family: Family) -> type[FamilyAdapter]:
    """The adapter of a family; its file is imported, no model is."""
    module, _, name = family.adapter.partition(":")
    found: type[FamilyAdapter] = getattr(import_module(module), name)
    return found
