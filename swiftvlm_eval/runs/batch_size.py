"""How a batch size is written, and how one that was not written was chosen."""

from typing import Literal

AUTO = "auto"
LARGEST = 64
"""Largest batch that `auto` takes, unless another limit is given."""

Choice = Literal["trial", "estimate"]
"""How `auto` came to its number: the longest prompts were tried on the device, or what they need was estimated."""


def read_batch_size(value: int | str) -> int | Literal["auto"]:
    """A batch size as typed: a whole number from 1, or `auto`.

    Raises:
        ValueError: something else.
    """
    text = str(value)
    if text == AUTO:
        return "auto"
    if isinstance(value, bool) or not (text.isascii() and text.isdecimal()) or int(text) < 1:
        raise ValueError(f"batch_size={value!r}: allowed are whole numbers from 1, and auto")
    return int(text)
