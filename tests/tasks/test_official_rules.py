"""LLaVA's answer rules, each answer read by hand from their description."""

from collections.abc import Sequence
from typing import Any

import pytest
from task_data import gqa_rows, mmbench_rows, mme_rows, official_pope_rows, scienceqa_rows

from swiftvlm_eval.tasks.hub import DatasetAccessError
from swiftvlm_eval.tasks.official import gqa, mmbench, mme, pope, scienceqa, textvqa
from swiftvlm_eval.tasks.official.answer_rules import gqa_answer, mme_answer, option_letter, says_yes

BAD_ANSWERS = ["", "   ", None, 5, ["yes"], "x" * 300_000, "1." * 100_000, "\0"]


@pytest.mark.parametrize(
    ("answer", "yes"),
    [
        ("Yes", True),
        ("No", False),
        ("no", False),
        ("No.", False),
        ("no, there is none", False),
        ("There is not a dog", False),
        ("There is no dog. Yes", False),
        # Only the first sentence counts.
        ("Yes. There is no dog", True),
        # The word must be exactly No, no or not.
        ("NO", True),
        ("Not at all", True),
        ("nothing", True),
        ("It isn't there", True),
        # Single spaces are the only separator.
        ("no\nbecause", True),
        ("no!", True),
        ("there  no", False),
        # A comma is dropped, not replaced by a space.
        ("yes,no", True),
        ("n,o", False),
        # Whatever is left is a yes.
        ("", True),
        (".no", True),
        ("a red car", True),
    ],
)
def test_pope_is_a_no_only_by_three_words(answer: str, yes: bool) -> None:
    assert says_yes(answer) is yes


@pytest.mark.parametrize(
    ("answer", "read"),
    [
        ("Red", "red"),
        ("red.", "red"),
        ("red...", "red"),
        ("U.S.", "u.s"),
        ("red!", "red!"),
        (".red", ".red"),
        ("red .", "red "),
        ("", ""),
    ],
)
def test_gqa_loses_its_periods_and_its_capitals(answer: str, read: str) -> None:
    assert gqa_answer(answer) == read


@pytest.mark.parametrize(
    ("answer", "options", "letter"),
    [
        ("B", 4, "B"),
        ("E", 5, "E"),
        ("B. dog", 4, "B"),
        ("B.  ", 4, "B"),
        ("The answer is C.", 4, "C"),
        ("I think so. The answer is C. Yes.", 4, "C"),
        # A letter beyond the options is wrong in each of the three forms.
        ("E", 4, None),
        ("D. dog", 3, None),
        ("The answer is D.", 3, None),
        ("The answer is Z.", 5, None),
        # Exactly once.
        ("The answer is A. The answer is A.", 4, None),
        # The first form that fits decides, even if it is wrong.
        ("E. The answer is B.", 4, None),
        # Nearly, but not.
        ("b", 4, None),
        ("B.", 4, None),
        ("B.dog", 4, None),
        ("B) dog", 4, None),
        ("B dog", 4, None),
        ("(B)", 4, None),
        ("F. dog", 5, None),
        ("AB", 4, None),
        ("the answer is B.", 4, None),
        ("The answer is B", 4, None),
        ("The answer is b.", 4, None),
        ("dog", 4, None),
        ("", 4, None),
    ],
)
def test_a_letter_is_read_from_three_forms_and_no_other(answer: str, options: int, letter: str | None) -> None:
    assert option_letter(answer, options) == letter


@pytest.mark.parametrize(
    ("answer", "read"),
    [
        ("Yes", "yes"),
        ("yes.", "yes"),
        ("NO", "no"),
        ("No, it is not.", "no"),
        ("Not sure", "no"),
        ("yesno", "yes"),
        ("a no", "no"),
        (" yes", "yes"),
        # The fourth character is the last one.
        ("a yes", "other"),
        ("It is no", "other"),
        ("y", "other"),
        ("n", "other"),
        ("none", "no"),
        ("", "other"),
        ("maybe", "other"),
    ],
)
def test_mme_looks_at_four_characters(answer: str, read: str) -> None:
    assert mme_answer(answer) == read


def pope_outcomes(subset: str, pairs: Sequence[tuple[str, str]]) -> list[dict[str, Any]]:
    docs = ({"answer": truth, "category": subset, "image_source": "i", "question_id": "1"} for truth, _ in pairs)
    return [pope.process_results(doc, [answer]) for doc, (_, answer) in zip(docs, pairs, strict=True)]


def test_pope_is_the_mean_over_subsets_whatever_their_sizes() -> None:
    # random, five questions: two right yes, one wrong yes, one missed, one right no.
    samples = pope_outcomes(
        "random", [("yes", "Yes"), ("yes", "yes."), ("no", "maybe"), ("yes", "There is no dog"), ("no", "No")]
    )
    # popular, two questions: one right yes, one right no.
    samples += pope_outcomes("popular", [("yes", "yes"), ("no", "no")])
    # adversarial, two questions: no yes at all, one of them missed.
    samples += pope_outcomes("adversarial", [("yes", "no"), ("no", "no")])
    expected = {
        "accuracy": [3 / 5, 1, 1 / 2],
        "precision": [2 / 3, 1, 0],
        "recall": [2 / 3, 1, 0],
        "f1": [2 / 3, 1, 0],
        "yes_ratio": [3 / 5, 1 / 2, 0],
    }
    for measure, values in expected.items():
        aggregate = getattr(pope, f"mean_{measure}")
        assert aggregate([sample[f"pope_{measure}"] for sample in samples]) == pytest.approx(sum(values) / 3)
        for subset, value in zip(("random", "popular", "adversarial"), values, strict=True):
            name = f"pope_{measure}_{subset}"
            assert aggregate([sample[name] for sample in samples if name in sample]) == pytest.approx(value)
    assert [sample["pope_other"] for sample in samples] == [0, 0, 1, 1, 0, 0, 0, 0, 0]
    assert [sample["stratum"] for sample in samples] == ["random"] * 5 + ["popular"] * 2 + ["adversarial"] * 2
    assert pope.mean_f1([]) == 0.0


def test_precision_and_recall_are_told_apart() -> None:
    # Three yes, one of them right; nothing missed.
    samples = pope_outcomes("random", [("yes", "yes"), ("no", "yes"), ("no", "yes")])
    outcomes = [sample["pope_f1"] for sample in samples]
    assert (pope.mean_precision(outcomes), pope.mean_recall(outcomes)) == (pytest.approx(1 / 3), 1.0)
    assert pope.mean_f1(outcomes) == pytest.approx(1 / 2)


def mme_outcomes(category: str, images: Sequence[str]) -> list[dict[str, Any]]:
    """Each image as two letters: r for a right answer, w for a wrong one, o for one that is neither yes nor no."""
    answers = {"r": "Yes", "w": "No", "o": "perhaps"}
    return [
        mme.process_results({"question_id": f"{category}{number}", "category": category, "answer": "Yes"}, [answer])
        for number, image in enumerate(images)
        for answer in (answers[letter] for letter in image)
    ]


def test_mme_adds_accuracy_and_accuracy_plus_over_categories() -> None:
    # existence: 4 of 6 right, one of three images with both: 66.67 + 33.33. OCR: 1 of 2, none: 50.
    samples = mme_outcomes("existence", ["rr", "rw", "or"]) + mme_outcomes("OCR", ["rw"])
    cognition = mme_outcomes("code_reasoning", ["rr"])
    key = "mme_perception_score"
    assert mme.total_score([sample[key] for sample in samples]) == pytest.approx(150.0)
    assert mme.total_score([sample["mme_cognition_score"] for sample in cognition]) == 200.0
    assert all(key not in sample for sample in cognition)
    assert [sample["mme_other"] for sample in samples] == [0, 0, 0, 0, 1, 0, 0, 0]
    # Of an image cut in half by a limit neither part can be told.
    assert mme.total_score([sample[key] for sample in samples][:-1]) == pytest.approx(100.0)


def mmbench_outcomes(index: int, answers: Sequence[str], options: int = 4) -> list[dict[str, Any]]:
    doc = {letter: f"thing {letter}" if number < options else "nan" for number, letter in enumerate("ABCD")}
    rows = ({**doc, "index": index + turn * 1_000_000, "answer": "B"} for turn in range(len(answers)))
    return [mmbench.process_results(row, [answer]) for row, answer in zip(rows, answers, strict=True)]


def test_mmbench_wants_every_order_right() -> None:
    samples = mmbench_outcomes(1, ["B", "B. dog"], 2) + mmbench_outcomes(2, ["B", "B", "A", "B"])
    samples += mmbench_outcomes(3, ["B", "D"], 3)
    assert mmbench.circular_accuracy([sample[mmbench.METRIC] for sample in samples]) == pytest.approx(100 / 3)
    assert [sample["vanilla_accuracy"] for sample in samples] == [1, 1, 1, 1, 0, 1, 1, 0]
    # D is no option of the third question.
    assert [sample["unreadable"] for sample in samples] == [0, 0, 0, 0, 0, 0, 0, 1]
    assert [sample[mmbench.METRIC]["orders"] for sample in samples] == [2, 2, 4, 4, 4, 4, 3, 3]


@pytest.mark.parametrize("empty", [None, "nan", "", float("nan"), "NaN", "None"])
def test_mmbench_options_end_at_the_first_empty_one(empty: object) -> None:
    doc = {
        "question": "What?",
        "hint": empty,
        "A": "cat",
        "B": "dog",
        "C": empty,
        "D": "cow",
        "index": 3,
        "answer": "A",
    }
    asked = "Answer with the option's letter from the given choices directly."
    assert mmbench.doc_to_text(doc) == f"What?\nA. cat\nB. dog\n{asked}"
    assert mmbench.doc_to_text({**doc, "hint": "Look."}) == f"Look.\nWhat?\nA. cat\nB. dog\n{asked}"
    # D is written in the table, but was never asked.
    assert mmbench.process_results({**doc, "answer": "D"}, ["D"])["vanilla_accuracy"] == 0.0


def test_prompts_are_those_of_the_question_files() -> None:
    short = "Answer the question using a single word or phrase."
    letter = "Answer with the option's letter from the given choices directly."
    assert pope.doc_to_text({"question": " Is there a dog in the image? "}) == f"Is there a dog in the image?\n{short}"
    assert gqa.doc_to_text({"question": "Is it new?"}) == f"Is it new?\n{short}"
    for space in (" ", "  "):
        question = f"Is the dog red?{space}Please answer yes or no."
        assert mme.doc_to_text({"question": question}) == f"Is the dog red?\n{short}"
    doc = {"question": "what is the Brand?", "ocr_tokens": ["DAKOTA", "12"]}
    assert textvqa.doc_to_text(doc) == f"what is the Brand?\nReference OCR token: DAKOTA, 12\n{short}"
    assert textvqa.doc_to_text({**doc, "ocr_tokens": []}) == f"what is the Brand?\nReference OCR token: \n{short}"
    doc = {"question": "Which?", "choices": ["ice", "a puck"], "hint": ""}
    assert scienceqa.doc_to_text(doc) == f"Which?\nA. ice\nB. a puck\n{letter}"
    assert scienceqa.doc_to_text({**doc, "hint": "See."}) == f"Context: See.\nWhich?\nA. ice\nB. a puck\n{letter}"


def test_scienceqa_scores_the_letter() -> None:
    doc = {"choices": ["ice", "a puck"], "answer": 1}
    for answer, scores in {"B": (1, 0), "B. a puck": (1, 0), "A": (0, 0), "a puck": (0, 1), "E": (0, 1)}.items():
        assert scienceqa.process_results(doc, [answer]) == {"exact_match": scores[0], "unreadable": scores[1]}


def test_gqa_scores_the_text() -> None:
    doc = {"answer": "dark Blue", "imageId": "n1", "id": "5"}
    for answer, score in {"Dark blue.": 1, " dark blue ": 1, "dark-blue": 0, "blue": 0}.items():
        assert gqa.process_results(doc, [answer]) == {"exact_match": score, "cluster_id": "n1", "question_id": "5"}


@pytest.mark.parametrize("answer", BAD_ANSWERS)
def test_no_answer_raises(answer: object) -> None:
    choices = {"choices": ["a", "b"], "answer": 1, "A": "a", "B": "b", "index": 1}
    assert gqa.process_results({"answer": "red"}, [answer])["exact_match"] == 0.0
    assert scienceqa.process_results(choices, [answer])["exact_match"] == 0.0
    assert mmbench.process_results({**choices, "answer": "B"}, [answer])["vanilla_accuracy"] == 0.0
    assert mme.process_results({"answer": "Yes", "category": "OCR"}, [answer])["mme_other"] == 1.0
    # LLaVA's rule: whatever does not say no is a yes; that is why such answers are counted.
    found = pope.process_results({"answer": "yes", "category": "random"}, [answer])
    assert (found["pope_f1"]["score"], found["pope_other"]) == (1.0, 1.0)


@pytest.mark.parametrize(
    ("load", "rows", "column"),
    [
        (pope.load_questions, official_pope_rows, "category"),
        (gqa.load_questions, gqa_rows, "imageId"),
        (scienceqa.load_questions, scienceqa_rows, "hint"),
        (mmbench.load_questions, mmbench_rows, "C"),
        (mme.load_questions, mme_rows, "question_id"),
    ],
)
def test_rows_pass_unchanged_or_are_refused(load: Any, rows: Any, column: str) -> None:
    assert load(rows()).column_names == rows().column_names
    with pytest.raises(DatasetAccessError, match=f"no column {column}"):
        load(rows().remove_columns([column]))


@pytest.mark.parametrize(
    ("load", "rows", "change", "reason"),
    [
        (
            pope.load_questions,
            official_pope_rows,
            {"category": "random"},
            "must hold adversarial, popular, random, found random",
        ),
        (pope.load_questions, official_pope_rows, {"answer": "maybe"}, "column answer must hold no, yes, found maybe"),
        (scienceqa.load_questions, scienceqa_rows, {"answer": 5}, "row 0: answer 5 of 2 choices"),
        (mmbench.load_questions, mmbench_rows, {"answer": "nan"}, "index 7: answer 'nan' of 2 options"),
        (mmbench.load_questions, mmbench_rows, {"answer": "C"}, "index 7: answer 'C' of 2 options"),
        (mme.load_questions, mme_rows, {"category": "colour"}, "category 'colour'"),
        (mme.load_questions, mme_rows, {"answer": "maybe"}, "answer 'maybe'"),
        (mme.load_questions, mme_rows, {"question_id": "same"}, "two questions, found same of existence: 4"),
    ],
)
def test_data_that_would_score_something_else_are_refused(load: Any, rows: Any, change: Any, reason: str) -> None:
    changed = rows().map(lambda row: change)
    with pytest.raises(DatasetAccessError, match=reason):
        load(changed)
