import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import scaled_dot_product_attention

from swiftvlm_eval.models.attention import attention_rows, rotate
from swiftvlm_eval.pruning.merging import (
    add_nearest,
    assign_to_anchors,
    choose_anchors,
    density_peak_clusters,
    group_means,
    means_with_joined,
    merge_by_anchors,
    merge_into_targets,
    recycled_counts,
    recycled_rows,
)
from swiftvlm_eval.pruning.scores import outlier_share, ranking, rater_weights, rows_where, top_k


@given(st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0, float("nan")]), min_size=1, max_size=40), st.integers(0, 45))
def test_top_k_takes_the_largest_and_the_lower_index_of_a_tie(values: list[float], count: int) -> None:
    key = [(-value if value == value else float("inf"), index) for index, value in enumerate(values)]
    best = sorted(index for _, index in sorted(key)[:count])
    assert top_k(torch.tensor(values), count).tolist() == best
    assert sorted(ranking(torch.tensor(values)).tolist()) == list(range(len(values)))


@given(st.lists(st.booleans(), max_size=40))
def test_rows_where_are_the_rows_where_the_mask_holds(mask: list[bool]) -> None:
    expected = [row for row, holds in enumerate(mask) if holds]
    assert rows_where(torch.tensor(mask, dtype=torch.bool), len(expected)).tolist() == expected


def test_attention_rows_equal_the_library_with_grouped_queries() -> None:
    generator = torch.Generator().manual_seed(0)
    queries = torch.randn(8, 3, 16, generator=generator)
    keys = torch.randn(2, 10, 16, generator=generator)
    visible = torch.tensor([[True] * 6 + [False] * 4, [True] * 8 + [False] * 2, [True] * 10])
    identity = torch.eye(10).expand(8, 10, 10)
    expected = scaled_dot_product_attention(queries, keys.repeat_interleave(4, 0), identity, attn_mask=visible)
    torch.testing.assert_close(attention_rows(queries, keys, ~visible), expected)


def test_rotation_keeps_norms_and_depends_on_distance_only() -> None:
    inverse = 1 / 10000 ** (torch.arange(0, 16, 2) / 16)

    def turned(vector: torch.Tensor, position: float) -> torch.Tensor:
        angle = torch.cat([position * inverse] * 2)
        return rotate(vector[None, None], angle.cos()[None], angle.sin()[None])[0, 0]

    q, k = torch.randn(16), torch.randn(16)
    assert turned(q, 7.5).norm() == pytest.approx(q.norm().item(), rel=1e-5)
    assert turned(q, 9) @ turned(k, 4) == pytest.approx((turned(q, 25) @ turned(k, 20)).item(), rel=1e-4, abs=1e-4)


def test_raters_are_those_above_average_and_all_of_them_if_equal() -> None:
    visual = torch.eye(4)[:2] * 5
    question = torch.tensor([[1.0, 0, 0, 0], [0, 0, 0, 1.0], [0, 1.0, 0, 0], [0, 0, 1.0, 0]])
    assert rater_weights(visual, question).tolist() == [0.5, 0.0, 0.5, 0.0]
    assert rater_weights(visual, question[1:2].expand(3, 4)).tolist() == pytest.approx([1 / 3] * 3)


@pytest.mark.parametrize(
    ("count", "groups", "rule", "expected"),
    [
        (10, 3, "strided", [1, 5, 8]),  # floor((j + 0.5) * 10 / 3)
        (4, 4, "strided", [0, 1, 2, 3]),
        (3, 9, "strided", [0, 1, 2]),
        (10, 3, "floor_step", [0, 3, 6]),
        (5, 0, "strided", []),
    ],
)
def test_anchors_by_hand(count: int, groups: int, rule: str, expected: list[int]) -> None:
    assert choose_anchors(count, groups, rule).tolist() == expected  # type: ignore[arg-type]


def test_top_anchors_are_the_best_scored_in_order() -> None:
    assert choose_anchors(5, 2, "top", torch.tensor([0.1, 0.9, 0.2, 0.9, 0.3])).tolist() == [1, 3]


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 30), st.integers(1, 12), st.integers(0, 10**6))
def test_grouping_keeps_the_sum_and_leaves_no_group_empty(count: int, groups: int, seed: int) -> None:
    states = torch.randn(count, 6, generator=torch.Generator().manual_seed(seed))
    anchors = choose_anchors(count, groups)
    members = assign_to_anchors(states, anchors)
    assert members[anchors].tolist() == list(range(len(anchors)))
    sizes = members.bincount(minlength=len(anchors))
    assert int(sizes.min()) >= 1
    means = group_means(states, members, len(anchors))
    torch.testing.assert_close((means * sizes[:, None]).sum(0), states.sum(0), atol=1e-4, rtol=1e-4)


def test_groups_are_numbered_by_the_place_of_their_merged_row() -> None:
    states = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [1.0, 0.1]])
    positions = torch.tensor([0.0, 1.0, 2.0, 30.0])
    groups = merge_by_anchors(states, positions, torch.tensor([0, 1]), "mean")
    # anchor 0 stands for tokens 0 and 3 (mean position 15), anchor 1 for tokens 1 and 2 (1.5)
    assert groups.places.tolist() == [1.5, 15.0]
    assert groups.members.tolist() == [1, 0, 0, 1]
    torch.testing.assert_close(groups.merged, torch.tensor([[0.0, 1.0], [1.0, 0.05]]))


def test_recycling_chain_of_576_tokens() -> None:
    # after each stage, kept and merged: 309/204/113, 312/117/39, 82/32/18
    for kept, merged in (((300, 200, 110), [9, 4, 3]), ((303, 110, 36), [9, 7, 3]), ((66, 30, 17), [16, 2, 1])):
        assert recycled_rows(576, kept) == merged
    assert recycled_counts(276) == (83, 9)
    assert recycled_rows(10, [10, 4]) == [0, 1]


def test_clusters_by_hand() -> None:
    # two tight pairs far apart; the lone point is denser than nothing and near the second pair
    points = torch.tensor([[0.0], [0.1], [10.0], [10.1], [11.0]])
    clusters = density_peak_clusters(points, 2).tolist()
    assert clusters[0] == clusters[1] != clusters[2] == clusters[3] == clusters[4]
    assert density_peak_clusters(points, 1).tolist() == [0] * 5


def test_equal_points_make_valid_clusters() -> None:
    clusters = density_peak_clusters(torch.ones(12, 3), 3)
    assert sorted(set(clusters.tolist())) == [0, 1, 2]


def test_contextual_tokens_are_target_plus_mean() -> None:
    features = torch.tensor([[1.0, 1.0], [2.0, 2.0], [3.0, 3.0], [4.0, 4.0]])
    metric = torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [1.0, 0.2]])
    # targets 0 and 2; tokens 1 and 3 join target 0, target 2 stays alone
    torch.testing.assert_close(merge_into_targets(features, metric, 2), torch.tensor([[4.0, 4.0], [3.0, 3.0]]))
    equal = torch.full((6, 3), 2.0)
    torch.testing.assert_close(merge_into_targets(equal, equal, 1), torch.full((1, 3), 4.0))
    assert merge_into_targets(features, metric, 0).shape == (0, 2)


def test_merging_tail_tokens_are_never_targets() -> None:
    # 415 tokens, 30 targets: every 13th, 0..377
    features = torch.zeros(415, 1)
    features[[13 * j for j in range(30)]] = 1.0
    metric = torch.nn.functional.one_hot(torch.arange(415), 415).float()
    merged = merge_into_targets(features, metric, 30)
    assert merged.flatten().tolist() == [1.0] * 30


def test_kept_rows_become_means_with_what_joins_them() -> None:
    states = torch.tensor([[2.0, 0], [0, 3], [4, 0.5], [0.1, 1], [1, 1]])
    # row 2 joins row 0, row 3 joins row 1; row 4 is as near to both and joins the first
    expected = torch.tensor([[7 / 3, 0.5], [0.05, 2.0]])
    torch.testing.assert_close(means_with_joined(states, torch.tensor([0, 1])), expected)
    assert torch.equal(means_with_joined(states, torch.arange(5)), states)


def test_nearest_rows_are_added_by_their_weights() -> None:
    features = torch.tensor([[1.0], [10], [100], [1000], [10000]])
    keys = torch.tensor([[1.0, 0], [1, 0.1], [1, 0.2], [0, 1], [0.1, 1]])
    weights = torch.tensor([0.1, 0.2, 0.3, 0.4, 0.5])
    # rows 2 and 1 are nearest to 0, row 4 and then row 2 to row 3; rows 1, 2 and 4 are no centres
    states, rest = add_nearest(features, keys, weights, torch.tensor([3, 0]), count=2)
    assert states.flatten().tolist() == pytest.approx([1000 + 5000 + 30, 1 + 2 + 30])
    assert rest.item() == pytest.approx(2 + 30 + 5000)


def test_a_repeated_centre_is_added_to_its_double_and_costs_the_first_of_the_others() -> None:
    features = torch.tensor([[1.0], [10], [100], [1000]])
    keys, weights = torch.tensor([[1.0, 0], [1, 0.1], [0, 1], [0.9, 1]]), torch.tensor([0.1, 0.2, 0.3, 0.4])
    states, rest = add_nearest(features, keys, weights, torch.tensor([2, 2]), count=2)
    # row 0 takes no part: the double and row 3 are nearest, rows 1 and 3 remain
    assert states.flatten().tolist() == pytest.approx([100 + 30 + 400] * 2)
    assert rest.item() == pytest.approx(2 + 400)
    every = add_nearest(features, keys, weights, torch.tensor([2, 2]))[0]  # fewer than 32 others
    assert every.flatten().tolist() == pytest.approx([100 + 30 + 400 + 2] * 2)


def test_outliers_are_counted_beyond_the_quartiles() -> None:
    # quartiles 2 and 4, so that the border is 7
    assert outlier_share(torch.tensor([[1.0, 2, 3], [4, 100, 3], [2, 3, 8]])) == pytest.approx(2 / 9)
    assert outlier_share(torch.ones(4)) == 0
