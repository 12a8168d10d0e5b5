"""Loads one split of a data set from the Hugging Face hub and says in plain words why it cannot.

A task of ours does not name its data set in `dataset_path`. It names a *source*: one entry of a `sources.json` beside
its YAML, and its `process_docs` loads the data. Three reasons. lmms-eval keeps every split, although a task needs one.
It hands `process_docs` nothing but rows, so settings such as the split filter can only arrive as one. And it retries
whatever fails in there five times and then shows a `RetryError` without the cause; `defer_errors` goes around
that.

A task may be pointed at local rows instead (`dataset_path: parquet`): rows in the hub's own schema are used as they
are.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import datasets
from datasets import Dataset
from pydantic import BaseModel, ConfigDict, ValidationError

from swiftvlm_eval.tasks.revision import is_pinned, resolved_commit

REVISIONS_FILE = Path(__file__).with_name("revisions.json")
DEFERRED_ERROR = "loading_error"
PROVENANCE = "loaded_from"
"""Column of documents that says what they were loaded from; see `provenance`."""


class DatasetAccessError(ValueError):
    """A data set cannot be used; the message names it, says what was expected and how to cure it."""


class HubSource(BaseModel):
    """Where the rows of a task come from.

    Attributes:
        repository: Data set id on the hub.
        split: Split name there.
        config: Configuration of the data set (lmms-eval's `dataset_name`); None where it has only one.
        revision: Commit, tag or branch; None takes the one in `revisions.json`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    repository: str
    split: str
    config: str | None = None
    revision: str | None = None

    @property
    def pinned(self) -> str:
        """The revision that is loaded."""
        return self.revision or _revisions().get(self.repository, "main")

    def __str__(self) -> str:
        parts = (f"{self.repository}@{self.pinned}", *([self.config] if self.config else []), self.split)
        return "/".join(parts)


@cache
def _revisions() -> dict[str, str]:
    """The revision of each data set, from the one file that sets them all."""
    content: dict[str, str] = json.loads(REVISIONS_FILE.read_text(encoding="utf-8"))
    return content


Source = TypeVar("Source", bound=HubSource)


def source_row(dataset: Dataset) -> dict[str, object] | None:
    """Return the entry of `sources.json` that lmms-eval loaded, or None if these are data rows already."""
    return dict(dataset[0]) if "repository" in dataset.column_names else None


def parse_source(row: Mapping[str, object], kind: type[Source]) -> Source:
    """Check an entry of `sources.json`.

    Args:
        row: The entry.
        kind: What it describes.

    Raises:
        DatasetAccessError: A field is unknown or invalid; the message names it.
    """
    try:
        return kind.model_validate(dict(row))
    except ValidationError as error:
        raise DatasetAccessError(f"source {row.get('repository')}/{row.get('split')}: {error}") from error


def defer_errors(build: Callable[[Dataset], Dataset], dataset: Dataset) -> Dataset:
    """Run a task's `process_docs` so that its error reaches the user as it is, at once.

    lmms-eval runs `process_docs` under a retry that hides errors, but calls `doc_to_text` on the first document right
    after it without one. So the error travels as the only document, and `raise_deferred` raises it there.

    Args:
        build: Makes the documents.
        dataset: What it makes them from.
    """
    try:
        return build(dataset)
    except DatasetAccessError as error:
        return Dataset.from_list([{DEFERRED_ERROR: str(error)}])


def raise_deferred(doc: Mapping[str, Any]) -> None:
    """Raise the error that a document stands for, if it stands for one.

    Raises:
        DatasetAccessError: The task's data could not be loaded.
    """
    if DEFERRED_ERROR in doc:
        raise DatasetAccessError(doc[DEFERRED_ERROR])


def load_split(source: HubSource, columns: Mapping[str, str]) -> Dataset:
    """Load one split and check that it looks as expected.

    Args:
        source: What to load.
        columns: Names of the columns that are read, each with a few words on its content.

    Returns:
        The split; images are not decoded yet.

    Raises:
        DatasetAccessError: The hub cannot be reached, access is denied, repository, revision or split do not exist,
            the split is empty, or a column is missing.
    """
    config = {"name": source.config} if source.config else {}
    try:
        dataset = datasets.load_dataset(source.repository, split=source.split, revision=source.pinned, **config)
    except Exception as error:  # Whatever the hub client raises is put into words and raised again, never swallowed.
        raise DatasetAccessError(_explain(source, error)) from error
    require_columns(dataset, columns, str(source))
    return dataset


def provenance(source: HubSource, dataset: Dataset) -> dict[str, str | None]:
    """Say what was loaded, for the record of a run.

    Args:
        source: What was asked for.
        dataset: The split as it was loaded.

    Returns:
        `source`; `revision`; `pin`, which is `pinned` for a commit and `not pinned` for a branch or tag; `commit`, the
        commit that was really loaded, None where it cannot be told.
    """
    return {
        "source": str(source),
        "revision": source.pinned,
        "pin": "pinned" if is_pinned(source.pinned) else "not pinned",
        "commit": resolved_commit(source.repository, source.pinned, dataset),
    }


def load_rows(dataset: Dataset, columns: Mapping[str, str]) -> Dataset:
    """Return the rows of a task whose documents are the hub's rows.

    Args:
        dataset: Either the task's entry of `sources.json`, or the rows themselves in the hub's schema.
        columns: Names of the columns that are read, each with a few words on its content.

    Returns:
        The rows as they are, images undecoded; loaded ones with the column `PROVENANCE`.

    Raises:
        DatasetAccessError: The data cannot be had or has changed; the message has the cure.
    """
    row = source_row(dataset)
    if row is None:
        require_columns(dataset, columns, "the given rows")
        return dataset
    source = parse_source(row, HubSource)
    return with_provenance(load_split(source, columns), source)


def with_provenance(rows: Dataset, source: HubSource) -> Dataset:
    """Add the column `PROVENANCE` to loaded rows."""
    told = provenance(source, rows)
    return rows.add_column(PROVENANCE, [told] * len(rows))


def recorded(doc: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a scorer adds to its result so that the record says which data were loaded: `split`, or nothing."""
    return {"split": doc[PROVENANCE]} if doc.get(PROVENANCE) else {}


def require_columns(dataset: Dataset, columns: Mapping[str, str], name: str) -> None:
    """Check the columns of a data set.

    Args:
        dataset: The rows.
        columns: Names of the columns that are read, each with a few words on its content.
        name: What to call the data set in the message.

    Raises:
        DatasetAccessError: There are no rows, or a column is missing.
    """
    missing = [column for column in columns if column not in dataset.column_names]
    if missing:
        expected = ", ".join(f"{column} ({content})" for column, content in columns.items())
        raise DatasetAccessError(
            f"data set {name}: no column {', '.join(missing)}. Expected {expected}; found "
            f"{', '.join(dataset.column_names) or 'none'}. The data set has changed: pin a revision that has these "
            f"columns in {REVISIONS_FILE.name}."
        )
    if len(dataset) == 0:
        raise DatasetAccessError(
            f"data set {name}: expected rows, found none. Delete its cached copy and load it again."
        )


def _explain(source: HubSource, error: Exception) -> str:
    """Put a loading error into words: which data set, what was expected, what to do."""
    causes = list(_causes(error))
    kinds = {kind.__name__ for cause in causes for kind in type(cause).__mro__}
    text = " ".join(str(cause) for cause in causes).lower()
    command = f"`hf download --repo-type dataset {source.repository} --revision {source.pinned}`"
    if "GatedRepoError" in kinds or "gated" in text:
        problem = "is gated. Accept its terms on its hub page, then log in with `hf auth login` and run again."
    elif "RevisionNotFoundError" in kinds or ("revision" in text and "exist" in text):
        problem = (
            f"has no revision {source.pinned!r}. Expected a commit, tag or branch of the data set; correct it "
            f"in {REVISIONS_FILE.name} or in the task's source."
        )
    elif "unknown split" in text:
        problem = (
            f"has no split {source.split!r}. Correct the split in the task's source, or pin a revision that has it."
        )
    elif "RepositoryNotFoundError" in kinds or "doesn't exist on the hub" in text:
        problem = (
            "does not exist or is not visible to you. Check the id; if it is private, log in with `hf auth login`."
        )
    elif kinds & {"ConnectionError", "OfflineModeIsEnabled", "HTTPError", "TransportError", "TimeoutError"}:
        problem = (
            "cannot be reached and is not cached. Connect to the network (and unset HF_HUB_OFFLINE if it is set) for "
            "the first run; later runs need only its cache folder (HF_HOME)."
        )
    else:
        problem = (
            f"cannot be read. Expected a data set that `datasets` can load; try {command} to see whether it is whole."
        )
    return f"data set {source} {problem} ({type(error).__name__}: {error})"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """Walk an exception and everything it was raised from, suppressed contexts included."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__
