"""Answers that mean nothing, because the model's numbers are not finite, are counted as failed all the way."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from lmms.tiny_runs import QUESTIONS, TASK, evaluate, make_model, make_requests, score_request
from lmms_eval.loggers import EvaluationTracker
from lmms_eval.tasks import TaskManager
from loguru import logger
from tiny_checkpoint import in_memory

from swiftvlm_eval.leaderboard import build
from swiftvlm_eval.models.checkpoint import Checkpoint
from swiftvlm_eval.results import RunRecord, SampleLine, import_run, write_record
from swiftvlm_eval.runs.journal import Journal

STAMP = "20260304_050607"
BAD = [float("nan"), float("inf")]


def broken(value: float = float("nan"), part: str = "model.layers.3.mlp.down_proj") -> Checkpoint:
    """One weight matrix of the decoder is not finite."""
    own = in_memory(grid=4, layers=12)
    (weight,) = [
        value for name, value in own.adapter.decoder.module.named_parameters() if f"model.{name}".startswith(part)
    ]
    with torch.no_grad():
        weight.fill_(value)
    return own


@pytest.fixture
def warnings() -> Iterator[list[str]]:
    noted: list[str] = []
    number = logger.add(lambda message: noted.append(str(message.record["message"])), level="WARNING")
    yield noted
    logger.remove(number)


def failures(answers: list[Any]) -> list[bool]:
    return [answer.token_counts.to_dict()["swiftvlm"]["failed"] for answer in answers]


@pytest.mark.parametrize("value", BAD)
@pytest.mark.parametrize("method", ["vanilla", "fastv", "swiftvlm", "visionzip"])
def test_answers_of_a_broken_model_are_failed(method: str, value: float, warnings: list[str]) -> None:
    requests = [{"max_new_tokens": 2}] * 3
    whole = make_model(method, budget=0.6, batch_size=2)
    assert failures(whole.generate_until(make_requests(whole, requests))) == [False] * 3
    assert not warnings
    model = make_model(method, budget=0.6, batch_size=2, own=broken(value))
    assert failures(model.generate_until(make_requests(model, requests))) == [True] * 3
    (warning,) = warnings  # one for the task, not one for each document
    assert f"{TASK} doc_id " in warning and "not finite" in warning


@pytest.mark.parametrize("beams", [1, 2])
def test_only_the_sample_whose_logits_are_broken_is_failed(beams: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model("fastv", budget=0.6, batch_size=3)
    encode = model.checkpoint.encode_on_host

    def spoilt(prompts: list[str], images: Any) -> dict[str, torch.Tensor]:
        inputs = encode(prompts, images)
        (place,) = [place for place, prompt in enumerate(prompts) if QUESTIONS[1] in prompt]
        inputs["pixel_values"][place] = float("nan")
        return inputs

    monkeypatch.setattr(model.checkpoint, "encode_on_host", spoilt)
    answers = model.generate_until(make_requests(model, [{"max_new_tokens": 2, "num_beams": beams}] * 3))
    assert failures(answers) == [False, True, False]


def test_tokens_that_a_checkpoint_forbids_are_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """The library sets their scores to minus infinity."""
    model = make_model("vanilla")
    monkeypatch.setattr(model.checkpoint.model.generation_config, "suppress_tokens", [5, 6])
    assert failures(model.generate_until(make_requests(model, [{"max_new_tokens": 2}]))) == [False]


@pytest.mark.parametrize("text", [" red", " a red square"])
def test_scores_of_a_broken_model_are_failed(text: str) -> None:
    model = make_model("vanilla")
    assert failures(model.loglikelihood([score_request(model, "Which one?", text)])) == [False]
    model = make_model("vanilla", own=broken())
    assert failures(model.loglikelihood([score_request(model, "Which one?", text)])) == [True]


def test_stored_answers_keep_their_failure_and_their_image(tmp_path: Path) -> None:
    requests = [{"max_new_tokens": 1}] * 2
    first = make_model("fastv", budget=0.6, own=broken(), journal=Journal(tmp_path / "answers.jsonl"))
    made = first.generate_until(make_requests(first, requests))
    # would not fail
    resumed = make_model("fastv", budget=0.6, journal=Journal(tmp_path / "answers.jsonl"))
    found = resumed.generate_until(make_requests(resumed, requests))
    assert failures(found) == failures(made) == [True, True]
    images = [[answer.token_counts.to_dict()["swiftvlm"]["image"] for answer in answers] for answers in (made, found)]
    assert images[0] == images[1] and len(set(images[0])) == 2


def recorded(
    model: Any, folder: Path, *tasks: str, manager: TaskManager | None = None, limit: int | None = 3
) -> tuple[RunRecord, list[SampleLine]]:
    """A run of lmms-eval, written as it writes, and read."""
    tracker = EvaluationTracker(output_path=str(folder))
    results = evaluate(
        model, *tasks, manager=manager, limit=limit, evaluation_tracker=tracker, log_samples=True, datetime_str=STAMP
    )
    samples = results.pop("samples")
    tracker.save_results_aggregated(results=results, samples=samples, datetime_str=STAMP)
    for task, lines in samples.items():
        tracker.save_results_samples(task_name=task, samples=lines)
    (path,) = folder.rglob("*_results.json")
    return import_run(path)


def test_a_broken_model_fails_on_every_document_and_enters_no_leaderboard(tmp_path: Path) -> None:
    model = make_model("fastv", budget=0.5, own=broken())
    record, samples = recorded(model, tmp_path / "run", "demo_gqa", "demo_pope")
    assert [(task.answered, task.failed) for task in record.tasks.values()] == [(3, 3)] * 2
    assert len(samples) == 6 and all(sample.failed for sample in samples)
    assert record.status == "partial"
    assert "demo_gqa: 3 of 3 documents answered, 3 failed" in record.status_reasons
    write_record(record, samples, tmp_path / "records")
    with pytest.raises(ValueError, match="partial run left out: .*demo_gqa: 3 of 3 documents answered, 3 failed"):
        build([tmp_path / "records"], tmp_path / "board")


def test_a_sound_model_fails_on_none(tmp_path: Path) -> None:
    record, _ = recorded(make_model("fastv", budget=0.5), tmp_path, "demo_gqa")
    assert (record.tasks["demo_gqa"].failed, record.status) == (0, "limited")


def test_failed_choices_are_counted_through_lmms_eval(tmp_path: Path) -> None:
    (tmp_path / "data.jsonl").write_text('{"question": "Which one?"}\n{"question": "What is it?"}\n')
    (tmp_path / "functions.py").write_text("def no_visual(doc):\n    return []\n")
    (tmp_path / "choice.yaml").write_text(
        "task: toy_choice\ndataset_path: json\ndataset_kwargs: {data_files: {test: data.jsonl}}\ntest_split: test\n"
        "output_type: multiple_choice\ndoc_to_visual: !function functions.no_visual\ndoc_to_text: question\n"
        "doc_to_target: 0\ndoc_to_choice: [red, blue, green]\nmetadata: {version: 1.0}\n"
        "metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]\n"
    )
    manager = TaskManager(include_path=str(tmp_path), include_defaults=False)
    record, _ = recorded(
        make_model("vanilla", own=broken()), tmp_path / "out", "toy_choice", manager=manager, limit=None
    )
    assert (record.tasks["toy_choice"].failed, record.status) == (2, "partial")
