"""Whole runs of lmms-eval in this process: documents, lazy images, prompts, scores, means and the files they leave."""

import json
import math
import re
from pathlib import Path
from typing import Any

import datasets
import pytest
from lmms_eval.evaluator import simple_evaluate
from lmms_eval.loggers import EvaluationTracker
from lmms_eval.tasks import TaskManager
from task_data import SIZES, EchoModel, FakeHub, ref_rows, textvqa_rows

from swiftvlm_eval.tasks import hub

# The four demo images are 64x48, 48x64, 50x50 and 33x61; every box is (4, 6)-(24, 30).
TRUTH = (4.0, 6.0, 24.0, 30.0)


def run(model: EchoModel, manager: TaskManager, *tasks: Any, **options: Any) -> dict[str, Any]:
    results: dict[str, Any] = simple_evaluate(
        model=model, tasks=list(tasks), task_manager=manager, bootstrap_iters=0, **options
    )
    return results


def local(task: str, path: Path) -> dict[str, Any]:
    """A task of ours on a file of the test."""
    return {"task": task, "dataset_path": "parquet", "dataset_kwargs": {"data_files": {"test": str(path)}}}


def overlap(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    """IoU by counting cells of a fine grid: slow, and nothing in common with the scorer."""
    step = 0.25
    cells = [
        (
            a[0] <= x * step < a[2] and a[1] <= y * step < a[3],
            b[0] <= x * step < b[2] and b[1] <= y * step < b[3],
        )
        for x in range(int(64 / step))
        for y in range(int(64 / step))
    ]
    return sum(p and q for p, q in cells) / sum(p or q for p, q in cells)


def test_grounding_from_file_to_mean(task_manager: TaskManager, demo_files: dict[str, Path]) -> None:
    model = EchoModel("[0.0625, 0.21875, 0.375, 0.59375]")
    output = run(model, task_manager, local("demo_refcoco", demo_files["demo_refcoco"]))
    # Two expressions of the first object, one of each other one; the model saw the right image each time.
    assert model.sizes == [SIZES[0], SIZES[0], SIZES[1], SIZES[2], SIZES[3]]
    assert model.prompts[:2] == [
        f"Please provide the bounding box coordinate of the region this sentence describes: {expression}."
        for expression in ("the red one", "the box")
    ]
    assert model.generation[0] == {"max_new_tokens": 64, "temperature": 0.0, "do_sample": False, "until": ["</s>"]}

    samples = output["samples"]["demo_refcoco"]
    # In 64x48, eight rows of padding above: exactly the truth.
    assert samples[0]["parsed"]["box"] == list(TRUTH)
    assert (samples[0]["iou"], samples[0]["acc@0.5"]) == (1.0, 1.0)
    # 48x64 has eight columns left of it instead: (-4, 14)-(16, 38), cut at the image's edge.
    assert samples[2]["parsed"]["box"] == [0.0, 14.0, 16.0, 38.0]
    assert samples[2]["iou"] == pytest.approx(overlap((0, 14, 16, 38), TRUTH))
    assert [sample["cluster_id"] for sample in samples] == ["1", "1", "2", "3", "4"]
    assert samples[0]["split"] == {"source": "the given rows", "filter": "none", "objects": 4, "expressions": 5}

    scores = output["results"]["demo_refcoco"]
    for metric in ("acc@0.5", "iou", "strict_acc@0.5", "acc@0.5_alt", "unparsable"):
        values = [sample[metric] for sample in samples]
        assert scores[f"{metric},none"] == pytest.approx(sum(values) / 5)
        assert isinstance(scores[f"{metric}_stderr_clt,none"], float)
    assert 0 < scores["acc@0.5,none"] < 1


def test_a_run_survives_answers_without_a_box(task_manager: TaskManager, demo_files: dict[str, Path]) -> None:
    output = run(EchoModel(""), task_manager, local("demo_refcoco", demo_files["demo_refcoco"]))
    scores = output["results"]["demo_refcoco"]
    assert (scores["unparsable,none"], scores["acc@0.5,none"], scores["iou,none"]) == (1.0, 0.0, 0.0)
    assert output["n-samples"]["demo_refcoco"] == {"original": 5, "effective": 5}


def test_the_official_split_from_the_hub(task_manager: TaskManager, fake_hub: FakeHub, tmp_path: Path) -> None:
    google = {"answer": ["the red one"], "file_name": "COCO_train2014_000000000001_2.jpg"}
    fake_hub["lmms-lab-encoder/RefCOCO", "val"] = ref_rows([{}, {"answer": ["a", "b"]}, google, {}, {}])
    fake_hub["lmms-lab-encoder/RefCOCOplus", "val"] = ref_rows([{}, {}])
    sources = tmp_path / "sources.json"
    source = {
        "repository": "lmms-lab-encoder/RefCOCO",
        "split": "val",
        "split_filter": "unc_val",
        "objects": 2,
        "expressions": 3,
        "other": {"repository": "lmms-lab-encoder/RefCOCOplus", "split": "val"},
    }
    sources.write_text(json.dumps({"here": [source]}))
    kwargs = {"data_files": {"test": str(sources)}, "field": "here"}
    model = EchoModel("[0, 0, 1, 1]")
    output = run(model, task_manager, {"task": "swiftvlm_refcoco_val", "dataset_kwargs": kwargs})
    assert model.sizes == [SIZES[0], SIZES[1], SIZES[1]]
    samples = output["samples"]["swiftvlm_refcoco_val"]
    assert [sample["expression"] for sample in samples] == ["the red one", "a", "b"]
    assert samples[0]["split"] == {
        "source": "lmms-lab-encoder/RefCOCO@main/val",
        "revision": "main",
        "pin": "not pinned",
        "commit": None,
        "filter": "unc_val",
        "objects": 2,
        "expressions": 3,
    }
    # The whole image against its box.
    whole = 20 * 24 / (64 * 48)
    assert output["results"]["swiftvlm_refcoco_val"]["iou,none"] == pytest.approx(whole)


def test_the_other_frame_is_three_lines_in_a_file_of_ones_own(fake_hub: FakeHub, tmp_path: Path) -> None:
    fake_hub["lmms-lab-encoder/RefCOCO", "testA"] = ref_rows([{}, {}, {}, {}])
    folder = Path(hub.__file__).parent
    (tmp_path / "my.yaml").write_text(
        f"include: {folder}/refcoco/swiftvlm_refcoco_testA.yaml\n"
        "task: my_refcoco\n"
        "process_results: !function swiftvlm_eval.tasks.refcoco.functions.process_results_image\n"
    )
    manager = TaskManager(include_path=[str(folder), str(tmp_path)], include_defaults=False)
    # In the square frame this is exactly the box of the first image, in the image frame of none.
    model = EchoModel("[0.0625, 0.21875, 0.375, 0.59375]")
    square = run(model, manager, "swiftvlm_refcoco_testA")
    image = run(model, manager, "my_refcoco")
    assert square["samples"]["swiftvlm_refcoco_testA"][0]["iou"] == 1.0
    assert image["samples"]["my_refcoco"][0]["parsed"]["frame"] == "image"
    assert image["samples"]["my_refcoco"][0]["iou"] == pytest.approx(overlap((4, 10.5, 24, 28.5), TRUTH))
    square_scores, image_scores = square["results"]["swiftvlm_refcoco_testA"], image["results"]["my_refcoco"]
    assert image_scores["acc@0.5,none"] == square_scores["acc@0.5_alt,none"]
    assert image_scores["acc@0.5_alt,none"] == square_scores["acc@0.5,none"]


def test_the_four_demo_tasks_in_one_run_with_files(
    task_manager: TaskManager, demo_files: dict[str, Path], tmp_path: Path
) -> None:
    tracker = EvaluationTracker(output_path=str(tmp_path / "out"))
    tasks = [local(task, path) for task, path in demo_files.items()]
    model = EchoModel("Red")
    output = run(model, task_manager, *tasks, evaluation_tracker=tracker)
    results = output["results"]
    # Ten answers: red x4 as written, "Red." and "a red" normalise to it: six people, so every one of the ten scores 1.
    assert results["demo_textvqa"]["exact_match,none"] == 1.0
    assert results["demo_gqa"]["exact_match,none"] == 0.5
    assert results["demo_pope"]["pope_accuracy,none"] == 0.0
    assert results["demo_pope"]["pope_other,none"] == 1.0
    assert results["demo_refcoco"]["unparsable,none"] == 1.0
    assert len(model.sizes) == 5 + 4 + 4 + 4

    samples = output.pop("samples")
    tracker.save_results_aggregated(results=output, samples=samples, datetime_str="20260102_030405")
    for task in demo_files:
        tracker.save_results_samples(task_name=task, samples=samples[task])
    files = {path.name.split("_samples_")[1]: path for path in (tmp_path / "out").rglob("*_samples_*.jsonl")}
    assert set(files) == {f"{task}.jsonl" for task in demo_files}
    (saved,) = (tmp_path / "out").rglob("*_results.json")
    assert json.loads(saved.read_text())["results"]["demo_gqa"]["exact_match,none"] == 0.5
    line = json.loads(files["demo_refcoco.jsonl"].read_text().splitlines()[1])
    assert (line["expression"], line["width"], line["height"], line["cluster_id"]) == ("the box.", 64, 48, "1")
    assert (line["bbox"], line["parsed"]["tags"]) == ([4.0, 6.0, 20.0, 24.0], ["unparsable"])
    lines = [json.loads(text) for text in files["demo_gqa.jsonl"].read_text().splitlines()]
    assert [line["cluster_id"] for line in lines] == ["image0", "image0", "image1", "image1"]
    assert [line["exact_match"] for line in lines] == [1.0, 0.0, 1.0, 0.0]


def test_pope_counts_each_kind_of_answer(task_manager: TaskManager, demo_files: dict[str, Path]) -> None:
    model = EchoModel("Yes")
    results = run(model, task_manager, local("demo_pope", demo_files["demo_pope"]))["results"]["demo_pope"]
    assert model.prompts[0] == "Is there a circle?\nAnswer the question using a single word or phrase."
    assert results["pope_accuracy,none"] == 0.75
    assert results["pope_yes_ratio,none"] == 1.0
    assert results["pope_other,none"] == 0.0


def test_textvqa_from_the_hub(task_manager: TaskManager, fake_hub: FakeHub) -> None:
    fake_hub["lmms-lab-encoder/textvqa", "validation"] = textvqa_rows()
    model = EchoModel("blue")
    output = run(model, task_manager, "swiftvlm_textvqa_noocr_val")
    assert model.sizes == SIZES
    # One of ten said blue: nothing for that one, one third for each of the other nine.
    assert output["results"]["swiftvlm_textvqa_noocr_val"]["exact_match,none"] == pytest.approx(0.3)
    assert [sample["cluster_id"] for sample in output["samples"]["swiftvlm_textvqa_noocr_val"]] == [
        "image0",
        "image0",
        "image1",
        "image1",
    ]


def test_the_demo_group_runs_on_the_embedded_data(task_manager: TaskManager) -> None:
    output = run(EchoModel("yes"), task_manager, "demo", limit=6)
    readme = (Path(hub.__file__).parent / "demo" / "README.md").read_text()
    assert sorted(output["n-samples"]) == ["demo_gqa", "demo_pope", "demo_refcoco", "demo_textvqa"]
    for task, count in output["n-samples"].items():
        assert count["effective"] == 6
        assert re.search(rf"\| `{task}` \| .* \| {count['original']} \|", readme)
    # The four tasks ask about the same scenes and name them alike, so that results can be clustered across tasks.
    scenes = [{sample["cluster_id"] for sample in output["samples"][task]} for task in output["n-samples"]]
    assert set.intersection(*scenes)


def test_stock_prompts_are_those_of_the_demo(task_manager: TaskManager, demo_files: dict[str, Path]) -> None:
    loaded = task_manager.load_config(local("demo_gqa", demo_files["demo_gqa"]))["demo_gqa"]
    prompt = loaded.doc_to_text(loaded.test_docs()[0])
    assert prompt == "What colour is the circle?\nAnswer the question using a single word or phrase."


def test_no_metric_is_ever_missing_from_a_sample(task_manager: TaskManager, demo_files: dict[str, Path]) -> None:
    for task, path in demo_files.items():
        output = run(EchoModel("[0.1, 0.2, 0.3, 0.4]"), task_manager, local(task, path))
        metrics = output["higher_is_better"][task]
        for sample in output["samples"][task]:
            assert all(isinstance(sample[metric], float) and math.isfinite(sample[metric]) for metric in metrics)


def test_files_of_the_hub_schema_survive_parquet(demo_files: dict[str, Path]) -> None:
    rows = datasets.Dataset.from_parquet(str(demo_files["demo_refcoco"]))
    assert [row["image"].size for row in rows] == SIZES
