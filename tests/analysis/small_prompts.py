"""Prompts of tiny models, made by hand."""

from functools import cache

from tiny_checkpoint import in_memory

from swiftvlm_eval.analysis.contenders import Contender
from swiftvlm_eval.analysis.sampled_prompts import Prompt
from swiftvlm_eval.models.checkpoint import Checkpoint
from swiftvlm_eval.pruning.registry import make_method
from swiftvlm_eval.testing.tiny_models import SYSTEM, make_image

SIZES = {"llava": (112, 112), "llava_next": (150, 80)}


@cache
def checkpoint(family: str = "llava", attn: str = "eager", grid: int = 8) -> Checkpoint:
    return in_memory(family, grid=grid, layers=12, attn=attn)


def make_prompt(own: Checkpoint, doc_id: int = 0) -> Prompt:
    text = f"{SYSTEM}USER: <image>\nWhat is in the picture? ASSISTANT:"
    inputs = own.encode([text], [[make_image(*SIZES[own.family], doc_id)]])
    visual = int((inputs["input_ids"] == own.adapter.image_token_id).sum())
    return Prompt("by_hand", doc_id, "What is in the picture?", inputs, visual, inputs["input_ids"].numel() - visual)


def contender(text: str, budget: float = 1 / 3) -> Contender:
    return Contender(text, make_method(text), budget)


class FewPrompts:
    """In place of `SampledPrompts`."""

    def __init__(self, count: int) -> None:
        self.keys = [f"by_hand/{number}" for number in range(count)]
        self.made: list[int] = []

    def prompt(self, number: int, own: Checkpoint) -> Prompt:
        self.made.append(number)
        return make_prompt(own, number)
