"""A batch before the model sees it: read, then encoded on the host."""

from collections.abc import Mapping, Sequence
from copy import copy, deepcopy
from dataclasses import dataclass

from lmms_eval.api.instance import Instance
from PIL import Image
from torch import Tensor

from swiftvlm_eval.models.checkpoint import Checkpoint


@dataclass(frozen=True)
class Read:
    """A batch of requests with their images.

    Attributes:
        requests: whose generation arguments are equal.
        images: of each request.
        names: of each request's images (`models.images.image_digest`).
    """

    requests: Sequence[Instance]
    images: Sequence[Sequence[Image.Image]]
    names: Sequence[str | None]

    def halves(self) -> "list[Read]":
        """The first half, the larger one if they are not equal, and the rest."""
        middle = (len(self.requests) + 1) // 2
        parts = (slice(0, middle), slice(middle, None))
        return [Read(self.requests[part], self.images[part], self.names[part]) for part in parts]


@dataclass(frozen=True)
class Prepared:
    """A batch that the model can be given.

    Attributes:
        read: what it was made from.
        inputs: of the model, on the host.
    """

    read: Read
    inputs: Mapping[str, Tensor]

    @property
    def requests(self) -> Sequence[Instance]:
        """Those of the batch."""
        return self.read.requests


def with_own_processor(checkpoint: Checkpoint) -> Checkpoint:
    """The same checkpoint with a copy of its processor: a tokenizer is set anew for every text, so none is shared."""
    own = copy(checkpoint)
    own.processor = deepcopy(checkpoint.processor)
    return own
