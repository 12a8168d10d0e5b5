"""Choices on whole views: the best patches of 2 x 2 cells, and how many patches of each view stay; by hand."""

import pytest
import torch

from swiftvlm_eval.models.adapter import adapter_for
from swiftvlm_eval.models.layout import VisualLayout, joined, single_grid_layout
from swiftvlm_eval.pruning.budget import BudgetError
from swiftvlm_eval.pruning.tiles import patches_per_view
from swiftvlm_eval.pruning.uniform import best_of_cells
from swiftvlm_eval.testing.tiny_models import make_image, make_inputs, tiny_llava_next

SCORES = torch.tensor(
    [9.0, 8, 1, 0, 7, 6, 2, 3, 4, 4, 0, 0, 4, 4, 0, 5]
)  # cells 9 8 7 6 | 1 0 2 3 | 4 4 4 4 | 0 0 0 5


@pytest.mark.parametrize(
    ("count", "chosen"),
    [
        (1, [0]),
        (2, [0, 15]),  # not 1, whose cell has one candidate
        (4, [0, 7, 8, 15]),  # of four equal patches the first
        (5, [0, 1, 8, 9, 15]),  # two of each cell: 0 1, 7 6, 8 9, 15 10
        (8, [0, 1, 6, 7, 8, 9, 10, 15]),
        (9, [0, 1, 4, 6, 7, 8, 9, 12, 15]),
        (13, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 13, 15]),  # every patch is a candidate
    ],
)
def test_cells_by_hand(count: int, chosen: list[int]) -> None:
    assert best_of_cells(SCORES, (4, 4), count).tolist() == chosen


def test_patches_outside_the_cells_come_in_when_all_do() -> None:
    scores = torch.arange(15.0)  # 3 x 5: cells 0 1 5 6 and 2 3 7 8
    assert best_of_cells(scores, (3, 5), 2).tolist() == [6, 8]
    assert best_of_cells(scores, (3, 5), 3).tolist() == [6, 7, 8]
    assert best_of_cells(scores, (3, 5), 6).tolist() == [1, 3, 5, 6, 7, 8]  # three of each cell
    assert best_of_cells(scores, (3, 5), 7).tolist() == [8, 9, 10, 11, 12, 13, 14]
    assert best_of_cells(scores[:5], (1, 5), 2).tolist() == [3, 4]


def test_what_is_not_a_number_is_the_last_candidate() -> None:
    scores = torch.full((16,), torch.nan)
    scores[5] = 1.0
    assert best_of_cells(scores, (4, 4), 4).tolist() == [2, 5, 8, 10]


def next_layout(width: int, height: int) -> VisualLayout:
    model, processor = tiny_llava_next(grid=6)
    inputs = make_inputs(processor, make_image(width, height))
    count = int((inputs["input_ids"] == model.config.image_token_id).sum())
    return adapter_for(model).layouts(inputs, [count])[0]


def test_patches_of_views_by_hand() -> None:
    assert patches_per_view(single_grid_layout(1, 6), 20) == [20]
    assert patches_per_view(single_grid_layout(3, 6), 20) == [7, 7, 6]
    layout = next_layout(168, 84)  # two tiles side by side, nothing unpadded: 36 + 6 * (12 + 1)
    assert layout.grids == ((6, 6), (6, 12)) and len(layout.patch) == 114
    assert patches_per_view(layout, 50) == [15, 29]  # 44 of three encoder inputs: 15 + 15 + 14
    assert patches_per_view(layout, 113) == [36, 71]
    assert patches_per_view(layout, 8) == [1, 1]
    with pytest.raises(BudgetError, match="7 rows of an image: its 6 newline rows .* allowed are 8 to 114"):
        patches_per_view(layout, 7)


def test_a_small_fine_view_leaves_its_share_to_the_base() -> None:
    layout = next_layout(168, 24)
    base, fine = layout.grids[0], layout.grids[1]
    patches = fine[0] * fine[1]
    whole = len(layout.patch)
    for kept in range(fine[0] + 2, whole + 1):
        counts = patches_per_view(layout, kept)
        assert sum(counts) == kept - fine[0] and 1 <= counts[1] <= patches and counts[0] <= base[0] * base[1]
    assert patches_per_view(layout, whole) == [36, patches]


def test_images_share_by_largest_remainder() -> None:
    layout = joined([next_layout(168, 84), single_grid_layout(1, 6)])  # 114 and 36 tokens
    # 38.0 and 12.0 of 50; 38.76 and 12.24 of 51; 39.52 and 12.48 of 52
    assert patches_per_view(layout, 50) == [11, 21, 12]
    assert patches_per_view(layout, 51) == [11, 22, 12]
    assert patches_per_view(layout, 52) == [12, 22, 12]
