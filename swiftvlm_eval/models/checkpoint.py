"""Loading a LLaVA checkpoint and turning prompts and images into its inputs."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from transformers import AutoConfig, AutoImageProcessor, AutoModelForImageTextToText, AutoProcessor

from swiftvlm_eval.demo import checkpoint_path
from swiftvlm_eval.models.adapter import FamilyAdapter, adapter_for
from swiftvlm_eval.models.attention import KERNELS
from swiftvlm_eval.models.encode_once import EncodeOnce
from swiftvlm_eval.models.families import UnknownFamilyError, family_of
from swiftvlm_eval.models.images import ImageMode, check_sliver, pad_to_square
from swiftvlm_eval.models.prompts import IMAGE_PLACEHOLDER, prompt_ids
from swiftvlm_eval.models.weights import CheckpointError, content_digest, first_line, read_weights

DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}
DTYPES |= {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32, "half": torch.float16}


def resolve_dtype(dtype: str, device: torch.device) -> torch.dtype:
    """The torch dtype of an option; `auto` is float16 on an accelerator and float32 on a CPU.

    Raises:
        ValueError: unknown name.
    """
    if dtype == "auto":
        return torch.float32 if device.type == "cpu" else torch.float16
    if dtype not in DTYPES:
        raise ValueError(f"dtype={dtype!r}: allowed are auto, {', '.join(DTYPES)}")
    return DTYPES[dtype]


def resolve_device(device: str) -> torch.device:
    """The torch device of an option; `auto` takes an accelerator if there is one.

    Raises:
        ValueError: malformed, or not on this machine.
    """
    available = torch.accelerator.current_accelerator(check_available=True)
    if device == "auto":
        return available or torch.device("cpu")
    try:
        wanted = torch.device(device)
    except RuntimeError:
        wanted = None
    count = torch.accelerator.device_count() if available else 0
    here = ["cpu"] + [f"{available.type}:{i}" for i in range(count)] if available else ["cpu"]
    known = wanted is not None and (
        wanted.type == "cpu"
        or (available is not None and wanted.type == available.type and (wanted.index or 0) < count)
    )
    if wanted is None or not known:
        raise ValueError(f"device={device!r}: not on this machine; allowed are auto, {', '.join(here)}")
    return wanted


@dataclass
class Checkpoint:
    """A loaded model with its processor.

    Attributes:
        name: as asked for: a hub id, a folder, or `demo`.
        revision: the hub revision that was asked for.
        model: in eval mode.
        processor: image processor on the PIL back-end, tokenizer padding on the left.
        adapter: the engine's view of the model.
        image_mode: `pad` pads LLaVA-1.5 images to a square first; `hf_default` takes the processor as it is.
        once: keeps what the vision tower made of images, if anything does; see `EncodeOnce`.
    """

    name: str
    revision: str | None
    model: Any
    processor: Any
    image_mode: ImageMode = "pad"
    adapter: FamilyAdapter = field(init=False)
    once: EncodeOnce | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self.adapter = adapter_for(self.model)
        self.processor.tokenizer.padding_side = "left"
        self.processor.patch_size = self.model.config.vision_config.patch_size
        self.processor.vision_feature_select_strategy = self.model.config.vision_feature_select_strategy
        self.processor.num_additional_image_tokens = 1

    @property
    def family(self) -> str:
        """The family's name in `models.families`."""
        return self.adapter.family

    @property
    def image_mode_in_force(self) -> str:
        """`image_mode` where the family has it, else the family's only one."""
        modes = family_of(self.family).image_modes
        return self.image_mode if self.image_mode in modes else modes[0]

    @cached_property
    def content(self) -> str:
        """Tells two checkpoints of one name apart: a hash of the config and of the first values of every weight."""
        return content_digest(self.model)

    @property
    def tokenizer(self) -> Any:
        """The tokenizer."""
        return self.processor.tokenizer

    def encode(self, prompts: Sequence[str], images: Sequence[Sequence[Image.Image]]) -> dict[str, Any]:
        """Model inputs of a batch, padded on the left.

        Args:
            prompts: rendered, with one placeholder per image.
            images: the images of each prompt.

        Returns:
            `input_ids` and `attention_mask`, [batch, length]; if there are images `pixel_values` (and `image_sizes`),
            or `mm_encoder_outputs` where they are encoded once.

        Raises:
            ValueError: images and placeholders do not match, a prompt is longer than the model's context, or an image
                is too long and thin for `hf_default`.
        """
        return self.to_device(self.encode_on_host(prompts, images))

    def encode_on_host(self, prompts: Sequence[str], images: Sequence[Sequence[Image.Image]]) -> dict[str, Any]:
        """Like `encode`, before anything is moved to the model's device; needs nothing of the model but its config.

        Where images are encoded once, `images` stands for them, which is no tensor.
        """
        flat = [image for own in images for image in own]
        pixels: Mapping[str, Any]
        if self.once is not None and flat:
            at_hand, counts = self.once.on_host(flat, self.preprocess)
            pixels = {"images": at_hand}
        else:
            pixels, counts = self.preprocess(flat)
        rows, taken = [], 0
        for prompt, own in zip(prompts, images, strict=True):
            visual_counts = counts[taken : taken + len(own)]
            rows.append(prompt_ids(self.tokenizer, prompt, self.adapter.image_token_id, visual_counts))
            taken += len(own)
        width = max(len(row) for row in rows)
        if width > (context := self.adapter.decoder.context):
            raise ValueError(f"prompt of {width} tokens: longer than the model's context of {context}")
        pad = self.tokenizer.pad_token_id if self.tokenizer.pad_token_id is not None else 0
        input_ids = torch.tensor([[pad] * (width - len(row)) + row for row in rows])
        mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
        return {"input_ids": input_ids, "attention_mask": mask, **pixels}

    def to_device(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """What `encode_on_host` made, on the model's device; floating point in the model's type.

        To CUDA it goes from pinned memory, so that the host need not wait for the copy; what the model does with it
        comes behind the copy.
        """
        device, dtype = self.model.device, self.model.dtype
        tensors = {name: value for name, value in inputs.items() if name != "images"}
        cast = {name: value.to(dtype) if value.is_floating_point() else value for name, value in tensors.items()}
        if device.type == "cuda":
            moved = {name: value.pin_memory().to(device, non_blocking=True) for name, value in cast.items()}
        else:
            moved = {name: value.to(device) for name, value in cast.items()}
        return moved | (inputs["images"].to_device() if "images" in inputs else {})

    def preprocess(self, images: Sequence[Image.Image]) -> tuple[dict[str, Tensor], list[int]]:
        """Pixel tensors of all images, and the visual tokens of each."""
        if not images:
            return {}, []
        if self.image_mode_in_force == "pad":
            ready = [pad_to_square(image) for image in images]
        else:
            ready = [image.convert("RGB") for image in images]
        if self.image_mode_in_force == "hf_default":
            for image in ready:
                check_sliver(image, self.model.config.vision_config.image_size)
        encoded = self.processor(
            text=[IMAGE_PLACEHOLDER] * len(ready), images=ready, padding=True, return_tensors="pt"
        )
        counts = (encoded["input_ids"] == self.adapter.image_token_id).sum(dim=1).tolist()
        names = [name for name in ("pixel_values", "image_sizes") if name in encoded]
        return {name: encoded[name] for name in names}, counts


def source_of(pretrained: str) -> str:
    """Where the files of a checkpoint are: the folder of the embedded model for `demo`, else what was asked for."""
    return str(checkpoint_path()) if pretrained == "demo" else pretrained


def _readable(pretrained: str) -> str:
    """What transformers is given: an existing folder, or a hub id.

    Raises:
        CheckpointError: written as a folder, but none with a config.
    """
    source = source_of(pretrained)
    if not source.startswith((".", "/", "~")):
        return source
    folder = Path(source).expanduser()
    if not (folder / "config.json").is_file():
        raise CheckpointError(
            f"pretrained={pretrained!r}: no folder with a config.json; allowed are a checkpoint's folder, a hub id, "
            "or 'demo' for the embedded model"
        )
    return str(folder)


def load_checkpoint(
    pretrained: str,
    *,
    revision: str | None = None,
    dtype: str = "auto",
    device: str = "auto",
    attn_implementation: str = "sdpa",
    image_mode: ImageMode = "pad",
    device_map: str | None = None,
    before_weights: Callable[[Any], object] | None = None,
) -> Checkpoint:
    """Loads a LLaVA-1.5 or LLaVA-NeXT checkpoint from the hub or a folder; safetensors only, no remote code.

    Args:
        pretrained: hub id, folder, or `demo` for the embedded model.
        revision: hub revision.
        dtype: `auto`, float16, bfloat16 or float32.
        device: `auto`, `cpu`, `cuda`, `cuda:1`.
        attn_implementation: sdpa, eager, flash_attention_2 or flash_attention_3.
        image_mode: see `Checkpoint`.
        device_map: passed to transformers, to spread a model over devices.
        before_weights: called with the config before anything large is read; may refuse by raising.

    Raises:
        CheckpointError: no such folder or hub id, something missing in it (a weight, too), or not a LLaVA model.
        ValueError: unknown dtype, device, attention implementation or image mode.
    """
    if image_mode not in ("pad", "hf_default"):
        raise ValueError(f"image_mode={image_mode!r}: allowed are pad, hf_default")
    target = resolve_device(device)
    torch_dtype = resolve_dtype(dtype, target)
    source = _readable(pretrained)
    if attn_implementation not in KERNELS:
        raise ValueError(f"attn_implementation={attn_implementation!r}: allowed are {', '.join(KERNELS)}")
    with _explaining(pretrained):
        config = AutoConfig.from_pretrained(source, revision=revision, trust_remote_code=False)
    try:
        family_of(config.model_type)
    except UnknownFamilyError as error:
        raise CheckpointError(f"pretrained={pretrained!r}: {error}") from error
    if before_weights is not None:
        before_weights(config)
    with _explaining(pretrained, attn_implementation):
        model = read_weights(
            AutoModelForImageTextToText,
            source,
            name=pretrained,
            revision=revision,
            dtype=torch_dtype,
            attn_implementation=attn_implementation,
            device_map=device_map,
        )
        ours = {"revision": revision, "trust_remote_code": False}
        processor = AutoProcessor.from_pretrained(source, **ours)
        processor.image_processor = AutoImageProcessor.from_pretrained(source, backend="pil", **ours)
    return Checkpoint(pretrained, revision, model if device_map else model.to(target), processor, image_mode)


@contextmanager
def _explaining(pretrained: str, attn_implementation: str = "") -> Iterator[None]:
    """Turns what the library says of a checkpoint that is missing or incomplete into our error.

    Raises:
        CheckpointError: the first line of the library's message, and what is allowed.
        ValueError: the attention kernel is not installed.
    """
    try:
        yield
    except CheckpointError:
        raise
    except (OSError, ValueError, ImportError) as error:
        reason = first_line(error)
        if isinstance(error, ImportError) and attn_implementation.startswith("flash"):
            raise ValueError(
                f"attn_implementation={attn_implementation!r}: not usable here ({reason}); sdpa always is"
            ) from error
        raise CheckpointError(
            f"pretrained={pretrained!r}: cannot be loaded ({reason}); allowed are a hub id that can be reached, a "
            "folder with a whole checkpoint (config, safetensors, tokenizer and processor), or 'demo' for the "
            "embedded model"
        ) from error
