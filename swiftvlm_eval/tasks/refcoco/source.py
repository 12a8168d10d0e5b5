"""Where the rows of a grounding task come from and which of them belong to its split."""

import json
import logging
import re
from pathlib import Path, PurePosixPath
from typing import Literal

from datasets import Dataset
from pydantic import NonNegativeInt

from swiftvlm_eval.tasks.hub import (
    REVISIONS_FILE,
    DatasetAccessError,
    HubSource,
    load_split,
    parse_source,
    require_columns,
)
from swiftvlm_eval.tasks.refcoco.official_split import (
    SPLIT_RULES,
    ReferredObject,
    Selection,
    SplitMismatchError,
    SplitSize,
    everything,
    size_of,
)
from swiftvlm_eval.tasks.refcoco.split_index import read_index

logger = logging.getLogger(__name__)

SOURCES_FILE = Path(__file__).with_name("sources.json")
COLUMNS = {
    "question_id": "id of the object",
    "image": "encoded image",
    "answer": "list of its expressions",
    "bbox": "[x, y, width, height] in pixels",
    "file_name": "COCO file name",
}
_COCO_ID = re.compile(r"(?<![0-9])[0-9]{12}(?![0-9])")


class RefSource(HubSource):
    """One entry of `sources.json`.

    Attributes:
        split_filter: `none` takes the hub's split as it is; the other rules are in `official_split.SPLIT_RULES`.
        objects: Official number of objects, if known.
        expressions: Official number of expressions, if known.
        other: The split that the rule compares with.
        index_file: An index file, used instead of the rule when it exists; relative to the folder of this module.
    """

    split_filter: Literal["none", "unc_val", "umd_val"] = "none"
    objects: NonNegativeInt | None = None
    expressions: NonNegativeInt | None = None
    other: HubSource | None = None
    index_file: Path | None = None

    @property
    def index_path(self) -> Path | None:
        """Where the index file is looked for."""
        return None if self.index_file is None else SOURCES_FILE.parent / self.index_file


def packaged_source(name: str) -> RefSource:
    """Read an entry of the packaged `sources.json`.

    Raises:
        ValueError: There is no such entry; the message lists them.
    """
    sources = json.loads(SOURCES_FILE.read_text(encoding="utf-8"))
    if name not in sources:
        raise ValueError(f"task must be one of {', '.join(sources)}, got {name!r}")
    return parse_source(sources[name][0], RefSource)


def load_base(source: RefSource) -> Dataset:
    """Load the hub's split of a source, images undecoded. Errors as in `hub.load_split`."""
    return load_split(source, COLUMNS)


def load_objects(source: RefSource) -> list[ReferredObject]:
    """Load the hub's split of a source without its images. Errors as in `hub.load_split` and `read_objects`."""
    return read_objects(load_base(source), str(source))


def read_objects(base: Dataset, name: str) -> list[ReferredObject]:
    """Read everything but the images.

    Args:
        base: Rows in the hub's schema.
        name: What to call the data set in a message.

    Raises:
        DatasetAccessError: A column is missing or holds something else than expected.
    """
    require_columns(base, COLUMNS, name)
    text = base.select_columns(["answer", "bbox", "file_name"])
    columns = zip(text["answer"], text["bbox"], text["file_name"], strict=True)
    objects = []
    for row, (expressions, bbox, file_name) in enumerate(columns):
        problem = _problem(expressions, bbox, file_name)
        if problem:
            raise DatasetAccessError(
                f"data set {name}, row {row}: {problem}. Pin a revision without this in {REVISIONS_FILE.name}."
            )
        objects.append(ReferredObject(row, image_id(file_name), tuple(bbox), tuple(expressions)))
    return objects


def _problem(expressions: object, bbox: object, file_name: object) -> str:
    """What is wrong with the types of a row, or nothing."""
    if not (isinstance(expressions, list) and all(isinstance(item, str) for item in expressions)):
        return f"answer must be a list of expressions, got {type(expressions).__name__}"
    if not isinstance(bbox, list):
        return f"bbox must be [x, y, width, height], got {type(bbox).__name__}"
    if not isinstance(file_name, str):
        return f"file_name must be text, got {type(file_name).__name__}"
    return ""


def image_id(file_name: str) -> str:
    """Name the image of a file: its COCO id (the twelve digits) without leading zeros, or else the file name's stem.

    The same image thus has the same id in all three data sets, which is what results are clustered by.
    """
    match = _COCO_ID.search(file_name)
    return str(int(match.group())) if match else PurePosixPath(file_name).stem


def select_split(source: RefSource, objects: list[ReferredObject]) -> Selection:
    """Choose the rows and expressions of the official split.

    An index file has the last word where there is one. A split taken as it is may differ from the official size; that
    is logged, and the sizes are in every record. A rule or an index file must give the official size exactly.

    Args:
        source: The task's source.
        objects: All rows of the hub's split, in order.

    Raises:
        DatasetAccessError: The official split cannot be recovered; the message says how to get it and what to run
            instead.
    """
    official = SplitSize(source.objects, source.expressions)
    if source.split_filter == "none":
        selection = everything(objects)
        if not official.fits(selection):
            logger.warning(
                "%s: expected %s, found %s; scores may not be comparable", source, official, size_of(selection)
            )
        return selection
    path = source.index_path
    try:
        if path is not None and path.exists():
            selection = read_index(path, source).select(objects)
            if not official.fits(selection):
                raise SplitMismatchError(f"expected {official}, found {size_of(selection)} by {path.name}")
            return selection
        return SPLIT_RULES[source.split_filter](objects, _images_of(source.other), official)
    except DatasetAccessError:
        raise
    except ValueError as error:
        raise DatasetAccessError(_cure(source, error)) from error


def _images_of(other: HubSource | None) -> set[str]:
    """Image ids of the split that a rule compares with."""
    if other is None:
        return set()
    rows = load_split(other, {"file_name": COLUMNS["file_name"]})
    return {image_id(name) for name in rows.select_columns(["file_name"])["file_name"]}


def _cure(source: RefSource, error: ValueError) -> str:
    """Say what is wrong with a split and what to do."""
    name = "refcocog" if source.split_filter == "umd_val" else "refcoco"
    refs, pure = ("refs(umd).p", "test") if name == "refcocog" else ("refs(unc).p", "testA")
    command = f"python -m swiftvlm_eval.tasks.refcoco.make_index {name}_val '{refs}'"
    return (
        f"data set {source}: the official split cannot be told from the hub's mixture: {error}. Make its index once "
        f"from the official annotations, `{command}`, or run a split that needs none (swiftvlm_{name}_{pure}), or, "
        f"knowing that its score compares with nothing published, the mixture itself (swiftvlm_{name}_val_hub, "
        f"split_filter none)."
    )
