"""Several methods on one question: their answers, and pictures of what they kept at every stage."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from PIL import Image

from swiftvlm_eval.analysis.asking import Asked
from swiftvlm_eval.analysis.drawing import MarkedBox
from swiftvlm_eval.analysis.pictures import StagePicture, stage_pictures
from swiftvlm_eval.grounding import Box, iou, parse_box
from swiftvlm_eval.grounding.boxes import locate
from swiftvlm_eval.lmms.model import model_class
from swiftvlm_eval.models.checkpoint import Checkpoint
from swiftvlm_eval.models.families import family_of
from swiftvlm_eval.models.placement import input_placement
from swiftvlm_eval.pruning.budget import BudgetError
from swiftvlm_eval.pruning.registry import make_method, split_outside_brackets
from swiftvlm_eval.pruning.signals import check_needs
from swiftvlm_eval.sweep.configurations import Configuration

FRAMES = {"pad": "square", "crop": "crop", "anyres": "square"}
"""Placement -> the frame in which a model that was shown the image so answers with boxes."""


@dataclass(frozen=True)
class Shown:
    """One method on the question.

    Attributes:
        configuration: what ran.
        answer: of the model.
        stages: its pictures; none where it was refused.
        box: the predicted one in pixels of the image; None where the answer has none.
        overlap: intersection over union with the true box; None where there is none.
        scores: the task's metrics of the answer.
        mean_tokens: executed visual rows per layer.
        refused: why it did not run.
    """

    configuration: Configuration
    answer: str = ""
    stages: tuple[StagePicture, ...] = ()
    box: Box | None = None
    overlap: float | None = None
    scores: tuple[tuple[str, float], ...] = ()
    mean_tokens: float = 0.0
    refused: str = ""

    @property
    def label(self) -> str:
        """The configuration's label; of a method in a file without the folders."""
        return replace(self.configuration, method=method_name(self.configuration)).label

    @property
    def verdict(self) -> str:
        """The answer's worth, for people; empty where nothing is known of it."""
        if self.overlap is not None:
            return f"IoU with the true box {self.overlap:.2f}"
        return ", ".join(f"{name} {value:g}" for name, value in self.scores)


def show(
    checkpoint: Checkpoint,
    asked: Asked,
    grid: Sequence[Configuration],
    before: Callable[[Configuration], object] = lambda configuration: None,
) -> list[Shown]:
    """Answers with every configuration and draws what was kept; one that the model cannot run is marked as refused.

    Args:
        checkpoint: of any family.
        asked: the question.
        grid: the configurations.
        before: called before each.

    Raises:
        ValueError: the processor puts patches where nobody knows.
        RuntimeError: a run failed; the message names the document.
    """
    placement = input_placement(checkpoint)
    found = []
    for configuration in grid:
        before(configuration)
        try:
            _check(checkpoint, configuration)
        except ValueError as error:
            found.append(Shown(configuration, refused=str(error)))
            continue
        try:
            found.append(_shown(checkpoint, asked, configuration, placement))
        except RuntimeError as error:  # an image's own number of tokens may decide
            if not isinstance(error.__cause__, BudgetError):
                raise
            found.append(Shown(configuration, refused=str(error.__cause__)))
    return found


def _check(checkpoint: Checkpoint, configuration: Configuration) -> None:
    """Refuses a budget, layers or a need that the model's depth, number of visual tokens or tower forbid."""
    adapter = checkpoint.adapter
    method = make_method(configuration.method, configuration.options)
    check_needs(method, adapter)
    method = method.with_recommended(adapter.recommended_layers)
    method.plan(adapter.tower.patches_per_side**2, adapter.decoder.shape.num_layers, configuration.budget)


def _shown(checkpoint: Checkpoint, asked: Asked, configuration: Configuration, placement: str) -> Shown:
    model = model_class(family_of(checkpoint.family).name)(
        checkpoint=checkpoint,
        method=configuration.method,
        budget=configuration.budget,
        seed=configuration.seed,
        device=checkpoint.model.device.type,
        **configuration.options,
    )
    model.task_dict = asked.task_dict
    with model.session.bound(), torch.inference_mode():
        (result,) = model.answering.answer([asked.request])
    answer = str(result.text)
    box = predicted_box(answer, asked.images, placement)
    boxes = [MarkedBox(own, predicted) for own, predicted in ((asked.truth, False), (box, True)) if own is not None]
    stages = stage_pictures(model.session, asked.images, placement=placement, boxes=boxes)
    overlap = None
    if asked.truth is not None:
        overlap = 0.0 if box is None else iou(asked.truth, box)
    scores = tuple(asked.scores(answer).items())
    trace = model.session.traces[0]
    return Shown(configuration, answer, tuple(stages), box, overlap, scores, trace.mean_visual_tokens)


def predicted_box(answer: str, images: Sequence[Image.Image], placement: str) -> Box | None:
    """The answer's box in pixels of the image, read as the grounding tasks do; None of several images, or without."""
    parsed = parse_box(answer)
    if parsed is None or len(images) != 1:
        return None
    return locate(parsed, images[0].width, images[0].height, FRAMES[placement])  # type: ignore[arg-type]


def method_name(configuration: Configuration) -> str:
    """The configuration's method as typed, a file's reference without its folders: pages are passed on."""
    parts = [part.partition("[") for part in split_outside_brackets(configuration.method, "+")]
    return "+".join(f"{Path(name).name}{bracket}{rest}" for name, bracket, rest in parts)
