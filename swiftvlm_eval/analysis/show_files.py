"""The files of `swiftvlm-eval show`: pictures, one page with all of them inside, and what they show in numbers."""

import base64
import io
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

from swiftvlm_eval.analysis.asking import Asked
from swiftvlm_eval.analysis.drawing import below, beside, text_block
from swiftvlm_eval.analysis.showing import Shown, method_name
from swiftvlm_eval.models.checkpoint import Checkpoint
from swiftvlm_eval.pruning.budget import budget_in_words

SideBySide = Literal["columns", "rows"]


def model_name(checkpoint: Checkpoint) -> str:
    """The checkpoint's name: a hub id, `demo`, or a folder's own name without those above it."""
    return Path(checkpoint.name).name if checkpoint.name.startswith((".", "/", "~")) else checkpoint.name


def side_by_side(asked: Asked, shown: Sequence[Shown], heading: str, layout: SideBySide = "columns") -> Image.Image:
    """One picture of all.

    Args:
        asked: the question.
        shown: the methods.
        heading: above the question.
        layout: `columns` has a column for each method, its stages from top to bottom; `rows` a row for each, its
            stages from left to right. The answer stands below the stages.
    """
    across = layout == "rows"
    strips = []
    for one in shown:
        pictures = [stage.captioned for stage in one.stages]
        stages = [beside(pictures, gap=20)] if across and pictures else pictures
        width = max([stage.width for stage in stages] or [320])
        parts = [text_block(one.label, width, 18, bold=True)]
        if one.refused:
            parts.append(text_block(f"refused: {one.refused}", width))
        parts += stages
        if not one.refused:
            parts += _outcome(one, width, across)
        strips.append(below(parts))
    body = below(strips, gap=16) if across else beside(strips, gap=20)
    above = [text_block(heading, body.width, 13), text_block(asked.question, body.width, 16)]
    return below([*above, body, text_block(LEGEND, body.width, 13)])


def _outcome(one: Shown, width: int, in_one_line: bool) -> list[Image.Image]:
    """What a method executed and answered."""
    rows, answer = f"{one.mean_tokens:.1f} visual rows per layer", f"answer: {one.answer or '(empty)'}"
    if in_one_line:
        return [text_block("; ".join(filter(None, [answer, one.verdict, rows])), width, 14, bold=True)]
    worth = [text_block(one.verdict, width)] if one.verdict else []
    return [text_block(rows, width), text_block(answer, width, 16, bold=True), *worth]


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


def write_pictures(
    out: Path, checkpoint: Checkpoint, asked: Asked, shown: Sequence[Shown], layout: SideBySide = "columns"
) -> list[Path]:
    """Writes a PNG for every method and stage, one of all side by side, the page, and what they show as JSON.

    Args:
        out: an existing folder.
        checkpoint: that answered.
        asked: the question.
        shown: the answers.
        layout: of `side_by_side.png`.

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
    side_by_side(asked, shown, heading, layout).save(out / "side_by_side.png")
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
