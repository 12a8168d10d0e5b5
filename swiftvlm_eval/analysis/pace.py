"""How fast a model answers, from a few documents: what the length of a sweep is estimated from."""

import time
from dataclasses import dataclass
from typing import Any

import torch

from swiftvlm_eval.analysis.asking import ask_document
from swiftvlm_eval.lmms.model import model_class
from swiftvlm_eval.models.checkpoint import Checkpoint
from swiftvlm_eval.models.families import family_of
from swiftvlm_eval.sweep.documents import Documents

MEASURED = 8
"""Documents that are timed, behind one that is not."""


@dataclass(frozen=True)
class Pace:
    """A measurement.

    Attributes:
        task: the one whose documents were answered.
        documents: how many were timed.
        seconds: mean of one document, unpruned and alone in its batch.
    """

    task: str
    documents: int
    seconds: float

    def hours(self, documents: int) -> float:
        """Hours for so many documents at this pace."""
        return documents * self.seconds / 3600


def measured_pace(checkpoint: Checkpoint, documents: Documents, limit: int | None = None) -> Pace | None:
    """Answers documents of the largest task with generated answers, evenly spaced over it, unpruned.

    Args:
        checkpoint: the model.
        documents: of the sweep.
        limit: documents per task of the sweep.

    Returns:
        The pace; None if no task has generated answers.

    Raises:
        ValueError: a document without an image.
        RuntimeError: the model failed; the message names the document.
    """
    expected = documents.expected(limit)
    generated = [name for name in expected if documents.tasks[name].OUTPUT_TYPE == "generate_until" and expected[name]]
    if not generated:
        return None
    name = max(generated, key=lambda task: (expected[task], task))
    count = min(MEASURED + 1, expected[name])
    model = _unpruned(checkpoint)
    times = []
    for number in range(count):
        asked = ask_document(name, documents.tasks[name], number * expected[name] // count)
        model.task_dict = asked.task_dict
        with model.session.bound(), torch.inference_mode():
            begun = time.perf_counter()
            model.answering.answer([asked.request])
            times.append(time.perf_counter() - begun)
    timed = times[1:] or times  # the first one warms up
    return Pace(name, len(timed), sum(timed) / len(timed))


def _unpruned(checkpoint: Checkpoint) -> Any:
    return model_class(family_of(checkpoint.family).name)(
        checkpoint=checkpoint, method="vanilla", budget=1.0, device=checkpoint.model.device.type
    )
