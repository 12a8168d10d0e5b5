"""What lmms-eval calls for TextVQA (arXiv:1904.08920): the stock metric, on data that fails in plain words."""

from collections.abc import Mapping, Sequence
from typing import Any

from datasets import Dataset
from lmms_eval.tasks.textvqa.utils import textvqa_doc_to_text, textvqa_process_results

from swiftvlm_eval.grounding.boxes import MAX_ANSWER_CHARS
from swiftvlm_eval.tasks.hub import defer_errors, load_rows, raise_deferred, recorded

COLUMNS = {
    "image_id": "id of the image",
    "question_id": "id of the question",
    "question": "text",
    "image": "encoded image",
    "answers": "list of ten answers",
    "ocr_tokens": "list of text",
}


def process_docs(dataset: Dataset) -> Dataset:
    """Load the questions; an error is raised by `doc_to_text`. See `load_questions` and `defer_errors`."""
    return defer_errors(load_questions, dataset)


def load_questions(dataset: Dataset) -> Dataset:
    """Load the questions.

    Args:
        dataset: Either the task's entry of `sources.json`, or the rows themselves in the hub's schema.

    Returns:
        The rows as they are, images undecoded until they are asked for; see `hub.load_rows`.

    Raises:
        DatasetAccessError: The data cannot be had or has changed; the message has the cure.
    """
    return load_rows(dataset, COLUMNS)


def doc_to_text(doc: Mapping[str, Any], lmms_eval_specific_kwargs: Mapping[str, Any]) -> str:
    """Ask the question in the stock wording, with or without the OCR tokens.

    Raises:
        DatasetAccessError: The task's data could not be loaded.
    """
    raise_deferred(doc)
    prompt: str = textvqa_doc_to_text(doc, lmms_eval_specific_kwargs)
    return prompt


def process_results(doc: Mapping[str, Any], results: Sequence[object]) -> dict[str, Any]:
    """Score an answer with the stock metric. Never raises, since lmms-eval drops the whole run for a scorer that does.

    The stock function normalises answers as the EvalAI server does and gives, averaged over the ten people asked,
    min(1, matches among the other nine / 3). It also normalises the document's answers in place, hence the copy.

    Args:
        doc: A row, with or without its image.
        results: The answer as the only element; whatever it is, it counts.

    Returns:
        `exact_match` in 0..1, the unit for clustering (`cluster_id`, the image), the question's id, and `split`, what
        the row was loaded from.
    """
    text = results[0] if results and isinstance(results[0], str) else ""
    answers = [answer for answer in doc.get("answers") or [] if isinstance(answer, str)]
    exact_match = 0.0
    if answers:
        scored = {"answers": answers, "question_id": doc.get("question_id")}
        exact_match = float(textvqa_process_results(scored, [text[:MAX_ANSWER_CHARS]])["exact_match"])
    return {
        "exact_match": exact_match,
        "cluster_id": str(doc.get("image_id")),
        "question_id": doc.get("question_id"),
        **recorded(doc),
    }
