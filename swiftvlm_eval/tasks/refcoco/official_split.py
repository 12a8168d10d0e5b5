"""Recovers the official splits from the hub's mixed ones, and refuses when the result does not add up.

The hub's `val` of RefCOCO has 8811 objects and that of RefCOCOg 7573, where the papers report 3811 (UNC split,
arXiv:1608.00272) and 2573 (UMD split, arXiv:1608.00525). Both differences are 5000, the size of the older Google val
split (arXiv:1511.02283). Scores on the mixture compare with nothing published, so the tasks score the official part
only. How the hub's rows came about is not documented: each rule below is a hypothesis, accepted only if the official
numbers of objects *and* expressions come out exactly.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import NamedTuple


class ReferredObject(NamedTuple):
    """One row of the hub's data: an object and every expression that refers to it.

    Attributes:
        row: Row number in the hub's split.
        image_id: Image the object is in.
        bbox: ``(x, y, width, height)`` in pixels.
        expressions: Its expressions, in the hub's order.
    """

    row: int
    image_id: str
    bbox: tuple[float, ...]
    expressions: tuple[str, ...]


class Chosen(NamedTuple):
    """The expressions of one row that belong to a split.

    Attributes:
        row: Row number in the hub's split.
        expression_numbers: Positions in the row's list of expressions.
    """

    row: int
    expression_numbers: tuple[int, ...]


Selection = list[Chosen]


class SplitSize(NamedTuple):
    """Size of a split; None where no official number is known.

    Attributes:
        objects: Referred objects.
        expressions: Expressions, which are the samples.
    """

    objects: int | None
    expressions: int | None

    def fits(self, selection: Selection) -> bool:
        """Whether a selection has exactly this size."""
        found = size_of(selection)
        return self.objects in (None, found.objects) and self.expressions in (None, found.expressions)

    def __str__(self) -> str:
        return f"{_number(self.objects)} objects with {_number(self.expressions)} expressions"


def _number(value: int | None) -> str:
    return "any number of" if value is None else str(value)


class SplitMismatchError(ValueError):
    """The official split could not be recovered; the message has the sizes that were found."""


def size_of(selection: Selection) -> SplitSize:
    """Count objects and expressions of a selection."""
    return SplitSize(len(selection), sum(len(chosen.expression_numbers) for chosen in selection))


def everything(objects: Iterable[ReferredObject]) -> Selection:
    """Select every expression of every object."""
    return [Chosen(item.row, tuple(range(len(item.expressions)))) for item in objects]


def unc_val(objects: Sequence[ReferredObject], val_images: Collection[str], official: SplitSize) -> Selection:
    """RefCOCO's UNC val, recovered through RefCOCO+.

    The UNC val splits of RefCOCO and RefCOCO+ cover the same images, and the hub's RefCOCO+ val is pure. What the
    Google split adds on these images are the same objects once more, so repeated expressions of one object are
    dropped.

    Args:
        objects: All rows of the hub's RefCOCO val.
        val_images: Image ids of the hub's RefCOCO+ val.
        official: Official size.

    Returns:
        The selection, in the hub's order.

    Raises:
        SplitMismatchError: No rule gives the official size.
    """
    images = frozenset(val_images)
    inside = [item for item in objects if item.image_id in images]
    # An official object may itself list an expression twice, so repetitions across rows are dropped first.
    attempts = {
        "repetitions across rows dropped": _without_repetitions(inside, within_rows=False),
        "all repetitions dropped": _without_repetitions(inside, within_rows=True),
    }
    return _first_that_fits(attempts, official)


def umd_val(objects: Sequence[ReferredObject], test_images: Collection[str], official: SplitSize) -> Selection:
    """RefCOCOg's UMD val, if the hub stored it as one block before or after the Google split.

    The UMD splits share no images (the Google split does share them), so a block that is the UMD val has no image of
    the UMD test split. Thousands of Google rows without one are out of the question, hence the block proves itself.

    Args:
        objects: All rows of the hub's RefCOCOg val, in order.
        test_images: Image ids of the hub's RefCOCOg test, which is the UMD test split.
        official: Official size; both numbers are needed.

    Returns:
        The selection, in the hub's order.

    Raises:
        SplitMismatchError: Neither block has the official size and no test image.
    """
    images = frozenset(test_images)
    count = official.objects or 0
    attempts = {
        name: everything(block)
        for name, block in (("first block", objects[:count]), ("last block", objects[len(objects) - count :]))
        if block and not any(item.image_id in images for item in block)
    }
    return _first_that_fits(attempts, official)


def _without_repetitions(objects: Iterable[ReferredObject], *, within_rows: bool) -> Selection:
    """Drop expressions that the same box in the same image had before, and rows that are left with none."""
    seen: set[tuple[str, tuple[float, ...], str]] = set()
    selection = []
    for item in objects:
        here: set[tuple[str, tuple[float, ...], str]] = set()
        numbers = []
        for number, expression in enumerate(item.expressions):
            key = (item.image_id, item.bbox, expression)
            if key not in seen and not (within_rows and key in here):
                numbers.append(number)
            here.add(key)
        seen |= here
        if numbers:
            selection.append(Chosen(item.row, tuple(numbers)))
    return selection


def _first_that_fits(attempts: dict[str, Selection], official: SplitSize) -> Selection:
    """Return the first selection of the official size."""
    for selection in attempts.values():
        if official.fits(selection):
            return selection
    found = "; ".join(f"{name}: {size_of(selection)}" for name, selection in attempts.items()) or "no candidate"
    raise SplitMismatchError(f"expected {official}, found {found}")


SplitRule = Callable[[Sequence[ReferredObject], Collection[str], SplitSize], Selection]

SPLIT_RULES: dict[str, SplitRule] = {"unc_val": unc_val, "umd_val": umd_val}
"""Rules by the name in `split_filter`; each gets the rows, the image ids of the other split and the official size."""
