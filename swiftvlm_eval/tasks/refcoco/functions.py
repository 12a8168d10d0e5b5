"""What lmms-eval calls for a grounding task: documents, images, prompts and scores.

The hub has one row per object with all its expressions; a document here is one expression, without its image. Images
stay encoded in the data set until the model asks for one, because decoding a split at the start costs minutes and
gigabytes.
"""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import datasets
from datasets import Dataset
from PIL import Image, UnidentifiedImageError

from swiftvlm_eval.grounding import BoxScore, Frame, box_from_xywh, score_box
from swiftvlm_eval.tasks.hub import (
    DatasetAccessError,
    defer_errors,
    parse_source,
    provenance,
    raise_deferred,
    source_row,
)
from swiftvlm_eval.tasks.refcoco.official_split import Selection, everything, size_of
from swiftvlm_eval.tasks.refcoco.source import RefSource, image_id, load_base, read_objects, select_split

PROMPT = "Please provide the bounding box coordinate of the region this sentence describes: {}."
"""The wording LLaVA-1.5 was trained with (arXiv:2310.03744)."""

# Encoded images by the key that documents carry. Written while a task loads, only read while a model runs. It holds
# memory-mapped files, not images, and works because the YAML names these functions absolutely: a relative name would
# execute this module anew for each function, with an empty dictionary each time.
_images: dict[str, Dataset] = {}


def process_docs(dataset: Dataset) -> Dataset:
    """Make the documents of a task; an error is raised by `doc_to_text`. See `build_documents` and `defer_errors`."""
    return defer_errors(build_documents, dataset)


def build_documents(dataset: Dataset) -> Dataset:
    """Turn a task's data into documents, one per expression and none with an image.

    Args:
        dataset: Either the task's entry of `sources.json`, whose data is then loaded from the hub and filtered to the
            official split, or the rows themselves in the hub's schema, which are taken as they are.

    Returns:
        Documents with `row`, `images` (together the place of the image), `question_id`, `file_name`, `cluster_id` (the
        image), `expression`, `width`, `height`, `bbox` (``[x, y, width, height]`` in pixels) and `split` (what was
        loaded, see `hub.provenance`, and its size).

    Raises:
        DatasetAccessError: The data cannot be had, has changed, or is not the official split; the message has the
            cure.
    """
    row = source_row(dataset)
    if row is None:
        name, split_filter, base = "the given rows", "none", dataset
        told: dict[str, str | None] = {"source": name}
        objects = read_objects(base, name)
        selection = everything(objects)
    else:
        source = parse_source(row, RefSource)
        name, split_filter, base = str(source), source.split_filter, load_base(source)
        objects = read_objects(base, name)
        selection = select_split(source, objects)
        told = provenance(source, base)
    size = size_of(selection)
    split = {**told, "filter": split_filter, "objects": size.objects, "expressions": size.expressions}
    return _documents(base, name, selection, split)


def _documents(base: Dataset, name: str, selection: Selection, split: Mapping[str, object]) -> Dataset:
    """Build the documents of the selected expressions."""
    encoded = _encoded_images(base, name)
    texts = base.select_columns(["question_id", "answer", "bbox", "file_name"])
    _images[base._fingerprint] = encoded
    documents = []
    for row, expression_numbers in selection:
        text = texts[row]
        try:
            box_from_xywh(text["bbox"])
            width, height = _open(encoded[row]["image"]).size
        except (ValueError, OSError) as error:
            raise DatasetAccessError(
                f"data set {name}, row {row}: {error}. Pin a revision without this fault."
            ) from error
        documents += [
            {
                "row": row,
                "images": base._fingerprint,
                "question_id": str(text["question_id"]),
                "file_name": text["file_name"],
                "cluster_id": image_id(text["file_name"]),
                "expression": text["answer"][number],
                "width": width,
                "height": height,
                "bbox": [float(value) for value in text["bbox"]],
                "split": split,
            }
            for number in expression_numbers
        ]
    if not documents:
        raise DatasetAccessError(f"data set {name}: expected expressions, found none in {len(base)} rows.")
    return Dataset.from_list(documents)


def _encoded_images(base: Dataset, name: str) -> Dataset:
    """The image column alone, as bytes."""
    try:
        return base.select_columns(["image"]).cast_column("image", datasets.Image(decode=False))
    except (ValueError, TypeError, NotImplementedError) as error:
        raise DatasetAccessError(
            f"data set {name}: image must hold encoded images, got {base.features['image']}. Pin another revision."
        ) from error


def _open(encoded: Mapping[str, Any]) -> Image.Image:
    """Open an encoded image, reading no more than its header.

    Raises:
        ValueError: There are neither bytes nor a path, or they hold no image.
    """
    if encoded.get("bytes") is None and encoded.get("path") is None:
        raise ValueError("image must be an encoded image, got neither bytes nor a path")
    try:
        return Image.open(encoded["path"] if encoded.get("bytes") is None else io.BytesIO(encoded["bytes"]))
    except UnidentifiedImageError as error:
        raise ValueError(f"image cannot be read: {error}") from error


def doc_to_visual(doc: Mapping[str, Any]) -> list[Image.Image]:
    """Decode the image of a document.

    The orientation tag of a photograph is ignored, as in LLaVA's own evaluation: boxes are given in stored pixels.

    Returns:
        One RGB image of the document's `width` and `height`.

    Raises:
        ValueError: The document was made in another process.
    """
    if doc["images"] not in _images:
        raise ValueError(
            "the images of this document are not loaded; documents must be made by process_docs in this process"
        )
    return [_open(_images[doc["images"]][doc["row"]]["image"]).convert("RGB")]


def doc_to_text(doc: Mapping[str, Any], lmms_eval_specific_kwargs: Mapping[str, Any] | None = None) -> str:
    """Ask for the box of the expression, which ends in exactly one period.

    Raises:
        DatasetAccessError: The task's data could not be loaded.
    """
    raise_deferred(doc)
    return PROMPT.format(doc["expression"].strip().rstrip(".").rstrip())


def process_results_square(doc: Mapping[str, Any], results: Sequence[object]) -> dict[str, Any]:
    """Score an answer in fractions of the padded square, as LLaVA-1.5 was trained. See `score_document`."""
    return score_document(doc, results, "square")


def process_results_image(doc: Mapping[str, Any], results: Sequence[object]) -> dict[str, Any]:
    """Score an answer in fractions of the image itself. See `score_document`."""
    return score_document(doc, results, "image")


def process_results_crop(doc: Mapping[str, Any], results: Sequence[object]) -> dict[str, Any]:
    """Score an answer in fractions of the centre square, for input that was cropped to it. See `score_document`."""
    return score_document(doc, results, "crop")


def score_document(doc: Mapping[str, Any], results: Sequence[object], frame: Frame) -> dict[str, Any]:
    """Score one answer. Never raises, since lmms-eval drops the whole run for a scorer that does.

    Args:
        doc: A document of `process_docs`, with or without more columns.
        results: The answer as the only element; whatever it is, it counts.
        frame: The frame that the model answers in.

    Returns:
        The metrics (`BoxScore.metrics`), the unit for clustering (`cluster_id`), and what any later analysis needs,
        since the samples file keeps nothing else of a document.
    """
    try:
        score = score_box(results[0] if results else None, doc["bbox"], doc["width"], doc["height"], frame)
    except (ValueError, TypeError, KeyError):
        # A ground truth that cannot be scored counts as a miss under a tag of its own.
        score = BoxScore(0.0, 0.0, strict=False, frame=frame, parsed=None, box=None, tags=("invalid_truth",))
    kept = ("question_id", "cluster_id", "width", "height", "bbox", "expression", "split")
    parsed = score.parsed
    return {
        **score.metrics,
        **{name: doc.get(name) for name in kept},
        "parsed": {
            "numbers": None if parsed is None else list(parsed.numbers),
            "scale": None if parsed is None else parsed.scale,
            "box": None if score.box is None else list(score.box),
            "tags": list(score.tags),
            "frame": score.frame,
        },
    }
