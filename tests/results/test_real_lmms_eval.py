"""The importer against files that lmms-eval itself writes: its evaluator, its tracker, a toy task and a toy model."""

import json
import textwrap
from pathlib import Path
from typing import Any

import pytest
from fake_runs import description, report

from swiftvlm_eval.results import import_run

ANSWERS = ["red", "blue", "red", "green", "blue", "red"]


def write_task(folder: Path) -> None:
    rows = [{"question": f"colour of {index}?", "answer": answer} for index, answer in enumerate(ANSWERS)]
    (folder / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "toy.yaml").write_text(
        textwrap.dedent("""
            task: toy_colours
            dataset_path: json
            dataset_kwargs: {data_files: {test: data.jsonl}}
            test_split: test
            output_type: generate_until
            doc_to_visual: !function functions.no_visual
            doc_to_text: !function functions.prompt
            doc_to_target: answer
            process_results: !function functions.score
            generation_kwargs: {max_new_tokens: 4}
            metric_list:
              - {metric: exact_match, aggregation: mean, higher_is_better: true}
            metadata: {version: 2.0}
        """)
    )
    (folder / "functions.py").write_text(
        textwrap.dedent("""
            def no_visual(doc):
                return []


            def prompt(doc, lmms_eval_specific_kwargs=None):
                return doc["question"]


            def score(doc, results):
                hit = float(results[0] == doc["answer"])
                return {"exact_match": hit, "cluster_id": f"image {len(doc['answer'])}", "W": 640}
        """)
    )


@pytest.fixture(scope="module")
def results_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from lmms_eval.api.instance import GenerationResult, TokenCounts
    from lmms_eval.api.model import lmms
    from lmms_eval.evaluator import simple_evaluate
    from lmms_eval.loggers import EvaluationTracker
    from lmms_eval.tasks import TaskManager

    class Counts(TokenCounts):
        report: dict[str, Any]

        def to_dict(self) -> dict[str, Any]:
            return {**super().to_dict(), "swiftvlm": self.report}

    class AlwaysRed(lmms):  # type: ignore[misc]
        is_simple = True

        def generate_until(self, requests: list[Any]) -> list[GenerationResult]:
            answers = []
            for number, _ in enumerate(requests):
                counts = Counts(input_tokens=640, output_tokens=1)
                counts.report = report(description() if number == 0 else None, 1 / 3)
                answers.append(GenerationResult("red", counts))
            return answers

        def loglikelihood(self, requests: list[Any]) -> list[Any]:
            raise NotImplementedError

        def generate_until_multi_round(self, requests: list[Any]) -> list[Any]:
            raise NotImplementedError

    folder = tmp_path_factory.mktemp("lmms")
    write_task(folder)
    tracker = EvaluationTracker(output_path=str(folder / "out"))
    manager = TaskManager("ERROR", include_path=str(folder), include_defaults=False)
    results = simple_evaluate(
        model=AlwaysRed(),
        tasks=["toy_colours"],
        task_manager=manager,
        evaluation_tracker=tracker,
        log_samples=True,
        bootstrap_iters=0,
        datetime_str="20260304_050607",
    )
    samples = results.pop("samples")
    tracker.save_results_aggregated(results=results, samples=samples, datetime_str="20260304_050607")
    tracker.save_results_samples(task_name="toy_colours", samples=samples["toy_colours"])
    (path,) = (folder / "out").rglob("*_results.json")
    return path


def test_a_run_of_lmms_eval_becomes_a_complete_record(results_file: Path) -> None:
    record, samples = import_run(results_file)
    task = record.tasks["toy_colours"]
    assert record.status == "complete", record.status_reasons
    assert (task.expected, task.answered, task.failed) == (6, 6, 0)
    assert task.version == 2.0
    assert task.metrics["exact_match"].value == 0.5
    assert task.metrics["exact_match"].higher_is_better is True
    assert list(task.metrics) == ["exact_match"]
    assert task.execution is not None
    assert task.execution.mean_visual_tokens == pytest.approx(192)
    assert task.timing is not None and task.timing.prefill_ms_median == pytest.approx(60)
    assert record.method.name == "swiftvlm"
    assert record.software.lmms_eval_version is not None
    assert record.origin.created == "2026-03-03T21:06:07Z"
    assert record.wall_time_s is not None and record.wall_time_s > 0
    assert [sample.scores["exact_match"] for sample in samples] == [float(answer == "red") for answer in ANSWERS]
    assert [sample.cluster_id for sample in samples] == [f"image {len(answer)}" for answer in ANSWERS]
    assert {sample.prediction for sample in samples} == {"red"}
    assert task.clustered
