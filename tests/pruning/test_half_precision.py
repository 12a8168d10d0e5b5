"""Half-precision inputs are computed in float32: against plain float64 sums, at sizes where half precision fails.

float16 ends at 65504 and bfloat16 has eight bits: sums, squares and similarities of rows in these types overflow or
lose the difference that decides a selection.
"""

import math

import pytest
import torch
from torch import Tensor

from swiftvlm_eval.models.attention import attention_rows
from swiftvlm_eval.pruning.merging import (
    assign_to_anchors,
    density_peak_clusters,
    group_means,
    merge_by_anchors,
    merge_into_targets,
    recycle,
)
from swiftvlm_eval.pruning.scores import rater_weights, top_k

HALF = pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])


def drawn(*shape: int, dtype: torch.dtype, seed: int = 0, scale: float = 1.0) -> Tensor:
    return (scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))).to(dtype)


def softmax(values: list[float]) -> list[float]:
    top = max(values)
    powers = [math.exp(value - top) for value in values]
    return [power / sum(powers) for power in powers]


@HALF
@pytest.mark.parametrize("scale", [1.0, 300.0])  # at 300 a product of 64 entries is beyond float16
def test_attention_rows(dtype: torch.dtype, scale: float) -> None:
    queries, keys = drawn(1, 3, 64, dtype=dtype, scale=scale), drawn(1, 12, 64, dtype=dtype, seed=1, scale=scale)
    found = attention_rows(queries, keys)
    assert found.dtype == torch.float32
    for row, query in enumerate(queries[0].double()):
        logits = [float(query @ key) / 8 for key in keys[0].double()]
        torch.testing.assert_close(found[0, row].double(), torch.tensor(softmax(logits)).double(), atol=1e-5, rtol=0)


def test_attention_rows_are_finite_where_a_product_overflows() -> None:
    one = torch.full((1, 1, 64), 100.0, dtype=torch.float16)
    keys = torch.stack([torch.full((64,), value) for value in (100.0, 101.0, 99.0)])[None].half()
    # products of 64 * 10^4 are beyond 65504; the second key wins by far
    assert attention_rows(one, keys)[0, 0].tolist() == pytest.approx([0.0, 1.0, 0.0])


@HALF
def test_group_means(dtype: torch.dtype) -> None:
    states, groups = drawn(40, 16, dtype=dtype), torch.arange(40) % 3
    found = group_means(states, groups, 3)
    assert found.dtype == torch.float32
    for group in range(3):
        expected = sum(row.double() for row in states[groups == group]) / int((groups == group).sum())
        torch.testing.assert_close(found[group].double(), expected, atol=1e-6, rtol=1e-6)


def test_sums_beyond_float16_still_have_a_mean() -> None:
    states = torch.tensor([[60000.0], [50000.0], [40000.0]], dtype=torch.float16)
    assert group_means(states, torch.zeros(3, dtype=torch.int64), 1).item() == pytest.approx(50000, rel=1e-3)
    groups = merge_by_anchors(states, torch.arange(3.0), torch.tensor([1]))
    assert groups.merged.dtype == torch.float16 and groups.merged.item() == pytest.approx(50000, rel=1e-3)
    assert recycle(states, torch.tensor([2, 1, 0])).item() == 40000  # 30 % of three and one more: the best one


@HALF
@pytest.mark.parametrize("scale", [1.0, 2000.0])  # at 2000 the square of a norm is beyond float16
def test_assignment_to_anchors(dtype: torch.dtype, scale: float) -> None:
    # a common part, so that the similarities differ in their third digit only
    states = (drawn(60, 32, dtype=torch.float32) * 0.05 + drawn(32, dtype=torch.float32, seed=9)) * scale
    states, anchors = states.to(dtype), torch.tensor([3, 20, 41, 58])
    exact = states.double()
    cosines = exact @ exact[anchors].T / (exact.norm(dim=1)[:, None] * exact[anchors].norm(dim=1)[None])
    expected = cosines.argmax(dim=1)
    assert assign_to_anchors(states, anchors).tolist() == expected.tolist()


@HALF
def test_identical_rows_leave_no_group_empty(dtype: torch.dtype) -> None:
    """All similarities are equal: everything joins the first anchor, but each anchor stays with itself."""
    states = torch.full((7, 5), 0.1, dtype=dtype)
    anchors = torch.tensor([1, 3, 6])
    assert assign_to_anchors(states, anchors).tolist() == [0, 0, 0, 1, 0, 0, 2]
    groups = merge_by_anchors(states, torch.arange(7.0), anchors)
    assert torch.equal(groups.merged, states[:3]) and groups.places.tolist() == [1.0, 3.0, 6.0]


@HALF
def test_raters(dtype: torch.dtype) -> None:
    visual, question = drawn(50, 64, dtype=dtype, scale=40.0), drawn(9, 64, dtype=dtype, seed=1, scale=40.0)
    shares = torch.tensor([softmax([float(v @ q) for q in question.double()]) for v in visual.double()]).mean(dim=0)
    rates = shares > shares.mean()
    found = rater_weights(visual, question)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, rates / rates.sum())


@HALF
def test_raters_are_told_apart_where_similarities_overflow(dtype: torch.dtype) -> None:
    visual = torch.full((4, 64), 50.0, dtype=dtype)
    question = torch.stack([torch.full((64,), value) for value in (60.0, 61.0, 59.0)]).to(dtype)
    assert rater_weights(visual, question).tolist() == [0.0, 1.0, 0.0]


@HALF
def test_clusters(dtype: torch.dtype) -> None:
    # three heaps around far points whose squared distances are beyond float16
    heaps = torch.tensor([[0.0, 0.0], [900.0, 0.0], [0.0, 900.0]]).repeat_interleave(4, 0)
    points = (heaps + torch.arange(12)[:, None] % 4 * 4.0).to(dtype)
    clusters = density_peak_clusters(points, 3).tolist()
    assert [len(set(clusters[start : start + 4])) for start in (0, 4, 8)] == [1, 1, 1]
    assert len(set(clusters)) == 3


@HALF
@pytest.mark.parametrize("scale", [1.0, 2000.0])
def test_contextual_tokens(dtype: torch.dtype, scale: float) -> None:
    metric = ((drawn(20, 16, dtype=torch.float32) * 0.05 + drawn(16, dtype=torch.float32, seed=9)) * scale).to(dtype)
    features = drawn(20, 8, dtype=dtype, seed=2)
    targets, exact = [0, 5, 10, 15], metric.double()
    expected = []
    for target in targets:
        joined = [
            row
            for row in range(20)
            if row not in targets
            and target == max(targets, key=lambda t: float(exact[row] @ exact[t] / exact[t].norm()))
        ]
        others = features[joined].double()
        expected.append(features[target].double() + (others.mean(dim=0) if joined else 0))
    found = merge_into_targets(features, metric, 4)
    assert found.dtype == dtype
    # rounded once, at the end
    assert torch.equal(found, torch.stack(expected).float().to(dtype))


def test_means_of_contextual_tokens_do_not_overflow() -> None:
    features = torch.tensor([[1000.0], [60000.0], [50000.0], [40000.0]], dtype=torch.float16)
    assert merge_into_targets(features, torch.ones(4, 2).half(), 1).item() == pytest.approx(51000, rel=1e-3)


@HALF
def test_ties_of_half_precision_go_to_the_lower_index(dtype: torch.dtype) -> None:
    scores = torch.tensor([0.1, 0.1001, 0.1, 0.3]).to(dtype)
    expected = sorted(sorted(range(4), key=lambda index: (-float(scores[index]), index))[:2])
    assert top_k(scores, 2).tolist() == expected
