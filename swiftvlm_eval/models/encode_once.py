"""Each image through preprocessing and vision tower once, however many prompts and runs ask about it.

An image is encoded by itself, never in the company of others: its features then do not depend on which prompts came
first or on the batch size, and every run that uses them reads the same ones.
"""

import hashlib
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import transformers
from PIL import Image
from torch import Tensor

from swiftvlm_eval.models.feature_folder import checksum
from swiftvlm_eval.models.feature_store import FeatureStore
from swiftvlm_eval.models.image_features import ImageFeatures, Part, encoded, look, parts_for

if TYPE_CHECKING:
    from swiftvlm_eval.models.checkpoint import Checkpoint


Preprocess = Callable[[Sequence[Image.Image]], tuple[dict[str, Tensor], list[int]]]


@dataclass(frozen=True)
class AtHand:
    """The images of a batch before anything is on the model's device.

    Attributes:
        names: of the images, in the order of the prompts.
        stored: entries by name.
        fresh: what preprocessing made of the others: the model's image arguments, and the visual tokens.
        once: made this.
    """

    names: tuple[str, ...]
    stored: Mapping[str, ImageFeatures]
    fresh: Mapping[str, tuple[Mapping[str, Tensor], int]]
    once: "EncodeOnce"

    def to_device(self) -> dict[str, Any]:
        """The model's arguments; see `EncodeOnce.on_device`."""
        return self.once.on_device(self)


class EncodeOnce:
    """Encodes images for a checkpoint and keeps what it has encoded.

    Args:
        checkpoint: whose weights, type and preprocessing stay as they are from now on.
        store: of entries made by `maker_of(checkpoint, parts)`.
        parts: what to keep of an image, beside `features`; `states` hold the `layer_input`.

    Attributes:
        encoded: images that went through the tower.
        found: images that did not have to.

    Raises:
        ValueError: the checkpoint hands other rows of the tower to its projector than all patches.
    """

    def __init__(self, checkpoint: "Checkpoint", store: FeatureStore, parts: Collection[Part]) -> None:
        refuse_other_features(checkpoint)
        self.checkpoint = checkpoint
        self.store = store
        self.parts = settled(parts)
        self.encoded = 0
        self.found = 0

    def serves(self, needs: Collection[str]) -> bool:
        """Whether a method with such needs can do with what is kept."""
        wanted = parts_for(needs)
        return wanted is not None and settled({*wanted, *self.parts}) == self.parts

    def on_host(self, images: Sequence[Image.Image], preprocess: Preprocess) -> tuple[AtHand, list[int]]:
        """Images looked up, and preprocessed if they are not there; and the visual tokens of each.

        Args:
            images: of a batch.
            preprocess: `Checkpoint.preprocess` of the thread that calls; a processor is not for two at a time.
        """
        names = tuple(image_name(image) for image in images)
        stored: dict[str, ImageFeatures] = {}
        fresh: dict[str, tuple[Mapping[str, Tensor], int]] = {}
        for name, image in zip(names, images, strict=True):
            if name in stored or name in fresh:
                continue
            entry = self._stored(name)
            if entry is not None:
                stored[name] = entry
            else:
                inputs, counts = preprocess([image])
                fresh[name] = inputs, counts[0]
        counts = [stored[name].visual_tokens if name in stored else fresh[name][1] for name in names]
        return AtHand(names, stored, fresh, self), counts

    def on_device(self, images: AtHand) -> dict[str, Any]:
        """The model's argument for images that are encoded already; what is new is encoded now, and kept."""
        entries = dict(images.stored)
        for name, (inputs, visual_tokens) in images.fresh.items():
            entry = self._stored(name)  # an earlier batch may have had it since
            entries[name] = self._encode(name, inputs, visual_tokens) if entry is None else entry
        self.found += sum(name not in images.fresh for name in images.names)
        in_order = [entries[name] for name in images.names]
        return {"mm_encoder_outputs": {"image": encoded(self.checkpoint.adapter, in_order, self._device)}}

    def _stored(self, name: str) -> ImageFeatures | None:
        entry = self.store.get(name)
        return entry if entry is not None and set(entry.parts) == self.parts else None

    def _encode(self, name: str, inputs: Mapping[str, Tensor], visual_tokens: int) -> ImageFeatures:
        pixels = inputs["pixel_values"].flatten(0, -4).to(self._device, self.checkpoint.model.dtype)
        sizes = inputs.get("image_sizes")
        size = None if sizes is None else (int(sizes[0][0]), int(sizes[0][1]))
        entry = ImageFeatures(look(self.checkpoint.adapter, pixels, self.parts), visual_tokens, size)
        self.store.put(name, entry)
        self.encoded += 1
        return entry

    @property
    def _device(self) -> torch.device:
        device: torch.device = self.checkpoint.model.device
        return device


def settled(parts: Collection[Part]) -> frozenset[Part]:
    """Parts without what others of them hold."""
    return frozenset({"features", *parts} - ({"layer_input"} if "states" in parts else set()))


def refuse_other_features(checkpoint: "Checkpoint") -> None:
    """Refuses a checkpoint whose projector sees the class token, too.

    Raises:
        ValueError: names the setting.
    """
    strategy = checkpoint.model.config.vision_feature_select_strategy
    if strategy != "default":
        raise ValueError(
            f"vision_feature_select_strategy={strategy!r}: allowed for stored image features is 'default'"
        )


def image_name(image: Image.Image) -> str:
    """32 hexadecimal digits of BLAKE2b over mode, size and the RGB pixels, which are all that preprocessing sees."""
    digest = hashlib.blake2b(f"{image.mode} {image.width}x{image.height} ".encode(), digest_size=16)
    digest.update((image if image.mode == "RGB" else image.convert("RGB")).tobytes())
    return digest.hexdigest()


def maker_of(checkpoint: "Checkpoint", parts: Collection[Part]) -> str:
    """Names all that decides on the features of an image: 32 hexadecimal digits.

    That is the checkpoint (name, revision, config and weights; those of the tower to the last one), its type and
    device, preprocessing, the parts that are kept, and the libraries.
    """
    model, processor = checkpoint.model, checkpoint.processor.image_processor
    facts = {
        "checkpoint": [checkpoint.name, checkpoint.revision, checkpoint.content],
        "tower": weights_digest(checkpoint.adapter.tower.module),
        "dtype": str(model.dtype),
        "device": model.device.type,
        "attention": str(model.config.vision_config._attn_implementation),
        "image_mode": checkpoint.image_mode_in_force,
        "processor": [type(processor).__name__, processor.to_dict()],
        "parts": sorted(settled(parts)),
        "libraries": [torch.__version__, transformers.__version__],
    }
    return hashlib.blake2b(json.dumps(facts, sort_keys=True, default=str).encode(), digest_size=16).hexdigest()


def weights_digest(module: Any) -> str:
    """32 hexadecimal digits of BLAKE2b over all weights and buffers of a module."""
    return checksum({name: value.detach().cpu() for name, value in module.state_dict().items()})
