"""Documents of lmms-eval tasks as prompts, without answering them."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from torch import Tensor

from swiftvlm_eval.models.checkpoint import Checkpoint
from swiftvlm_eval.models.families import family_of
from swiftvlm_eval.models.prompts import FORMS, without_images
from swiftvlm_eval.sweep.documents import Documents


@dataclass(frozen=True)
class Prompt:
    """One document.

    Attributes:
        task: leaf task.
        doc_id: its number there.
        question: the user's words.
        inputs: of the model, batch of one.
        num_visual: N.
        num_text: text tokens.
    """

    task: str
    doc_id: int
    question: str
    inputs: dict[str, Tensor]
    num_visual: int
    num_text: int

    @property
    def key(self) -> str:
        """`demo_gqa/17`."""
        return f"{self.task}/{self.doc_id}"


def spread_over(total: int, count: int) -> list[int]:
    """`count` different numbers from 0 to `total` - 1, evenly spaced: number i is floor(i * total / count)."""
    return [number * total // count for number in range(count)]


class SampledPrompts:
    """The same number of documents of every task, evenly spaced, so that no image or kind of question leads.

    Args:
        documents: the tasks.
        samples: documents of each leaf task.

    Attributes:
        keys: `task/doc_id` of every one, in order.

    Raises:
        ValueError: a task has fewer documents.
    """

    def __init__(self, documents: Documents, samples: int) -> None:
        for task, count in documents.counts.items():
            if count < samples:
                raise ValueError(f"samples={samples}: {task} has {count} documents; allowed are 1 to {count}")
        self._tasks = documents.tasks
        self._chosen = [(task, doc) for task, total in documents.counts.items() for doc in spread_over(total, samples)]
        self.keys = [f"{task}/{doc}" for task, doc in self._chosen]

    def prompt(self, number: int, checkpoint: Checkpoint) -> Prompt:
        """The prompt of `keys[number]`, as the checkpoint was trained.

        Raises:
            ValueError: a document without an image, or a language model for which no prompt is known.
        """
        name, doc_id = self._chosen[number]
        task = self._tasks[name]
        document = task.eval_docs[doc_id]
        images = list(task.doc_to_visual(document) or [])
        if not images:
            raise ValueError(f"{name} doc_id {doc_id}: it has no image; allowed are tasks whose documents have one")
        text = task.fewshot_context(document, task.config.num_fewshot or 0)
        prompts, language = family_of(checkpoint.family).prompts, checkpoint.model.config.text_config.model_type
        if language not in prompts:
            raise ValueError(f"language model {language!r}: no prompt is known; allowed are {', '.join(prompts)}")
        inputs = checkpoint.encode([FORMS[prompts[language]](text, len(images))], [images])
        visual = int((inputs["input_ids"] == checkpoint.adapter.image_token_id).sum())
        return Prompt(name, doc_id, without_images(text), inputs, visual, inputs["input_ids"].numel() - visual)


@contextmanager
def naming(key: str) -> Iterator[None]:
    """Names the document at work in what goes wrong.

    Raises:
        RuntimeError: something did.
    """
    try:
        yield
    except Exception as error:
        raise RuntimeError(f"{key}: {' '.join(str(error).split())}") from error
