"""Documents to choose layers on are never those that the benchmark is scored on."""

import hashlib
from types import SimpleNamespace
from typing import Any

import pytest
from datasets import Dataset
from lmms.tiny_runs import our_tasks
from lmms_eval.evaluator_utils import get_task_list

from swiftvlm_eval.analysis.selection_split import selection_task
from swiftvlm_eval.plugin import load_tasks
from swiftvlm_eval.tasks.textvqa import functions as textvqa

METRICS = [{"metric": "right", "aggregation": "mean", "higher_is_better": True}]


@pytest.fixture(scope="module")
def demo() -> dict[str, Any]:
    leaves = get_task_list(load_tasks(["demo_gqa", "demo_refcoco"], our_tasks()))
    return {leaf.task_name: leaf.task for leaf in leaves}


def fake_task(dataset: Any = None, **config: Any) -> Any:
    """What is read of lmms-eval's tasks, by hand."""
    settings = {
        "output_type": "generate_until",
        "filter_list": None,
        "generation_kwargs": {"max_new_tokens": 4},
        "metric_list": METRICS,
        "test_split": "test",
        "validation_split": None,
        "training_split": None,
        "fewshot_split": None,
        "dataset_path": "some/set",
        "dataset_kwargs": None,
        "process_docs": None,
    }
    return SimpleNamespace(config=SimpleNamespace(**{**settings, **config}), dataset=dataset)


def pixels(task: Any, document: Any) -> str:
    (image,) = task.doc_to_visual(document)
    return hashlib.sha256(image.convert("RGB").tobytes()).hexdigest()


def test_the_demos_documents_are_drawn_from_another_split(demo: dict[str, Any]) -> None:
    for name, metric in (("demo_gqa", "exact_match"), ("demo_refcoco", "acc@0.5")):
        chosen = selection_task(name, demo[name], "val", 20, 0)
        assert chosen.metric == metric and len(chosen.rows) == 20
        scored = {pixels(demo[name], row) for row in list(demo[name].eval_docs)[:100]}
        assert not scored & {pixels(demo[name], row) for row in chosen.rows.values()}
        again, other = (selection_task(name, demo[name], "val", 20, seed) for seed in (0, 1))
        assert list(again.rows) == list(chosen.rows) and list(other.rows) != list(chosen.rows)
        document = next(iter(chosen.rows.values()))
        right = document["answer"] if name == "demo_gqa" else "no box"
        score, cluster = chosen.score(document, right)
        assert score == (1.0 if name == "demo_gqa" else 0.0) and cluster.startswith("demo_val_")
        assert len(chosen.images(document)) == 1 and chosen.question(document)
        assert chosen.generation["max_new_tokens"] in (16, 64)


@pytest.mark.parametrize("split", ["train", "test", "other"])
def test_the_demos_other_splits_are_refused(demo: dict[str, Any], split: str) -> None:
    with pytest.raises(ValueError, match=f"split='{split}': .*allowed is 'val'"):
        selection_task("demo_gqa", demo["demo_gqa"], split, 5, 0)


def test_a_stock_tasks_split_is_processed_as_the_task_says() -> None:
    rows = Dataset.from_list([{"n": number} for number in range(30)])

    def even(found: Dataset) -> Dataset:
        return found.filter(lambda row: row["n"] % 2 == 0)

    data = {"train": rows, "test": rows}
    undeclared = selection_task("t", fake_task(data, process_docs=even), "train", 5, 0)
    assert {row["n"] % 2 for row in undeclared.rows.values()} == {0}
    # lmms-eval has processed the splits that a task declares
    declared = selection_task("t", fake_task(data, process_docs=even, training_split="train"), "train", 30, 0)
    assert [row["n"] for row in declared.rows.values()] == list(range(30))
    assert list(declared.rows) == list(range(30))


@pytest.mark.parametrize(
    ("config", "split", "samples", "said"),
    [
        ({}, "test", 2, "split='test': t is scored on it"),
        ({}, "dev", 2, "split='dev': t has 'train', 'test'"),
        ({}, "train", 4, "samples=4: t has 3 documents in split 'train'"),
        ({"output_type": "loglikelihood"}, "train", 2, "generate answers"),
        ({"filter_list": [{"name": "x"}]}, "train", 2, "unfiltered"),
        ({"generation_kwargs": {"do_sample": True, "temperature": 1}}, "train", 2, "samples its answers"),
        ({"metric_list": [{**METRICS[0], "aggregation": "f1"}]}, "train", 2, "its score right is not a mean"),
        ({"metric_list": [{**METRICS[0], "higher_is_better": False}]}, "train", 2, "rises with the answers"),
        ({"metric_list": []}, "train", 2, r"its score \(none\)"),
    ],
)
def test_what_gives_no_profile_is_refused(config: dict[str, Any], split: str, samples: int, said: str) -> None:
    rows = Dataset.from_list([{"n": number} for number in range(3)])
    with pytest.raises(ValueError, match=said):
        selection_task("t", fake_task({"train": rows, "test": rows}, **config), split, samples, 0)


def test_a_benchmark_whose_score_is_no_mean_is_refused() -> None:
    with pytest.raises(ValueError, match="tasks=mme: its score mme_perception_score is not a mean"):
        selection_task("mme", fake_task(metric_list=METRICS), "train", 2, 0)


def textvqa_task() -> Any:
    """The task of ours that loads from the hub, its source as packaged."""
    file = f"{textvqa.__file__.rpartition('/')[0]}/sources.json"
    task = fake_task(
        process_docs=textvqa.process_docs,
        dataset_path="json",
        dataset_kwargs={"data_files": {"validation": file}, "field": "textvqa_val"},
        metric_list=[{**METRICS[0], "metric": "exact_match"}],
    )
    task.doc_to_text = lambda row: textvqa.raise_deferred(row)
    return task


def test_a_hub_tasks_split_is_another_one_of_its_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def load(repository: str, **options: Any) -> Dataset:
        asked.append((repository, options["split"]))
        return Dataset.from_list([dict.fromkeys(textvqa.COLUMNS, "x") for _ in range(4)])

    monkeypatch.setattr("datasets.load_dataset", load)
    chosen = selection_task("swiftvlm_textvqa_noocr_val", textvqa_task(), "train", 4, 0)
    assert asked == [("lmms-lab-encoder/textvqa", "train")] and len(chosen.rows) == 4
    with pytest.raises(ValueError, match="split='validation': .*is scored on it"):
        selection_task("swiftvlm_textvqa_noocr_val", textvqa_task(), "validation", 4, 0)


def test_a_split_that_the_hub_lacks_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*_: Any, **options: Any) -> Dataset:
        raise ValueError(f'Unknown split "{options["split"]}"')

    monkeypatch.setattr("datasets.load_dataset", load)
    with pytest.raises(ValueError, match="split='dev': swiftvlm_textvqa_noocr_val: .*has no split 'dev'"):
        selection_task("swiftvlm_textvqa_noocr_val", textvqa_task(), "dev", 4, 0)
