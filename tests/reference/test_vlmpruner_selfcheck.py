"""VLM-Pruner's reference by hand, and by properties of its description."""

from typing import Any

import pytest
import torch
from reference.vlmpruner import (
    GridPlace,
    Options,
    blended,
    cosines,
    farthest,
    grid_distance,
    grid_places,
    one_pass,
    outwards,
    redundancy,
    varied_channels,
    vlm_pruner,
)
from tiny_models import make_image, make_inputs, tiny_llava, tiny_llava_next


@pytest.fixture(autouse=True)
def _no_grad() -> Any:
    with torch.no_grad():
        yield


def tiny(**options: Any) -> tuple[Any, Any]:
    model, processor = tiny_llava(grid=8, layers=4, **options)
    return model, make_inputs(processor, make_image(150, 110, seed=3))


def test_distances_on_the_grid() -> None:
    one = GridPlace(0, 2, 1)
    assert grid_distance(one, GridPlace(0, 5, 5), 24) == pytest.approx(5 / (24 * 2**0.5))
    assert grid_distance(one, one, 24) == 0.0
    assert grid_distance(one, GridPlace(1, 2, 1), 24) == 1.0


def test_places_of_base_tile_lines_and_newlines() -> None:
    model, processor = tiny_llava_next(grid=6)
    inputs = make_inputs(processor, make_image(168, 168))  # four tiles, nothing unpadded
    found = grid_places(model, inputs, 36 + 12 * 13)
    assert found[35] == (0, 5, 5) and found[36] == (1, 0, 0)
    assert found[47] == (1, 0, 11) and found[48] == (1, 0, 12) and found[49] == (1, 1, 0)
    assert found[-1] == (1, 11, 12)
    square, inputs = tiny()
    assert grid_places(square, inputs, 64)[17] == (0, 2, 1)


def test_farthest_by_hand() -> None:
    keys = torch.tensor([[0.0, 0.0], [1.0, 0.0], [10.0, 0.0], [4.0, 0.0], [10.0, 0.0]])
    assert farthest(keys, 0, 3) == [0, 2, 3]
    assert farthest(keys, 3, 2) == [3, 2]


def test_channels_of_largest_variance_in_their_order() -> None:
    states = torch.tensor([[0.0, 5.0, 1.0], [4.0, 5.0, -1.0]])
    assert varied_channels(states, 2).tolist() == [[0.0, 1.0], [4.0, -1.0]]
    assert varied_channels(states, 3) is states


def test_redundancy_by_hand() -> None:
    likeness, apart = [[1.0, 0.5, -0.4]], [[0.0, 0.6, 0.2]]
    assert redundancy(likeness, apart, [1, 2], 0, 0.5) == pytest.approx(0.5 * 1.1)
    assert redundancy(likeness, apart, [2], 0, 0.5) == pytest.approx(-0.4 * 1.1)  # farther is more welcome
    assert redundancy(likeness, apart, [1], 0, 0.0) == 0.5


def line(values: list[float]) -> list[list[float]]:
    """A table in which row 0 is alike to the others as given, and these are all equal to one another."""
    size = len(values) + 1
    return [[1.0 if min(i, j) > 0 or i == j else values[max(i, j) - 1] for j in range(size)] for i in range(size)]


def test_a_chunk_is_not_compared_with_itself_and_the_next_one_is() -> None:
    likeness = line([0.1] * 20)
    apart = [[0.0] * 21] * 21
    assert one_pass(likeness, apart, [0], 21, 0.8, 0.5) == list(range(1, 17))
    assert one_pass(likeness, apart, [0], 21, 0.1, 0.5) == [], "the threshold itself is too much"


def test_the_last_chunk_gives_its_best_by_the_values_of_the_moment() -> None:
    likeness = line([0.3, 0.2, 0.1, 0.2, 0.9])
    apart = [[0.0] * 6] * 6
    assert one_pass(likeness, apart, [0], 3, 0.8, 0.5) == [3, 2]
    assert one_pass(likeness, apart, [0], 6, 0.8, 0.5) == [3, 2, 4, 1]


def test_a_pass_ends_with_an_empty_first_chunk_only() -> None:
    likeness = line([0.1] * 16 + [0.2] * 16 + [0.3])
    for first in range(1, 17):  # the second chunk is alike to the first, the third is not
        likeness[first][33] = likeness[33][first] = 0.0
    apart = [[0.0] * 34] * 34
    assert one_pass(likeness, apart, [0], 34, 0.8, 0.5) == [*range(1, 17), 33]


def test_the_published_loop_may_stop_short() -> None:
    likeness, apart = line([0.9] * 20), [[0.0] * 21] * 21
    assert outwards(likeness, apart, [0], 12, Options(mode="official")) == [0]
    assert outwards(likeness, apart, [0], 12, Options()) == list(range(12))


def test_without_a_buffer_the_grid_is_irrelevant() -> None:
    rows = torch.randn(60, 8, generator=torch.Generator().manual_seed(1)).double()
    likeness = cosines(rows).tolist()
    flat = [[0.0] * 60] * 60
    other = torch.rand(60, 60, generator=torch.Generator().manual_seed(2)).tolist()
    chosen = [outwards(likeness, apart, [0, 1, 2, 3], 25, Options(buffer=0.0)) for apart in (flat, other)]
    assert chosen[0] == chosen[1] and len(set(chosen[0])) == 25
    assert outwards(likeness, other, [0, 1, 2, 3], 25, Options()) != chosen[0]


def test_blending_by_hand() -> None:
    states = torch.tensor([[1.0, 0.0], [0.0, 1.0], [9.0, 0.0], [5.0, 2.0], [7.0, 7.0]])
    likeness = [[0.0] * 5 for _ in range(5)]
    likeness[2][0], likeness[3][0] = 0.6, 0.2  # both to row 0, three parts to one
    likeness[4] = [-0.5, -0.1, 0.0, 0.0, 1.0]  # to row 1, but not positive: lost
    rows = blended(states, likeness, [0, 1], 0.7)
    torch.testing.assert_close(rows, torch.tensor([[0.3 + 0.7 * 8.0, 0.7 * 0.5], [0.0, 1.0]]))
    likeness[3][:2] = [-0.2, -0.3]  # stays in the sum
    torch.testing.assert_close(blended(states, likeness, [0, 1], 0.7)[0, 0], torch.tensor(0.3 + 0.7 * 11.0))
    assert torch.equal(blended(states, likeness, [0, 1], 0.0), states[:2])


def test_equal_dropped_rows_enter_with_the_weight_of_the_blend() -> None:
    states = torch.cat([torch.eye(2), torch.tensor([[2.0, 1.0]]).expand(6, 2)])
    rows = blended(states, cosines(states.double()).tolist(), [0, 1], 0.7)
    torch.testing.assert_close(rows[0], 0.3 * states[0] + 0.7 * states[2])
    assert torch.equal(rows[1], states[1])


def test_rows_keep_their_positions_and_all_rows_are_the_whole_model() -> None:
    model, inputs = tiny()
    stock = model(**inputs).logits[0, -1]
    run = vlm_pruner(model, inputs, boundary=2, count=64)
    torch.testing.assert_close(run.logits[0], stock, atol=1e-4, rtol=1e-4)
    run = vlm_pruner(model, inputs, [5], boundary=2, count=20)
    length = inputs["input_ids"].shape[1]
    assert run.visual_rows() == [64, 64, 20, 20] and run.generated_positions[-1] == (length,)
    slots = dict(zip(run.rows[0], run.prompt_positions[0], strict=True))
    assert all(slots[row] == place for row, place in zip(run.rows[2], run.prompt_positions[2], strict=True))
