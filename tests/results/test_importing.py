import json
import re
from pathlib import Path
from typing import Any

import pytest
from fake_runs import description, report, samples_of, write_run

from swiftvlm_eval.plugin import model_classes
from swiftvlm_eval.results import RunRecord, import_run
from swiftvlm_eval.results.importing import OUR_MODELS


def test_execution_is_the_mean_of_what_was_reported(tmp_path: Path) -> None:
    lines = samples_of([1.0, 0.0], "exact_match", description())
    first = {"visual_tokens": 100, "rows_per_layer": [[100, 1], [40, 3]], "flops_t": 2.0, "text_tokens": 10}
    second = {"visual_tokens": 200, "rows_per_layer": [[200, 2], [20, 2]], "flops_t": 4.0, "text_tokens": 20}
    lines[0]["token_counts"][0]["swiftvlm"].update(first)
    lines[0]["token_counts"][0]["swiftvlm"]["run"]["planned_mean"] = 54.0
    lines[1]["token_counts"][0]["swiftvlm"].update(second)
    record, samples = import_run(write_run(tmp_path, {"gqa": ("exact_match", lines)}))
    execution = record.tasks["gqa"].execution
    assert execution is not None
    assert execution.rows_per_layer == (150.0, 120.0, 30.0, 30.0)
    assert execution.mean_visual_tokens == pytest.approx((55 + 110) / 2)
    assert execution.executed_share == pytest.approx((0.55 + 0.55) / 2)
    assert execution.planned_share == pytest.approx(0.54)
    assert (execution.executed_tflops, execution.text_tokens, execution.visual_tokens) == (3.0, 15.0, 150.0)
    assert [sample.kept_visual_tokens for sample in samples] == [55.0, 110.0]


def test_the_selection_is_averaged_item_by_item_and_unknown_unless_all_samples_have_it(tmp_path: Path) -> None:
    lines = samples_of([1.0, 0.0], "exact_match", description())
    first, second = (line["token_counts"][0]["swiftvlm"] for line in lines)
    first["selection_flops_t"] = {"queries": 1.0, "distance": 4.0}
    second["selection_flops_t"] = {"queries": 3.0}
    execution = import_run(write_run(tmp_path / "all", {"gqa": ("exact_match", lines)}))[0].tasks["gqa"].execution
    assert execution is not None and execution.selection_tflops == {"distance": 2.0, "queries": 2.0}
    del second["selection_flops_t"]
    execution = import_run(write_run(tmp_path / "some", {"gqa": ("exact_match", lines)}))[0].tasks["gqa"].execution
    assert execution is not None and execution.selection_tflops is None


def test_scores_carry_count_error_and_direction(tmp_path: Path) -> None:
    lines = samples_of([1.0, 0.0, 1.0, 1.0], "exact_match", description())
    metric = import_run(write_run(tmp_path, {"gqa": ("exact_match", lines)}))[0].tasks["gqa"].metrics["exact_match"]
    assert (metric.value, metric.n, metric.higher_is_better) == (0.75, 4, True)
    assert metric.stderr == pytest.approx(0.25)  # sqrt(0.25 / 4): variance 0.25 with n - 1


def test_dictionary_scores_get_the_usual_error_when_they_average_to_the_score(tmp_path: Path) -> None:
    scores = [{"question_id": index, "score": float(index < 3)} for index in range(4)]
    path = write_run(tmp_path, {"pope": ("pope_accuracy", samples_of(scores, "pope_accuracy", description()))})
    content = json.loads(path.read_text())
    content["results"]["pope"]["pope_accuracy_stderr,none"] = "N/A"
    path.write_text(json.dumps(content))
    assert import_run(path)[0].tasks["pope"].metrics["pope_accuracy"].stderr == pytest.approx(0.25)


def test_times_are_medians_with_quartiles(tmp_path: Path) -> None:
    lines = samples_of([1.0] * 5, "exact_match", description())
    for line, seconds in zip(lines, [0.05, 0.01, 0.04, 0.02, 0.03], strict=True):
        line["token_counts"][0]["swiftvlm"].update(prefill_s=seconds, total_s=2 * seconds)
    timing = import_run(write_run(tmp_path, {"gqa": ("exact_match", lines)}))[0].tasks["gqa"].timing
    assert timing is not None
    assert timing.prefill_ms_median == pytest.approx(30)
    assert (timing.prefill_ms_q25, timing.prefill_ms_q75) == (pytest.approx(20), pytest.approx(40))
    assert timing.total_s == pytest.approx(0.3)


def test_provenance_is_kept(tmp_path: Path) -> None:
    lines = samples_of([1.0, 0.0], "exact_match", description(novelty="x"))
    record, _ = import_run(write_run(tmp_path, {"gqa": ("exact_match", lines)}))
    assert record.status == "complete"
    assert record.model.shape is not None and record.model.shape.num_layers == 4
    assert (record.settings.dtype, record.settings.device, record.settings.batch_size) == ("float16", "Test GPU", 1)
    assert record.software.versions["torch"] == "2.15.0"
    assert record.software.lmms_eval_version == "0.7.3"
    assert record.origin.created == "2026-01-01T19:04:05Z"  # 03:04:05 in Singapore
    assert record.wall_time_s == 12.5
    assert record.extra == {"novelty": "x"}


def test_a_stock_model_has_scores_and_nothing_else(tmp_path: Path) -> None:
    lines = samples_of([1.0, 0.0], "exact_match", None)
    record, samples = import_run(write_run(tmp_path, {"gqa": ("exact_match", lines)}, model="llava_hf"))
    task = record.tasks["gqa"]
    assert (record.method.name, record.method.budget, record.model.family) == (None, None, None)
    assert record.model.pretrained == "llava-hf/llava-1.5-7b-hf"
    assert (task.execution, task.timing) == (None, None)
    assert task.metrics["exact_match"].value == 0.5
    assert samples[0].input_tokens == 640


def test_answers_from_the_response_cache_are_scored_but_not_timed(tmp_path: Path) -> None:
    lines = samples_of([1.0, 0.0, 1.0], "exact_match", description())
    lines[1]["token_counts"] = [None]
    lines[2]["token_counts"] = None
    record, samples = import_run(write_run(tmp_path, {"gqa": ("exact_match", lines)}))
    task = record.tasks["gqa"]
    assert record.status == "complete"
    assert task.execution is not None and task.execution.samples == 1
    assert task.timing is not None and (task.timing.samples, task.timing.total_s) == (1, None)
    assert task.metrics["exact_match"].n == 3
    assert samples[2].visual_tokens is None


def test_without_samples_a_run_is_unverified(tmp_path: Path) -> None:
    lines = samples_of([1.0, 0.0], "exact_match", description())
    record, samples = import_run(write_run(tmp_path, {"gqa": ("exact_match", lines)}, log_samples=False))
    assert (record.status, samples) == ("unverified", [])
    assert record.tasks["gqa"].prompts_sha256 is None


@pytest.mark.parametrize("limit", [2, 0.5])
def test_limit_makes_a_limited_run(tmp_path: Path, limit: float) -> None:
    lines = samples_of([1.0, 0.0], "exact_match", description())
    record, _ = import_run(write_run(tmp_path, {"gqa": ("exact_match", lines)}, config={"limit": limit}))
    assert record.status == "limited"
    assert record.settings.limit == limit


def test_missing_failed_and_nan_samples_make_a_partial_run(tmp_path: Path) -> None:
    lines = samples_of([1.0, float("nan"), 1.0], "exact_match", description())
    lines[2]["token_counts"][0]["swiftvlm"]["failed"] = True
    path = write_run(tmp_path, {"gqa": ("exact_match", lines)}, expected={"gqa": 5}, values={"gqa": 0.5})
    record, samples = import_run(path)
    assert record.status == "partial"
    assert (record.tasks["gqa"].answered, record.tasks["gqa"].failed) == (3, 4)
    assert samples[1].scores == {}
    assert "3 of 5 documents answered, 4 failed" in record.status_reasons[0]


def test_a_nan_metric_has_no_value(tmp_path: Path) -> None:
    lines = samples_of([1.0, 0.0], "exact_match", description())
    record, _ = import_run(write_run(tmp_path, {"gqa": ("exact_match", lines)}, values={"gqa": float("nan")}))
    assert record.tasks["gqa"].metrics["exact_match"].value is None


def test_lines_are_sorted_by_document(tmp_path: Path) -> None:
    lines = samples_of([1.0, 0.0, 1.0, 0.0], "exact_match", description())
    first, _ = import_run(write_run(tmp_path / "a", {"gqa": ("exact_match", lines)}))
    second, samples = import_run(write_run(tmp_path / "b", {"gqa": ("exact_match", lines[::-1])}))
    assert [sample.doc_id for sample in samples] == [0, 1, 2, 3]
    assert first.tasks["gqa"].prompts_sha256 == second.tasks["gqa"].prompts_sha256


def test_a_record_does_not_depend_on_the_order_of_lines(tmp_path: Path) -> None:
    """As written by one process, and by three: every third document first."""
    lines = samples_of([1.0, 0.0] * 50, "exact_match", description())
    for number, line in enumerate(lines):
        line["token_counts"][0]["swiftvlm"].update(flops_t=0.1 + 0.7 / (number + 1), text_tokens=number)
    one, three = (
        import_run(write_run(tmp_path / name, {"gqa": ("exact_match", own)}))[0].tasks
        for name, own in (("one", lines), ("three", [line for rank in range(3) for line in lines[rank::3]]))
    )
    assert one == three


@pytest.mark.parametrize(("extra", "status"), [(0, "complete"), (1, "partial")])
def test_more_lines_than_documents_are_not_complete(tmp_path: Path, extra: int, status: str) -> None:
    lines = samples_of([1.0, 0.0, 1.0], "exact_match", description())
    path = write_run(tmp_path, {"gqa": ("exact_match", lines)}, expected={"gqa": 3 - extra})
    record, _ = import_run(path)
    assert record.status == status
    assert record.status_reasons == (("gqa: 3 of 2 documents answered, 0 failed",) if extra else ())


def test_a_seed_of_zero_stays_zero(tmp_path: Path) -> None:
    """lmms-eval's own seed, 1234 here, stands for runs that name none."""
    runs = {"zero": description(seed=0), "seven": description(seed=7), "none": description(seed=None), "silent": None}
    seeds = {
        name: import_run(write_run(tmp_path / name, {"gqa": ("exact_match", samples_of([1.0], "exact_match", run))}))[
            0
        ].settings.seed
        for name, run in runs.items()
    }
    assert seeds == {"zero": 0, "seven": 7, "none": 1234, "silent": 1234}


def test_other_prompts_have_another_hash(tmp_path: Path) -> None:
    hashes = {
        import_run(
            write_run(tmp_path / name, {"gqa": ("exact_match", samples_of([1.0], "exact_match", None, prompt=name))})
        )[0]
        .tasks["gqa"]
        .prompts_sha256
        for name in ("one {}", "two {}")
    }
    assert len(hashes) == 2


def test_numbers_a_task_logs_beside_its_metrics_are_no_scores(tmp_path: Path) -> None:
    lines = samples_of([1.0, 0.0], "exact_match", description())
    _, samples = import_run(write_run(tmp_path, {"gqa": ("exact_match", lines)}))
    assert samples[0].scores == {"exact_match": 1.0}


def test_a_run_that_disagrees_with_itself_is_refused(tmp_path: Path) -> None:
    tasks = {
        "gqa": ("exact_match", samples_of([1.0], "exact_match", description())),
        "pope": ("pope_accuracy", samples_of([1.0], "pope_accuracy", description(budget=0.5))),
    }
    with pytest.raises(ValueError, match=r"20260102_030405_results.json.*differently in budget"):
        import_run(write_run(tmp_path, tasks))


@pytest.mark.parametrize("odd", ["gqa", "mme", "pope"])
def test_any_one_of_three_tasks_that_disagrees_is_refused(tmp_path: Path, odd: str) -> None:
    tasks = {
        task: ("score", samples_of([1.0], "score", description(seed=5 if task == odd else 0)))
        for task in ("gqa", "mme", "pope")
    }
    with pytest.raises(ValueError, match="differently in seed"):
        import_run(write_run(tmp_path, tasks))


def test_the_planned_mean_may_differ_between_tasks(tmp_path: Path) -> None:
    tasks = {
        "gqa": ("exact_match", samples_of([1.0], "exact_match", description(planned_mean=700.0))),
        "pope": ("pope_accuracy", samples_of([1.0], "pope_accuracy", description(planned_mean=800.0))),
    }
    assert import_run(write_run(tmp_path, tasks))[0].status == "complete"


def test_another_schedule_or_system_sentence_is_another_configuration(tmp_path: Path) -> None:
    def record_id(folder: str, **facts: object) -> str:
        lines = samples_of([1.0], "exact_match", description(**facts))
        return import_run(write_run(tmp_path / folder, {"gqa": ("exact_match", lines)}))[0].record_id

    ids = {record_id("a", schedule="exact"), record_id("b", schedule="paper")}
    assert len(ids | {record_id("c", schedule="exact", system_prompt_sha256="0123456789ab")}) == 3


def test_a_document_twice_is_refused(tmp_path: Path) -> None:
    lines = samples_of([1.0, 0.0], "exact_match", description())
    path = write_run(tmp_path, {"gqa": ("exact_match", [*lines, lines[0]])})
    with pytest.raises(ValueError, match=r"samples_gqa.jsonl, line 3: document 0 occurs twice"):
        import_run(path)


def test_a_broken_sample_line_is_refused(tmp_path: Path) -> None:
    path = write_run(tmp_path, {"gqa": ("exact_match", samples_of([1.0], "exact_match", description()))})
    (tmp_path / "20260102_030405_samples_gqa.jsonl").write_text('{"doc_id": 0\n')
    with pytest.raises(ValueError, match=r"samples_gqa.jsonl, line 1: not an lmms-eval sample"):
        import_run(path)


def test_layers_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    lines = samples_of([1.0, 0.0], "exact_match", description())
    lines[1]["token_counts"][0]["swiftvlm"] = report(None, rows_per_layer=[[576, 3]])
    with pytest.raises(
        ValueError, match=r"samples_gqa.jsonl, document 1: rows_per_layer covers 3 decoder layers, earlier samples 4"
    ):
        import_run(write_run(tmp_path, {"gqa": ("exact_match", lines)}))


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"results": {}}', "\x00", '{"results": 1'])
def test_a_file_that_is_not_from_lmms_eval_is_refused_by_name(tmp_path: Path, text: str) -> None:
    path = tmp_path / "20260101_000000_results.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=path.name):
        import_run(path)


def test_a_run_without_tasks_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no task"):
        import_run(write_run(tmp_path, {}))


def test_an_impossible_budget_is_refused_with_the_field(tmp_path: Path) -> None:
    lines = samples_of([1.0], "exact_match", description(budget=1.5))
    with pytest.raises(ValueError, match=r"(?s)20260102_030405_results.json.*budget"):
        import_run(write_run(tmp_path, {"gqa": ("exact_match", lines)}))


def test_what_a_task_loaded_reaches_the_record(tmp_path: Path) -> None:
    lines = samples_of([1.0, 0.0], "acc@0.5", description(), clusters=["None", "None"])
    loaded = {"dataset": "RefCOCO", "objects": 3811, "expressions": 10834}
    for line in lines:
        line["split"] = loaded
    record, _ = import_run(write_run(tmp_path, {"swiftvlm_refcoco_val": ("acc@0.5", lines)}))
    assert record.tasks["swiftvlm_refcoco_val"].dataset == loaded
    assert not record.tasks["swiftvlm_refcoco_val"].clustered


def silent(folder: Path, model_args: Any, *, model: str = "fastv_llava", **arguments: Any) -> RunRecord:
    """A run that says nothing about itself."""
    lines = samples_of([1.0, 0.0], "exact_match", None)
    config = {"model_args": model_args}
    return import_run(write_run(folder, {"gqa": ("exact_match", lines)}, model=model, config=config, **arguments))[0]


@pytest.mark.parametrize("model", ["fastv_llava", "llava_hf"])
@pytest.mark.parametrize("log_samples", [True, False])
def test_silent_runs_with_other_arguments_are_other_configurations(
    tmp_path: Path, model: str, log_samples: bool
) -> None:
    first, other, again = (
        silent(tmp_path / str(number), arguments, model=model, log_samples=log_samples)
        for number, arguments in enumerate(
            ("pretrained=a/b,budget=0.2,layers=[1,2]", "pretrained=a/b,budget=0.2,layers=[1,3]")
            + ("layers=[1,2],budget=0.2,pretrained=a/b,device=cuda:1,batch_size=4",)
        )
    )
    assert first.method.options == {"model_args": {"budget": "0.2", "layers": "[1,2]"}}
    assert first.record_id != other.record_id
    assert first.record_id == again.record_id
    assert silent(tmp_path / "3", {"pretrained": "a/b", "budget": 0.2, "layers": [1, 2]}).model.pretrained == "a/b"


def test_arguments_in_a_record_name_no_folder_of_the_machine(tmp_path: Path) -> None:
    record = silent(tmp_path, "pretrained=./home/me/ckpt,cache_dir=/home/me/cache,api_key=sk-1", model="llava_hf")
    assert "me/" not in record.to_json() and "sk-1" not in record.to_json()
    assert str(record.model.pretrained).startswith("local:ckpt-")


def test_a_described_run_is_known_by_its_description_alone(tmp_path: Path) -> None:
    lines = samples_of([1.0, 0.0], "exact_match", description())
    ids = {
        import_run(write_run(tmp_path / extra, {"gqa": ("exact_match", lines)}, config={"model_args": extra}))[
            0
        ].record_id
        for extra in ("budget=0.3", "budget=1/3")
    }
    assert len(ids) == 1


def test_our_model_without_a_description_is_unverified(tmp_path: Path) -> None:
    ours = silent(tmp_path / "ours", "budget=0.2", model="swiftvlm_llava")
    assert ours.status == "unverified"
    assert "describes neither method nor execution" in ours.status_reasons[0]
    assert silent(tmp_path / "stock", "", model="video_llava").status == "complete"


def test_our_model_names_are_known_from_the_others() -> None:
    from lmms_eval.models import AVAILABLE_CHAT_TEMPLATE_MODELS, AVAILABLE_SIMPLE_MODELS

    assert [name for name in model_classes() if not OUR_MODELS.fullmatch(name)] == []
    stock = {*AVAILABLE_SIMPLE_MODELS, *AVAILABLE_CHAT_TEMPLATE_MODELS} - set(model_classes())
    assert "video_llava" in stock
    assert [name for name in sorted(stock) if OUR_MODELS.fullmatch(name)] == []


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ({"original": 2}, "n-samples of gqa: 'effective' is missing; allowed is a whole number"),
        ({"original": 2, "effective": None}, "n-samples of gqa: 'effective' is None; allowed is a whole number"),
        ({"original": "many", "effective": 2}, "n-samples of gqa: 'original' is 'many'; allowed is a whole number"),
        (2, "n-samples of gqa is 2; allowed is an object with 'original' and 'effective'"),
    ],
)
def test_counts_that_are_missing_are_named(tmp_path: Path, counts: object, message: str) -> None:
    path = write_run(tmp_path, {"gqa": ("exact_match", samples_of([1.0, 0.0], "exact_match", description()))})
    content = json.loads(path.read_text())
    content["n-samples"]["gqa"] = counts
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=re.escape(f"{path.name}: {message}")):
        import_run(path)


@pytest.mark.parametrize("counts", [[12], 12, ["x"]])
def test_token_counts_of_another_shape_are_named(tmp_path: Path, counts: object) -> None:
    lines = samples_of([1.0, 0.0], "exact_match", description())
    lines[1]["token_counts"] = counts
    path = write_run(tmp_path, {"gqa": ("exact_match", lines)})
    with pytest.raises(
        ValueError, match=r"samples_gqa.jsonl, document 1: token_counts .*; allowed are null or a list"
    ):
        import_run(path)


@pytest.mark.parametrize(
    "change",
    [
        {"results": {"gqa": [1]}},
        {"versions": [1]},
        {"higher_is_better": [1]},
        {"config": {"limit": "all"}},
        {"config": {"offset": "x"}},
        {"config": {"resolved_cli_args": [1]}},
    ],
)
def test_any_other_shape_is_refused_with_the_file(tmp_path: Path, change: dict[str, Any]) -> None:
    path = write_run(tmp_path, {"gqa": ("exact_match", samples_of([1.0, 0.0], "exact_match", description()))})
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ValueError, match=path.name):
        import_run(path)


COMMIT = "0123456789abcdef0123456789abcdef01234567"


def told(source: str, revision: str, pin: str) -> dict[str, Any]:
    return {"source": source, "revision": revision, "pin": pin, "commit": None}


@pytest.mark.parametrize(
    ("config", "dataset"),
    [
        (
            {"dataset_path": "lmms-lab-encoder/POPE", "dataset_kwargs": {"token": True}, "test_split": "test"},
            told("lmms-lab-encoder/POPE@main/test", "main", "not pinned"),
        ),
        (
            {"dataset_path": "lmms-lab-encoder/MMBench", "dataset_name": "en", "test_split": "dev"},
            told("lmms-lab-encoder/MMBench@main/en/dev", "main", "not pinned"),
        ),
        (
            {"dataset_path": "o/n", "dataset_kwargs": {"revision": "v1"}, "test_split": "test"},
            told("o/n@v1/test", "v1", "not pinned"),
        ),
        (
            {"dataset_path": "o/n", "dataset_kwargs": {"revision": COMMIT}, "test_split": "test"},
            told(f"o/n@{COMMIT}/test", COMMIT, "pinned"),
        ),
        ({"dataset_path": "parquet", "dataset_kwargs": {"data_files": {"test": "/home/me/x.parquet"}}}, None),
        ({"dataset_path": "/home/me/data"}, None),
        ({"dataset_path": "../data"}, None),
        ({"dataset_path": "saved/rows", "dataset_kwargs": {"load_from_disk": True}}, None),
        ({}, None),
        ([1], None),
    ],
)
def test_a_silent_task_is_not_pinned_unless_its_configuration_says_so(
    tmp_path: Path, config: Any, dataset: dict[str, Any] | None
) -> None:
    path = write_run(tmp_path, {"gqa": ("exact_match", samples_of([1.0, 0.0], "exact_match", description()))})
    path.write_text(json.dumps(json.loads(path.read_text()) | {"configs": {"gqa": config}}))
    assert import_run(path)[0].tasks["gqa"].dataset == dataset


def test_what_a_task_says_of_its_data_counts(tmp_path: Path) -> None:
    lines = [line | {"split": {"commit": COMMIT}} for line in samples_of([1.0, 0.0], "exact_match", description())]
    path = write_run(tmp_path, {"gqa": ("exact_match", lines)})
    content = json.loads(path.read_text()) | {"configs": {"gqa": {"dataset_path": "o/n"}}}
    path.write_text(json.dumps(content))
    assert import_run(path)[0].tasks["gqa"].dataset == {"commit": COMMIT}
