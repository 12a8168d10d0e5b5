"""Overlap by hand: who is among the best, who among the worst, and what is no ranking."""

import pytest
import torch

from swiftvlm_eval.analysis.overlap import hits, low_then_high, share_count


@pytest.mark.parametrize(
    ("total", "share", "count"), [(144, 0.05, 7), (144, 0.1, 14), (576, 0.05, 29), (3, 0.05, 1), (10, 1, 10)]
)
def test_a_share_is_rounded_and_at_least_one(total: int, share: float, count: int) -> None:
    assert share_count(total, share) == count


@pytest.mark.parametrize(("total", "share"), [(0, 0.5), (10, 0.0), (10, 1.1), (10, float("nan"))])
def test_what_is_no_share_is_refused(total: int, share: float) -> None:
    with pytest.raises(ValueError, match=f"share={share} of {total} tokens: allowed are"):
        share_count(total, share)


def test_hits_by_hand() -> None:
    scores = torch.tensor([0.1, 0.9, 0.3, 0.8, 0.3, 0.0, 0.2, 0.7, 0.05, 0.6])
    # by falling score: 1 3 7 9 2 4 6 0 8 5; tokens 2 and 4 are equal, the lower one is ahead
    assert hits([1, 2, 5], scores, 0.1) == (1, 1)
    assert hits([1, 2, 5], scores, 0.5) == (2, 5)
    assert hits([4], scores, 0.5) == (0, 5) and hits([4], scores, 0.6) == (1, 6)
    assert hits([], scores, 0.3) == (0, 3)
    assert hits(range(10), scores, 0.3) == (3, 3)


@pytest.mark.parametrize("held", [[10], [-1], [3, 3]])
def test_tokens_that_cannot_be_held_are_refused(held: list[int]) -> None:
    with pytest.raises(ValueError, match="allowed are different indices from 0 to 9"):
        hits(held, torch.arange(10.0), 0.1)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_scores_that_are_not_finite_are_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="not finite"):
        hits([0], torch.tensor([0.1, bad]), 0.5)
    with pytest.raises(ValueError, match="not finite"):
        low_then_high(torch.tensor([[0.1, bad], [0.1, 0.2]]), 0.5, 0.5)


def test_the_matrix_by_hand() -> None:
    scores = torch.tensor(
        [
            [1.0, 2.0, 3.0, 4.0],  # bottom half 0 1
            [4.0, 3.0, 2.0, 1.0],  # bottom half 2 3, top half 0 1
            [1.0, 4.0, 1.0, 3.0],  # top half 1 3
        ]
    )
    # later top half in the earlier bottom half: 0->1 both, 0->2 token 1, 1->2 token 3
    assert low_then_high(scores, 0.5, 0.5) == ([[2, 1], [1], []], 2)
    # all equal: the lowest indices are the best and the worst alike
    assert low_then_high(torch.ones(2, 4), 0.25, 0.5) == ([[1], []], 2)
