"""Which commit was loaded, told by caches laid out as `datasets` and `huggingface_hub` lay them out."""

import json
from pathlib import Path

import datasets
import pytest
from task_data import FakeHub, ref_rows, textvqa_rows

from swiftvlm_eval.tasks import hub, revision
from swiftvlm_eval.tasks.hub import HubSource, load_rows, provenance
from swiftvlm_eval.tasks.refcoco.functions import build_documents
from swiftvlm_eval.tasks.revision import is_pinned, resolved_commit

OLD, NEW = "0123456789abcdef" * 2 + "01234567", "fedcba9876543210" * 2 + "fedcba98"
NAME = "lmms-lab-encoder/POPE"


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(revision.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def remember(cache: Path, commit: str, *, downloaded: bool = True) -> None:
    """What the hub client leaves behind when it resolves `main`."""
    folder = cache / "datasets--lmms-lab-encoder--POPE"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text(commit)
    if downloaded:
        (folder / "snapshots" / commit).mkdir(parents=True)


def rows(*commits: str, repository: str = NAME) -> datasets.Dataset:
    """Rows that say what they were downloaded from."""
    made = datasets.Dataset.from_dict({"question": ["a", "b"]})
    made.info.download_checksums = {
        f"hf://datasets/{repository}@{commit}/data/test-{number}.parquet": {"num_bytes": 1, "checksum": None}
        for number, commit in enumerate(commits)
    }
    return made


def test_the_address_of_the_download_tells(hub_cache: Path) -> None:
    remember(hub_cache, OLD)
    assert resolved_commit(NAME, "main", rows(NEW, NEW)) == NEW


def test_two_commits_or_another_data_set_tell_nothing(hub_cache: Path) -> None:
    assert resolved_commit(NAME, "main", rows(OLD, NEW)) is None
    assert resolved_commit(NAME, "main", rows(NEW, repository="somebody/POPE")) is None
    assert resolved_commit(NAME, "main", rows(NEW, repository=f"{NAME}2")) is None
    assert resolved_commit(NAME, "main", datasets.Dataset.from_dict({"a": [1]})) is None


def test_the_hub_cache_tells_if_the_files_are_there(hub_cache: Path) -> None:
    remember(hub_cache, NEW)
    assert resolved_commit(NAME, "main", rows()) == NEW
    assert resolved_commit(NAME, "v2", rows()) is None
    assert resolved_commit("lmms-lab-encoder/GQA", "main", rows()) is None


@pytest.mark.parametrize("content", ["no commit", NEW[:39], "../../etc"])
def test_a_broken_hub_cache_tells_nothing(hub_cache: Path, content: str) -> None:
    remember(hub_cache, content, downloaded=False)
    assert resolved_commit(NAME, "main", rows()) is None


def test_a_commit_without_files_tells_nothing(hub_cache: Path) -> None:
    remember(hub_cache, NEW, downloaded=False)
    assert resolved_commit(NAME, "main", rows()) is None


def test_datasets_itself_finds_the_prepared_copy_and_so_do_we(
    hub_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Offline, `datasets` falls back on what it prepared before: no address, but a folder named by the commit."""
    folder = tmp_path / "datasets" / "lmms-lab-encoder___pope" / "default" / "0.0.0" / NEW
    folder.mkdir(parents=True)
    made = datasets.Dataset.from_dict({"question": ["a", "b"]})
    with datasets.arrow_writer.ArrowWriter(path=str(folder / "pope-test.arrow"), features=made.features) as writer:
        for row in made:
            writer.write(row)
        writer.finalize()
    made.info.splits = datasets.SplitDict({"test": datasets.SplitInfo("test", 1, 2, dataset_name="pope")})
    made.info.builder_name, made.info.dataset_name, made.info.config_name = "parquet", "pope", "default"
    made.info.version = datasets.Version("0.0.0")
    made.info.write_to_directory(str(folder))
    remember(hub_cache, OLD)
    loaded = datasets.load_dataset(NAME, split="test", revision="main", cache_dir=str(tmp_path / "datasets"))
    assert loaded["question"][:] == ["a", "b"]
    assert resolved_commit(NAME, "main", loaded) == NEW


def test_only_a_full_commit_is_a_pin() -> None:
    assert is_pinned(NEW)
    assert not any(is_pinned(name) for name in ("main", "v1.0", NEW[:12], NEW.upper(), NEW + "0"))


def test_the_record_says_not_pinned_and_the_commit(hub_cache: Path) -> None:
    assert provenance(HubSource(repository=NAME, split="test"), rows(NEW)) == {
        "source": f"{NAME}@main/test",
        "revision": "main",
        "pin": "not pinned",
        "commit": NEW,
    }
    pinned = HubSource(repository=NAME, split="test", config="en", revision=OLD)
    assert provenance(pinned, rows()) == {
        "source": f"{NAME}@{OLD}/en/test",
        "revision": OLD,
        "pin": "pinned",
        "commit": None,
    }


def test_documents_carry_it_where_scorers_find_it(hub_cache: Path, fake_hub: FakeHub) -> None:
    found = textvqa_rows()
    found.info.download_checksums = {f"hf://datasets/lmms-lab-encoder/textvqa@{NEW}/a.parquet": {}}
    fake_hub["lmms-lab-encoder/textvqa", "validation"] = found
    entry = datasets.Dataset.from_list([{"repository": "lmms-lab-encoder/textvqa", "split": "validation"}])
    loaded = load_rows(entry, {"question": "text"})
    assert hub.recorded(loaded[3])["split"]["commit"] == NEW
    assert hub.recorded({"question": "a row of one's own"}) == {}

    objects = ref_rows([{}])
    objects.info.download_checksums = {f"hf://datasets/lmms-lab-encoder/RefCOCO@{OLD}/a.parquet": {}}
    fake_hub["lmms-lab-encoder/RefCOCO", "testA"] = objects
    source = {"repository": "lmms-lab-encoder/RefCOCO", "split": "testA"}
    split = build_documents(datasets.Dataset.from_list([source]))[0]["split"]
    assert (split["pin"], split["commit"], split["objects"]) == ("not pinned", OLD, 1)
    assert json.dumps(split)
