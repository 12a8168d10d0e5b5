"""The YAML files as lmms-eval reads them: names, settings and groups."""

import json
from pathlib import Path
from typing import Any

import pytest
from lmms_eval.tasks import TaskManager
from lmms_eval.utils import load_yaml_config
from task_data import FakeHub, ref_rows, textvqa_rows

from swiftvlm_eval.results import shipped_benchmarks
from swiftvlm_eval.tasks import hub
from swiftvlm_eval.tasks.refcoco.source import packaged_source
from swiftvlm_eval.tasks.textvqa.functions import COLUMNS as TEXTVQA_COLUMNS

FOLDER = Path(hub.__file__).parent
REFCOCO = [
    *(f"swiftvlm_refcoco_{split}" for split in ("val", "val_hub", "testA", "testB", "test")),
    *(f"swiftvlm_refcoco+_{split}" for split in ("val", "testA", "testB")),
    *(f"swiftvlm_refcocog_{split}" for split in ("val", "val_hub", "test")),
]
TEXTVQA = ["swiftvlm_textvqa_noocr_val", "swiftvlm_textvqa_ocr_val"]
OFFICIAL = [
    f"swiftvlm_official_{name}" for name in ("textvqa", "gqa", "scienceqa_img", "mme", "mmbench_en_dev", "pope")
]
DEMO = ["demo_refcoco", "demo_textvqa", "demo_gqa", "demo_pope"]
GROUPS = {
    "refcoco": ["swiftvlm_refcoco_val"],
    "refcoco+": ["swiftvlm_refcoco+_val"],
    "refcocog": ["swiftvlm_refcocog_val"],
    "refcoco_family": ["swiftvlm_refcoco_val", "swiftvlm_refcoco+_val", "swiftvlm_refcocog_val"],
    "refcoco_all_splits": [task for task in REFCOCO if not task.endswith(("_hub", "refcoco_test"))],
    "textvqa": ["swiftvlm_textvqa_noocr_val"],
    "paper": [
        "swiftvlm_refcoco_val",
        "swiftvlm_refcoco+_val",
        "swiftvlm_refcocog_val",
        "swiftvlm_textvqa_noocr_val",
        "gqa",
        "scienceqa_img",
        "mme",
        "mmbench_en_dev_static",
        "pope",
    ],
    "paper_official": OFFICIAL,
    "paper_next": ["swiftvlm_refcoco_val", "swiftvlm_textvqa_noocr_val", "gqa", "mmbench_en_dev_static"],
    "demo": DEMO,
}


@pytest.fixture(scope="module")
def ours() -> TaskManager:
    """Our tasks alone, so that no stock name hides one of them."""
    return TaskManager(include_path=str(FOLDER), include_defaults=False)


def settings(ours: TaskManager, task: str) -> dict[str, Any]:
    config: dict[str, Any] = load_yaml_config(ours.task_index[task]["yaml_path"], mode="full")
    return config


def test_the_folder_holds_these_tasks_and_groups_and_no_others(ours: TaskManager) -> None:
    assert ours.all_subtasks == sorted([*REFCOCO, *TEXTVQA, *OFFICIAL, *DEMO])
    assert ours.all_groups == sorted(GROUPS)
    assert ours.all_tags == []


@pytest.mark.parametrize("group", GROUPS)
def test_a_group_holds_its_tasks_and_each_exists(ours: TaskManager, every_task: TaskManager, group: str) -> None:
    assert settings(ours, group)["task"] == GROUPS[group]
    assert set(GROUPS[group]) <= set(every_task.all_subtasks)


def test_no_leaf_task_hides_behind_a_stock_name(ours: TaskManager, every_task: TaskManager) -> None:
    for task in ours.all_subtasks:
        assert Path(every_task.task_index[task]["yaml_path"]).is_relative_to(FOLDER)


@pytest.mark.parametrize("task", [*REFCOCO, *TEXTVQA, *DEMO])
def test_every_task_is_greedy_short_and_ends_at_the_turn(ours: TaskManager, task: str) -> None:
    config = settings(ours, task)
    limit = {"demo_gqa": 16, "demo_pope": 128}.get(task, 64)
    assert config["generation_kwargs"] == {
        "max_new_tokens": limit,
        "temperature": 0,
        "do_sample": False,
        "until": ["</s>"],
    }
    assert all(metric["aggregation"] == "mean" for metric in config["metric_list"])
    assert config["output_type"] == "generate_until"
    assert config["metadata"] == {"version": 1.0}


@pytest.mark.parametrize("task", OFFICIAL)
def test_official_tasks_answer_at_the_length_of_the_scripts(ours: TaskManager, task: str) -> None:
    config = settings(ours, task)
    limit = 1024 if task.endswith(("scienceqa_img", "mmbench_en_dev")) else 128
    assert config["generation_kwargs"] == {
        "max_new_tokens": limit,
        "temperature": 0,
        "do_sample": False,
        "until": ["</s>"],
    }
    assert config["output_type"] == "generate_until"
    assert config["metadata"] == {"version": 1.0}
    assert config["process_results"].__module__.startswith("swiftvlm_eval.tasks.")
    (column,) = shipped_benchmarks().of_tasks({task})
    directions = {metric["metric"]: metric["higher_is_better"] for metric in config["metric_list"]}
    assert directions[column.metric] is True


def test_the_official_group_and_the_paper_share_no_task(ours: TaskManager) -> None:
    assert not set(settings(ours, "paper")["task"]) & set(settings(ours, "paper_official")["task"])


def test_every_official_aggregation_is_the_one_of_its_name(ours: TaskManager) -> None:
    for entry in settings(ours, "swiftvlm_official_pope")["metric_list"]:
        if entry["metric"] != "pope_other":
            measure = entry["metric"].removeprefix("pope_")
            for subset in ("random", "popular", "adversarial"):
                measure = measure.removesuffix(f"_{subset}")
            assert entry["aggregation"].__name__ == f"mean_{measure}"


@pytest.mark.parametrize("task", REFCOCO)
def test_grounding_tasks_share_everything_but_their_source(ours: TaskManager, task: str) -> None:
    config = settings(ours, task)
    assert config["dataset_kwargs"]["field"] == task.removeprefix("swiftvlm_")
    assert Path(config["dataset_kwargs"]["data_files"]["test"]) == FOLDER / "refcoco" / "sources.json"
    assert [metric["metric"] for metric in config["metric_list"]] == [
        "acc@0.5",
        "iou",
        "strict_acc@0.5",
        "acc@0.5_alt",
        "unparsable",
    ]
    assert config["metric_list"][-1]["higher_is_better"] is False
    assert config["process_results"].__name__ == "process_results_square"
    # Absolute names give the one imported module; relative ones would give each function a module of its own.
    assert config["doc_to_visual"].__globals__ is config["process_docs"].__globals__


def test_the_demo_grounds_with_the_very_functions_of_refcoco(ours: TaskManager) -> None:
    demo, refcoco = settings(ours, "demo_refcoco"), settings(ours, "swiftvlm_refcoco_val")
    names = ("process_docs", "doc_to_visual", "doc_to_text", "doc_to_target", "process_results", "metric_list")
    assert {name: demo[name] for name in names} == {name: refcoco[name] for name in names}


@pytest.mark.parametrize("task", DEMO)
def test_demo_data_is_looked_for_in_the_package(ours: TaskManager, task: str) -> None:
    config = settings(ours, task)
    assert config["dataset_path"] == "parquet"
    path = Path(config["dataset_kwargs"]["data_files"]["test"])
    # lmms-eval turns a relative path absolute only if the file exists.
    resolved = path if path.is_absolute() else FOLDER / "demo" / path
    assert resolved.resolve() == FOLDER.parent / "demo" / "data" / f"{task}.parquet"


SIZES = {
    "refcoco_val": (3811, 10834),
    "refcoco_testA": (1975, 5657),
    "refcoco_testB": (1810, 5095),
    "refcoco+_val": (3805, 10758),
    "refcoco+_testA": (1975, 5726),
    "refcoco+_testB": (1798, 4889),
    "refcocog_val": (2573, 4896),
    "refcocog_test": (5023, 9602),
}


@pytest.mark.parametrize("task", REFCOCO)
def test_every_source_is_valid_and_has_the_published_size(task: str) -> None:
    name = task.removeprefix("swiftvlm_")
    source = packaged_source(name)
    repository = {"refcoco": "RefCOCO", "refcoco+": "RefCOCOplus", "refcocog": "RefCOCOg"}[name.split("_")[0]]
    assert (source.repository, source.split) == (f"lmms-lab-encoder/{repository}", name.split("_")[1])
    if name in SIZES:
        assert (source.objects, source.expressions) == SIZES[name]
    assert (source.split_filter != "none") == (name in ("refcoco_val", "refcocog_val"))


def test_every_repository_has_its_revision_in_the_one_file() -> None:
    revisions = json.loads(hub.REVISIONS_FILE.read_text())
    text = "".join(path.read_text() for path in FOLDER.glob("*/sources.json"))
    used = {name for name in revisions if f'"{name}"' in text}
    assert used == set(revisions)
    assert text.count('"repository"') == sum(text.count(f'"repository": "{name}"') for name in revisions)


@pytest.mark.parametrize(("task", "ocr"), [(TEXTVQA[0], ""), (TEXTVQA[1], "\nReference OCR token: STOP, 12")])
def test_textvqa_prompts(fake_hub: FakeHub, task_manager: TaskManager, task: str, ocr: str) -> None:
    fake_hub["lmms-lab-encoder/textvqa", "validation"] = textvqa_rows()
    loaded = task_manager.load_task_or_group(task)[task]
    prompt = loaded.doc_to_text(loaded.test_docs()[0])
    assert prompt == f"What colour is it?{ocr}\nAnswer the question using a single word or phrase."
    assert set(TEXTVQA_COLUMNS) <= set(loaded.test_docs().column_names)


def test_a_grounding_task_loads_from_the_hub_it_names(fake_hub: FakeHub, task_manager: TaskManager) -> None:
    fake_hub["lmms-lab-encoder/RefCOCOplus", "val"] = ref_rows([{"answer": ["a", "b"]}, {}])
    loaded = task_manager.load_task_or_group("swiftvlm_refcoco+_val")["swiftvlm_refcoco+_val"]
    docs = loaded.test_docs()
    assert docs["expression"][:] == ["a", "b", "the red one"]
    assert docs[0]["split"]["source"] == "lmms-lab-encoder/RefCOCOplus@main/val"
    assert loaded.doc_to_target(docs[0]) == [4.0, 6.0, 20.0, 24.0]
