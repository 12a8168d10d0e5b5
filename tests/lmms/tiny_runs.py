"""Our model class on tiny checkpoints: requests made by hand, and whole runs of lmms-eval in this process."""

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
from lmms_eval.api.instance import Instance
from lmms_eval.evaluator import simple_evaluate
from lmms_eval.tasks import TaskManager
from PIL import Image
from tiny_checkpoint import in_memory

from swiftvlm_eval import plugin
from swiftvlm_eval.lmms.model import PrunedModel, model_class
from swiftvlm_eval.models.checkpoint import Checkpoint
from swiftvlm_eval.testing.tiny_models import make_image

SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, "
    "and polite answers to the user's questions."
)
TASK, SPLIT = "by_hand", "test"
SIZES = [(70, 50), (50, 70), (60, 60), (61, 33), (33, 61), (90, 30)]
QUESTIONS = ["Why?", "What is in the picture?", "Yes or no.", "A red square left of a blue circle, is it?", "A", "Two"]


@cache
def checkpoint(family: str = "llava", grid: int = 4, layers: int = 12) -> Checkpoint:
    """One model for all tests that do not change it."""
    return in_memory(family, grid=grid, layers=layers)


def make_model(
    method: str | None = None, *, family: str = "llava", own: Checkpoint | None = None, **options: Any
) -> PrunedModel:
    """The lmms-eval model on a tiny checkpoint."""
    return model_class(family)(checkpoint=own or checkpoint(family), method=method, device="cpu", **options)


def visuals(document: Mapping[str, Any]) -> list[Image.Image]:
    """As a task's doc_to_visual."""
    return [make_image(width, height, number) for number, (width, height) in enumerate(document["sizes"])]


def squared(image: Image.Image) -> Image.Image:
    """On a square canvas of the CLIP mean."""
    pixels = np.asarray(image)
    height, width = pixels.shape[:2]
    side = max(height, width)
    canvas = np.full((side, side, 3), (122, 116, 104), np.uint8)
    top, left = (side - height) // 2, (side - width) // 2
    canvas[top : top + height, left : left + width] = pixels
    return Image.fromarray(canvas)


def make_requests(
    model: PrunedModel,
    generation: Sequence[Mapping[str, Any]],
    sizes: Sequence[Sequence[tuple[int, int]]] | None = None,
    doc_to_visual: Callable[[Any], Any] = visuals,
) -> list[Instance]:
    """One request per generation argument set: another question, another image."""
    documents = [{"sizes": own} for own in sizes or [[SIZES[number % 6]] for number in range(len(generation))]]
    model.task_dict = {TASK: {SPLIT: documents}}
    return [
        Instance(
            "generate_until",
            (QUESTIONS[number % 6], dict(arguments), doc_to_visual, number, TASK, SPLIT),
            0,
            {"task": TASK, "doc_id": number, "repeats": 1, "split": SPLIT},
        )
        for number, arguments in enumerate(generation)
    ]


def score_request(
    model: PrunedModel, question: str, target: Any, sizes: Sequence[tuple[int, int]] = ((70, 50),)
) -> Instance:
    """A loglikelihood request; a `target` text is a choice with its delimiter, a function a doc_to_target."""
    model.task_dict = {TASK: {SPLIT: [{"sizes": list(sizes)}]}}
    metadata = {"task": TASK, "doc_id": 0, "repeats": 1, "split": SPLIT}
    return Instance("loglikelihood", (question, target, visuals, 0, TASK, SPLIT), 0, metadata)


@cache
def our_tasks() -> TaskManager:
    """An index of our task folder alone: quick to build."""
    return TaskManager(include_path=f"{plugin.TASK_FOLDER}/", include_defaults=False)


def evaluate(model: PrunedModel, *tasks: str, manager: TaskManager | None = None, **options: Any) -> dict[str, Any]:
    """Runs lmms-eval; `options` as of `simple_evaluate`."""
    found: dict[str, Any] = simple_evaluate(
        model=model, tasks=list(tasks), task_manager=manager or our_tasks(), bootstrap_iters=0, **options
    )
    return found
