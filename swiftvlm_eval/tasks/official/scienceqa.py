"""ScienceQA (arXiv:2209.09513), the test questions with an image, as LLaVA's scripts score it."""

from collections.abc import Mapping, Sequence
from typing import Any

from datasets import Dataset

from swiftvlm_eval.tasks.answers import answer_text
from swiftvlm_eval.tasks.hub import DatasetAccessError, defer_errors, load_rows, raise_deferred, recorded
from swiftvlm_eval.tasks.official.answer_rules import LETTERS, option_letter
from swiftvlm_eval.tasks.official.prompts import OPTION_LETTER, option_lines

COLUMNS = {
    "question": "text",
    "choices": "list of text",
    "answer": "number of the right choice, from 0",
    "hint": "text, possibly empty",
    "image": "encoded image",
}


def process_docs(dataset: Dataset) -> Dataset:
    """Load the questions; an error is raised by `doc_to_text`. See `load_questions` and `hub.defer_errors`."""
    return defer_errors(load_questions, dataset)


def load_questions(dataset: Dataset) -> Dataset:
    """Load the questions. Arguments and result as in `hub.load_rows`.

    Raises:
        DatasetAccessError: The data cannot be had or has changed, or a question's answer is none of its choices.
    """
    rows = load_rows(dataset, COLUMNS)
    texts = rows.select_columns(["choices", "answer"])
    for number, (choices, answer) in enumerate(zip(texts["choices"], texts["answer"], strict=True)):
        if not 0 <= answer < len(choices) <= len(LETTERS):
            raise DatasetAccessError(
                f"ScienceQA data, row {number}: answer {answer} of {len(choices)} choices; allowed are up to "
                f"{len(LETTERS)} choices and an answer among them. Pin a revision without this."
            )
    return rows


def doc_to_text(doc: Mapping[str, Any], lmms_eval_specific_kwargs: Mapping[str, Any] | None = None) -> str:
    """Ask for the letter of the right choice: context (where there is one), question, choices, instruction.

    Raises:
        DatasetAccessError: The task's data could not be loaded.
    """
    raise_deferred(doc)
    context = f"Context: {doc['hint']}\n" if doc["hint"] else ""
    return f"{context}{doc['question']}\n{option_lines(doc['choices'])}\n{OPTION_LETTER}"


def doc_to_target(doc: Mapping[str, Any]) -> str:
    """The letter of the right choice."""
    return LETTERS[doc["answer"]]


def process_results(doc: Mapping[str, Any], results: Sequence[object]) -> dict[str, Any]:
    """Score an answer by `answer_rules.option_letter`. Never raises.

    Args:
        doc: A row, with or without its image.
        results: The answer as the only element; whatever it is, it counts.

    Returns:
        `exact_match` 0 or 1, and `unreadable` 1 for an answer that names no option.
    """
    letter = option_letter(answer_text(results), len(doc["choices"]))
    return {
        "exact_match": float(letter == doc_to_target(doc)),
        "unreadable": float(letter is None),
        **recorded(doc),
    }
