"""Our reading of an MMBench answer against lmms-eval's own evaluator."""

import json
from pathlib import Path
from typing import Any

import pytest
from fake_runs import description, samples_of, write_run
from hypothesis import given, settings
from hypothesis import strategies as st

from swiftvlm_eval.leaderboard.compute.units import reduce_samples
from swiftvlm_eval.results import import_run, shipped_benchmarks
from swiftvlm_eval.results.mmbench import answer_letter

OPTIONS = {"A": "red ball", "B": "Blue cube", "C": "green cone", "D": "nan", "E": "nan"}


def row(prediction: str, answer: str = "B", index: int = 1, **options: Any) -> dict[str, Any]:
    facts = {"question": "what", "hint": "nan", "source": "s", "split": "dev", "category": "c", "L2-category": "l"}
    return {"index": index, "answer": answer, "prediction": prediction, **facts, **OPTIONS, **options}


def write_samples(results: Path, task: str, lines: list[dict[str, Any]]) -> None:
    text = "".join(json.dumps(line) + "\n" for line in lines)
    results.with_name(results.name.replace("results.json", f"samples_{task}.jsonl")).write_text(text, encoding="utf-8")


def lmms_eval_score(rows: list[dict[str, Any]]) -> float:
    from lmms_eval.tasks.mmbench.mmbench_evals import MMBench_Evaluator

    return 100 * float(MMBench_Evaluator().eval_result([dict(each) for each in rows], eval_method="static")[0])


def lmms_eval_letter(facts: dict[str, Any]) -> str:
    from lmms_eval.tasks._task_utils.mcq_extract import extract_mcq_answer
    from lmms_eval.tasks.mmbench.mmbench_evals import MMBench_Evaluator

    evaluator = MMBench_Evaluator()
    choices = sorted(evaluator.build_choices(facts))
    return str(evaluator.prefetch_answer(facts) or extract_mcq_answer(facts["prediction"], choices=choices))


ANSWERS = {
    "B": "B",
    "B. Blue cube": "B",
    "(B) because": "B",
    "Answer: B": "B",
    "The answer is B": "B",
    "blue cube": "B",
    "A blue cube": "A",
    "It is a BLUE cube.": "B",
    "a red ball or a blue cube": "",
    "A banana lies there, I think": "D",
    "I cannot tell from the picture.": "",
    "": "",
    "C or A": "C",
    "E": "E",
    "maybe B?": "B",
    "not C but D": "D",
}


@pytest.mark.parametrize("prediction", ANSWERS)
def test_an_answer_is_read_as_lmms_eval_reads_it(prediction: str) -> None:
    assert answer_letter(row(prediction)) == ANSWERS[prediction] == lmms_eval_letter(row(prediction))


WORDS = st.sampled_from(
    [
        *"ABCDEabc",
        "A.",
        "B,",
        "(C)",
        "D)",
        "(A).",
        ":B",
        "E:",
        "red ball",
        "blue cube",
        "Green",
        "cone",
        "nan",
        "banana",
    ]
    + [
        "answer is",
        "The correct answer is",
        "Answer:",
        "not",
        "I choose",
        "?",
        "\n",
        "选",
        "option A",
        "CAB",
        "'B'",
        "x",
    ]
)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(WORDS, max_size=6), st.sampled_from(["nan", float("nan"), None, "yellow", ""]), st.sampled_from([" ", ""])
)
def test_any_answer_is_read_as_lmms_eval_reads_it(words: list[str], last: Any, between: str) -> None:
    prediction = between.join(words).strip()
    assert answer_letter(row(prediction, D=last)) == lmms_eval_letter(row(prediction, D=last))


def test_an_unclear_answer_is_wrong_but_not_failed(tmp_path: Path) -> None:
    predictions = {5: "I cannot tell from the picture.", 6: "", 10: "Answer: A", 12: "red ball"}
    scores = [
        row(predictions.get(4 * question + turn, answer), answer, question + 1 + 1_000_000 * turn)
        for question in range(5)
        for turn, answer in enumerate("ABCA")
    ]
    reported = lmms_eval_score(scores)
    task = "mmbench_en_dev_static"
    lines = samples_of([0.0] * len(scores), "gpt_eval_score", description())
    path = write_run(tmp_path, {task: ("gpt_eval_score", lines)}, values={task: reported})
    lines = [{**line, "gpt_eval_score": score} for line, score in zip(lines, scores, strict=True)]
    write_samples(path, task, lines)
    record, samples = import_run(path)
    assert (record.status, record.tasks[task].failed) == ("complete", 0)
    assert [index for index, sample in enumerate(samples) if sample.scores["gpt_eval_score"] == 0] == [5, 6, 10]
    units = reduce_samples(samples, shipped_benchmarks().benchmarks["mmb"], reported)
    assert reported == 60.0 and units.contributions.tolist() == [20.0, 0.0, 0.0, 20.0, 20.0]


def test_an_answer_that_is_missing_is_a_failure(tmp_path: Path) -> None:
    task = "mmbench_en_dev_static"
    scores: list[dict[str, Any]] = [row("B"), row("B", index=2)]
    del scores[1]["prediction"]
    lines = samples_of([0.0, 0.0], "gpt_eval_score", description())
    path = write_run(tmp_path, {task: ("gpt_eval_score", lines)})
    write_samples(path, task, [{**line, "gpt_eval_score": score} for line, score in zip(lines, scores, strict=True)])
    record, _ = import_run(path)
    assert (record.status, record.tasks[task].failed) == ("partial", 1)
