"""MME (arXiv:2306.13394) as LLaVA's scripts hand it to the benchmark's own tool."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from datasets import Dataset

from swiftvlm_eval.tasks.answers import answer_text
from swiftvlm_eval.tasks.hub import DatasetAccessError, defer_errors, load_rows, raise_deferred, recorded
from swiftvlm_eval.tasks.official.answer_rules import mme_answer
from swiftvlm_eval.tasks.official.prompts import SHORT_ANSWER

COLUMNS = {
    "question_id": "id of the image",
    "question": "text",
    "answer": "Yes or No",
    "category": "one of the fourteen parts",
    "image": "encoded image",
}
PERCEPTION = (
    *("existence", "count", "position", "color", "posters", "celebrity", "scene", "landmark", "artwork"),
    "OCR",
)
COGNITION = ("commonsense_reasoning", "numerical_calculation", "text_translation", "code_reasoning")
_ASKED = "Please answer yes or no."


def process_docs(dataset: Dataset) -> Dataset:
    """Load the questions; an error is raised by `doc_to_text`. See `load_questions` and `hub.defer_errors`."""
    return defer_errors(load_questions, dataset)


def load_questions(dataset: Dataset) -> Dataset:
    """Load the questions. Arguments and result as in `hub.load_rows`.

    Raises:
        DatasetAccessError: The data cannot be had or has changed; a category is unknown, an answer is neither yes nor
            no, or an image has not exactly two questions.
    """
    rows = load_rows(dataset, COLUMNS)
    texts = rows.select_columns(["question_id", "category", "answer"])
    pairs: Counter[tuple[str, str]] = Counter()
    for category, image, answer in zip(texts["category"], texts["question_id"], texts["answer"], strict=True):
        if category not in (*PERCEPTION, *COGNITION) or _truth(answer) not in ("yes", "no"):
            raise DatasetAccessError(
                f"MME data: category {category!r} with answer {answer!r}; allowed are "
                f"{', '.join((*PERCEPTION, *COGNITION))} with Yes or No. Pin a revision that has them."
            )
        pairs[category, image] += 1
    odd = [f"{image} of {category}: {count}" for (category, image), count in pairs.items() if count != 2]
    if odd:
        raise DatasetAccessError(
            f"MME data: every image must have two questions, found {odd[0]} ({len(odd)} such images). Pin a revision "
            f"that has them."
        )
    return rows


def _truth(answer: object) -> str:
    return str(answer).strip().lower().removesuffix(".")


def doc_to_text(doc: Mapping[str, Any], lmms_eval_specific_kwargs: Mapping[str, Any] | None = None) -> str:
    """Ask the question for a short answer, in place of the benchmark's own sentence at its end.

    Raises:
        DatasetAccessError: The task's data could not be loaded.
    """
    raise_deferred(doc)
    return f"{doc['question'].strip().removesuffix(_ASKED).rstrip()}\n{SHORT_ANSWER}"


def process_results(doc: Mapping[str, Any], results: Sequence[object]) -> dict[str, Any]:
    """Score an answer by `answer_rules.mme_answer`. Never raises.

    Args:
        doc: A row, with or without its image.
        results: The answer as the only element; whatever it is, it counts.

    Returns:
        Under `mme_perception_score` or `mme_cognition_score`, whichever the category belongs to, what `total_score`
        aggregates, with the `score` of this question; and `mme_other`, 1 for an answer that is neither yes nor no.
    """
    answer = mme_answer(answer_text(results))
    part = "perception" if doc.get("category") in PERCEPTION else "cognition"
    outcome = {
        "question_id": doc.get("question_id"),
        "category": doc.get("category"),
        "score": float(answer == _truth(doc.get("answer"))),
    }
    return {f"mme_{part}_score": outcome, "mme_other": float(answer == "other"), **recorded(doc)}


def total_score(outcomes: Sequence[Mapping[str, Any]]) -> float:
    """Sum over categories of accuracy and accuracy+, both in percent: 0 to 200 a category.

    Accuracy counts questions, accuracy+ images whose two questions are both right. An image of which a limited run
    has only one question is left out, for want of its accuracy+.
    """
    images: dict[str, dict[Any, list[float]]] = defaultdict(lambda: defaultdict(list))
    for outcome in outcomes:
        images[outcome["category"]][outcome["question_id"]].append(outcome["score"])
    total = 0.0
    for category in images.values():
        pairs = [scores for scores in category.values() if len(scores) == 2]
        if pairs:
            total += 100 * sum(sum(pair) / 2 + (sum(pair) == 2) for pair in pairs) / len(pairs)
    return total
