"""The index file of an official split: which rows and expressions of the hub's data belong to it.

`make_index` writes it. The file is JSON:

    {"repository": "lmms-lab-encoder/RefCOCOg", "revision": "main", "split": "val",
     "objects": [{"row": 0, "expressions": [0, 1]}, ...]}

`row` counts rows of the hub's split from 0, `expressions` are positions in that row's list of expressions.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, NonNegativeInt, ValidationError

from swiftvlm_eval.tasks.hub import HubSource
from swiftvlm_eval.tasks.refcoco.official_split import Chosen, ReferredObject, Selection


class IndexedObject(BaseModel):
    """One row of the split and its expressions, both counted from 0."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    row: NonNegativeInt
    expressions: tuple[NonNegativeInt, ...]


class SplitIndex(BaseModel):
    """Content of an index file; made for one revision of one split of one data set."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    repository: str
    revision: str
    split: str
    objects: tuple[IndexedObject, ...]

    def select(self, objects: Sequence[ReferredObject]) -> Selection:
        """Look the indexed expressions up.

        Args:
            objects: All rows of the hub's split, in order.

        Raises:
            ValueError: A row or an expression does not exist, or occurs twice.
        """
        selection = []
        for item in self.objects:
            if item.row >= len(objects):
                raise ValueError(f"row {item.row} does not exist, the split has {len(objects)} rows")
            available = len(objects[item.row].expressions)
            if any(number >= available for number in item.expressions):
                raise ValueError(
                    f"row {item.row} has {available} expressions, the index names {list(item.expressions)}"
                )
            if len(set(item.expressions)) < len(item.expressions):
                raise ValueError(f"row {item.row} names an expression twice: {list(item.expressions)}")
            selection.append(Chosen(item.row, item.expressions))
        if len({item.row for item in self.objects}) < len(self.objects):
            raise ValueError("the index names a row twice")
        return selection


class OfficialRef(NamedTuple):
    """One object of the official annotations.

    Attributes:
        image_id: COCO image id as text, without leading zeros.
        sentences: Its expressions.
    """

    image_id: str
    sentences: tuple[str, ...]


def read_index(path: Path, source: HubSource) -> SplitIndex:
    """Read an index file and check that it was made for the data at hand.

    Raises:
        ValueError: The file is unreadable, or was made for another data set, revision or split; the message names it.
    """
    try:
        index = SplitIndex.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise ValueError(f"index file {path.name} cannot be read: {error}") from error
    made_for = HubSource(repository=index.repository, revision=index.revision, split=index.split)
    if str(made_for) != str(source):
        raise ValueError(f"index file {path.name} was made for {made_for}, the data is {source}")
    return index


def build_index(source: HubSource, objects: Sequence[ReferredObject], refs: Iterable[OfficialRef]) -> SplitIndex:
    """Find each official object among the rows of the hub's split.

    A row fits when it is in the same image and has all of the object's expressions, white space aside. Of several
    fitting rows the one with the fewest expressions is taken, then the first, and no row twice.

    Args:
        source: The hub's split.
        objects: All its rows, in order.
        refs: The objects of the official split.

    Raises:
        ValueError: Official objects have no fitting row; the message counts them and shows the first.
    """
    by_image: dict[str, list[ReferredObject]] = defaultdict(list)
    for item in objects:
        by_image[item.image_id].append(item)
    taken: set[int] = set()
    found, lost = [], []
    # Objects with many expressions choose first: they have the fewest fitting rows.
    for ref in sorted(refs, key=lambda ref: -len(ref.sentences)):
        fitting = [
            (len(item.expressions), item.row, numbers)
            for item in by_image[ref.image_id]
            if item.row not in taken and (numbers := _positions(ref.sentences, item.expressions)) is not None
        ]
        if not fitting:
            lost.append(ref)
            continue
        _, row, numbers = min(fitting)
        taken.add(row)
        found.append(IndexedObject(row=row, expressions=numbers))
    if lost:
        raise ValueError(
            f"{len(lost)} of {len(lost) + len(found)} official objects have no row in {source}: {lost[0]}"
        )
    found.sort(key=lambda item: item.row)
    return SplitIndex(repository=source.repository, revision=source.pinned, split=source.split, objects=tuple(found))


def _positions(sentences: Iterable[str], expressions: Sequence[str]) -> tuple[int, ...] | None:
    """Positions of all sentences among a row's expressions, or None if one is missing."""
    wanted = Counter(_plain(sentence) for sentence in sentences)
    positions = []
    for position, expression in enumerate(expressions):
        if wanted[_plain(expression)] > 0:
            wanted[_plain(expression)] -= 1
            positions.append(position)
    return None if any(wanted.values()) else tuple(positions)


def _plain(sentence: str) -> str:
    return " ".join(sentence.lower().split())
