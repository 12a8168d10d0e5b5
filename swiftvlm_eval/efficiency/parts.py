"""Where the time of a prefill goes: vision tower, projector, selection, the decoder's own layers.

The seams are the modules of transformers and the functions of the engine that work at its boundaries. Reading the
clock at a seam makes a GPU finish first, so that parts are measured in rounds of their own. This file needs nothing
but the standard library, and works on any state of the repository.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from typing import Any

EDGES = ("_edit", "_prepare", "_tables")
"""Functions of the engine whose work is the selection's: asking the method, its new rows, their masks and tables."""
TOWER, PROJECTOR, SELECTION, DECODER, OTHER = "tower", "projector", "selection", "decoder", "other"
PARTS = (TOWER, PROJECTOR, SELECTION, DECODER, OTHER)


class Spans:
    """Seconds by part. What a part calls belongs to it, but for the selection inside the decoder.

    Args:
        now: reads the clock, in seconds; on a GPU it waits for the device first.

    Attributes:
        took: seconds by part; the decoder's hold the selection's.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self.now = now
        self.took: dict[str, float] = defaultdict(float)
        self._open: list[tuple[str, float] | None] = []

    def begin(self, part: str) -> None:
        """A part begins."""
        above = next((each[0] for each in reversed(self._open) if each), None)
        counts = above is None or (part == SELECTION and above == DECODER)
        self._open.append((part, self.now()) if counts else None)

    def end(self) -> None:
        """The part that began last ends."""
        opened = self._open.pop()
        if opened is not None:
            self.took[opened[0]] += self.now() - opened[1]

    def split(self, prefill: float) -> dict[str, float]:
        """Seconds of every part, which add up to those of the whole prefill.

        Args:
            prefill: seconds of the whole. What no part has of it (embeddings, packing of image rows, the head) is
                `other`.
        """
        took = {part: self.took.get(part, 0.0) for part in PARTS}
        took[DECODER] -= took[SELECTION]
        return took | {OTHER: prefill - sum(took.values())}


@contextmanager
def watched(model: Any, session: Any, now: Callable[[], float]) -> Iterator[Spans]:
    """Times the parts of a prefill that the block runs.

    Args:
        model: a LLaVA of transformers.
        session: of `prune`, None outside of one.
        now: see `Spans`.

    Raises:
        AttributeError: the engine has no such function (it was renamed, and `EDGES` was not).
    """
    spans, core = Spans(now), model.model
    modules = {TOWER: core.vision_tower, PROJECTOR: core.multi_modal_projector, DECODER: core.language_model}
    with ExitStack() as stack:
        for part, module in modules.items():
            for hook in (
                module.register_forward_pre_hook(lambda *_, part=part: spans.begin(part)),
                module.register_forward_hook(lambda *_: spans.end()),
            ):
                stack.callback(hook.remove)
        for name in EDGES if session is not None else ():
            setattr(session, name, _timed(getattr(session, name), spans))
            stack.callback(delattr, session, name)
        yield spans


def _timed(function: Callable[..., Any], spans: Spans) -> Callable[..., Any]:
    @wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        spans.begin(SELECTION)
        try:
            return function(*args, **kwargs)
        finally:
            spans.end()

    return run
