"""Scores of TextVQA and of the demo's questions, against numbers worked out by hand."""

from typing import Any

import pytest
from task_data import gqa_rows, pope_rows, textvqa_rows

from swiftvlm_eval.tasks.demo.functions import (
    gqa_process_docs,
    gqa_process_results,
    pope_process_docs,
    pope_process_results,
)
from swiftvlm_eval.tasks.hub import DatasetAccessError
from swiftvlm_eval.tasks.textvqa import functions as textvqa

BAD_ANSWERS = ["", "   ", None, 5, ["red"], "x" * 300_000, "1." * 100_000, "\0"]


def textvqa_score(answer: object, answers: Any) -> float:
    doc = {"answers": answers, "image_id": "i", "question_id": 1}
    value = textvqa.process_results(doc, [answer])["exact_match"]
    assert isinstance(value, float)
    return value


@pytest.mark.parametrize(
    ("answer", "answers", "expected"),
    [
        ("red", ["red"] * 10, 1.0),
        # Three people said red: for each of them two others agree (2/3), for the seven others all three do (1).
        ("red", ["red"] * 3 + ["blue"] * 7, (3 * 2 / 3 + 7) / 10),
        # One person: nobody else for that one (0), one match for the nine others (1/3).
        ("red", ["red"] + ["blue"] * 9, 9 / 3 / 10),
        ("green", ["red"] * 10, 0.0),
        ("The Red.", ["red"] * 10, 1.0),
        ("two", ["2"] * 10, 1.0),
        ("dont", ["don't"] * 10, 1.0),
        ("red", [], 0.0),
        ("red", None, 0.0),
        ("red", [None] * 10, 0.0),
    ],
)
def test_textvqa_soft_accuracy(answer: str, answers: Any, expected: float) -> None:
    assert textvqa_score(answer, answers) == pytest.approx(expected)


@pytest.mark.parametrize("answer", BAD_ANSWERS)
def test_textvqa_scores_any_answer(answer: object) -> None:
    assert textvqa_score(answer, ["red"] * 10) == 0.0


def test_textvqa_reads_the_first_ten_thousand_characters() -> None:
    assert textvqa_score("red" + " " * 9_997 + "blue", ["red"] * 10) == 1.0
    assert textvqa_score("red" + " " * 9_992 + "blue", ["red"] * 10) == 0.0


def test_textvqa_takes_each_person_once() -> None:
    # An answer that is missing takes no place: three people, of whom each of two reds has one other on their side.
    assert textvqa_score("red", ["red", None, "red", 5, "blue"]) == pytest.approx((1 / 3 + 1 / 3 + 2 / 3) / 3)


def test_textvqa_leaves_the_document_alone_and_names_its_image() -> None:
    doc = {"answers": ["The Red."] * 10, "image_id": "abc", "question_id": 7}
    result = textvqa.process_results(doc, ["red"])
    assert doc["answers"] == ["The Red."] * 10
    assert result == {"exact_match": 1.0, "cluster_id": "abc", "question_id": 7}


@pytest.mark.parametrize(
    ("answer", "truth", "expected"),
    [("red", "red", 1.0), ("Red.", "red", 1.0), (" red ", "red", 1.0), ("dark red", "red", 0.0), ("re", "red", 0.0)],
)
def test_gqa_ignores_case_and_punctuation(answer: str, truth: str, expected: float) -> None:
    result = gqa_process_results({"answer": truth, "imageId": "n1", "id": "5"}, [answer])
    assert result == {"exact_match": expected, "cluster_id": "n1", "question_id": "5"}


@pytest.mark.parametrize(
    ("answer", "truth", "scores"),
    [
        ("yes", "yes", (1.0, 1.0, 0.0)),
        ("Yes", "yes", (1.0, 1.0, 0.0)),
        (" no\n", "no", (1.0, 0.0, 0.0)),
        ("no", "yes", (0.0, 0.0, 0.0)),
        ("yes", "no", (0.0, 1.0, 0.0)),
        ("Yes.", "yes", (0.0, 0.0, 1.0)),
        ("maybe", "no", (0.0, 0.0, 1.0)),
    ],
)
def test_pope_wants_the_bare_word(answer: str, truth: str, scores: tuple[float, float, float]) -> None:
    result = pope_process_results({"answer": truth, "image_source": "s", "question_id": "9"}, [answer])
    assert (result["pope_accuracy"], result["pope_yes_ratio"], result["pope_other"]) == scores
    assert (result["cluster_id"], result["question_id"]) == ("s", "9")


@pytest.mark.parametrize("answer", BAD_ANSWERS)
def test_demo_questions_score_any_answer(answer: object) -> None:
    assert gqa_process_results({"answer": "red"}, [answer])["exact_match"] == 0.0
    assert pope_process_results({"answer": "yes"}, [answer])["pope_accuracy"] == 0.0
    assert pope_process_results({"answer": "yes"}, [])["pope_other"] == 1.0
    assert gqa_process_results({"answer": "red"}, [])["exact_match"] == 0.0


@pytest.mark.parametrize(
    ("process_docs", "rows", "column"),
    [
        (textvqa.load_questions, textvqa_rows, "ocr_tokens"),
        (gqa_process_docs, gqa_rows, "imageId"),
        (pope_process_docs, pope_rows, "image_source"),
    ],
)
def test_rows_pass_unchanged_or_are_refused(process_docs: Any, rows: Any, column: str) -> None:
    assert process_docs(rows()).column_names == rows().column_names
    with pytest.raises(DatasetAccessError, match=f"no column {column}"):
        process_docs(rows().remove_columns([column]))
