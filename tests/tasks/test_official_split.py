"""Official splits recovered from synthetic mixtures whose true composition is known."""

import pytest

from swiftvlm_eval.tasks.refcoco.official_split import (
    Chosen,
    ReferredObject,
    SplitMismatchError,
    SplitSize,
    everything,
    size_of,
    umd_val,
    unc_val,
)

A, B, C = (0.0, 0.0, 5.0, 5.0), (9.0, 9.0, 5.0, 5.0), (1.0, 2.0, 3.0, 4.0)


def obj(row: int, image: str, bbox: tuple[float, ...], *expressions: str) -> ReferredObject:
    return ReferredObject(row, image, bbox, expressions)


# The official part: three objects with six expressions, one of them written twice by two people.
OFFICIAL = [obj(0, "1", A, "left", "left", "red"), obj(1, "1", B, "right"), obj(2, "2", A, "left", "top")]
# The other part: two of the same objects again, and objects of images outside the split.
MIXED = [
    *OFFICIAL,
    obj(3, "2", A, "top", "left"),
    obj(4, "7", A, "left"),
    obj(5, "1", B, "right"),
    obj(6, "8", C, "x", "y"),
]


def test_unc_val_drops_other_images_and_repeated_objects() -> None:
    assert unc_val(MIXED, {"1", "2", "3"}, SplitSize(3, 6)) == everything(OFFICIAL)


def test_unc_val_drops_repetitions_within_an_object_if_only_that_fits() -> None:
    selection = unc_val(MIXED, {"1", "2"}, SplitSize(3, 5))
    assert selection == [Chosen(0, (0, 2)), Chosen(1, (0,)), Chosen(2, (0, 1))]


def test_the_same_words_for_another_box_or_image_are_kept() -> None:
    objects = [obj(0, "1", A, "left"), obj(1, "1", B, "left"), obj(2, "2", A, "left")]
    assert size_of(unc_val(objects, {"1", "2"}, SplitSize(3, 3))) == (3, 3)


def test_a_repeated_object_keeps_the_expressions_that_are_new() -> None:
    objects = [obj(0, "1", A, "left"), obj(1, "1", A, "left", "dog")]
    assert unc_val(objects, {"1"}, SplitSize(2, 2)) == [Chosen(0, (0,)), Chosen(1, (1,))]


@pytest.mark.parametrize("official", [SplitSize(4, 6), SplitSize(3, 7), SplitSize(3811, 10834)])
def test_unc_val_refuses_other_sizes_and_says_what_it_found(official: SplitSize) -> None:
    with pytest.raises(
        SplitMismatchError, match=rf"expected {official}, found .*3 objects with 6 expressions"
    ) as caught:
        unc_val(MIXED, {"1", "2"}, official)
    assert "3 objects with 5 expressions" in str(caught.value)


UMD = [obj(0, "1", A, "one", "two"), obj(1, "2", A, "three"), obj(2, "3", A, "four")]
GOOGLE = [obj(0, "9", A, "five"), obj(1, "2", B, "six"), obj(2, "4", B, "seven", "eight"), obj(3, "9", B, "nine")]


def renumbered(*parts: list[ReferredObject]) -> list[ReferredObject]:
    objects = [item for part in parts for item in part]
    return [item._replace(row=row) for row, item in enumerate(objects)]


def test_umd_val_finds_the_block_at_either_end() -> None:
    first = renumbered(UMD, GOOGLE)
    last = renumbered(GOOGLE, UMD)
    assert umd_val(first, {"9"}, SplitSize(3, 4)) == everything(first[:3])
    assert umd_val(last, {"9"}, SplitSize(3, 4)) == everything(last[4:])


def test_umd_val_refuses_a_block_with_a_test_image_even_if_its_size_fits() -> None:
    assert size_of(everything(GOOGLE[:3])) == (3, 4)
    with pytest.raises(SplitMismatchError, match="expected 3 objects with 4 expressions, found no candidate"):
        umd_val(renumbered(GOOGLE), {"9"}, SplitSize(3, 4))


def test_umd_val_refuses_shuffled_rows() -> None:
    shuffled = renumbered([UMD[0], GOOGLE[0], UMD[1], GOOGLE[2], UMD[2], GOOGLE[3]])
    with pytest.raises(SplitMismatchError):
        umd_val(shuffled, {"9"}, SplitSize(3, 4))


def test_a_size_that_is_not_known_fits_everything() -> None:
    assert SplitSize(None, None).fits(everything(MIXED))
    assert SplitSize(7, None).fits(everything(MIXED))
    assert not SplitSize(6, None).fits(everything(MIXED))
