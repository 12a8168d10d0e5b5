"""POPE (arXiv:2305.10355) as LLaVA's scripts score it: three subsets apart, and the mean over them."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from datasets import Dataset

from swiftvlm_eval.tasks.answers import answer_text
from swiftvlm_eval.tasks.hub import DatasetAccessError, defer_errors, load_rows, raise_deferred, recorded
from swiftvlm_eval.tasks.official.answer_rules import says_yes
from swiftvlm_eval.tasks.official.prompts import SHORT_ANSWER

COLUMNS = {
    "question_id": "id",
    "question": "text",
    "answer": "yes or no",
    "image_source": "id of the image",
    "category": "random, popular or adversarial",
    "image": "encoded image",
}
SUBSETS = ("adversarial", "popular", "random")
MEASURES = ("accuracy", "precision", "recall", "f1", "yes_ratio")

Outcome = Mapping[str, Any]


def process_docs(dataset: Dataset) -> Dataset:
    """Load the questions; an error is raised by `doc_to_text`. See `load_questions` and `hub.defer_errors`."""
    return defer_errors(load_questions, dataset)


def load_questions(dataset: Dataset) -> Dataset:
    """Load the questions of all three subsets. Arguments and result as in `hub.load_rows`.

    Raises:
        DatasetAccessError: The data cannot be had or has changed; a subset is missing or unknown; an answer is neither
            yes nor no.
    """
    rows = load_rows(dataset, COLUMNS)
    for column, allowed in (("category", set(SUBSETS)), ("answer", {"yes", "no"})):
        found = {str(value).strip().lower() for value in rows.unique(column)}
        if found != allowed and (column == "category" or not found <= allowed):
            raise DatasetAccessError(
                f"POPE data: column {column} must hold {', '.join(sorted(allowed))}, found {', '.join(sorted(found))}."
                f" Pin a revision that has them."
            )
    return rows


def doc_to_text(doc: Mapping[str, Any], lmms_eval_specific_kwargs: Mapping[str, Any] | None = None) -> str:
    """Ask the question for a short answer.

    Raises:
        DatasetAccessError: The task's data could not be loaded.
    """
    raise_deferred(doc)
    return f"{doc['question'].strip()}\n{SHORT_ANSWER}"


def process_results(doc: Mapping[str, Any], results: Sequence[object]) -> dict[str, Any]:
    """Read an answer. Never raises, since lmms-eval drops the whole run for a scorer that does.

    Args:
        doc: A row, with or without its image.
        results: The answer as the only element; whatever it is, it counts.

    Returns:
        For every measure, over all questions (`pope_f1`) and of the question's subset (`pope_f1_random`), the outcome
        that `mean_accuracy` and the others aggregate. Its `score` is 1 for a right answer, of `yes_ratio` 1 for a yes.
        `pope_other` is 1 for an answer that is neither yes nor no to a reader, all of which count as one of the two.
        Also the unit for clustering (`cluster_id`, the image), the subset (`stratum`) and the question's id.
    """
    answer = answer_text(results)
    yes, truth = says_yes(answer), str(doc.get("answer")).strip().lower() == "yes"
    subset = str(doc.get("category")).strip().lower()
    outcome = {"yes": yes, "truth": truth, "subset": subset, "score": float(yes == truth)}
    scored: dict[str, Any] = {}
    for measure in MEASURES:
        value = {**outcome, "score": float(yes)} if measure == "yes_ratio" else outcome
        scored |= {f"pope_{measure}": value, f"pope_{measure}_{subset}": value}
    return {
        **scored,
        "pope_other": float(answer.removesuffix(".").lower() not in ("yes", "no")),
        "cluster_id": str(doc.get("image_source")),
        "stratum": subset,
        "question_id": doc.get("question_id"),
        **recorded(doc),
    }


def mean_accuracy(outcomes: Sequence[Outcome]) -> float:
    """Share of right answers in 0..1, mean over the subsets at hand."""
    return _over_subsets(outcomes, lambda right, false_yes, missed, count: 1 - (false_yes + missed) / count)


def mean_precision(outcomes: Sequence[Outcome]) -> float:
    """Right ones among the answers yes in 0..1, mean over the subsets at hand; 0 for a subset without a yes."""
    return _over_subsets(outcomes, lambda right, false_yes, missed, count: _share(right, right + false_yes))


def mean_recall(outcomes: Sequence[Outcome]) -> float:
    """Questions answered yes among those to which yes is right in 0..1, mean over the subsets at hand."""
    return _over_subsets(outcomes, lambda right, false_yes, missed, count: _share(right, right + missed))


def mean_f1(outcomes: Sequence[Outcome]) -> float:
    """F1 of the answer yes in 0..1, mean over the subsets at hand; 0 for a subset in which no yes is right."""
    return _over_subsets(
        outcomes, lambda right, false_yes, missed, count: _share(2 * right, 2 * right + false_yes + missed)
    )


def mean_yes_ratio(outcomes: Sequence[Outcome]) -> float:
    """Share of answers yes in 0..1, mean over the subsets at hand."""
    return _over_subsets(outcomes, lambda right, false_yes, missed, count: (right + false_yes) / count)


def _over_subsets(outcomes: Sequence[Outcome], measure: Callable[[int, int, int, int], float]) -> float:
    """Mean over subsets of a measure of (yes and right, yes and wrong, no and wrong, questions)."""
    values = []
    for subset in sorted({outcome["subset"] for outcome in outcomes}):
        those = [outcome for outcome in outcomes if outcome["subset"] == subset]
        right = sum(outcome["yes"] and outcome["truth"] for outcome in those)
        false_yes = sum(outcome["yes"] and not outcome["truth"] for outcome in those)
        missed = sum(not outcome["yes"] and outcome["truth"] for outcome in those)
        values.append(measure(right, false_yes, missed, len(those)))
    return sum(values) / len(values) if values else 0.0


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
