"""The model families: everything that is known of a family before one of its checkpoints is opened.

Strings and numbers only, so that the plugin can read it without loading torch. A new family is one entry here and one
adapter file beside this one.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any


@dataclass(frozen=True)
class Family:
    """One model family.

    Attributes:
        name: `model_type` in the checkpoint's config; the family's name everywhere.
        title: for people.
        adapter: module and class of its `FamilyAdapter`.
        suffix: lmms-eval model names are `<method>_<suffix>`.
        default_checkpoint: what a model name without `pretrained` loads.
        prompts: the decoder's `model_type` -> conversation form in `models.prompts`.
        image_modes: allowed values of `image_mode`, the default first; the first one is the protocol.
        box_frames: image mode -> frame in which the model answers with boxes (`grounding.boxes`).
        one_grid: every image is one square grid of patches, so that all have the same number of visual tokens.
    """

    name: str
    title: str
    adapter: str
    suffix: str
    default_checkpoint: str
    prompts: Mapping[str, str]
    image_modes: tuple[str, ...]
    box_frames: Mapping[str, str]
    one_grid: bool = False

    @property
    def model_class(self) -> str:
        """Name of its lmms-eval model class: `SwiftvlmLlavaNext` where the suffix is `llava_next`."""
        return "Swiftvlm" + "".join(part.capitalize() for part in self.suffix.split("_"))


_LLAVA_PROMPTS = MappingProxyType({"llama": "vicuna_v1", "mistral": "mistral_instruct"})

FAMILIES: Mapping[str, Family] = MappingProxyType(
    {
        family.name: family
        for family in (
            Family(
                name="llava",
                title="LLaVA-1.5",
                adapter="swiftvlm_eval.models.llava:LlavaAdapter",
                suffix="llava",
                default_checkpoint="llava-hf/llava-1.5-7b-hf",
                prompts=_LLAVA_PROMPTS,
                image_modes=("pad", "hf_default"),
                box_frames=MappingProxyType({"pad": "square", "hf_default": "crop"}),
                one_grid=True,
            ),
            Family(
                name="llava_next",
                title="LLaVA-NeXT",
                adapter="swiftvlm_eval.models.llava_next:LlavaNextAdapter",
                suffix="llava_next",
                default_checkpoint="llava-hf/llava-v1.6-vicuna-7b-hf",
                prompts=_LLAVA_PROMPTS,
                image_modes=("anyres",),
                box_frames=MappingProxyType({"anyres": "square"}),
            ),
        )
    }
)


def visual_tokens_per_image(config: Any) -> int | None:
    """Visual tokens of every image, from a checkpoint's config; None where they depend on the image."""
    if not family_of(config.model_type).one_grid:
        return None
    return int(config.vision_config.image_size // config.vision_config.patch_size) ** 2


class UnknownFamilyError(ValueError):
    """A model type that no family has."""


def family_of(model_type: object) -> Family:
    """The family of a config's `model_type`.

    Raises:
        UnknownFamilyError: there is none; the message lists those there are.
    """
    if model_type not in FAMILIES:
        raise UnknownFamilyError(f"model_type={model_type!r}: allowed are {', '.join(FAMILIES)}")
    return FAMILIES[str(model_type)]
