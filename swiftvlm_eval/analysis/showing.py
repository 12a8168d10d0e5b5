"""Several methods on one question: answers, pictures of every stage, and the files of both."""

import base64
import io
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

from swiftvlm_eval.analysis.asking import Asked
from swiftvlm_eval.analysis.drawing import MarkedBox, below, beside, text_block
from swiftvlm_eval.analysis.pictures import StagePicture, stage_pictures
from swiftvlm_eval.grounding import Box, iou, parse_box
from swiftvlm_eval.grounding.boxes import locate
from swiftvlm_eval.lmms.model import model_class
from swiftvlm_eval.models.checkpoint import Checkpoint
from swiftvlm_eval.models.families import family_of
from swiftvlm_eval.models.placement import input_placement
from swiftvlm_eval.pruning.budget import BudgetError, budget_in_words
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


def model_name(checkpoint: Checkpoint) -> str:
    """The checkpoint's name: a hub id, `demo`, or a folder's own name without those above it."""
    return Path(checkpoint.name).name if checkpoint.name.startswith((".", "/", "~")) else checkpoint.name


def side_by_side(asked: Asked, shown: Sequence[Shown], heading: str) -> Image.Image:
    """One picture of all: a column for each method that ran, its stages from top to bottom, its answer below."""
    columns = []
    for one in shown:
        width = max([stage.image.width for stage in one.stages] or [320])
        parts = [text_block(one.label, width, 18, bold=True)]
        if one.refused:
            parts.append(text_block(f"refused: {one.refused}", width))
        parts += [stage.captioned for stage in one.stages]
        if not one.refused:
            parts.append(text_block(f"{one.mean_tokens:.1f} visual rows per layer", width))
            parts.append(text_block(f"answer: {one.answer or '(empty)'}", width, 16, bold=True))
            parts += [text_block(one.verdict, width)] if one.verdict else []
        columns.append(below(parts))
    body = beside(columns, gap=20)
    above = [text_block(heading, body.width, 13), text_block(asked.question, body.width, 16)]
    return below([*above, body, text_block(LEGEND, body.width, 13)])


LEGEND = (
    "Clear: tokens that are kept at that stage. Dimmed: dropped or merged. Blue frame with a dot: came back. "
    "Green box: true. Orange dashed box: predicted."
)


def file_names(shown: Sequence[Shown]) -> list[list[str]]:
    """Of every method the names of its pictures, from number and label; distinct, and safe on any file system."""
    names = []
    for number, one in enumerate(shown, start=1):
        name = re.sub(r"[^A-Za-z0-9_.-]+", "-", one.label)[-60:].strip("-.")
        names.append([f"{number:02}-{name}-stage-{stage}.png" for stage in range(1, len(one.stages) + 1)])
    return names


def check_folder(out: Path) -> None:
    """Refuses a folder that holds something: nothing is overwritten.

    Raises:
        ValueError: it does, or a file is in its place.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"out={out}: not an empty folder; allowed is a new or an empty one")


def write_pictures(out: Path, checkpoint: Checkpoint, asked: Asked, shown: Sequence[Shown]) -> list[Path]:
    """Writes a PNG for every method and stage, one of all side by side, the page, and what they show as JSON.

    Args:
        out: an existing folder.
        checkpoint: that answered.
        asked: the question.
        shown: the answers.

    Returns:
        The files, the page first.
    """
    budgets = sorted({one.configuration.budget for one in shown if one.configuration.budget < 1}, reverse=True)
    said = "; ".join(f"budget {budget_in_words(share, None)}" for share in budgets)
    heading = ", ".join(filter(None, [f"model {model_name(checkpoint)}", asked.source, said]))
    names, files = file_names(shown), []
    for own, one in zip(names, shown, strict=True):
        for name, stage in zip(own, one.stages, strict=True):
            stage.captioned.save(out / name)
            files.append(out / name)
    side_by_side(asked, shown, heading).save(out / "side_by_side.png")
    facts = json.dumps(_facts(checkpoint, asked, shown, names), indent=2, allow_nan=False)
    (out / "show.json").write_text(facts + "\n", encoding="utf-8")
    (out / "index.html").write_text(_page(asked, shown, heading), encoding="utf-8")
    return [out / "index.html", out / "side_by_side.png", out / "show.json", *files]


def _facts(checkpoint: Checkpoint, asked: Asked, shown: Sequence[Shown], names: list[list[str]]) -> dict[str, Any]:
    """What the pictures show, in numbers."""
    return {
        "model": model_name(checkpoint),
        "content": checkpoint.content,
        "image_mode": checkpoint.image_mode_in_force,
        "source": asked.source,
        "question": asked.question,
        "images": [list(image.size) for image in asked.images],
        "true_box": asked.truth,
        "expected": asked.expected or None,
        "methods": [
            {
                "method": method_name(one.configuration),
                "options": {key: str(value) for key, value in one.configuration.options.items()},
                "budget": one.configuration.budget,
                "seed": one.configuration.seed,
                "refused": one.refused or None,
                "answer": None if one.refused else one.answer,
                "predicted_box": one.box,
                "iou": one.overlap,
                "scores": dict(one.scores),
                "mean_visual_tokens": None if one.refused else one.mean_tokens,
                "stages": [
                    {
                        "picture": name,
                        "boundary": stage.moment.boundary,
                        "until": stage.moment.until,
                        "num_visual": stage.moment.num_visual,
                        "kept": stage.moment.kept,
                        "returned": stage.moment.returned,
                        "other_rows": stage.moment.others,
                        "on_padding": stage.on_padding,
                    }
                    for name, stage in zip(own, one.stages, strict=True)
                ],
            }
            for one, own in zip(shown, names, strict=True)
        ],
    }


def _page(asked: Asked, shown: Sequence[Shown], heading: str) -> str:
    """The page, with the pictures inside; everything that comes from outside is escaped by the template engine."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).with_name("templates")),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["png"] = _base64
    return environment.get_template("show.html.j2").render(asked=asked, shown=shown, heading=heading, legend=LEGEND)


def _base64(image: Image.Image) -> str:
    data = io.BytesIO()
    image.save(data, "PNG", optimize=True)
    return base64.b64encode(data.getvalue()).decode()
