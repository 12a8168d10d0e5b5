"""What the vision tower made of one image: kept apart from the pass that made it, and handed to the model later.

transformers takes the rows of images ready made (`mm_encoder_outputs` of `generate` and of the model's `forward`).
They are projected and packed here from the tower's features, so that one entry serves every method.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from transformers.modeling_outputs import BaseModelOutputWithPooling

from swiftvlm_eval.models.adapter import FamilyAdapter

Part = Literal["features", "layer_input", "states", "pixels"]
RUN_THE_TOWER = frozenset({"image_resizing", "tower_rows"})
"""Needs of methods for which the tower computes something of their own: nothing made earlier can stand for it."""
_READ_BY_NEED: Mapping[str, Part] = {
    "cls_attention": "layer_input",
    "patch_keys": "layer_input",
    "tower_states": "states",
    "pixels": "pixels",
}


def parts_for(needs: Collection[str]) -> frozenset[Part] | None:
    """What must be kept of an image for a method with such `needs`; None if it must run the tower itself."""
    if RUN_THE_TOWER & set(needs):
        return None
    return frozenset({"features", *(part for need, part in _READ_BY_NEED.items() if need in needs)})


@dataclass(frozen=True)
class ImageFeatures:
    """One image, seen by the tower alone: T encoder inputs of P patches each, feature width D.

    Attributes:
        parts: by name, in the model's type. `features`: [T, 1 + P, D], what feeds the projector, CLS first.
            `layer_input`: [T, 1 + P, D], what entered the feature layer. `states`: [layers + 1, T, 1 + P, D], what
            entered the first layer and left each one. `pixels`: [T, 3, S, S], normalised.
        visual_tokens: of the image, in the prompt.
        size: (height, width) in pixels, for families that pack by them.
    """

    parts: Mapping[str, Tensor]
    visual_tokens: int
    size: tuple[int, int] | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(part.nbytes for part in self.parts.values())

    @property
    def finite(self) -> bool:
        """Whether the tower's numbers are."""
        return all(bool(part.isfinite().all()) for part in self.parts.values())


@dataclass(frozen=True)
class Shown:
    """What the tower showed of all images of a batch, on the model's device; see `ImageFeatures` and `TowerView`.

    Attributes:
        features: [T, 1 + P, D].
        layer_input: likewise; None if it was not kept.
        states: [T, 1 + P, D] for every layer and one before; empty if they were not kept.
        pixels: [T, 3, S, S]; None if they were not kept.
        image_sizes: [images, 2]; None in families that do not pack by them.
    """

    features: Tensor
    layer_input: Tensor | None
    states: list[Tensor]
    pixels: Tensor | None
    image_sizes: Tensor | None


@dataclass
class EncodedImages(BaseModelOutputWithPooling):  # type: ignore[misc]
    """What `get_image_features` returns, for images that the tower saw earlier; `pooler_output` has rows per image."""

    shown: Shown | None = None


@torch.no_grad()
def look(adapter: FamilyAdapter, pixels: Tensor, parts: Collection[Part]) -> dict[str, Tensor]:
    """Runs the tower on the encoder inputs of one image.

    Args:
        adapter: the model.
        pixels: [T, 3, S, S], normalised, on the model's device and in its type.
        parts: what to keep.

    Returns:
        The parts on the host.
    """
    tower, seen = adapter.tower, {}

    def watch(module: Any, args: tuple[Any, ...], output: Any) -> None:
        seen[module] = args[0], output[0] if isinstance(output, tuple) else output

    watched = [*tower.layers] if "states" in parts else [tower.feature_layer]
    handles = [layer.register_forward_hook(watch) for layer in watched]
    try:
        tower.module(pixels, return_dict=True)
    finally:
        for handle in handles:
            handle.remove()
    before, after = seen[tower.feature_layer]
    found = {"features": after, "layer_input": before, "pixels": pixels}
    if "states" in parts:
        found["states"] = torch.stack([seen[watched[0]][0], *(seen[layer][1] for layer in watched)])
    return {name: value.to("cpu", copy=True).contiguous() for name, value in found.items() if name in parts}


@torch.no_grad()
def encoded(adapter: FamilyAdapter, images: Sequence[ImageFeatures], device: torch.device) -> EncodedImages:
    """The images of a batch as the model takes them: projected together and packed one by one, as it does itself.

    Args:
        adapter: the model.
        images: in the order of the prompts.
        device: of the model.
    """

    def joined(name: str, dim: int = 0) -> Tensor | None:
        kept = [image.parts[name] for image in images if name in image.parts]
        return torch.cat(kept, dim).to(device) if len(kept) == len(images) else None

    features, states = joined("features"), joined("states", 1)
    if features is None:
        raise ValueError("parts: features are missing; allowed are images that hold them")
    sizes = None if any(image.size is None for image in images) else torch.tensor([image.size for image in images])
    layouts = adapter.layouts({"image_sizes": sizes}, [image.visual_tokens for image in images])
    tiles = adapter.tower.project(features[:, 1:]).split([len(image.parts["features"]) for image in images])
    rows = [
        adapter.pack(own, layout.tilings[0], image.size)
        for own, layout, image in zip(tiles, layouts, images, strict=True)
    ]
    shown = Shown(features, joined("layer_input"), [*states] if states is not None else [], joined("pixels"), sizes)
    return EncodedImages(pooler_output=rows, shown=shown)
