"""The conversation form of LLaVA's evaluation scripts (`vicuna_v1`, with the system sentence), and its token ids."""

from collections.abc import Sequence
from typing import Any

SYSTEM_PROMPT = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)
IMAGE_PLACEHOLDER = "<image>"


def vicuna_v1(text: str, num_images: int = 1, system_prompt: str = SYSTEM_PROMPT) -> str:
    """Renders one turn: system sentence, `USER:`, a line for each image, the text, `ASSISTANT:`.

    Args:
        text: the user's text. If it holds exactly `num_images` placeholders they stay where they are.
        num_images: images of this sample.
        system_prompt: replaced by nothing if empty.

    Raises:
        ValueError: the text holds placeholders, but not as many as there are images.
    """
    system = f"{system_prompt} " if system_prompt else ""
    return f"{system}USER: {with_images(text, num_images)} ASSISTANT:"


def with_images(text: str, num_images: int) -> str:
    """The text with a line for each image in front, unless it places them itself.

    Raises:
        ValueError: the text holds placeholders, but not as many as there are images.
    """
    placed = text.count(IMAGE_PLACEHOLDER)
    if placed not in (0, num_images):
        raise ValueError(f"the prompt holds {placed} {IMAGE_PLACEHOLDER} placeholders for {num_images} images")
    return text if placed else f"{IMAGE_PLACEHOLDER}\n" * num_images + text


def without_images(text: str) -> str:
    """The user's words alone: the text without placeholders and the line ends behind them."""
    return text.replace(f"{IMAGE_PLACEHOLDER}\n", "").replace(IMAGE_PLACEHOLDER, "").strip()


def mistral_instruct(text: str, num_images: int = 1, system_prompt: str = "") -> str:
    """Renders one turn as LLaVA-NeXT on Mistral was trained: `[INST]`, the images, the text, `[/INST]`; no system.

    Args:
        text: as in `vicuna_v1`.
        num_images: images of this sample.
        system_prompt: ignored; this conversation has none.

    Raises:
        ValueError: the text holds placeholders, but not as many as there are images.
    """
    return f"[INST] {with_images(text, num_images)} [/INST]"


FORMS = {"vicuna_v1": vicuna_v1, "mistral_instruct": mistral_instruct}
"""Conversation forms by the name that the table of families gives them."""


def prompt_ids(tokenizer: Any, prompt: str, image_token_id: int, visual_counts: Sequence[int]) -> list[int]:
    """Token ids of a rendered prompt.

    The text between images is tokenised piece by piece, as in LLaVA's own scripts, so that the ids around an image do
    not depend on how a tokenizer treats its neighbours. One BOS, at the front: whether a tokenizer adds one by itself
    depends on how it was saved.

    Args:
        tokenizer: a Hugging Face tokenizer.
        prompt: rendered, one placeholder per image.
        image_token_id: stands for every visual token.
        visual_counts: visual tokens of each image.

    Raises:
        ValueError: as many placeholders as images are needed.
    """
    pieces = prompt.split(IMAGE_PLACEHOLDER)
    if len(pieces) != len(visual_counts) + 1:
        raise ValueError(f"the prompt holds {len(pieces) - 1} image placeholders for {len(visual_counts)} images")
    ids: list[int] = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    ids += tokenizer(pieces[0], add_special_tokens=False).input_ids
    for piece, count in zip(pieces[1:], visual_counts, strict=True):
        ids = ids + [image_token_id] * count + tokenizer(piece, add_special_tokens=False).input_ids
    return ids


def continuation_ids(tokenizer: Any, prompt: str, continuation: str) -> list[int]:
    """Token ids of a text as it stands behind a rendered prompt.

    By itself it would be tokenised otherwise: some Llama tokenizers put a space in front of every text.

    Args:
        tokenizer: a Hugging Face tokenizer.
        prompt: rendered.
        continuation: with the space in front of it, if there is to be one.

    Raises:
        ValueError: there is no text.
    """
    piece = prompt.split(IMAGE_PLACEHOLDER)[-1]
    known = len(tokenizer(piece, add_special_tokens=False).input_ids)
    ids: list[int] = tokenizer(piece + continuation, add_special_tokens=False).input_ids[known:]
    if not ids:
        raise ValueError(f"continuation={continuation!r}: allowed is a text of at least one token")
    return ids
