"""GQA (arXiv:1902.09506), testdev balanced, as LLaVA's scripts score it."""

from collections.abc import Mapping, Sequence
from typing import Any

from datasets import Dataset
from PIL import Image

from swiftvlm_eval.tasks.answers import answer_text
from swiftvlm_eval.tasks.hub import (
    DatasetAccessError,
    HubSource,
    defer_errors,
    load_split,
    parse_source,
    raise_deferred,
    recorded,
    require_columns,
    source_row,
    with_provenance,
)
from swiftvlm_eval.tasks.official.answer_rules import gqa_answer
from swiftvlm_eval.tasks.official.prompts import SHORT_ANSWER

QUESTION_COLUMNS = {"id": "id", "imageId": "id of the image", "question": "text", "answer": "text"}
IMAGE_COLUMNS = {"id": "id of the image", "image": "encoded image"}

# The images of the hub are a data set of their own; documents name the data set and the row. Written while a task
# loads, only read while a model runs, and one for all functions, because the YAML names them absolutely.
_images: dict[str, Dataset] = {}


class GqaSource(HubSource):
    """One entry of `sources.json`: questions, and the configuration of the same data set that holds the images."""

    image_config: str


def process_docs(dataset: Dataset) -> Dataset:
    """Load the questions; an error is raised by `doc_to_text`. See `load_questions` and `hub.defer_errors`."""
    return defer_errors(load_questions, dataset)


def load_questions(dataset: Dataset) -> Dataset:
    """Load the questions, and the images without decoding them.

    Args:
        dataset: Either the task's entry of `sources.json`, or questions in the hub's schema with a column `image`.

    Returns:
        The questions; loaded ones with the place of the image (`images`, `image_row`) and `hub.PROVENANCE`.

    Raises:
        DatasetAccessError: The data cannot be had or has changed, or a question's image is missing.
    """
    row = source_row(dataset)
    if row is None:
        require_columns(dataset, {**QUESTION_COLUMNS, "image": IMAGE_COLUMNS["image"]}, "the given rows")
        return dataset
    source = parse_source(row, GqaSource)
    questions = load_split(source, QUESTION_COLUMNS).select_columns(list(QUESTION_COLUMNS))
    image_source = HubSource(
        repository=source.repository, split=source.split, config=source.image_config, revision=source.revision
    )
    images = load_split(image_source, IMAGE_COLUMNS)
    rows = {name: row for row, name in enumerate(images.select_columns(["id"])["id"])}
    missing = sorted(set(questions["imageId"]) - set(rows))
    if missing:
        raise DatasetAccessError(
            f"data set {image_source}: no image {missing[0]} ({len(missing)} are missing), which {source} asks about. "
            f"Pin a revision whose two parts agree."
        )
    _images[images._fingerprint] = images
    told = with_provenance(questions, source)
    placed = told.add_column("images", [images._fingerprint] * len(told))
    return placed.add_column("image_row", [rows[name] for name in questions["imageId"]])


def doc_to_visual(doc: Mapping[str, Any]) -> list[Image.Image]:
    """Decode the image of a question.

    Raises:
        ValueError: The document was made in another process.
    """
    if "images" not in doc:
        return [doc["image"].convert("RGB")]
    if doc["images"] not in _images:
        raise ValueError(
            "the images of this document are not loaded; documents must be made by process_docs in this process"
        )
    return [_images[doc["images"]][doc["image_row"]]["image"].convert("RGB")]


def doc_to_text(doc: Mapping[str, Any], lmms_eval_specific_kwargs: Mapping[str, Any] | None = None) -> str:
    """Ask the question for a short answer.

    Raises:
        DatasetAccessError: The task's data could not be loaded.
    """
    raise_deferred(doc)
    return f"{doc['question']}\n{SHORT_ANSWER}"


def process_results(doc: Mapping[str, Any], results: Sequence[object]) -> dict[str, Any]:
    """Score an answer: the same text as the truth, case and periods at the end aside. Never raises.

    Args:
        doc: A document, with or without its image.
        results: The answer as the only element; whatever it is, it counts.

    Returns:
        `exact_match` 0 or 1, the unit for clustering (`cluster_id`, the image) and the question's id.
    """
    answer = gqa_answer(answer_text(results))
    return {
        "exact_match": float(answer == str(doc.get("answer")).lower()),
        "cluster_id": str(doc.get("imageId")),
        "question_id": doc.get("id"),
        **recorded(doc),
    }
