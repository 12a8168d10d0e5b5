"""Sweeps of the tiny model: what is shared by their tests."""

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from lmms.tiny_runs import checkpoint
from lmms_eval.api import task as lmms_task
from lmms_eval.tasks import TaskManager

from swiftvlm_eval.lmms.answering import Answering


@pytest.fixture(autouse=True, scope="module")
def our_folder_only(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Indexing the stock tasks takes seconds and no test here needs them."""
    whole = TaskManager.__init__

    def ours(self: TaskManager, *args: Any, **kwargs: Any) -> None:
        whole(self, *args, **{**kwargs, "include_defaults": False})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TaskManager, "__init__", ours)
        patch.setenv("LMMS_EVAL_DATASETS_CACHE", str(tmp_path_factory.mktemp("datasets")))
        lmms_task._resolve_hf_datasets_cache_dir.cache_clear()
        yield
    lmms_task._resolve_hf_datasets_cache_dir.cache_clear()


@pytest.fixture
def generated(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Documents that a model really answered."""
    documents: list[str] = []
    real = Answering.generate

    def note(self: Answering, batch: Any, *halved: Any) -> Any:
        documents.extend(f"{request.args[-2]}/{request.args[-3]}" for request in batch.requests)
        return real(self, batch, *halved)

    monkeypatch.setattr(Answering, "generate", note)
    return documents


@pytest.fixture
def interrupted(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Makes the model fail after so many answers; `interrupted(-1)` heals it."""
    state = SimpleNamespace(left=-1)
    model = checkpoint().model
    real = model.generate

    def generate(*args: Any, **kwargs: Any) -> Any:
        if state.left == 0:
            raise KeyboardInterrupt
        state.left -= 1
        return real(*args, **kwargs)

    monkeypatch.setattr(model, "generate", generate)

    def after(answers: int) -> None:
        state.left = answers

    return after
