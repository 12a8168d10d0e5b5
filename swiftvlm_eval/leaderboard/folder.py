"""Replaces the pages of a folder as a whole, and nothing in it that is not a page of ours.

The pages are written into a hidden folder within the target (so that renaming never crosses file systems, and a target
that is a link, a mount or somebody's working directory stays what it is). Only when all of them are on disk are they
renamed into place, by one builder at a time; a renaming that fails is taken back. A list of our pages is kept beside
them: by it the pages of boards that are gone are removed, and files of the user are left alone.
"""

import os
import shutil
import tempfile
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from filelock import FileLock

from swiftvlm_eval.results.store import make_folder

MANIFEST = ".swiftvlm-eval-pages"
LOCK = ".swiftvlm-eval-lock"
_BOTH = f"{MANIFEST}-old-and-new"
_STAGING = ".swiftvlm-eval-new-"
_PAGES = frozenset({".md", ".csv", ".json", ".html", ".svg", ".png", ".xml", ".gz"})
# Pages from before there was a list of them: the index page says whose they are.
_OURS = b"<title>swiftvlm-eval leaderboards</title>"
_PATIENCE_S = 600


def replace_pages(out: Path, files: Mapping[str, bytes]) -> tuple[Path, ...]:
    """Replaces our pages in a folder by others; returns their paths, sorted.

    Args:
        out: The folder; created if needed.
        files: Content by file name.

    Raises:
        ValueError: The folder cannot be made, holds a file of somebody else under a page's name, or cannot take the
            pages (a full disk); what was there is then unchanged.
    """
    make_folder(out)
    try:
        with FileLock(out / LOCK, timeout=_PATIENCE_S):
            _replace(out, files)
    except OSError as error:
        reason = error.strerror or f"another builder has held {LOCK} for {_PATIENCE_S} s"
        raise ValueError(f"pages in {out} not written: {reason}; what was there is unchanged") from error
    return tuple(out / name for name in sorted(files))


def foreign_files(out: Path, besides: Collection[str] = ()) -> list[str]:
    """Returns names in a folder that are not pages of ours, sorted; a folder that is not there has none.

    Args:
        out: The folder.
        besides: Names of folders within it that may be there, unless they are links.

    Raises:
        ValueError: It is no folder, or cannot be looked into.
    """
    if not os.path.lexists(out):
        return []
    try:
        found = sorted(out.iterdir())
    except OSError as error:
        raise ValueError(f"folder {out} cannot be read: {error.strerror}") from error
    ours = {*_listed(out), MANIFEST, LOCK}
    return [
        path.name
        for path in found
        if not (path.name in ours and path.is_file() and not path.is_symlink())
        and not path.name.startswith(_STAGING)
        and not (path.name in besides and path.is_dir() and not path.is_symlink())
    ]


def _replace(out: Path, files: Mapping[str, bytes]) -> None:
    """Runs under the lock, so a hidden folder that is there already was left by a builder that was killed."""
    for rest in out.glob(f"{_STAGING}*"):
        shutil.rmtree(rest, ignore_errors=True)
    ours = _listed(out)
    _refuse_foreign(out, files, ours)
    staging = Path(tempfile.mkdtemp(dir=out, prefix=_STAGING))
    try:
        for name, content in files.items():
            _write(staging / name, content)
        _list(staging / MANIFEST, files)
        # The first list holds both: what a builder leaves that is killed half-way is not foreign to the next one.
        _list(staging / _BOTH, ours | set(files))
        _swap(out, staging, files, ours - set(files))
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _listed(out: Path) -> set[str]:
    """Returns the pages that the list names and that are there; whatever else it names is not ours."""
    try:
        names = (out / MANIFEST).read_text(encoding="utf-8").splitlines()
    except (FileNotFoundError, UnicodeDecodeError):
        return set()
    return {
        name
        for name in names
        if Path(name).name == name
        and Path(name).suffix in _PAGES
        and not name.startswith(".")
        and (out / name).is_file()
    }


def _refuse_foreign(out: Path, files: Mapping[str, bytes], ours: set[str]) -> None:
    index = out / "index.html"
    old = not (out / MANIFEST).exists() and index.is_file() and _OURS in index.read_bytes()[:4096]
    foreign = [
        name
        for name in sorted(set(files) - ours)
        if os.path.lexists(out / name) and (not old or (out / name).is_dir())
    ]
    if foreign:
        raise ValueError(
            f"folder {out} holds {', '.join(foreign)}, not a page of a leaderboard made here; "
            "move it away or give another folder"
        )


def _list(path: Path, names: Iterable[str]) -> None:
    _write(path, "".join(f"{name}\n" for name in sorted(names)).encode())


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())


def _swap(out: Path, staging: Path, files: Iterable[str], gone: Iterable[str]) -> None:
    """Renames the new pages into place, index pages last; takes everything back if one cannot be."""
    names = [*sorted(files, key=lambda name: (name.startswith("index."), name)), MANIFEST]
    kept = staging / "kept"
    kept.mkdir()
    for name in (*names, *gone):
        if os.path.lexists(out / name):
            _keep(out / name, kept / name)
    try:
        (staging / _BOTH).replace(out / MANIFEST)
        for name in names:
            (staging / name).replace(out / name)
        for name in gone:
            (out / name).unlink(missing_ok=True)
    except BaseException:
        for name in (*names, *gone):
            if os.path.lexists(kept / name):
                (kept / name).replace(out / name)
            else:
                (out / name).unlink(missing_ok=True)
        raise


def _keep(path: Path, target: Path) -> None:
    try:
        os.link(path, target, follow_symlinks=False)
    except OSError:  # a file system without links
        shutil.copy2(path, target, follow_symlinks=False)
