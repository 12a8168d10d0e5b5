"""Keeps run records on disk: written once, atomically, never edited; read with their history and with suspicion."""

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from swiftvlm_eval.results.bounds import one_line, strict_json
from swiftvlm_eval.results.files import LARGEST_RECORD, require_regular
from swiftvlm_eval.results.importing import import_run
from swiftvlm_eval.results.lmms_output import RESULTS_NAME
from swiftvlm_eval.results.record import FORMAT, SCHEMA_VERSION, RunRecord, SamplesFile
from swiftvlm_eval.results.samples import SampleLine, encode_samples, read_samples

RECORD_ENDING = ".record.json"
SAMPLES_ENDING = ".samples.jsonl.gz"

Migration = Callable[[dict[str, Any]], dict[str, Any]]

# Version -> function that lifts a record of that version to the next one. Version 1 is the first.
MIGRATIONS: dict[int, Migration] = {}


@dataclass(frozen=True)
class StoredRun:
    """A record together with where it came from.

    Attributes:
        record: The run record.
        path: The record file, or the lmms-eval results file it was imported from on the fly.
    """

    record: RunRecord
    path: Path

    def samples(self) -> list[SampleLine]:
        """Returns the per-sample lines, an empty list if the run logged none.

        Raises:
            ValueError: The per-sample file is missing, changed or broken.
        """
        if not self.path.name.endswith(RECORD_ENDING):
            return import_run(self.path)[1]
        file = self.record.samples_file
        return [] if file is None else list(read_samples(self.path.with_name(file.name), file.sha256))


@dataclass(frozen=True)
class Problem:
    """Something that keeps a file, or a part of it, out of a table.

    Attributes:
        file: File name without folders.
        reason: One sentence for the reader.
        refused: Nothing of the file was used.
    """

    file: str
    reason: str
    refused: bool = False


def write_record(record: RunRecord, samples: Sequence[SampleLine], folder: Path) -> Path:
    """Writes a record and its per-sample lines.

    The record is written last and renamed into place, so an interrupted run leaves no record. Writing the same
    content again changes nothing.

    Args:
        record: As returned by `import_run`.
        samples: Its per-sample lines; may be empty if the run logged none.
        folder: Created if needed.

    Returns:
        The path of the record file, `<model>--<method>--<budget>--<id>.record.json`.

    Raises:
        ValueError: Another record of the same configuration and task set is already there, or the folder cannot be
            made.
    """
    path = folder / f"{record.stem}{RECORD_ENDING}"
    if samples:
        content = encode_samples(samples)
        file = SamplesFile(
            name=f"{record.stem}{SAMPLES_ENDING}", sha256=hashlib.sha256(content).hexdigest(), lines=len(samples)
        )
        record = record.model_copy(update={"samples_file": file})
    text = record.to_json()
    if path.exists():
        if path.read_text(encoding="utf-8") == text:
            return path
        raise ValueError(f"{path.name} is already there with other content; records are never edited")
    make_folder(folder)
    if record.samples_file is not None:
        write_atomically(folder / record.samples_file.name, content)
    write_atomically(path, text.encode())
    return path


def make_folder(folder: Path) -> None:
    """Makes a folder and those above it, if it is not there, and makes sure that it takes files.

    Raises:
        ValueError: It cannot be made or written, for example because a file is in its place.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ValueError(
            f"folder {folder} cannot be made or written ({error.strerror}); allowed is a new or a writable folder"
        ) from error


def write_atomically(path: Path, content: bytes) -> None:
    """Writes a file under a temporary name and renames it, so that no reader ever sees half of it."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    try:
        with open(descriptor, "wb") as stream:  # noqa: PTH123 (a descriptor, not a path)
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def read_record(path: Path, migrations: Mapping[int, Migration] | None = None) -> RunRecord:
    """Reads a record of this or an older schema version.

    Args:
        path: A record file.
        migrations: Steps from old versions, `MIGRATIONS` by default.

    Raises:
        ValueError: The file is broken, not ours, newer than this package, or of a version without a migration; the
            message names the file and the reason.
    """
    steps = MIGRATIONS if migrations is None else migrations
    try:
        text = require_regular(path, LARGEST_RECORD).read_bytes()
    except OSError as error:
        raise ValueError(f"{path.name} cannot be read: {error.strerror}") from error
    try:
        content = strict_json(text.decode())
    except ValueError as error:
        raise ValueError(f"{path.name} cannot be read as JSON: {one_line(error)}") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ValueError(f"{path.name} is not a run record: `format` is not {FORMAT!r}")
    version = content.get("schema_version")
    if not isinstance(version, int) or version > SCHEMA_VERSION:
        raise ValueError(f"{path.name} has schema_version {version!r}; this package reads up to {SCHEMA_VERSION}")
    while version < SCHEMA_VERSION:
        if version not in steps:
            raise ValueError(f"{path.name} has schema_version {version}, for which there is no migration")
        content = {**steps[version](content), "schema_version": version + 1}
        version += 1
    try:
        return RunRecord.model_validate_json(json.dumps(content))
    except ValidationError as error:
        raise ValueError(f"{path.name} is not a valid run record: {one_line(error)}") from error


def load_records(
    paths: Iterable[Path], migrations: Mapping[int, Migration] | None = None
) -> tuple[list[StoredRun], list[Problem]]:
    """Reads every record and every plain lmms-eval output under the given paths.

    Folders are searched recursively for `*.record.json` and `<stamp>_results.json`; a results file that a record was
    made from is not counted a second time. The result does not depend on the order of `paths`.

    Args:
        paths: Files and folders.
        migrations: Steps from old schema versions, `MIGRATIONS` by default.

    Returns:
        The runs, sorted by record id and file name, and what could not be read and why.

    Raises:
        ValueError: A path does not exist.
    """
    runs: list[StoredRun] = []
    problems: list[Problem] = []
    imported: set[tuple[str, str]] = set()
    # Records first: the lmms-eval output they were made from need not be read again.
    for path in sorted(_candidates(paths), key=lambda path: not path.name.endswith(RECORD_ENDING)):
        try:
            if path.name.endswith(RECORD_ENDING):
                record = read_record(path, migrations)
                imported.add((record.origin.results_file, record.origin.results_sha256))
                runs.append(StoredRun(record, path))
            elif not RESULTS_NAME.fullmatch(path.name):
                reason = f"neither a run record (*{RECORD_ENDING}) nor lmms-eval output (<stamp>_results.json)"
                problems.append(Problem(path.name, reason, refused=True))
            elif (path.name, _digest(path)) not in imported:
                runs.append(StoredRun(import_run(path)[0], path))
        except ValueError as error:
            problems.append(Problem(path.name, one_line(error), refused=True))
        except OSError as error:
            problems.append(Problem(path.name, f"{path.name} cannot be read: {error.strerror}", refused=True))
    runs.sort(key=lambda run: (run.record.record_id, run.record.origin.created or "", run.path.name))
    return _without_copies(runs), sorted(problems, key=lambda problem: (problem.file, problem.reason))


def _candidates(paths: Iterable[Path]) -> Iterator[Path]:
    seen: set[Path] = set()
    for path in paths:
        if not path.exists():
            raise ValueError(f"input {path} does not exist")
        found = sorted(path.rglob("*.json")) if path.is_dir() else [path]
        for file in found:
            ours = file.name.endswith(RECORD_ENDING) or RESULTS_NAME.fullmatch(file.name)
            if (ours or not path.is_dir()) and file.resolve() not in seen:
                seen.add(file.resolve())
                yield file


def _digest(path: Path) -> str:
    return hashlib.sha256(require_regular(path).read_bytes()).hexdigest()


def _without_copies(runs: Sequence[StoredRun]) -> list[StoredRun]:
    """Keeps one run per lmms-eval results file and configuration, the written record rather than the fresh import."""
    chosen: dict[tuple[str, str], StoredRun] = {}
    for run in runs:
        key = (run.record.origin.results_sha256, run.record.record_id)
        if key not in chosen or run.path.name.endswith(RECORD_ENDING):
            chosen[key] = run
    return list(chosen.values())
