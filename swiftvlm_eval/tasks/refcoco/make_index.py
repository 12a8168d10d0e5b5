"""Makes the index file of an official split from the official annotations, which need no images.

    python -m swiftvlm_eval.tasks.refcoco.make_index refcocog_val "refcocog/refs(umd).p"

The annotations (`refs(umd).p`, `refs(unc).p`) come with the REFER tool of the data sets' authors (arXiv:1608.00272).
"""

import io
import json
import logging
import pickle
from pathlib import Path
from typing import Any

import typer

from swiftvlm_eval.tasks.refcoco.official_split import Chosen, SplitSize, size_of
from swiftvlm_eval.tasks.refcoco.source import load_objects, packaged_source
from swiftvlm_eval.tasks.refcoco.split_index import OfficialRef, build_index

logger = logging.getLogger(__name__)


class _DataUnpickler(pickle.Unpickler):
    """Reads pickles of plain data and refuses everything that could run code."""

    def find_class(self, module: str, name: str) -> Any:
        """Refuse every class: official annotations are lists, dicts, text and numbers only."""
        raise pickle.UnpicklingError(f"refused {module}.{name}: official annotations hold plain data only")


def read_refs(path: Path, split: str) -> list[OfficialRef]:
    """Read official annotations of the REFER distribution.

    Args:
        path: The distributed pickle (`refs(umd).p`), or the same list as JSON (`.json`).
        split: Official split, such as `val`.

    Raises:
        ValueError: The file is unreadable, is not such a list, or has no object of that split.
    """
    try:
        content = path.read_bytes()
        refs = json.loads(content) if path.suffix == ".json" else _unpickle(content)
        found = [
            OfficialRef(str(ref["image_id"]), tuple(sentence["sent"] for sentence in ref["sentences"]))
            for ref in refs
            if ref["split"] == split
        ]
    except (OSError, ValueError, TypeError, KeyError, EOFError, IndexError, pickle.UnpicklingError) as error:
        raise ValueError(
            f"{path.name} is not a list of official references: {type(error).__name__}: {error}"
        ) from error
    if not found:
        raise ValueError(f"{path.name} has no reference of split {split!r}")
    return found


def _unpickle(content: bytes) -> Any:
    # The distributed files were written by Python 2; latin1 reads its byte strings unchanged.
    return _DataUnpickler(io.BytesIO(content), encoding="latin1").load()


def write_index(task: str, refs_file: Path, out: Path | None = None) -> Path:
    """Make the index file of a task.

    Args:
        task: Name of the entry in `sources.json`: `refcoco_val` or `refcocog_val`.
        refs_file: Official annotations, see `read_refs`.
        out: Where to write; None is the place the task reads it from.

    Returns:
        The file written.

    Raises:
        ValueError: The task is unknown or needs no index, the file exists already, the data does not match, or the
            split does not have its official size.
    """
    source = packaged_source(task)
    path = out or source.index_path
    if path is None:
        raise ValueError(f"task {task!r} takes its split as it is and needs no index file")
    if path.exists():
        raise ValueError(f"{path.name} exists already; remove it to make it anew")
    index = build_index(source, load_objects(source), read_refs(refs_file, source.split))
    official = SplitSize(source.objects, source.expressions)
    selection = [Chosen(item.row, item.expressions) for item in index.objects]
    if not official.fits(selection):
        raise ValueError(
            f"{refs_file.name}: expected {official}, found {size_of(selection)}; is it the right annotation?"
        )
    unfinished = path.with_name(path.name + ".partial")
    unfinished.write_text(index.model_dump_json() + "\n", encoding="utf-8")
    unfinished.replace(path)
    logger.info("%s: %s", path.name, size_of(selection))
    return path


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    typer.run(write_index)
