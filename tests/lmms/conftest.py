"""Prepared data of the embedded tasks goes to a temporary folder."""

from collections.abc import Iterator

import pytest
from lmms_eval.api import task as lmms_task


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LMMS_EVAL_DATASETS_CACHE", str(tmp_path_factory.mktemp("datasets")))
        lmms_task._resolve_hf_datasets_cache_dir.cache_clear()
        yield
    lmms_task._resolve_hf_datasets_cache_dir.cache_clear()
