"""What lmms-eval calls for the demo's question answering: the prompts and metrics of stock GQA and POPE.

Grounding and reading have no functions here: they use those of RefCOCO and TextVQA themselves.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from datasets import Dataset
from lmms_eval.api.metrics import exact_match_hf_evaluate

from swiftvlm_eval.tasks.answers import answer_text
from swiftvlm_eval.tasks.hub import require_columns

GQA_COLUMNS = {
    "id": "id",
    "imageId": "id of the image",
    "question": "text",
    "answer": "text",
    "image": "encoded image",
}
POPE_COLUMNS = {
    "question_id": "id",
    "question": "text",
    "answer": "yes or no",
    "image_source": "id of the image",
    "image": "encoded image",
}


def gqa_process_docs(dataset: Dataset) -> Dataset:
    """Check the columns of the attribute questions. Raises `DatasetAccessError` if one is missing."""
    require_columns(dataset, GQA_COLUMNS, "demo_gqa")
    return dataset


def pope_process_docs(dataset: Dataset) -> Dataset:
    """Check the columns of the existence questions. Raises `DatasetAccessError` if one is missing."""
    require_columns(dataset, POPE_COLUMNS, "demo_pope")
    return dataset


def gqa_process_results(doc: Mapping[str, Any], results: Sequence[object]) -> dict[str, Any]:
    """Score an answer as stock GQA (arXiv:1902.09506) does: the same text, case and punctuation aside. Never raises.

    Args:
        doc: A row, with or without its image.
        results: The answer as the only element; whatever it is, it counts.

    Returns:
        `exact_match` 0 or 1, the unit for clustering (`cluster_id`, the image) and the question's id.
    """
    match = exact_match_hf_evaluate(
        predictions=[answer_text(results)],
        references=[str(doc.get("answer")).strip()],
        ignore_case=True,
        ignore_punctuation=True,
    )
    return {
        "exact_match": float(match["exact_match"]),
        "cluster_id": str(doc.get("imageId")),
        "question_id": doc.get("id"),
    }


def pope_process_results(doc: Mapping[str, Any], results: Sequence[object]) -> dict[str, Any]:
    """Score an answer as stock POPE (arXiv:2305.10355) does: it must be the word and nothing else. Never raises.

    Args:
        doc: A row, with or without its image.
        results: The answer as the only element; whatever it is, it counts.

    Returns:
        `pope_accuracy` 0 or 1; `pope_yes_ratio` 1 for a yes (of the *answers*; the stock metric of this name counts
        the labels); `pope_other` 1 for an answer that is neither; the unit for clustering (`cluster_id`, the image)
        and the question's id.
    """
    answer = answer_text(results).lower()
    return {
        "pope_accuracy": float(answer == str(doc.get("answer")).strip().lower()),
        "pope_yes_ratio": float(answer == "yes"),
        "pope_other": float(answer not in ("yes", "no")),
        "cluster_id": str(doc.get("image_source")),
        "question_id": doc.get("question_id"),
    }
