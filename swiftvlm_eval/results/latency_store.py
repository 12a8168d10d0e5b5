"""Keeps latency records on disk: written once under a name that their content gives, read with suspicion."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from swiftvlm_eval.results.bounds import one_line, strict_json
from swiftvlm_eval.results.files import LARGEST_RECORD, require_regular
from swiftvlm_eval.results.latency_record import FORMAT, SCHEMA_VERSION, LatencyRecord
from swiftvlm_eval.results.store import Problem, make_folder, write_atomically

ENDING = ".latency.json"


@dataclass(frozen=True)
class StoredLatency:
    """A latency record together with the file it was read from."""

    record: LatencyRecord
    path: Path


def write_latency(record: LatencyRecord, folder: Path) -> Path:
    """Writes a record under a name of its own, renamed into place.

    Args:
        record: What was measured.
        folder: Created if needed.

    Raises:
        ValueError: The folder cannot be made or written.
    """
    make_folder(folder)
    path = folder / f"{record.stem}{ENDING}"
    write_atomically(path, record.to_json().encode())
    return path


def read_latency(path: Path) -> LatencyRecord:
    """Reads a record.

    Raises:
        ValueError: The file is broken, not ours, or of another version; the message names file and reason.
    """
    try:
        content = strict_json(require_regular(path, LARGEST_RECORD).read_bytes().decode())
    except OSError as error:
        raise ValueError(f"{path.name} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ValueError(f"{path.name} cannot be read as JSON: {one_line(error)}") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ValueError(f"{path.name} is not a latency record: `format` is not {FORMAT!r}")
    if content.get("schema_version") != SCHEMA_VERSION:
        found = content.get("schema_version")
        raise ValueError(f"{path.name} has schema_version {found!r}; this package reads {SCHEMA_VERSION}")
    try:
        return LatencyRecord.model_validate_json(json.dumps(content))
    except ValidationError as error:
        raise ValueError(f"{path.name} is not a valid latency record: {one_line(error)}") from error


def load_latency(paths: Iterable[Path]) -> tuple[list[StoredLatency], list[Problem]]:
    """Reads every latency record under the given paths; the order of the paths does not matter.

    Args:
        paths: Folders, searched recursively for `*.latency.json`, and files; files of another ending are left to
            others.

    Returns:
        The records, by model, workload, machine and file name, each content once; and what could not be read.
    """
    found: dict[str, StoredLatency] = {}
    problems: list[Problem] = []
    for path in sorted(set(_files(paths))):
        try:
            record = read_latency(path)
        except ValueError as error:
            problems.append(Problem(path.name, one_line(error), refused=True))
        else:
            found.setdefault(record.record_id, StoredLatency(record, path))
    return sorted(found.values(), key=lambda each: (each.record.stem, each.path.name)), problems


def _files(paths: Iterable[Path]) -> Iterator[Path]:
    for path in paths:
        if path.is_dir():
            yield from (each for each in path.rglob(f"*{ENDING}"))
        elif path.name.endswith(ENDING):
            yield path
