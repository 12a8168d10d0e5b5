"""What a latency run runs: a LLaVA of a given shape with random weights, and prompts of given lengths for it."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
)
from transformers.models.llava_next.modeling_llava_next import get_anyres_image_grid_shape, unpad_image

from swiftvlm_eval.efficiency.table import parse_shape
from swiftvlm_eval.models.shape import LLAVA_7B, DecoderShape

PATCH = 14
IMAGE_TOKEN = 3
VICUNA_WORDS = 32_064
"""Vocabulary of the released checkpoints, padded: the head and the embeddings weigh what they do there."""
LLAVA_13B = DecoderShape(5120, 13824, 40, 40, 40)
MISTRAL_7B = DecoderShape(4096, 14336, 32, 32, 8)
NAMED: Mapping[str, tuple[DecoderShape, bool]] = {
    "llava-1.5-7b": (LLAVA_7B, False),
    "llava-1.5-13b": (LLAVA_13B, False),
    "llava-next-vicuna-7b": (LLAVA_7B, True),
    "llava-next-mistral-7b": (MISTRAL_7B, True),
    "llava-next-vicuna-13b": (LLAVA_13B, True),
}
"""Released checkpoints: decoder, and whether images are tiled."""
LARGEST_TILED = (672, 672)
"""(height, width) of an image with the most visual tokens that LLaVA-NeXT gives one, and its usual benchmark size."""


@dataclass(frozen=True)
class Workload:
    """What is run.

    Attributes:
        shape: the decoder.
        side: patches along one side of an encoder input; side^2 visual tokens on LLaVA-1.5.
        text_tokens: of each prompt.
        output_tokens: decoded after the prefill, always as many.
        vision_layers: of the CLIP tower (24 in LLaVA).
        vision_width: its hidden size (1024 in LLaVA).
        batch_size: prompts at once, all of one length.
        image_size: (height, width) in pixels of every image on a LLaVA-NeXT; None is a LLaVA-1.5.
        vocabulary: words of the decoder.
        name: of the checkpoint with these sizes; empty for sizes of one's own.
    """

    shape: DecoderShape
    side: int = 24
    text_tokens: int = 64
    output_tokens: int = 8
    vision_layers: int = 3
    vision_width: int = 64
    batch_size: int = 1
    image_size: tuple[int, int] | None = None
    vocabulary: int = 1024
    name: str = ""

    @property
    def family(self) -> str:
        """`llava`, or `llava_next` where images are tiled."""
        return "llava" if self.image_size is None else "llava_next"

    @property
    def pinpoints(self) -> list[list[int]]:
        """Tilings of LLaVA-NeXT for this tower, (height, width) in pixels."""
        pixels = PATCH * self.side
        return [[pixels * rows, pixels * columns] for rows, columns in ((1, 2), (2, 1), (2, 2), (3, 1), (1, 3))]

    @property
    def encoder_inputs(self) -> int:
        """Squares that the tower encodes for one image."""
        if self.image_size is None:
            return 1
        rows, columns = self._tiling(self.image_size)
        return 1 + rows * columns

    @property
    def visual_tokens(self) -> int:
        """N of each prompt: a square, and on LLaVA-NeXT the fine view without its padding, a newline a row."""
        if self.image_size is None:
            return self.side**2
        rows, columns = self._tiling(self.image_size)
        grid = torch.empty(1, rows * self.side, columns * self.side)
        height, width = unpad_image(grid, self.image_size).shape[1:]
        return self.side**2 + int(height * (width + 1))

    def _tiling(self, image_size: tuple[int, int]) -> tuple[int, int]:
        rows, columns = get_anyres_image_grid_shape(list(image_size), self.pinpoints, PATCH * self.side)
        return int(rows), int(columns)


def read_workload(shape: str, image_size: str = "", vision: str = "auto", **lengths: int) -> Workload:
    """The workload that a user names.

    Args:
        shape: a key of `NAMED`, or the numbers of `parse_shape`.
        image_size: `WIDTHxHEIGHT` of a LLaVA-NeXT's images; empty for LLaVA-1.5, or for the largest where the shape
            is that of a LLaVA-NeXT.
        vision: `clip-l` (24 layers of 1024), `small`, or `auto`: CLIP-L for a named shape.
        lengths: `text_tokens`, `output_tokens`, `batch_size`.

    Raises:
        ValueError: a shape, a size or a tower that the field does not allow.
    """
    tower = {"vision_layers": 24, "vision_width": 1024}
    pixels = _read_size(image_size)
    if shape not in NAMED:
        own = Workload(_numbers(shape), image_size=pixels)
        return replace(own, **(tower if vision == "clip-l" else {}), **lengths)  # type: ignore[arg-type]
    decoder, tiled = NAMED[shape]
    if vision == "small":
        raise ValueError(f"vision='small': allowed with shape={shape!r} is auto or clip-l, its own tower")
    if pixels is not None and not tiled:
        raise ValueError(
            f"image_size={image_size!r}: shape={shape!r} has one square per image; allowed is a LLaVA-NeXT"
        )
    pixels = (pixels or LARGEST_TILED) if tiled else None
    named = Workload(decoder, vocabulary=VICUNA_WORDS, name=shape, image_size=pixels)
    return replace(named, **tower, **lengths)  # type: ignore[arg-type]


def _numbers(shape: str) -> DecoderShape:
    if shape and not shape[0].isdigit():
        raise ValueError(f"shape={shape!r}: allowed are {', '.join(NAMED)}, or numbers such as 4096,11008,32,32")
    return parse_shape(shape)


def _read_size(text: str) -> tuple[int, int] | None:
    """`672x336` -> (336, 672)."""
    if not text:
        return None
    width, _, height = text.partition("x")
    if not (width.isdecimal() and height.isdecimal() and 1 <= int(width) <= 10_000 and 1 <= int(height) <= 10_000):
        raise ValueError(f"image_size={text!r}: allowed is WIDTHxHEIGHT in pixels, up to 10000 each, such as 672x672")
    return int(height), int(width)


def _config(workload: Workload) -> Any:
    shape = workload.shape
    text = LlamaConfig(
        vocab_size=workload.vocabulary,
        hidden_size=shape.hidden_size,
        intermediate_size=shape.intermediate_size,
        num_hidden_layers=shape.num_layers,
        num_attention_heads=shape.num_heads,
        num_key_value_heads=shape.num_kv_heads,
        max_position_embeddings=max(4096, workload.visual_tokens + workload.text_tokens + workload.output_tokens),
    )
    vision = CLIPVisionConfig(
        hidden_size=workload.vision_width,
        intermediate_size=4 * workload.vision_width,
        num_hidden_layers=workload.vision_layers,
        num_attention_heads=max(1, workload.vision_width // 64),
        image_size=PATCH * workload.side,
        patch_size=PATCH,
    )
    common = {
        "text_config": text,
        "vision_config": vision,
        "image_token_id": IMAGE_TOKEN,
        "vision_feature_layer": -2,
        "image_seq_length": workload.side**2,
    }
    if workload.image_size is None:
        return LlavaConfig(**common)
    return LlavaNextConfig(**common, image_grid_pinpoints=workload.pinpoints)


def build_model(workload: Workload, dtype: torch.dtype, device: torch.device, attn: str = "sdpa") -> Any:
    """The model. Weights are drawn, not zero: zero pages would be unrealistically fast to read.

    Args:
        workload: gives the sizes.
        dtype: of the weights.
        device: where they are made; `meta` makes none, and shows how many there would be.
        attn: attention kernel.
    """
    config = _config(workload)
    model_class: Any = (
        LlavaForConditionalGeneration if workload.image_size is None else LlavaNextForConditionalGeneration
    )
    previous = torch.get_default_dtype()
    try:
        torch.set_default_dtype(dtype)
        with torch.device(device):
            model = model_class._from_config(config, attn_implementation=attn)
    finally:
        torch.set_default_dtype(previous)
    return model.eval()


def build_inputs(workload: Workload, model: Any) -> dict[str, torch.Tensor]:
    """A batch of prompts with equal text and images of their own: half the text before the image, half after it."""
    generator = torch.Generator().manual_seed(0)
    text = torch.randint(10, 1000, (workload.text_tokens,), generator=generator)
    before, after = text[: workload.text_tokens // 2], text[workload.text_tokens // 2 :]
    ids = torch.cat([before, torch.full((workload.visual_tokens,), IMAGE_TOKEN), after])
    ids = ids.repeat(workload.batch_size, 1).to(model.device)
    pixels, batch = PATCH * workload.side, workload.batch_size
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if workload.image_size is None:
        shape: tuple[int, ...] = (batch, 3, pixels, pixels)
    else:
        shape = (batch, workload.encoder_inputs, 3, pixels, pixels)
        inputs["image_sizes"] = torch.tensor([workload.image_size] * batch, device=model.device)
    drawn = torch.randn(shape, generator=generator)
    return inputs | {"pixel_values": drawn.to(model.device, model.dtype)}
