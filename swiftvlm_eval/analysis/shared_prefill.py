"""One sample run several times: its image is encoded once, and its first decoder layers run once.

What a module returned is given again only if it is called with the same input, number for number. So sharing cannot
change a result, whatever is run inside the block.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import wraps
from typing import Any

import torch
from torch import Tensor

from swiftvlm_eval.models.adapter import FamilyAdapter
from swiftvlm_eval.pruning.binding import restored


@dataclass
class SharedPrefill:
    """What was run and what was given again.

    Attributes:
        encoded: times that images were encoded.
        encodings_shared: times that they were not, because they had been.
        layers_run: prefills of one of the first layers.
        layers_shared: prefills of one that were not run again.
    """

    encoded: int = 0
    encodings_shared: int = 0
    layers_run: int = 0
    layers_shared: int = 0
    _images: list[tuple[Any, Any]] = field(default_factory=list)
    _layers: dict[int, "_LayerRun"] = field(default_factory=dict)

    def forget(self) -> None:
        """Before the next sample: drops what is kept of this one."""
        self._images.clear()
        self._layers.clear()

    def encoding(self, stock: Callable[..., Any]) -> Callable[..., Any]:
        """The stock function that encodes images, which does so once for equal arguments."""

        @wraps(stock)  # generate() asks for its signature
        def encode(*args: Any, **kwargs: Any) -> Any:
            given = (args, kwargs)
            for known, features in self._images:
                if _same(known, given):
                    self.encodings_shared += 1
                    return features
            features = stock(*args, **kwargs)
            self.encoded += 1
            self._images.append((given, features))
            return features

        return encode

    def layer(self, number: int, stock: Callable[..., Any]) -> Callable[..., Any]:
        """A layer's stock forward, which runs once for equal rows in prefill; decoding always runs."""

        @wraps(stock)
        def forward(hidden: Tensor, *args: Any, **kwargs: Any) -> Any:
            cache = kwargs.get("past_key_values")
            if cache is None or cache.get_seq_length(number):
                return stock(hidden, *args, **kwargs)
            known = self._layers.get(number)
            if known is not None and _same((known.hidden, known.mask), (hidden, kwargs.get("attention_mask"))):
                self.layers_shared += 1
                cache.update(known.keys, known.values, number)
                return known.output
            output = stock(hidden, *args, **kwargs)
            self.layers_run += 1
            held = cache.layers[number]
            self._layers[number] = _LayerRun(hidden, kwargs.get("attention_mask"), output, held.keys, held.values)
            return output

        return forward


@dataclass(frozen=True)
class _LayerRun:
    """One prefill of one layer: its rows, mask, result, and what it put into the cache."""

    hidden: Tensor
    mask: Tensor | None
    output: Any
    keys: Tensor
    values: Tensor


@contextmanager
def shared_prefill(adapter: FamilyAdapter, layers: int) -> Iterator[SharedPrefill]:
    """Shares image encoding and the first `layers` decoder layers between runs inside the block.

    Enter it before `PruningSession.bound`, and call `forget` between samples.
    """
    shared = SharedPrefill()
    modules = [adapter.decoder.layers[number] for number in range(layers)]
    with ExitStack() as stack:
        stack.enter_context(
            restored((adapter.core, "get_image_features"), *((module, "forward") for module in modules))
        )
        adapter.core.get_image_features = shared.encoding(adapter.core.get_image_features)
        for number, module in enumerate(modules):
            module.forward = shared.layer(number, module.forward)
        yield shared


def _same(known: Any, given: Any) -> bool:
    """Whether two nested arguments are equal, tensors number for number."""
    if isinstance(known, Tensor) or isinstance(given, Tensor):
        alike = isinstance(known, Tensor) and isinstance(given, Tensor) and known.dtype == given.dtype
        return alike and torch.equal(known, given)
    if isinstance(known, dict):
        return (
            isinstance(given, dict)
            and known.keys() == given.keys()
            and all(_same(value, given[key]) for key, value in known.items())
        )
    if isinstance(known, list | tuple):
        return isinstance(given, list | tuple) and len(known) == len(given) and all(map(_same, known, given))
    return bool(known == given)
