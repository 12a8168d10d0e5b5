"""DART's reference by hand, and by properties of its description."""

from itertools import pairwise
from typing import Any

import pytest
import torch
from reference.dart import dart, least_alike, picks_per_pivot, pivot_order, pivots
from reference.full_length import key_rows
from reference.vision import start_state
from tiny_models import make_image, make_inputs, tiny_llava


@pytest.fixture(autouse=True)
def _no_grad() -> Any:
    with torch.no_grad():
        yield


def tiny(**options: Any) -> tuple[Any, Any]:
    model, processor = tiny_llava(grid=8, layers=4, **options)
    return model, make_inputs(processor, make_image(150, 110, seed=3))


def test_eight_pivots_share_the_picks() -> None:
    assert picks_per_pivot(4) == [0] * 8
    assert picks_per_pivot(196) == [24] * 8
    assert picks_per_pivot(166) == [21, 21, *[20] * 6]
    assert all(sum(picks_per_pivot(count)) == count - 4 for count in range(4, 100))
    with pytest.raises(ValueError, match="4 visual pivots are always kept"):
        picks_per_pivot(3)


def test_pivots_are_the_largest_and_need_four_rows() -> None:
    norms = torch.tensor([9.0, 1.0, 5.0, 7.0, 7.0, 2.0])
    assert pivots(norms, [1, 2, 3, 4, 5]) == [3, 4, 2, 5]
    with pytest.raises(ValueError, match="3 rows, DART needs 4"):
        pivots(norms, [3, 4, 5])


def test_least_alike_by_hand() -> None:
    pool = torch.tensor([[1.0, 0.0], [0.0, 2.0], [-3.0, 0.0], [1.0, 1.0]])
    turns = torch.tensor([[5.0, 0.0], [-1.0, 0.0], [0.0, 1.0]])
    # to the first: row 2 (-1), row 1 (0); of rows 0 and 3 the second has row 0 at -1; the third takes what is left
    assert least_alike(turns, pool, [2, 1, 1]) == [2, 1, 0, 3]
    assert least_alike(turns[:1], torch.ones(3, 2), [2]) == [0, 1]


def test_the_published_order_is_that_of_a_set() -> None:
    image, text = [40, 9, 70, 33], [100, 64, 31, 2]
    assert pivot_order(image, text, "norm") == [*image, *text]
    # all different modulo 32, so ascending in it
    assert pivot_order(image, text, "official") == [64, 33, 2, 100, 70, 40, 9, 31]
    shifted = pivot_order([place + 20 for place in image], [place + 20 for place in text], "official")
    assert [place - 20 for place in shifted] != pivot_order(image, text, "official")


@pytest.mark.parametrize("order", ["norm", "official"])
def test_kept_rows(order: Any) -> None:
    model, inputs = tiny()
    start = start_state(model, inputs)
    image = {int(i) for i in dart(model, inputs, boundary=2, count=4).kept_indices[0]}
    for count in (12, 31, 63):
        run = dart(model, inputs, boundary=2, count=count, order=order)
        (kept,) = run.kept_indices
        assert len(kept) == count and image < set(kept) and all(a < b for a, b in pairwise(kept))
        assert len(run.raters) == 4 and set(run.raters) <= {start.rows[place].index for place in start.question}
        assert sum(row.kind == "text" for row in run.rows[-1]) == len(start.rows) - 64


def test_orders_differ_on_the_model_of_the_option_tests() -> None:
    model, processor = tiny_llava(grid=12)
    inputs = make_inputs(processor, make_image(150, 110, seed=3))
    for boundary, count in ((1, 52), (2, 34)):
        runs = [dart(model, inputs, boundary=boundary, count=count, order=order) for order in ("norm", "official")]
        assert runs[0].kept_indices != runs[1].kept_indices


def test_keys_are_rotated() -> None:
    """Rotation keeps a key's length but not the sum of its absolute values."""
    model, inputs = tiny()
    state = start_state(model, inputs)
    decoder, places = model.model.language_model, state.visual
    moved = type(state)(state.rows, state.hidden, tuple(p + 7 for p in state.positions), state.next_position)
    here, there = key_rows(decoder, 1, state, places), key_rows(decoder, 1, moved, places)
    torch.testing.assert_close(here.norm(dim=1), there.norm(dim=1), atol=1e-3, rtol=1e-4)
    assert pivots(here.abs().sum(dim=1), range(64)) != pivots(there.abs().sum(dim=1), range(64))


def test_the_final_norm_is_applied() -> None:
    model, inputs = tiny(fresh=True)
    before = dart(model, inputs, boundary=2, count=20)
    weight = model.model.language_model.norm.weight
    weight.copy_(torch.linspace(0, 3, len(weight)))
    after = dart(model, inputs, boundary=2, count=20)
    assert torch.equal(before.scores[0], after.scores[0]) and before.kept_indices != after.kept_indices


def test_all_rows_are_the_whole_model() -> None:
    model, inputs = tiny()
    stock = model(**inputs).logits[0, -1]
    torch.testing.assert_close(dart(model, inputs, boundary=2, count=64).logits[0], stock, atol=1e-4, rtol=1e-4)
