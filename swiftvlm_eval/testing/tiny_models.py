"""Random, tiny LLaVA-1.5 and LLaVA-NeXT models with their processors, built offline in about a second.

The architecture is that of the real checkpoints (CLIP tower, two-layer projector, Llama or Mistral decoder); only the
sizes differ. Weights are drawn anew after the library's initialisation, because its small scale gives logits that are
almost constant and would let an equality test pass on a wrong implementation.
"""

import copy
import functools
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaImageProcessor,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaNextImageProcessor,
    LlavaNextProcessor,
    LlavaProcessor,
    MistralConfig,
    PreTrainedTokenizerFast,
)

PATCH = 14
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message['role'].upper() + ': ' }}"
    "{% if message['content'] is string %}{{ message['content'] + ' ' }}{% else %}"
    "{% for part in message['content'] if part['type'] == 'image' %}{{ '<image>\n' }}{% endfor %}"
    "{% for part in message['content'] if part['type'] == 'text' %}{{ part['text'] + ' ' }}{% endfor %}"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
CORPUS = (
    "USER: <image>\nProvide the bounding box coordinate of the region this sentence describes. ASSISTANT:",
    "What is in the picture? A red square left of a blue circle, two green triangles and a yellow star.",
    "Answer the question using a single word or phrase. Yes. No. [0.12, 0.34, 0.56, 0.78]",
    "A chat between a curious human and an artificial intelligence assistant.",
)


SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, "
    "and polite answers to the user's questions. "
)
"""The system sentence of LLaVA's conversation form: without it no text row stands before the image but the name."""


def tiny_llava(
    *,
    grid: int = 4,
    layers: int = 16,
    kv_heads: int = 4,
    attn: str = "sdpa",
    vision_layers: int = 3,
    language: Literal["llama", "mistral"] = "llama",
    seed: int = 0,
    fresh: bool = False,
) -> tuple[LlavaForConditionalGeneration, LlavaProcessor]:
    """Build a tiny LLaVA-1.5 (float32, eval mode) and its processor; equal arguments share one cached pair.

    Args:
        grid: side of the patch grid; ``grid**2`` visual tokens (4 -> 16, 8 -> 64, 12 -> 144, 24 -> 576).
        layers: number of decoder layers.
        kv_heads: key/value heads of the decoder; it has 4 query heads, so 4 is plain and 2 is grouped-query attention.
        attn: attention implementation of the whole model ("sdpa" or "eager").
        vision_layers: layers of the CLIP tower; at least 3, so that feature layer -2 has a layer before it.
        language: decoder family.
        seed: seed of the weights.
        fresh: return a private copy that the caller may change.
    """
    pair = _llava(False, grid, layers, kv_heads, attn, vision_layers, language, seed)
    return copy.deepcopy(pair) if fresh else pair


def tiny_llava_next(
    *,
    grid: int = 4,
    layers: int = 16,
    kv_heads: int = 4,
    attn: str = "sdpa",
    vision_layers: int = 3,
    language: Literal["llama", "mistral"] = "llama",
    seed: int = 0,
    fresh: bool = False,
) -> tuple[LlavaNextForConditionalGeneration, LlavaNextProcessor]:
    """Build a tiny LLaVA-NeXT; arguments as in `tiny_llava`.

    ``grid`` is the side of one tile. The tilings are 2x2, 1x2, 2x1, 1x3 and 3x1, as in the checkpoints.
    """
    pair = _llava(True, grid, layers, kv_heads, attn, vision_layers, language, seed)
    return copy.deepcopy(pair) if fresh else pair


def make_image(width: int, height: int, seed: int = 0) -> Image.Image:
    """Draw an RGB image of coloured blocks with noise: neighbouring patches are alike, none are equal."""
    rng = np.random.default_rng(seed)
    blocks = rng.integers(0, 256, size=(5, 5, 3))
    rows, columns = np.arange(height) * 5 // height, np.arange(width) * 5 // width
    noise = rng.integers(-40, 41, size=(height, width, 3))
    pixels = np.clip(blocks[rows][:, columns] + noise, 0, 255).astype(np.uint8)
    return Image.fromarray(pixels)


def make_inputs(
    processor: Any, image: Image.Image, question: str = "What is in the picture?", system: str = SYSTEM
) -> Any:
    """Process one image and one question in the conversation form of LLaVA; returns batch-1 tensors.

    Args:
        processor: as of `tiny_llava`.
        image: shown before the question.
        question: asked after it.
        system: what stands before the image.
    """
    prompt = f"{system}USER: <image>\n{question} ASSISTANT:"
    return processor(images=image, text=prompt, return_tensors="pt")


@functools.lru_cache(maxsize=16)
def _llava(
    anyres: bool, grid: int, layers: int, kv_heads: int, attn: str, vision_layers: int, language: str, seed: int
) -> tuple[Any, Any]:
    if vision_layers < 3:
        raise ValueError(f"vision_layers is {vision_layers}, at least 3 are needed")
    side = grid * PATCH
    pinpoints = [[2 * side, 2 * side], [side, 2 * side], [2 * side, side], [side, 3 * side], [3 * side, side]]
    tokenizer = _tokenizer()
    vision = CLIPVisionConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=vision_layers,
        num_attention_heads=4,
        image_size=side,
        patch_size=PATCH,
    )
    common: dict[str, Any] = {
        "vision_config": vision,
        "text_config": _decoder(language, layers, kv_heads, tokenizer),
        "image_token_id": tokenizer.convert_tokens_to_ids("<image>"),
        "image_seq_length": grid**2,
        "vision_feature_layer": -2,
        "vision_feature_select_strategy": "default",
    }
    if anyres:
        config = LlavaNextConfig(**common, image_grid_pinpoints=pinpoints)
        model = LlavaNextForConditionalGeneration._from_config(config, attn_implementation=attn)
    else:
        model = LlavaForConditionalGeneration._from_config(LlavaConfig(**common), attn_implementation=attn)
    _redraw(model, seed)
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    return model.float().eval(), _processor(anyres, side, pinpoints, tokenizer)


def _decoder(language: str, layers: int, kv_heads: int, tokenizer: PreTrainedTokenizerFast) -> Any:
    sizes: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "num_key_value_heads": kv_heads,
        "max_position_embeddings": 4096,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
    if language == "mistral":
        return MistralConfig(**sizes, head_dim=16, sliding_window=None)
    return LlamaConfig(**sizes)


def _redraw(model: torch.nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            draw = torch.randn(parameter.shape, generator=generator)
            if "norm" in name:
                parameter.copy_(0.1 * draw + (0.0 if name.endswith("bias") else 1.0))
            elif name.endswith("bias"):
                parameter.copy_(0.1 * draw)
            elif "embed" in name or "lm_head" in name or parameter.dim() == 1:
                # patch_embedding is a convolution: its scale follows the fan-in like any other projection
                scale = 1.5 / parameter[0].numel() ** 0.5 if parameter.dim() == 4 else 0.25
                parameter.copy_(scale * draw)
            else:
                parameter.copy_(1.5 / parameter[0].numel() ** 0.5 * draw)


def _tokenizer() -> PreTrainedTokenizerFast:
    specials = ["<pad>", "<s>", "</s>", "<image>"]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=specials, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", tokenizer.token_to_id("<s>"))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        extra_special_tokens={"image_token": "<image>"},
        padding_side="left",
        model_input_names=["input_ids", "attention_mask"],
    )


def _processor(anyres: bool, side: int, pinpoints: list[list[int]], tokenizer: PreTrainedTokenizerFast) -> Any:
    size, crop = {"shortest_edge": side}, {"height": side, "width": side}
    options: dict[str, Any] = {
        "tokenizer": tokenizer,
        "patch_size": PATCH,
        "vision_feature_select_strategy": "default",
        "num_additional_image_tokens": 1,
        "chat_template": CHAT_TEMPLATE,
    }
    if anyres:
        images = LlavaNextImageProcessor(size=size, crop_size=crop, image_grid_pinpoints=pinpoints)
        return LlavaNextProcessor(image_processor=images, **options)
    return LlavaProcessor(image_processor=LlavaImageProcessor(do_pad=True, size=size, crop_size=crop), **options)
