"""How the layers of the vision tower share ToMe's merges, and one merge, by hand."""

import pytest
import torch

from swiftvlm_eval.models.tower_rows import TowerRows
from swiftvlm_eval.pruning.budget import BudgetError
from swiftvlm_eval.pruning.methods.tome import merged, merges_per_layer


@pytest.mark.parametrize(
    ("left", "merges"),
    [(192, [17] * 16 + [16] * 7), (128, [20] * 11 + [19] * 12), (64, [23] * 6 + [22] * 17), (576, [0] * 23)],
)
def test_published_schedules(left: int, merges: list[int]) -> None:
    assert list(merges_per_layer(576, left, 23)) == merges


def test_a_late_layer_that_is_full_leaves_the_rest_to_the_first() -> None:
    assert merges_per_layer(36, 13, 2) == (12, 11)
    assert merges_per_layer(36, 11, 2) == (14, 11)  # after 13 merges 24 rows are left, which allow 11
    assert merges_per_layer(36, 9, 2) == (18, 9)
    for left in (8, 37):
        with pytest.raises(BudgetError, match=f"{left} rows of an encoder input: 2 merging layers allow 9 to 36"):
            merges_per_layer(36, left, 2)


def test_one_merge_by_hand() -> None:
    """Rows 2 and 6 are most alike to row 3; the class token is alike to row 1, but never merged."""
    keys = torch.tensor([[[0.0, 1], [0, 1], [1, 0.1], [1, 0], [-1, 0], [0, -1], [1, 0.2]]])
    rows = TowerRows(torch.arange(7.0)[:, None] * torch.ones(1, 3), torch.tensor([1.0, 1, 2, 3, 1, 1, 1]))
    found = merged(rows, keys, 2)
    assert found.states[:, 0].tolist() == pytest.approx([0, 4, 1, (2 * 2 + 3 * 3 + 6) / 6, 5])
    assert found.sizes.tolist() == [1, 1, 1, 6, 1]
