"""Which requests make a batch: equal generation arguments, and lengths as alike as may be."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pyarrow as pa
from datasets import Dataset, Image, List
from lmms_eval.api.instance import Instance
from PIL import Image as Pictures

from swiftvlm_eval.models.checkpoint import Checkpoint


def batches(
    requests: Sequence[Instance], size: int, lengths: Callable[[], Sequence[int]] | None = None
) -> list[list[int]]:
    """Request numbers in batches of equal generation arguments.

    With `lengths` a batch holds prompts of like length, so that little of it is padding, and the longest come first:
    what does not fit into memory is seen at once. Requests that are sampled keep their order and come last, because
    they draw from one generator one after the other. Equal requests and sizes give equal batches.

    Args:
        requests: in the order in which they are asked for.
        size: most requests of a batch; 1 keeps the order of requests within equal arguments.
        lengths: gives an estimate of every prompt's tokens, in any unit; only asked if it matters.
    """
    groups: dict[str, list[int]] = {}
    for number, request in enumerate(requests):
        groups.setdefault(repr(sorted(request.args[1].items(), key=str)), []).append(number)
    if size == 1 or lengths is None:
        return [part for numbers in groups.values() for part in _parts(numbers, size)]
    known = lengths()
    sorted_parts, sampled_parts = [], []
    for numbers in groups.values():
        if is_sampled(requests[numbers[0]].args[1]):
            sampled_parts += _parts(numbers, size)
        else:
            sorted_parts += _parts(sorted(numbers, key=lambda number: -known[number]), size)
    sorted_parts.sort(key=lambda part: -known[part[0]])
    return sorted_parts + sampled_parts


def _parts(numbers: Sequence[int], size: int) -> list[list[int]]:
    return [list(numbers[start : start + size]) for start in range(0, len(numbers), size)]


def is_sampled(gen_kwargs: Mapping[str, Any]) -> bool:
    """Whether a task's generation_kwargs ask for answers that are drawn."""
    return bool(gen_kwargs.get("do_sample", False)) and float(gen_kwargs.get("temperature") or 0) > 0


def estimated_lengths(requests: Sequence[Instance], checkpoint: Checkpoint, task_dict: Mapping[str, Any]) -> list[int]:
    """Text tokens of every request, and the visual tokens of the images that its document holds.

    No image is decoded: its size stands in the first bytes of its file. A task may show the model other images than
    those of its document, or change them, so this is an estimate; batches are made of it, nothing else.

    Args:
        requests: of any tasks.
        checkpoint: its tokenizer counts the text, its processor the visual tokens of an image.
        task_dict: task -> split -> documents, as lmms-eval sets it. Documents that are no data set of Hugging Face's
            count as having no image.
    """
    sizes: dict[tuple[str, str], ImageSizes] = {}
    visual: dict[tuple[int, int], int] = {}
    found = []
    for request in requests:
        document, task, split = request.args[-3:]
        if (task, split) not in sizes:
            sizes[task, split] = ImageSizes(task_dict[task][split])
        tokens = len(checkpoint.tokenizer(request.args[0], add_special_tokens=False).input_ids)
        for size in sizes[task, split].of(document):
            if size not in visual:
                counted = checkpoint.processor._get_num_multimodal_tokens(image_sizes=[list(size)])
                visual[size] = int(counted.num_image_tokens[0])
            tokens += visual[size]
        found.append(tokens)
    return found


class ImageSizes:
    """Sizes of the images in the documents of a data set, read without decoding them.

    Args:
        documents: a data set of Hugging Face's; of anything else no image is known.
    """

    def __init__(self, documents: Any) -> None:
        self._documents: Any = None
        features = documents.features if isinstance(documents, Dataset) else {}
        columns = [name for name, kind in features.items() if isinstance(kind, Image)]
        lists = {name: kind.feature for name, kind in features.items() if isinstance(kind, List)}
        several = [name for name, kind in lists.items() if isinstance(kind, Image)]
        if columns or several:
            # as it is stored: this format decodes nothing
            self._documents = documents.select_columns([*columns, *several]).with_format("arrow")

    def of(self, document: int) -> list[tuple[int, int]]:
        """(height, width) of every image of a document, by its number."""
        if self._documents is None:
            return []
        row, found = self._documents[document], []
        for name in row.column_names:
            held = row[name][0]
            for image in held.values or () if isinstance(held, pa.ListScalar | pa.LargeListScalar) else [held]:
                size = _size(image)
                found += [size] if size else []
        return found


def _size(image: Any) -> tuple[int, int] | None:
    """(height, width) of a stored image; None if there is none, or none that can be read here."""
    if not image.is_valid:
        return None
    content, path = image["bytes"], image["path"]
    try:
        source = pa.BufferReader(content.as_buffer()) if content.is_valid else path.as_py()
        if source is None:
            return None
        with Pictures.open(source) as opened:  # reads the header
            return opened.height, opened.width
    except (OSError, SyntaxError, ValueError, Pictures.DecompressionBombError):
        return None
