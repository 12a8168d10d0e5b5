"""What cannot be had is known before any weights are loaded."""

from pathlib import Path
from typing import Any

import pytest
from command_line import run
from small_sweeps import documents

from swiftvlm_eval import plugin
from swiftvlm_eval.models import checkpoint as checkpoint_module
from swiftvlm_eval.sweep.documents import Documents


def test_documents_are_counted_by_leaf_task() -> None:
    whole = documents("demo")
    assert set(whole.counts) == {"demo_gqa", "demo_pope", "demo_refcoco", "demo_textvqa"}
    assert min(whole.counts.values()) >= 500
    assert set(whole.expected(3).values()) == {3}
    assert whole.expected(None) == whole.expected(10**6) == whole.counts


def test_unknown_tasks_are_refused() -> None:
    with pytest.raises(ValueError, match="tasks=no_such: unknown to lmms-eval"):
        Documents(["demo_gqa", "no_such"])


def test_a_failure_behind_a_retry_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    from lmms_eval import tasks
    from tenacity import retry, stop_after_attempt

    @retry(stop=stop_after_attempt(2))
    def fails(*_: Any) -> None:
        raise ConnectionError("no route\n  to the hub")

    monkeypatch.setattr(tasks, "get_task_dict", fails)
    with pytest.raises(ValueError, match=r"^tasks=gqa,pope: the documents cannot be loaded: no route to the hub$"):
        plugin.load_tasks(["gqa", "pope"], None)


@pytest.mark.parametrize("command", [["sweep", "--methods", "vanilla"], ["check"]])
def test_data_out_of_reach_is_told_before_the_model_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    loaded: list[Any] = []
    monkeypatch.setattr(checkpoint_module, "load_checkpoint", lambda *found, **_: loaded.append(found))
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    common = ["--model", "demo", "--device", "cpu", "--tasks", "demo_gqa,swiftvlm_refcoco_val"]
    status, _, output = run(*command, *common, "--out", str(tmp_path))
    assert status == 1 and not loaded
    assert "error tasks=swiftvlm_refcoco_val: the documents cannot be loaded: data set" in output
    assert "cannot be reached and is not cached" in output
