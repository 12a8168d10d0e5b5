"""`batch_size=auto`: the largest power of two that fits, by trial where full memory is an error, else estimated."""

from collections.abc import Callable, Mapping, Sequence

import torch
import torch.distributed
from torch import Tensor

from swiftvlm_eval.models.checkpoint import Checkpoint

SHARE = 0.5
"""Share of the free memory of a machine that an estimated batch may need; the rest is for batches that are prepared
meanwhile, and for what the estimate leaves out."""


def largest_that_fits(fits: Callable[[int], bool], most: int) -> int:
    """The largest power of two up to `most` that fits, tried upwards from 2; 1 is taken without a trial."""
    size = 1
    while 2 * size <= most and fits(2 * size):
        size *= 2
    return size


def processes() -> int:
    """How many share the documents, and perhaps this machine."""
    shared = torch.distributed.is_available() and torch.distributed.is_initialized()
    return torch.distributed.get_world_size() if shared else 1


def agreed(size: int | None) -> int | None:
    """The smallest size that a process found, on all of them; to be called by all.

    Args:
        size: what this process found; None if it has nothing to answer.
    """
    if processes() == 1:
        return size
    found: list[int | None] = [None] * processes()
    torch.distributed.all_gather_object(found, size)
    return min((each for each in found if each is not None), default=None)


def estimated_bytes(checkpoint: Checkpoint, inputs: Mapping[str, Tensor], new_tokens: int, beams: int = 1) -> int:
    """Bytes that one prompt needs beside the weights while it is answered on a CPU.

    Counted as if nothing were pruned, the larger of what the vision tower and the decoder hold at once, plus the
    input and the cache of keys and values:

    * tower: the output of every layer, which transformers keeps, and eight rows of the MLP's width a patch;
    * decoder: eight rows of the hidden size and three of the MLP's width a token, the mask, and with eager attention
      the scores of one layer;
    * cache: keys and values of prompt and answer in every layer, one layer twice, since growing it makes a copy.

    Args:
        checkpoint: at work.
        inputs: of a batch of one, from `encode_on_host`.
        new_tokens: most tokens of the answer.
        beams: of the search; each has rows of its own.
    """
    decoder, number = checkpoint.adapter.decoder, checkpoint.model.dtype.itemsize
    shape, length = decoder.shape, inputs["input_ids"].shape[1]
    pixels = inputs["pixel_values"].numel() if "pixel_values" in inputs else 0
    vision = checkpoint.model.config.vision_config
    patches = (vision.image_size // vision.patch_size) ** 2 + 1
    tiles = pixels // (3 * vision.image_size**2)
    layers = vision.num_hidden_layers + 1
    tower = tiles * patches * (layers * vision.hidden_size + 8 * vision.intermediate_size) * number
    rows = length * (8 * shape.hidden_size + 3 * shape.intermediate_size) * number + length**2 * number
    if decoder.attention_implementation == "eager":
        rows += 2 * shape.num_heads * length**2 * 4
    cache = 2 * (shape.num_layers + 1) * shape.key_width * (length + new_tokens) * number
    return int(pixels * 4 + pixels * number + max(tower, beams * rows) + beams * cache)


def estimated_size(bytes_per_prompt: int, most: int, free: int | None) -> int:
    """The largest power of two up to `most` whose prompts need at most `SHARE` of the free memory; at least 1.

    Raises:
        ValueError: nobody knows how much memory is free.
    """
    if free is None:
        raise ValueError("batch_size='auto': this system does not say how much memory is free; allowed is a number")
    return largest_that_fits(lambda size: size * bytes_per_prompt <= SHARE * free, most)


def longest(parts: Sequence[Sequence[int]], needs: Sequence[int]) -> list[int]:
    """Of groups of request numbers, the one with the request that needs most, the needier ones first.

    Args:
        parts: groups that may share a batch.
        needs: rows that each request may come to: prompt and answer.
    """
    group = max(parts, key=lambda part: max(needs[number] for number in part))
    return sorted(group, key=lambda number: -needs[number])
