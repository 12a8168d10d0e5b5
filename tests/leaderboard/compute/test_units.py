import itertools
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from fake_runs import description, samples_of
from scipy import stats

from swiftvlm_eval.leaderboard.compute.units import reduce_samples
from swiftvlm_eval.results import SampleLine, shipped_benchmarks
from swiftvlm_eval.results.lmms_output import sample_line

COLUMNS = shipped_benchmarks().benchmarks


def lines_of(key: str, scores: list[Any], clusters: list[Any] | None = None) -> list[SampleLine]:
    column = COLUMNS[key]
    raw = samples_of(scores, column.metric, description(), clusters=clusters)
    return [sample_line(column.task, sample, [column.metric]) for sample in raw]


def test_images_collect_the_scores_of_their_documents() -> None:
    units = reduce_samples(lines_of("refcoco", [1.0, 0.0, 1.0, 1.0], ["b", "a", "b", "c"]), COLUMNS["refcoco"], 0.75)
    assert units.ids.tolist() == ["a", "b", "c"]
    assert units.contributions.tolist() == [0.0, 0.5, 0.25]
    assert units.expected.tolist() == pytest.approx([0.1875, 0.375, 0.1875])
    assert units.clustered is True


def test_documents_are_units_where_no_image_is_named() -> None:
    units = reduce_samples(lines_of("gqa", [1.0, 0.0, 1.0, 0.0]), COLUMNS["gqa"], 0.5)
    assert units.contributions.tolist() == [0.25, 0.0, 0.25, 0.0]
    assert units.clustered is False


def test_one_question_an_image_is_not_clustered() -> None:
    units = reduce_samples(lines_of("gqa", [1.0, 0.0], ["a", "b"]), COLUMNS["gqa"], 0.5)
    assert units.clustered is False


def test_partly_named_images_fall_back_to_documents() -> None:
    units = reduce_samples(lines_of("gqa", [1.0, 0.0, 1.0], ["a", None, "a"]), COLUMNS["gqa"], 2 / 3)
    assert units.ids.size == 3


def test_mme_adds_up_to_what_lmms_eval_prints() -> None:
    from lmms_eval.tasks.mme.utils import mme_aggregate_results

    rng = np.random.default_rng(1)
    sizes = {"existence": 4, "count": 7, "OCR": 2}
    scores = [
        {"question_id": f"{category}/{image}.png", "category": category, "score": float(rng.random() < 0.7)}
        for category, images in sizes.items()
        for image in range(images)
        for _ in range(2)
    ]
    expected = mme_aggregate_results(scores)
    units = reduce_samples(lines_of("mme", scores), COLUMNS["mme"], expected)
    assert units.contributions.sum() == pytest.approx(expected)
    assert units.expected.sum() == pytest.approx(expected)
    assert units.ids.size == 13


def test_mmbench_counts_questions_right_in_every_rotation() -> None:
    from lmms_eval.tasks.mmbench.mmbench_evals import MMBench_Evaluator

    rng = np.random.default_rng(2)
    options = {"A": "cat", "B": "dog", "C": "cow", "D": "nan"}
    scores = [
        {
            "index": question + rotation * 1_000_000,
            "question": "what",
            "answer": answer,
            "prediction": answer if rng.random() < 0.8 else str(rng.choice(["A", "B.", "C. cow"])),
            "category": "c",
            "L2-category": "l",
            **options,
        }
        for question in range(40)
        for rotation, answer in enumerate("ABC")
    ]
    expected = 100 * MMBench_Evaluator().eval_result([dict(score) for score in scores], eval_method="static")[0]
    units = reduce_samples(lines_of("mmb", scores), COLUMNS["mmb"], expected)
    assert 0 < expected < 100
    assert units.ids.size == 40


def test_an_answer_a_judge_saw_otherwise_gives_no_interval_instead_of_a_wrong_one() -> None:
    score = {"index": 1, "answer": "A", "prediction": "a feline", "category": "c", "A": "cat", "B": "dog"}
    known = {**score, "index": 2, "prediction": "A"}
    with pytest.raises(ValueError, match="add up to 50, lmms-eval reported 100"):
        reduce_samples(lines_of("mmb", [score, known]), COLUMNS["mmb"], 100.0)


def test_scores_that_do_not_add_up_are_refused() -> None:
    with pytest.raises(ValueError, match="'gqa' add up to 0.5, lmms-eval reported 0.6"):
        reduce_samples(lines_of("gqa", [1.0, 0.0]), COLUMNS["gqa"], 0.6)
    with pytest.raises(ValueError, match="no per-sample score 'exact_match'"):
        reduce_samples([], COLUMNS["gqa"], 0.6)


def test_standard_error_of_independent_documents_is_the_textbook_one() -> None:
    scores = [1.0, 0.0, 0.3, 0.9, 0.6]
    units = reduce_samples(lines_of("textvqa", scores), COLUMNS["textvqa"], float(np.mean(scores)))
    assert units.stderr == pytest.approx(stats.sem(scores))


def test_standard_error_over_images_is_that_of_the_image_means() -> None:
    means = [1.0, 0.5, 0.0, 0.5, 1.0]
    halves = {1.0: (1.0, 1.0), 0.5: (1.0, 0.0), 0.0: (0.0, 0.0)}
    scores = list(itertools.chain.from_iterable(halves[mean] for mean in means))
    clusters = [str(index // 2) for index in range(10)]
    units = reduce_samples(lines_of("refcoco", scores, clusters), COLUMNS["refcoco"], 0.6)
    assert units.stderr == pytest.approx(stats.sem(means))
    assert reduce_samples(lines_of("gqa", [1.0]), COLUMNS["gqa"], 1.0).stderr is None


ANSWERS = {"tp": (1.0, 1.0), "fp": (0.0, 1.0), "fn": (0.0, 0.0), "tn": (1.0, 0.0)}


def pope_lines(answers: Sequence[tuple[str, str]], images: Sequence[str] | None = None) -> list[SampleLine]:
    """One line for each (subset, kind of answer)."""
    column = COLUMNS["pope_official"]
    raw = samples_of([{"score": ANSWERS[kind][0]} for _, kind in answers], "pope_f1", description(), clusters=images)
    for sample, (subset, kind) in zip(raw, answers, strict=True):
        sample |= {"stratum": subset, "pope_yes_ratio": {"score": ANSWERS[kind][1]}}
    return [sample_line(column.task, sample, ["pope_f1", "pope_yes_ratio"]) for sample in raw]


def f1_by_definition(answers: Sequence[tuple[str, str]]) -> float:
    """Precision and recall first, subset by subset."""
    values = []
    for subset in {subset for subset, _ in answers}:
        kinds = Counter(kind for each, kind in answers if each == subset)
        if not kinds["tp"]:
            values.append(0.0)
            continue
        precision, recall = kinds["tp"] / (kinds["tp"] + kinds["fp"]), kinds["tp"] / (kinds["tp"] + kinds["fn"])
        values.append(2 * precision * recall / (precision + recall))
    return sum(values) / len(values)


def test_f1_adds_up_subset_by_subset() -> None:
    answers = [("random", kind) for kind in ("tp", "tp", "tp", "fp", "fn", "tn")]
    answers += [("popular", kind) for kind in ("tp", "fp", "fp", "tn")] + [("adversarial", "tn")] * 3
    # 3/4 and 3/4: F1 3/4; 1/3 and 1: F1 1/2; no right yes: 0.
    assert f1_by_definition(answers) == pytest.approx((3 / 4 + 1 / 2) / 3)
    units = reduce_samples(pope_lines(answers), COLUMNS["pope_official"], f1_by_definition(answers))
    assert units.contributions.sum() == pytest.approx(f1_by_definition(answers))
    assert units.expected.sum() == pytest.approx(f1_by_definition(answers))
    assert units.clustered is False


@pytest.mark.parametrize("shared", [1, 3])
def test_the_spread_of_f1_is_that_of_drawing_images_anew(shared: int) -> None:
    """A bootstrap of whole images that computes F1 from scratch each time; `shared` questions have one image."""
    rng = np.random.default_rng(3)
    images = 300
    kinds = rng.choice(["tp", "fp", "fn", "tn"], size=images, p=[0.4, 0.1, 0.1, 0.4])
    answers = [(subset, str(kind)) for kind in kinds for subset in ("random", "popular", "hard")[:shared]]
    names = [f"image{number:03d}" for number in range(images) for _ in range(shared)]
    units = reduce_samples(pope_lines(answers, names), COLUMNS["pope_official"], f1_by_definition(answers))
    draws = []
    for _ in range(600):
        drawn = rng.integers(images, size=images)
        draws.append(f1_by_definition([answers[shared * image + part] for image in drawn for part in range(shared)]))
    assert units.ids.size == images and units.named
    assert units.stderr == pytest.approx(np.std(draws), rel=0.1)


def test_f1_without_the_answers_is_refused() -> None:
    column = COLUMNS["pope_official"]
    lines = [sample_line(column.task, {"doc_id": 0, "pope_f1": {"score": 1.0}}, ["pope_f1"])]
    with pytest.raises(ValueError, match="no per-sample score 'pope_yes_ratio'"):
        reduce_samples(lines, column, 1.0)
