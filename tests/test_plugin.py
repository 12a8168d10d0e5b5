"""What lmms-eval finds of us: models by name, tasks without --include_path, group names that mean our tasks."""

import logging
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
from lmms_eval import tasks as lmms_tasks
from lmms_eval.models import MODEL_REGISTRY_V2
from lmms_eval.tasks import TaskManager, get_task_dict

from swiftvlm_eval import lmms, plugin
from swiftvlm_eval.models import families
from swiftvlm_eval.models.families import FAMILIES
from swiftvlm_eval.pruning.registry import method_names
from swiftvlm_eval.sweep.documents import task_index

GROUPS = {
    "refcoco": "refcoco/_refcoco.yaml",
    "refcoco+": "refcoco/_refcocoplus.yaml",
    "refcocog": "refcoco/_refcocog.yaml",
    "textvqa": "textvqa/_textvqa.yaml",
}
LEAFS = ("swiftvlm_refcoco_val", "swiftvlm_textvqa_noocr_val", "demo_refcoco", "demo", "paper")
OFFICIAL = ("swiftvlm_official_pope", "swiftvlm_official_mme", "paper_official")
OUR_NAMES = [f"{method}_{family}" for family in ("llava", "llava_next") for method in method_names()]


class OurModel:
    """Stands for a model object of ours, as `simple_evaluate(model=...)` hands it on."""

    prefers_swiftvlm_tasks = True


@pytest.fixture(autouse=True, scope="module")
def folders_are_read_once() -> Iterator[None]:
    """Reading the stock folder takes seconds and does not depend on the model."""
    with pytest.MonkeyPatch.context() as patch:
        read = lru_cache(maxsize=None)(TaskManager(include_defaults=False)._get_task_and_group)
        patch.setattr(TaskManager, "_get_task_and_group", lambda self, folder: read(folder))
        yield


def indexed(model: Any) -> dict[str, str]:
    """Task or group -> YAML file, as lmms-eval has it for a model."""
    manager = TaskManager(model_name=model)
    return {name: str(entry["yaml_path"]) for name, entry in manager._task_index.items()}


@pytest.mark.parametrize("name", OUR_NAMES)
def test_every_name_resolves_to_a_class_of_ours(name: str) -> None:
    resolved = MODEL_REGISTRY_V2.resolve(name)
    assert resolved.model_type == "simple"
    cls = MODEL_REGISTRY_V2.get_model_class(name)
    method, _, family = name.rpartition("_llava")
    assert cls.preset_method == method
    assert cls.family == ("llava_next" if family else "llava")
    assert cls.__name__ in resolved.class_path and cls.is_simple


def test_the_names_are_those_of_the_methods() -> None:
    assert {"swiftvlm_llava", "vanilla_llava", "fastv_llava_next"} <= set(OUR_NAMES)
    assert sorted(plugin.model_classes()) == sorted(OUR_NAMES)


def test_a_new_family_in_the_table_has_its_names_and_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    added = replace(FAMILIES["llava"], name="some_vl", suffix="some_vl")
    for module in (families, plugin, lmms):
        monkeypatch.setattr(module, "FAMILIES", {**FAMILIES, "some_vl": added})
    assert plugin.model_classes()["fastv_some_vl"] == "SwiftvlmSomeVl__fastv"
    assert plugin.model_classes()["swiftvlm_some_vl"] == "SwiftvlmSomeVl"
    assert set(plugin.model_classes()) > set(OUR_NAMES)
    cls = lmms.SwiftvlmSomeVl__fastv
    assert (cls.family, cls.preset_method) == ("some_vl", "fastv") and issubclass(cls, lmms.SwiftvlmSomeVl)


@pytest.mark.parametrize("model", ["swiftvlm_llava", "fastv_llava_next", OurModel()], ids=["name", "preset", "object"])
def test_group_names_mean_our_tasks_for_our_models(model: Any) -> None:
    found = indexed(model)
    for group, path in GROUPS.items():
        assert found[group] == str(plugin.TASK_FOLDER / path)
    assert all(found[leaf].startswith(str(plugin.TASK_FOLDER)) for leaf in (*LEAFS, *OFFICIAL))
    assert "lmms_eval/tasks" in found["gqa"]


@pytest.mark.parametrize("model", ["llava_hf", None, object()], ids=["llava_hf", "none", "object"])
def test_other_models_keep_the_stock_meaning(model: Any) -> None:
    found = indexed(model)
    for group in GROUPS:
        assert not found[group].startswith(str(plugin.TASK_FOLDER))
    assert "lmms_eval/tasks/refcoco/" in found["refcoco"]
    # leaf tasks are open to any model
    assert all(found[leaf].startswith(str(plugin.TASK_FOLDER)) for leaf in (*LEAFS, *OFFICIAL))


@pytest.mark.parametrize(
    ("names", "whole"),
    [
        (["demo"], False),
        (["demo_gqa", "refcoco", "textvqa", "swiftvlm_refcoco_val"], False),
        (["paper_official", "refcoco_all_splits"], False),
        (["gqa"], True),  # stock
        (["demo", "paper_next"], True),  # a group of ours with stock tasks in it
        (["demo", "no_such"], True),
    ],
    ids=lambda given: " ".join(given) if isinstance(given, list) else "",
)
def test_the_stock_folder_is_read_where_a_name_leads_to_it(
    names: list[str], whole: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    stock, read = str(Path(lmms_tasks.__file__).parent), TaskManager._get_task_and_group
    folders: list[str] = []
    monkeypatch.setattr(
        TaskManager, "_get_task_and_group", lambda self, folder: folders.append(folder) or read(self, folder)
    )
    manager = task_index(names)
    assert (f"{stock}/" in folders) == ("gqa" in manager.all_tasks) == whole
    assert manager.model_name == "swiftvlm_llava" and ("no_such" in names) == bool(set(names) - set(manager.all_tasks))


def test_a_name_of_ours_means_the_same_in_our_index_and_in_the_whole_one() -> None:
    ours, everything = task_index(["demo"])._task_index, TaskManager(model_name="swiftvlm_llava")._task_index
    assert len(ours) > 20 and ours.items() <= everything.items()


def test_wrapping_twice_wraps_once() -> None:
    names = ("initialize_tasks", "match_tasks", "load_task_or_group")
    wrapped = [getattr(TaskManager, name) for name in names]
    plugin.manifests()
    assert [getattr(TaskManager, name) for name in names] == wrapped


def test_documents_are_loaded_before_the_model_and_once() -> None:
    """What the command line of lmms-eval does: it looks tasks up, makes the model, then asks for the tasks."""
    manager = TaskManager(model_name="fastv_llava", include_defaults=False)
    assert manager.match_tasks(["demo_gqa"]) == ["demo_gqa"]
    early = manager.loaded_tasks[1]["demo_gqa"]
    assert len(early.eval_docs) >= 500
    assert get_task_dict(["demo_gqa"], manager, "simple")["demo_gqa"] is early
    # handed over once; other tasks and other models are loaded as ever
    assert get_task_dict(["demo_gqa"], manager, "simple")["demo_gqa"] is not early
    manager.match_tasks(["demo_gqa"])
    assert set(get_task_dict(["demo_pope"], manager, "simple")) == {"demo_pope"}
    other = TaskManager(model_name="llava_hf", include_defaults=False)
    assert other.match_tasks(["demo_gqa"]) == ["demo_gqa"] and not hasattr(other, "loaded_tasks")


def test_data_out_of_reach_ends_the_look_up_of_a_task(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    manager = TaskManager(model_name="swiftvlm_llava", include_defaults=False)
    # an unknown task is told by lmms-eval itself, before anything is loaded
    assert manager.match_tasks(["swiftvlm_refcoco_val", "no_such"]) == ["swiftvlm_refcoco_val"]
    with pytest.raises(
        ValueError, match="tasks=swiftvlm_refcoco_val: the documents cannot be loaded: data set .* cached"
    ):
        manager.match_tasks(["swiftvlm_refcoco_val"])


def test_a_changed_task_manager_costs_the_tasks_only(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Changed:
        def initialize_tasks(self) -> dict[str, Any]:
            return {"stock": {}}

    monkeypatch.setattr("lmms_eval.tasks.TaskManager", Changed)
    stock = Changed.initialize_tasks
    with caplog.at_level(logging.WARNING):
        assert {manifest.model_id for manifest in plugin.manifests()} == set(OUR_NAMES)
    assert f"--include_path {plugin.TASK_FOLDER}" in caplog.text
    assert Changed.initialize_tasks is stock


def test_an_unreadable_task_folder_leaves_the_stock_tasks(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Failing:
        model_name = "swiftvlm_llava"

        def initialize_tasks(self) -> dict[str, Any]:
            return {"stock": {"type": "task"}}

        def _get_task_and_group(self, folder: str) -> dict[str, Any]:
            raise OSError(f"cannot read {folder}")

    monkeypatch.setattr("lmms_eval.tasks.TaskManager", Failing)
    plugin.manifests()
    with caplog.at_level(logging.WARNING):
        assert Failing().initialize_tasks() == {"stock": {"type": "task"}}
    assert "--include_path" in caplog.text


def test_the_plugin_costs_no_torch() -> None:
    """lmms-eval drops every plugin after one that fails to import: ours must need next to nothing."""
    code = (
        "import sys, swiftvlm_eval.plugin as p; p.model_classes(); print({'torch', 'transformers'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
