"""Shape and first weights of the demo model: LLaVA-1.5 (arXiv 2310.03744) at a two-thousandth of its size."""

from __future__ import annotations

import math

import torch
from torch import nn
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaImageProcessor,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

WIDTH = 128
HEADS = 4
GRID = 12
PATCH = 14
IMAGE_SIDE = GRID * PATCH
VISION_LAYERS = 4
DECODER_LAYERS = 12
FEATURE_LAYER = -2

COPY_STRENGTH = 0.4
"""Scale of what attention first copies; independent weights would give 1 / sqrt(2 * layers) = 0.2."""

TEXT_SHARE = 0.4
"""Share of a word embedding's squared length that all words have in common at first."""

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'system' %}{{ message['content'] + ' ' }}{% else %}"
    "{{ message['role'].upper() + ': ' }}"
    "{% if message['content'] is string %}{{ message['content'] + ' ' }}{% else %}"
    "{% for part in message['content'] if part['type'] == 'image' %}{{ '<image>\n' }}{% endfor %}"
    "{% for part in message['content'] if part['type'] == 'text' %}{{ part['text'] + ' ' }}{% endfor %}"
    "{% endif %}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)


def build_model(tokenizer: PreTrainedTokenizerFast, seed: int = 0) -> LlavaForConditionalGeneration:
    """An untrained model in float32, with weights scaled so that a deep, narrow decoder starts to learn."""
    vision = CLIPVisionConfig(
        hidden_size=WIDTH,
        intermediate_size=4 * WIDTH,
        num_hidden_layers=VISION_LAYERS,
        num_attention_heads=HEADS,
        image_size=IMAGE_SIDE,
        patch_size=PATCH,
    )
    text = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=344,
        num_hidden_layers=DECODER_LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=HEADS,
        max_position_embeddings=2048,
        # Llama 3's base: slower rotations leave a word more alike to a patch that is a hundred rows away.
        rope_parameters={"rope_type": "default", "rope_theta": 500000.0},
        tie_word_embeddings=False,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    config = LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        image_seq_length=GRID**2,
        vision_feature_layer=FEATURE_LAYER,
        vision_feature_select_strategy="default",
        tie_word_embeddings=False,
    )
    model = LlavaForConditionalGeneration._from_config(config, attn_implementation="sdpa")
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    draw_weights(model, seed)
    return model.float()


def draw_weights(model: LlavaForConditionalGeneration, seed: int) -> None:
    """Replaces the library's initialisation (std 0.02), under which a decoder of width 128 hardly moves.

    Word embeddings have std 1, projections 1 / sqrt(fan_in), and the outputs of the residual branches another
    1 / sqrt(2 * layers), so that the residual stream keeps its scale through all layers.
    """
    generator = torch.Generator().manual_seed(seed)
    for name, module in model.named_modules():
        depth = DECODER_LAYERS if "language_model" in name else VISION_LAYERS
        if isinstance(module, nn.Linear | nn.Conv2d):
            std = 1 / math.sqrt(module.weight[0].numel())
            if name.endswith(("o_proj", "down_proj", "out_proj", "fc2")):
                std /= math.sqrt(2 * depth)
            _draw(module.weight, std, generator)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            _draw(module.weight, 1.0 if "language_model" in name else 0.5, generator)
    _draw(model.lm_head.weight, 0.02, generator)  # uniform answers at first


def draw_retrieval_start(
    model: LlavaForConditionalGeneration,
    tokenizer: PreTrainedTokenizerFast,
    words: dict[str, torch.Tensor],
    coordinates: torch.Tensor,
    text: torch.Tensor,
) -> None:
    """Starts the decoder where looking something up is a small step.

    A word that names a visible property starts on the axis that the property has in a visual token; all words share a
    component whose opposite means background. Attention starts as a copy of what is similar (mimetic initialisation,
    arXiv 2305.09828): keys equal queries, and the output projection is the transpose of an orthogonal value
    projection. So "circle" begins by looking at circles, and text at text rather than at empty background. From
    independent weights looking up had not appeared after 400 steps.

    Args:
        model: Its embeddings, head and attention projections are changed in place.
        tokenizer: The model's tokenizer, in which every word with a space before it is one token.
        words: Word -> unit vector [WIDTH], as given by `PatchCode.words`.
        coordinates: [101, WIDTH] vectors of "0.00" to "1.00", as given by `PatchCode.coordinate`: neighbours start
            alike, so that what is learned of one value serves the next.
        text: [1, WIDTH] unit vector that all words share.
    """
    with torch.no_grad():
        embeddings = model.get_input_embeddings().weight
        for word, axis in words.items():
            index = tokenizer.convert_tokens_to_ids(tokenizer.tokenize(f" {word}"))
            embeddings[index] = math.sqrt(WIDTH) * axis
            model.lm_head.weight[index] = axis
        indices = [tokenizer.convert_tokens_to_ids(f"{i / 100:.2f}") for i in range(len(coordinates))]
        embeddings[indices] = math.sqrt(WIDTH) * nn.functional.normalize(coordinates, dim=-1)
        model.lm_head.weight[indices] = 0.5 * coordinates
        embeddings.copy_(math.sqrt(1 - TEXT_SHARE) * embeddings + math.sqrt(TEXT_SHARE * WIDTH) * text)
        for layer in model.model.language_model.layers:
            attention = layer.self_attn
            attention.k_proj.weight.copy_(attention.q_proj.weight)
            turn = torch.linalg.qr(attention.v_proj.weight)[0]
            attention.v_proj.weight.copy_(turn)
            attention.o_proj.weight.copy_(COPY_STRENGTH * turn.T)


def build_processor(tokenizer: PreTrainedTokenizerFast) -> LlavaProcessor:
    """LLaVA-1.5's preprocessing at 168 pixels: pad to a square, bicubic resize, CLIP's normalisation."""
    size = {"height": IMAGE_SIDE, "width": IMAGE_SIDE}
    images = LlavaImageProcessor(do_pad=True, size={"shortest_edge": IMAGE_SIDE}, crop_size=size)
    return LlavaProcessor(
        image_processor=images,
        tokenizer=tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT_TEMPLATE,
    )


def _draw(weight: torch.Tensor, std: float, generator: torch.Generator) -> None:
    with torch.no_grad():
        weight.copy_(torch.randn(weight.shape, generator=generator) * std)
