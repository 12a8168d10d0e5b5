"""What a model is asked, as lmms-eval would ask it: a document of a task, or an image with a question."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lmms_eval.api.instance import Instance
from PIL import Image, ImageFile

from swiftvlm_eval.grounding import Box, box_from_xywh
from swiftvlm_eval.sweep.documents import Documents

MAX_NEW_TOKENS = 64


@dataclass(frozen=True)
class Asked:
    """One request, with what is known of it.

    Attributes:
        request: for the model.
        task_dict: task -> split -> documents, where the model finds the document.
        images: as the task gives them, or the file's.
        question: the text of the prompt.
        source: for people: `demo_refcoco, document 17`, or the name of the file.
        task: lmms-eval's task; None of a question of one's own.
        document: of the task.
        truth: the true box in pixels of the image, of a grounding task of ours.
        expected: the true answer as the task has it.
    """

    request: Instance
    task_dict: Mapping[str, Mapping[str, Any]]
    images: tuple[Image.Image, ...]
    question: str
    source: str
    task: Any = None
    document: Any = None
    truth: Box | None = None
    expected: str = ""

    def scores(self, answer: str) -> dict[str, float]:
        """The task's own metrics of an answer; empty where there is no task or none of them is a number."""
        if self.task is None:
            return {}
        found = self.task.process_results(self.document, [answer])
        names = [metric["metric"] for metric in self.task.config.metric_list or ()]
        return {name: float(found[name]) for name in names if isinstance(found.get(name), int | float)}


@dataclass(frozen=True)
class _OneImage:
    """Stands for a task's document where there is none."""

    image: Image.Image = field(repr=False)


def ask_of_image(path: Path, question: str) -> Asked:
    """A question of one's own on an image file. The file's orientation tag is ignored, as in the evaluations.

    Raises:
        ValueError: no such file, one that is no image, or an empty question.
    """
    if not question.strip():
        raise ValueError(f"question={question!r}: allowed is a text of at least one word")
    image = read_image(path)
    metadata: dict[str, Any] = {"task": "show", "doc_id": 0, "repeats": 1, "split": "test"}
    arguments = (question, {"max_new_tokens": MAX_NEW_TOKENS}, lambda document: [document.image], 0, "show", "test")
    request = Instance(request_type="generate_until", arguments=arguments, idx=0, metadata=metadata)
    return Asked(request, {"show": {"test": [_OneImage(image)]}}, (image,), question.strip(), path.name)


def read_image(path: Path) -> Image.Image:
    """The file's image in RGB.

    Raises:
        ValueError: it is not there, no regular file, or not an image that can be read whole.
    """
    if not path.is_file():
        raise ValueError(f"image={path}: no such file; allowed is a PNG, JPEG or other image file")
    tolerant = ImageFile.LOAD_TRUNCATED_IMAGES  # tasks of lmms-eval turn it on, and half an image would look whole
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reason = "not in a form that is known" if "cannot identify" in str(error) else str(error) or "broken"
        raise ValueError(
            f"image={path}: cannot be read ({reason}); allowed is a PNG, JPEG or other image file"
        ) from error
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = tolerant


def ask_of_task(name: str, doc_id: int) -> Asked:
    """A document of a task, with the prompt, the images and the generation arguments that an evaluation has.

    Args:
        name: a task of lmms-eval with generated answers; a group only if it has one task.
        doc_id: the row, from 0, as samples files name it.

    Raises:
        ValueError: unknown task, a group of several, a task that scores choices, or no such document; the message
            says what is allowed.
    """
    leaves = Documents([name]).tasks
    if len(leaves) != 1:
        raise ValueError(f"task={name}: a group of several; allowed is one of {', '.join(sorted(leaves))}")
    ((leaf, task),) = leaves.items()
    return ask_document(leaf, task, doc_id)


def ask_document(leaf: str, task: Any, doc_id: int) -> Asked:
    """A document of a loaded task.

    Args:
        leaf: the task's name.
        task: lmms-eval's.
        doc_id: as of `ask_of_task`.

    Raises:
        ValueError: as `ask_of_task`.
    """
    if task.OUTPUT_TYPE != "generate_until":
        raise ValueError(f"task={leaf}: answers by {task.OUTPUT_TYPE}; allowed are tasks with generated answers")
    documents = task.eval_docs
    if not 0 <= doc_id < len(documents):
        raise ValueError(f"doc={doc_id}: {leaf} has no such document; allowed are 0 to {len(documents) - 1}")
    document = documents[doc_id]
    split = task.config.test_split if task.has_test_docs() else task.config.validation_split
    metadata = {"task": leaf, "doc_id": doc_id, "repeats": task.config.repeats, "split": split}
    context = task.fewshot_context(document, task.config.num_fewshot or 0, None, False, False, None)
    request = task.construct_requests(doc_id=doc_id, ctx=context, metadata=metadata)
    images = tuple(task.doc_to_visual(document) or ())
    if not images:
        raise ValueError(f"doc={doc_id}: no visual tokens, because this document of {leaf} has no image")
    truth = _true_box(task, document)
    expected = "" if truth is not None else str(task.doc_to_target(document))
    source = f"{leaf}, document {doc_id}"
    task_dict = {leaf: {split: documents}}
    return Asked(request, task_dict, images, context.strip(), source, task, document, truth, expected)


def _true_box(task: Any, document: Mapping[str, Any]) -> Box | None:
    """The true box of a document of a grounding task of ours: in pixels, and scored as such."""
    scorer = getattr(task.config.process_results, "__module__", "")
    if scorer != "swiftvlm_eval.tasks.refcoco.functions":  # elsewhere `bbox` may mean something else
        return None
    return box_from_xywh(document["bbox"])
