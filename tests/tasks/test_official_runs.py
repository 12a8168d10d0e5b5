"""Whole runs of lmms-eval on LLaVA's own protocol: an answerer that knows, one that is wrong in a known way."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lmms_eval.evaluator import simple_evaluate
from lmms_eval.tasks import TaskManager
from task_data import (
    SIZES,
    EchoModel,
    FakeHub,
    gqa_hub,
    mmbench_rows,
    mme_rows,
    official_pope_rows,
    scienceqa_rows,
    textvqa_rows,
)

from swiftvlm_eval.leaderboard.compute.units import reduce_samples
from swiftvlm_eval.results.benchmarks import shipped_benchmarks
from swiftvlm_eval.results.lmms_output import sample_line
from swiftvlm_eval.tasks import hub
from swiftvlm_eval.tasks.hub import DatasetAccessError

Answer = str | Callable[[dict[str, Any]], str]
NAMES = ("textvqa", "gqa", "scienceqa_img", "mme", "mmbench_en_dev", "pope")
ORACLES: dict[str, Answer] = {
    "textvqa": "red",
    "gqa": lambda doc: f"{doc['answer'].capitalize()}.",
    "scienceqa_img": lambda doc: f"The answer is {'ABCDE'[doc['answer']]}.",
    "mme": lambda doc: f"{doc['answer']}, it is so.",
    "mmbench_en_dev": lambda doc: f"{doc['answer']}. {doc[doc['answer']]}",
    "pope": lambda doc: "Yes, there is." if doc["answer"] == "yes" else "There is no such thing.",
}
# What each column shows if everything is right, on lmms-eval's scale.
PERFECT = {"textvqa": 1.0, "gqa": 1.0, "scienceqa_img": 1.0, "mme": 400.0, "mmbench_en_dev": 100.0, "pope": 1.0}
TABLE = shipped_benchmarks()
COLUMN = {TABLE.benchmarks[key].task: TABLE.benchmarks[key] for key in TABLE.sets["paper_official"]}


@pytest.fixture
def filled_hub(fake_hub: FakeHub) -> FakeHub:
    """The data sets of all six tasks."""
    questions, images = gqa_hub()
    fake_hub |= {
        ("lmms-lab-encoder/textvqa", "validation"): textvqa_rows(),
        ("lmms-lab-encoder/GQA/testdev_balanced_instructions", "testdev"): questions,
        ("lmms-lab-encoder/GQA/testdev_balanced_images", "testdev"): images,
        ("lmms-lab-encoder/ScienceQA/ScienceQA-IMG", "test"): scienceqa_rows(),
        ("lmms-lab-encoder/MME", "test"): mme_rows(),
        ("lmms-lab-encoder/MMBench/en", "dev"): mmbench_rows(),
        ("lmms-lab-encoder/POPE", "test"): official_pope_rows(),
    }
    return fake_hub


def run(name: str, answer: Answer, manager: TaskManager) -> tuple[dict[str, Any], list[dict[str, Any]], EchoModel]:
    task, model = f"swiftvlm_official_{name}", EchoModel(answer)
    output = simple_evaluate(model=model, tasks=[task], task_manager=manager, bootstrap_iters=0)
    return output["results"][task], output["samples"][task], model


def from_lines(name: str, samples: list[dict[str, Any]], reported: float) -> float:
    """The score as the leaderboard makes it from the per-sample lines; it must be what lmms-eval printed."""
    column = COLUMN[f"swiftvlm_official_{name}"]
    lines = [sample_line(column.task, sample, (column.metric, "pope_yes_ratio")) for sample in samples]
    return float(reduce_samples(lines, column, reported).contributions.sum())


@pytest.mark.parametrize("name", NAMES)
def test_who_knows_everything_scores_everything(filled_hub: FakeHub, task_manager: TaskManager, name: str) -> None:
    results, samples, model = run(name, ORACLES[name], task_manager)
    metric = f"{COLUMN[f'swiftvlm_official_{name}'].metric},none"
    assert results[metric] == PERFECT[name]
    assert from_lines(name, samples, results[metric]) == pytest.approx(PERFECT[name])
    limit = 1024 if name in ("scienceqa_img", "mmbench_en_dev") else 128
    settings = {"max_new_tokens": limit, "temperature": 0.0, "do_sample": False, "until": ["</s>"]}
    assert all(generation == settings for generation in model.generation)
    assert {sample["split"]["pin"] for sample in samples} == {"not pinned"}
    assert samples[0]["split"]["source"].startswith("lmms-lab-encoder/")


@pytest.mark.parametrize(
    ("name", "answer", "expected"),
    [
        # Nobody said it.
        ("textvqa", "purple", {"exact_match": 0.0}),
        # One of ten said blue: a third for each of the nine others.
        ("textvqa", "blue", {"exact_match": 0.3}),
        ("gqa", "No!", {"exact_match": 0.0}),
        ("gqa", "no..", {"exact_match": 1 / 3}),
        # The right letters are B, E and A; E is no choice of the first and the third question.
        ("scienceqa_img", "E", {"exact_match": 1 / 3, "unreadable": 2 / 3}),
        ("scienceqa_img", "B.", {"exact_match": 0.0, "unreadable": 1.0}),
        # Of each image one question is right: 50 and no pair, in each of two categories of perception and one other.
        ("mme", "Yes", {"mme_perception_score": 100.0, "mme_cognition_score": 50.0, "mme_other": 0.0}),
        ("mme", "I do not know", {"mme_perception_score": 0.0, "mme_cognition_score": 0.0, "mme_other": 1.0}),
        # B is right once in each question of two and of four orders.
        (
            "mmbench_en_dev",
            "B",
            {"circular_accuracy_local": 0.0, "vanilla_accuracy": 2 / 6, "unreadable": 0.0},
        ),
        # Right in every order of the first question only.
        (
            "mmbench_en_dev",
            lambda doc: doc["answer"] if doc["index"] % 1_000_000 == 7 else "A",
            {"circular_accuracy_local": 50.0, "vanilla_accuracy": 3 / 6},
        ),
        # Always yes: recall 1, precision 3/4, 1/2 and 1/4, so F1 6/7, 2/3 and 2/5.
        (
            "pope",
            "It is hard to tell",
            {
                "pope_f1": (6 / 7 + 2 / 3 + 2 / 5) / 3,
                "pope_accuracy": (3 / 4 + 1 / 2 + 1 / 4) / 3,
                "pope_precision": (3 / 4 + 1 / 2 + 1 / 4) / 3,
                "pope_recall": 1.0,
                "pope_yes_ratio": 1.0,
                "pope_f1_random": 6 / 7,
                "pope_f1_popular": 2 / 3,
                "pope_f1_adversarial": 2 / 5,
                "pope_other": 1.0,
            },
        ),
        # Always no: nothing is found.
        ("pope", "No.", {"pope_f1": 0.0, "pope_accuracy": (1 / 4 + 1 / 2 + 3 / 4) / 3, "pope_other": 0.0}),
    ],
)
def test_who_is_wrong_scores_what_a_hand_computes(
    filled_hub: FakeHub, task_manager: TaskManager, name: str, answer: Answer, expected: dict[str, float]
) -> None:
    results, samples, _ = run(name, answer, task_manager)
    assert {metric: results[f"{metric},none"] for metric in expected} == pytest.approx(expected)
    reported = results[f"{COLUMN[f'swiftvlm_official_{name}'].metric},none"]
    assert from_lines(name, samples, reported) == pytest.approx(reported)


def test_gqa_shows_the_image_a_question_is_about(filled_hub: FakeHub, task_manager: TaskManager) -> None:
    _, samples, model = run("gqa", "red", task_manager)
    assert model.sizes == [SIZES[2], SIZES[0], SIZES[2]]
    assert [sample["cluster_id"] for sample in samples] == ["n2", "n0", "n2"]


def test_gqa_without_one_of_its_images_is_refused(filled_hub: FakeHub, task_manager: TaskManager) -> None:
    key = ("lmms-lab-encoder/GQA/testdev_balanced_images", "testdev")
    filled_hub[key] = filled_hub[key].select([1, 2, 3])
    with pytest.raises(DatasetAccessError, match=r"no image n0 \(1 are missing\)"):
        task_manager.load_task_or_group("swiftvlm_official_gqa")


@pytest.mark.parametrize("name", NAMES)
def test_data_that_cannot_be_had_are_named_at_once(fake_hub: FakeHub, task_manager: TaskManager, name: str) -> None:
    source = json.loads((Path(hub.__file__).parent / "official" / "sources.json").read_text())[name][0]
    path = "/".join([source["repository"], *([source["config"]] if "config" in source else [])])
    fake_hub[path, source["split"]] = ConnectionError("no route to the hub")
    with pytest.raises(DatasetAccessError, match="cannot be reached and is not cached"):
        task_manager.load_task_or_group(f"swiftvlm_official_{name}")
    assert len(fake_hub.attempts) == 1
