"""Checks of the slow ToMe by hand and by its properties."""

from typing import Any

import pytest
import torch
from reference.per_tile import layer_number, tower_layers
from reference.tome import Rows, links, merge, merged_tile, schedule, tome
from reference.vision import tiles
from tiny_models import make_image, make_inputs, tiny_llava, tiny_llava_next


@pytest.fixture(autouse=True)
def _no_grad() -> Any:
    with torch.no_grad():
        yield


def pair(family: str) -> tuple[Any, Any]:
    model, processor = tiny_llava(grid=8) if family == "llava" else tiny_llava_next(grid=6)
    return model, make_inputs(processor, make_image(150, 110, seed=3))


@pytest.mark.parametrize(
    ("count", "merges"),
    [(192, [17] * 16 + [16] * 7), (128, [20] * 11 + [19] * 12), (64, [23] * 6 + [22] * 17), (576, [0] * 23)],
)
def test_published_schedules(count: int, merges: list[int]) -> None:
    assert schedule(576, count, 23) == merges


def test_schedules_of_few_layers() -> None:
    assert schedule(36, 13, 2) == [12, 11]
    assert schedule(36, 11, 2) == [14, 11]  # 13 and 12 would be more than half of the 24 rows left
    assert schedule(36, 9, 2) == [18, 9]
    with pytest.raises(ValueError, match="leave 9 at the least"):
        schedule(36, 8, 2)
    for patches in (9, 36, 64, 576):
        for layers in (2, 5, 23):
            for count in range(1, patches + 1):
                try:
                    merges = schedule(patches, count, layers)
                except ValueError:
                    continue
                rows = patches + 1
                for each in merges:
                    assert 0 <= each <= (rows - 1) // 2
                    rows -= each
                assert rows == count + 1, (patches, layers, count)


def test_links_are_from_even_to_odd_rows_and_never_from_the_class_token() -> None:
    keys = torch.tensor([[0.0, 1], [0, 2], [1, 0], [1, 1], [0, 3]])
    found = links(keys)
    assert [(even, odd) for _, even, odd in found] == [(2, 3), (4, 1)]
    assert found[0][0] == pytest.approx(0.5**0.5) and found[1][0] == pytest.approx(1)
    assert links(torch.ones(5, 2))[1][1:] == (4, 1)  # ties to the lower row


def test_merging_by_hand() -> None:
    rows = Rows(torch.tensor([[9.0], [1], [4], [2], [7], [5]]), torch.tensor([1.0, 3, 1, 1, 2, 1]))
    keys = torch.tensor([[1.0, 0], [1, 0], [1, 0], [0, 1], [5, 1], [0, 1]])
    one = merge(rows, keys, 1)
    assert one.vectors[:, 0].tolist() == [9, 7, 1.75, 2, 5] and one.sizes.tolist() == [1, 2, 4, 1, 1]
    both = merge(rows, keys, 2)  # two rows into one
    assert torch.allclose(both.vectors[:, 0], torch.tensor([9, (3 + 4 + 14) / 6, 2, 5]))
    assert both.sizes.tolist() == [1, 6, 1, 1]


def test_nothing_merged_is_the_stock_tower() -> None:
    model, inputs = pair("llava")
    pixels = tiles(inputs)[0]
    stock = tower_layers(model, pixels)[layer_number(model)].after
    assert torch.allclose(merged_tile(model, pixels, [0, 0]).vectors, stock, atol=1e-5)
    assert torch.allclose(merged_tile(model, pixels, [0, 0], proportional=False).vectors, stock, atol=1e-5)


def test_sizes_sum_to_all_tokens_and_the_class_token_stays_first() -> None:
    model, inputs = pair("llava")
    pixels = tiles(inputs)[0]
    rows = merged_tile(model, pixels, [20, 15])
    assert len(rows.vectors) == 30 and float(rows.sizes.sum()) == 65 and float(rows.sizes[0]) == 1
    after = merged_tile(model, pixels, [0, 20])
    stock = tower_layers(model, pixels)[layer_number(model)].after
    assert torch.allclose(after.vectors[0], stock[0], atol=1e-5)  # merging in the last layer leaves it as it is


def test_sizes_weigh_in_attention() -> None:
    model, inputs = pair("llava")
    with_sizes, without = tome(model, inputs, count=30), tome(model, inputs, count=30, proportional=False)
    assert not torch.allclose(with_sizes.boundaries[0], without.boundaries[0], atol=1e-3)


def test_equal_rows_stay_equal() -> None:
    rows = Rows(torch.full((7, 3), 2.5), torch.arange(1.0, 8))
    merged = merge(rows, torch.ones(7, 2), 3)
    assert torch.allclose(merged.vectors, torch.full((4, 3), 2.5)) and float(merged.sizes.sum()) == 28


@pytest.mark.parametrize("family", ["llava", "next"])
def test_rows_and_positions(family: str) -> None:
    model, inputs = pair(family)
    run = tome(model, inputs, [5], count=63)
    assert run.visual_rows() == [63] * 16 and run.kept_indices == [[]]
    length = len(run.rows[0])
    assert run.prompt_positions[3] == tuple(range(length)) and run.generated_positions[3] == (length,)
