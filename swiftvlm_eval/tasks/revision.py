"""Which commit of a data set was really loaded, for runs whose revision is a branch that may move."""

import re
from pathlib import Path

from datasets import Dataset
from huggingface_hub import constants
from huggingface_hub.file_download import repo_folder_name

_COMMIT = re.compile(r"[0-9a-f]{40}")


def is_pinned(revision: str) -> bool:
    """Whether a revision is a full commit; a branch or a tag can be moved."""
    return _COMMIT.fullmatch(revision) is not None


def resolved_commit(repository: str, revision: str, dataset: Dataset) -> str | None:
    """Tell the commit that a loaded split comes from.

    Asked in this order: the addresses the split was downloaded from, the folder it was prepared in, and what the hub's
    cache last resolved the revision to.

    Args:
        repository: Data set id on the hub.
        revision: The branch, tag or commit that was asked for.
        dataset: The split as `datasets` loaded it.

    Returns:
        Forty hex digits; None where none of the three tells, or they tell of several commits.
    """
    found = _downloaded(repository, dataset) or _prepared(repository, dataset) or _cached(repository, revision)
    return found.pop() if len(found) == 1 else None


def _downloaded(repository: str, dataset: Dataset) -> set[str]:
    """Commits in the addresses of the downloaded files, `hf://datasets/<repository>@<commit>/<file>`."""
    start = re.compile(rf"hf://datasets/{re.escape(repository)}@({_COMMIT.pattern})/")
    return {found.group(1) for address in dataset.info.download_checksums or {} if (found := start.match(address))}


def _prepared(repository: str, dataset: Dataset) -> set[str]:
    """Commits in the folders of the prepared files, `<owner>___<name>/<configuration>/<version>/<commit>`."""
    owner = repository.replace("/", "___").lower()
    folders = [Path(file["filename"]).parent for file in dataset.cache_files]
    return {
        folder.name
        for folder in folders
        if _COMMIT.fullmatch(folder.name) and len(folder.parts) > 3 and folder.parts[-4].lower() == owner
    }


def _cached(repository: str, revision: str) -> set[str]:
    """The commit that the hub's cache holds for a branch or tag, if its files are there as well."""
    folder = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=repository, repo_type="dataset")
    try:
        commit = (folder / "refs" / revision).read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        return set()
    return {commit} if _COMMIT.fullmatch(commit) and (folder / "snapshots" / commit).is_dir() else set()
