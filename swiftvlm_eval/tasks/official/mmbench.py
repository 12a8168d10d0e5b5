"""MMBench (arXiv:2307.06281), English dev, with the prompt of LLaVA's scripts and circular scoring of our own.

LLaVA's scripts score nothing here: answers are uploaded and the benchmark's server decides. The nearest honest thing
is done in its place: the letter is read by the scripts' rule for ScienceQA, and a question counts if it is answered
right in every order of its options. The metric is named for what it is, `circular_accuracy_local`.
"""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from datasets import Dataset
from PIL import Image

from swiftvlm_eval.tasks.answers import answer_text
from swiftvlm_eval.tasks.hub import DatasetAccessError, defer_errors, load_rows, raise_deferred, recorded
from swiftvlm_eval.tasks.official.answer_rules import option_letter
from swiftvlm_eval.tasks.official.prompts import OPTION_LETTER, option_lines

OPTIONS = "ABCD"
COLUMNS = {
    "index": "number; rows that differ by multiples of a million are one question",
    "question": "text",
    "hint": "text, or nan",
    **{letter: "text, or nan" for letter in OPTIONS},
    "answer": "letter",
    "image": "encoded image",
}
_ROTATION = 1_000_000
METRIC = "circular_accuracy_local"


def process_docs(dataset: Dataset) -> Dataset:
    """Load the questions; an error is raised by `doc_to_text`. See `load_questions` and `hub.defer_errors`."""
    return defer_errors(load_questions, dataset)


def load_questions(dataset: Dataset) -> Dataset:
    """Load the questions. Arguments and result as in `hub.load_rows`.

    Raises:
        DatasetAccessError: The data cannot be had or has changed, or a question's answer is none of its options.
    """
    rows = load_rows(dataset, COLUMNS)
    for doc in rows.select_columns([name for name in COLUMNS if name != "image"]):
        options = _options(doc)
        if doc["answer"] not in tuple(OPTIONS[: len(options)]):
            raise DatasetAccessError(
                f"MMBench data, index {doc['index']}: answer {doc['answer']!r} of {len(options)} options; expected "
                f"the letter of one of them. The test split has no answers: take dev, or pin a revision that has them."
            )
    return rows


def _is_empty(text: object) -> bool:
    """Whether a cell of the benchmark's table is empty; the hub spells that in several ways."""
    if isinstance(text, float):
        return math.isnan(text)
    return text is None or (isinstance(text, str) and text.strip().lower() in ("", "nan", "none"))


def _options(doc: Mapping[str, Any]) -> list[str]:
    """The options, up to the first empty one."""
    found: list[str] = []
    for letter in OPTIONS:
        if _is_empty(doc.get(letter)):
            break
        found.append(str(doc[letter]))
    return found


def doc_to_visual(doc: Mapping[str, Any]) -> list[Image.Image]:
    """Decode the image of a row."""
    return [doc["image"].convert("RGB")]


def doc_to_text(doc: Mapping[str, Any], lmms_eval_specific_kwargs: Mapping[str, Any] | None = None) -> str:
    """Ask for the letter of the right option: hint (where there is one), question, options, instruction, one a line.

    Raises:
        DatasetAccessError: The task's data could not be loaded.
    """
    raise_deferred(doc)
    hint = "" if _is_empty(doc["hint"]) else f"{doc['hint']}\n"
    return f"{hint}{doc['question']}\n{option_lines(_options(doc))}\n{OPTION_LETTER}"


def process_results(doc: Mapping[str, Any], results: Sequence[object]) -> dict[str, Any]:
    """Score one order of a question's options by `answer_rules.option_letter`. Never raises.

    Args:
        doc: A row, with or without its image.
        results: The answer as the only element; whatever it is, it counts.

    Returns:
        The metric: what `circular_accuracy` aggregates, with the `score` of this order and the number of
        `orders`; `vanilla_accuracy`, the same without regard to the other orders; and `unreadable`, 1 for an
        answer that names no option.
    """
    answer, orders = answer_text(results), len(_options(doc))
    letter = option_letter(answer, orders)
    score = float(letter is not None and letter == doc.get("answer"))
    outcome = {"index": int(doc["index"]), "orders": orders, "prediction": answer, "answer": doc.get("answer")}
    return {
        METRIC: {**outcome, "score": score},
        "vanilla_accuracy": score,
        "unreadable": float(letter is None),
        **recorded(doc),
    }


def circular_accuracy(outcomes: Sequence[Mapping[str, Any]]) -> float:
    """Percent of questions answered right in every order of their options that is there."""
    questions: dict[int, list[float]] = defaultdict(list)
    for outcome in outcomes:
        questions[outcome["index"] % _ROTATION].append(outcome["score"])
    return 100 * sum(min(scores) for scores in questions.values()) / len(questions) if questions else 0.0
