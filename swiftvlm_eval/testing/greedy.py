"""Greedy decoding of a fixed length, as every comparison of answers uses it."""

from typing import Any

STEPS = 4


def generate(model: Any, inputs: Any, steps: int = STEPS) -> Any:
    """Greedy decoding with raw logits, without an early end."""
    return model.generate(
        **inputs,
        max_new_tokens=steps,
        min_new_tokens=steps,
        do_sample=False,
        output_logits=True,
        return_dict_in_generate=True,
    )
