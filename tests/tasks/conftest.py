"""A hub that lives in memory, demo files in a temporary folder, and lmms-eval's index of tasks with ours in it."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import datasets
import pytest
from lmms_eval.api import task as lmms_task
from lmms_eval.tasks import TaskManager
from task_data import FakeHub, gqa_rows, pope_rows, ref_rows, textvqa_rows

from swiftvlm_eval.tasks import hub

LoadDataset = Callable[..., Any]


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Prepared data goes to a temporary folder."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    monkeypatch.setenv("LMMS_EVAL_DATASETS_CACHE", str(tmp_path_factory.mktemp("datasets")))
    lmms_task._resolve_hf_datasets_cache_dir.cache_clear()
    yield
    lmms_task._resolve_hf_datasets_cache_dir.cache_clear()


@pytest.fixture
def fake_hub(monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    """Splits by (repository, split); an exception as the value is raised. Local files load as ever."""
    splits = FakeHub()
    real: LoadDataset = datasets.load_dataset

    def load_dataset(path: str, *args: Any, **options: Any) -> Any:
        if path in ("json", "parquet"):
            return real(path, *args, **options)
        # A configuration is part of the data set's name here.
        path = f"{path}/{options['name']}" if "name" in options else path
        splits.attempts.append((path, options["split"]))
        found = splits[path, options["split"]]
        if isinstance(found, Exception):
            raise found
        return found

    monkeypatch.setattr(hub.datasets, "load_dataset", load_dataset)
    return splits


@pytest.fixture
def demo_files(tmp_path: Path) -> dict[str, Path]:
    """The four demo parquet files, by task name."""
    rows = {
        "demo_refcoco": ref_rows([{"answer": ["the red one", "the box."]}, {}, {"answer": ["left"]}, {}]),
        "demo_textvqa": textvqa_rows(),
        "demo_gqa": gqa_rows(),
        "demo_pope": pope_rows(),
    }
    paths = {name: tmp_path / f"{name}.parquet" for name in rows}
    for name, dataset in rows.items():
        dataset.to_parquet(paths[name])
    return paths


@pytest.fixture(scope="session")
def task_manager() -> TaskManager:
    """Our tasks alone, included the way `--include_path` does: lmms-eval takes seconds to list its own."""
    return TaskManager(include_path=str(Path(hub.__file__).parent), include_defaults=False)


@pytest.fixture(scope="session")
def every_task() -> TaskManager:
    """lmms-eval's own index of tasks with ours included the way `--include_path` does."""
    return TaskManager(include_path=str(Path(hub.__file__).parent))
