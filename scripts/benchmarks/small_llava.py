"""A LLaVA-1.5 with random weights, as narrow as is wanted, and a prompt of the usual length for it."""

from typing import Any

import torch
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

TEXT_BEFORE, TEXT_AFTER = 35, 29
IMAGE_TOKEN = 999


def small_llava(side: int, hidden: int = 64, layers: int = 32, heads: int = 4, tower: int = 32) -> Any:
    """The model, in float32.

    Args:
        side: patches along one side of the image; side**2 visual tokens.
        hidden: width of the decoder.
        layers: of the decoder.
        heads: of the decoder.
        tower: width of the vision tower, which has three layers.
    """
    torch.manual_seed(0)
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(
            hidden_size=tower,
            intermediate_size=2 * tower,
            num_hidden_layers=3,
            num_attention_heads=4,
            image_size=14 * side,
            patch_size=14,
        ),
        text_config=LlamaConfig(
            vocab_size=1000,
            hidden_size=hidden,
            intermediate_size=hidden * 11 // 4,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            max_position_embeddings=4096,
        ),
        image_token_id=IMAGE_TOKEN,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
    )
    return LlavaForConditionalGeneration(config).eval()


def prompts(side: int, batch: int, ragged: bool = False) -> dict[str, torch.Tensor]:
    """Inputs of `batch` prompts; ragged ones are shorter by one text token each and padded on the left."""
    image = torch.full((side * side,), IMAGE_TOKEN)
    ids = torch.cat([torch.arange(TEXT_BEFORE) + 1, image, torch.arange(TEXT_AFTER) + 40]).repeat(batch, 1)
    mask = torch.ones_like(ids)
    if ragged:
        for sample in range(batch):
            ids[sample, :sample], mask[sample, :sample] = 0, 0
    pixels = torch.randn(batch, 3, 14 * side, 14 * side, generator=torch.Generator().manual_seed(1))
    return {"input_ids": ids, "attention_mask": mask, "pixel_values": pixels}
