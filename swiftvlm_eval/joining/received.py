"""Takes in the files of a submission: names, kinds and sizes, before anything in them is read."""

import hashlib
import os
import re
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from swiftvlm_eval.joining.findings import Findings
from swiftvlm_eval.joining.private import machine_path, secret_kind
from swiftvlm_eval.results.store import RECORD_ENDING, SAMPLES_ENDING

SOURCE_ENDING = ".py"
# Ending -> most bytes. A record of nine benchmarks has 30 kB, its samples some 2 MB.
LARGEST = {RECORD_ENDING: 1 << 20, SAMPLES_ENDING: 32 << 20, SOURCE_ENDING: 1 << 18}
MOST_FILES = 2000
FOLDER = "submissions"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,239}")
_FOLDER_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


@dataclass(frozen=True)
class Received:
    """The files of a submission that may be read.

    Attributes:
        records: Record files.
        samples: Per-sample files.
        sources: Source files of methods. They are read and hashed, never run.
    """

    records: tuple[Path, ...]
    samples: tuple[Path, ...]
    sources: tuple[Path, ...]


def receive(given: Sequence[Path], findings: Findings) -> Received:
    """Sorts the files of a submission; refuses links, odd names, unknown kinds and sizes beyond `LARGEST`.

    Args:
        given: Files, and folders, whose files are taken as well.
        findings: Gets the refusals.
    """
    kinds: dict[str, list[Path]] = {ending: [] for ending in LARGEST}
    paths = list(dict.fromkeys(_within(given)))
    if len(paths) > MOST_FILES:
        findings.refuse("submission", "files", f"more than {MOST_FILES}", f"at most {MOST_FILES} files")
    for path in paths[:MOST_FILES]:
        ending = _allowed(path, findings)
        if ending is not None:
            kinds[ending].append(path)
    return Received(*(tuple(kinds[ending]) for ending in (RECORD_ENDING, SAMPLES_ENDING, SOURCE_ENDING)))


def _within(given: Iterable[Path]) -> Iterator[Path]:
    """Yields files, those of folders included; links are yielded as they are, not followed."""
    count = 0
    for path in given:
        inside = [path]
        if path.is_dir() and not path.is_symlink():
            walked = os.walk(path, followlinks=False)
            inside = []
            for folder, folders, files in walked:
                links = [name for name in folders if (Path(folder) / name).is_symlink()]
                inside += [Path(folder) / name for name in sorted([*files, *links])]
                if count + len(inside) > MOST_FILES:
                    break
            inside.sort()
        for file in inside:
            count += 1
            if count > MOST_FILES + 1:
                return
            yield file


def _allowed(path: Path, findings: Findings) -> str | None:
    """Returns the ending of a file that may be read, None if it was refused."""
    name = path.name
    ending = next((ending for ending in LARGEST if name.endswith(ending)), None)
    if not _NAME.fullmatch(name):
        findings.refuse(name, "name", name, "letters, digits and . _ + -, starting with a letter or a digit")
    elif ending is None:
        findings.refuse(name, "name", name, f"a file that ends in {', '.join(LARGEST)}")
    elif _misplaced(path):
        findings.refuse(name, "folder", _misplaced(path), f"{FOLDER}/<name in small letters>/<file>")
    elif is_plain_file(path, LARGEST[ending], findings):
        return ending
    return None


def _misplaced(path: Path) -> str | None:
    """The part of a path below the folder of submissions if it is not one plain folder with files, else None."""
    parts = path.parts
    if FOLDER not in parts:
        return None
    below = parts[len(parts) - parts[::-1].index(FOLDER) :]
    fits = len(below) == 2 and _FOLDER_NAME.fullmatch(below[0])
    return None if fits else "/".join(below)


def is_plain_file(path: Path, limit: int, findings: Findings) -> bool:
    """Whether a path is a regular file, no link, of at most `limit` bytes; refuses it otherwise."""
    try:
        found = path.lstat()
    except (OSError, ValueError):
        findings.refuse(path.name, "file", "not there", "a file; what is published is neither deleted nor renamed")
        return False
    if not stat.S_ISREG(found.st_mode):
        kind = "a link" if stat.S_ISLNK(found.st_mode) else "no regular file"
        findings.refuse(path.name, "file", kind, "a regular file")
        return False
    if found.st_size > limit:
        findings.refuse(path.name, "size", found.st_size, f"at most {limit} bytes")
        return False
    return True


def source_hashes(paths: Iterable[Path], findings: Findings) -> dict[str, tuple[Path, ...]]:
    """Returns the hashes that stand for the given source files, and for two of them one after the other.

    Two methods from outside in one composition have the hash of both hashes, one a line.

    Args:
        paths: Source files that may be read.
        findings: Gets refusals of sources that are no text, or hold what must not be published.

    Returns:
        SHA-256 -> the files it stands for.
    """
    single: dict[str, tuple[Path, ...]] = {}
    for path in paths:
        content = path.read_bytes()
        try:
            text = content.decode()
        except UnicodeDecodeError:
            findings.refuse(path.name, "content", "no UTF-8 text", "Python source")
            continue
        if kind := secret_kind(text):
            findings.refuse(path.name, "content", kind, "source without secrets")
        if place := machine_path(text):
            findings.refuse(path.name, "content", place, "source without folders of a machine")
        single[hashlib.sha256(content).hexdigest()] = (path,)
    pairs = {
        hashlib.sha256(f"{first}\n{then}".encode()).hexdigest(): (single[first][0], single[then][0])
        for first in single
        for then in single
    }
    return {**pairs, **single}
