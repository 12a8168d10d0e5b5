"""Choices of patches one after the other, and shares of groups, against examples made by hand."""

from itertools import combinations

import pytest
import torch
from torch import Tensor

from swiftvlm_eval.pruning.methods.hiprune import with_neighbours
from swiftvlm_eval.pruning.methods.holov import crop_scores
from swiftvlm_eval.pruning.methods.vispruner import thinned
from swiftvlm_eval.pruning.scores import quotas
from swiftvlm_eval.pruning.selection import (
    cosines,
    farthest_points,
    greedy_coverage,
    greedy_maxmin,
    greedy_volume,
    row_of,
)


def test_row_of() -> None:
    matrix = torch.arange(6).reshape(3, 2)
    assert row_of(matrix, torch.tensor(1)).tolist() == [2, 3]


def test_maxmin_takes_the_farthest_row_by_weight() -> None:
    line = torch.tensor([[0.0], [1.0], [4.0], [9.0], [10.0]])
    # from 4: squared distances 16, 9, 0, 25, 36; with 10 chosen 16, 9, -, 1, -
    assert farthest_points(line, torch.tensor(2), 5).tolist() == [2, 4, 0, 1, 3]
    distance = (line - line.T).abs()
    weight = torch.tensor([1.0, 2.0, 1.0, 1.0, 0.1])
    # from 4: 4, 6, 0, 5, 0.6; with 1 chosen 1, -, -, 5, 0.6
    found = greedy_maxmin(lambda pick: row_of(distance, pick), torch.tensor(2), 3, weight)
    assert found.tolist() == [2, 1, 3]


def test_a_chosen_row_is_not_chosen_again_among_duplicates() -> None:
    same = torch.ones(4, 3)
    distance = 1 - cosines(same)
    picks = greedy_maxmin(lambda pick: row_of(distance, pick), torch.tensor(3), 4)
    assert picks.tolist() == [3, 0, 1, 2]


def test_coverage_by_hand() -> None:
    similarity = torch.tensor([[1.0, 0.6, 0.0, -0.9], [0.6, 1.0, 0.5, 0.0], [0.0, 0.5, 1.0, 0.0], [-0.9, 0, 0, 1.0]])
    # gains 1.6, 2.1, 1.5, 1.0; then 0.4, -, 0.5, 1.0; then 0.4, -, 0.5
    assert greedy_coverage(similarity, 4).tolist() == [1, 3, 2, 0]
    weight = torch.tensor([2.0, 1.0, 1.0, 0.1])
    assert greedy_coverage(similarity, 4, lambda gain: gain * weight).tolist() == [0, 2, 1, 3]


@pytest.mark.parametrize("seed", range(3))
def test_coverage_by_the_sum_over_all_rows(seed: int) -> None:
    similarity = cosines(torch.randn(9, 4, generator=torch.Generator().manual_seed(seed)))

    def covered(rows: list[int]) -> float:
        return sum(max(0.0, *(float(similarity[one, row]) for row in rows)) for one in range(9))

    chosen: list[int] = []
    for pick in greedy_coverage(similarity, 5).tolist():
        gains = {row: covered([*chosen, row]) for row in range(9) if row not in chosen}
        assert covered([*chosen, pick]) == pytest.approx(max(gains.values()), abs=1e-5)
        chosen.append(pick)


def test_what_is_not_a_number_ends_no_choice() -> None:
    states = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    states[2] = torch.nan
    kernel = cosines(states)
    distance = 1 - kernel
    found = [
        greedy_coverage(kernel, 6),
        greedy_volume(kernel, 6),
        greedy_maxmin(lambda pick: row_of(distance, pick), torch.tensor(0), 6),
        thinned(torch.arange(6), kernel, 3),
    ]
    assert all(len(set(picks.tolist())) == len(picks) for picks in found)
    assert all(2 not in picks[:5].tolist() for picks in found[:1])


def test_volume_is_the_best_determinant_of_each_step() -> None:
    states = torch.randn(8, 8, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    kernel = states @ states.T
    chosen: list[int] = []
    for pick in greedy_volume(kernel, 5).tolist():
        gains = {}
        for row in set(range(8)) - set(chosen):
            part = torch.tensor([*chosen, row])
            gains[row] = float(kernel[part][:, part].det())
        assert gains[pick] == max(gains.values())
        chosen.append(pick)


def test_thinning_by_hand() -> None:
    # even ranks are 3, 0, 4 and odd ones 1, 2; the likeness of 3 is 0.2, of 0 is 0.9, of 4 is 0.4
    similarity = torch.eye(5)
    for one, other, value in ((3, 1, 0.2), (0, 1, 0.9), (0, 2, 0.8), (4, 2, 0.4), (3, 2, 0.1), (1, 2, 0.95)):
        similarity[one, other] = similarity[other, one] = value
    ranks = torch.tensor([3, 1, 0, 2, 4])
    assert thinned(ranks, similarity, 5).tolist() == [3, 1, 0, 2, 4]
    assert thinned(ranks, similarity, 4).tolist() == [4, 3, 1, 2]
    assert thinned(ranks, similarity, 2).tolist() == [1, 2]
    # all even ones leave; then 1 stands at an even rank, and 2 at an odd one
    assert thinned(ranks, similarity, 1).tolist() == [2]
    assert thinned(ranks, similarity, 0).tolist() == []


@pytest.mark.parametrize(("length", "count"), [(40, 7), (41, 16), (33, 25)])
def test_thinning_leaves_the_count_that_is_asked_for(length: int, count: int) -> None:
    similarity = cosines(torch.randn(length, 5, generator=torch.Generator().manual_seed(length)))
    left = thinned(torch.arange(length), similarity, count).tolist()
    assert len(left) == len(set(left)) == count


def places(mask: Tensor) -> list[int]:
    return mask.nonzero()[:, 0].tolist()


def test_neighbours_run_over_the_ends_of_rows_and_stop_at_the_corners() -> None:
    assert places(with_neighbours(torch.tensor([5]), 9, 3, 9)) == [2, 4, 5, 6, 8]
    assert places(with_neighbours(torch.tensor([0]), 9, 3, 9)) == [0, 1, 3]
    assert places(with_neighbours(torch.tensor([8]), 9, 3, 9)) == [5, 7, 8]
    assert places(with_neighbours(torch.tensor([7]), 9, 3, 9)) == [4, 6, 7, 8]
    assert places(with_neighbours(torch.tensor([], dtype=torch.int64), 9, 3, 9)) == []


def test_the_weakest_anchors_lose_their_neighbours_first() -> None:
    anchors = torch.tensor([6, 18, 3])
    # 1, 5, 6, 7, 11 and 13, 17, 18, 19, 23 and 0 (clipped), 2, 3, 4, 8
    for most, expected in (
        (15, {0, 1, 2, 3, 4, 5, 6, 7, 8, 11, 13, 17, 18, 19, 23}),
        (14, {1, 3, 5, 6, 7, 11, 13, 17, 18, 19, 23}),
        (10, {1, 3, 5, 6, 7, 11, 18}),
        (6, {3, 6, 18}),
        (3, {3, 6, 18}),
    ):
        assert set(places(with_neighbours(anchors, 25, 5, most))) == expected, most


def shares(weights: list[float], sizes: list[int], count: int, redistribute: bool) -> list[int]:
    return quotas(torch.tensor(weights).double(), torch.tensor(sizes), count, redistribute).tolist()


def test_quotas_by_hand() -> None:
    # 3.99.., 3.0, 2.0, 1.0 of 10 rounded down, all just below; the rest to the largest
    assert shares([4, 3, 2, 1], [9, 9, 9, 9], 10, False) == [4, 3, 2, 1]
    # 2.8, 2.1, 1.4, 0.7 -> 2, 2, 1, 0 and two more
    assert shares([4, 3, 2, 1], [9, 9, 9, 9], 7, False) == [3, 3, 1, 0]
    assert shares([1, 1, 1, 1], [9, 9, 9, 9], 6, True) == [2, 2, 1, 1]
    assert shares([1, 8, 1], [5, 4, 5], 10, False) == [1, 8, 1]
    assert shares([1, 8, 1], [5, 4, 5], 10, True) == [5, 4, 1]
    assert shares([1, 8, 3], [5, 4, 3], 12, True) == [5, 4, 3]
    assert shares([torch.nan, 8, 3], [5, 4, 3], 11, True) == [5, 4, 2]


def test_quotas_hold_their_sum_and_their_sizes() -> None:
    draw = torch.Generator().manual_seed(1)
    for groups, count in combinations((3, 5, 16, 40), 2):
        weights = torch.rand(groups, generator=draw).double() ** 4
        sizes = torch.full((groups,), -(-count // groups))
        found = quotas(weights, sizes, count, True)
        assert found.sum() == count
        assert (found <= sizes).all()


def test_a_crops_score_is_that_of_its_attention() -> None:
    """1000 mean(s) (1 + 0.09 v / (v + 1e-6)), whatever the rows; rows that fill a crop up do not count."""
    draw = torch.Generator().manual_seed(2)
    states, attention = torch.randn(3, 4, 6, generator=draw).double(), torch.rand(3, 4, generator=draw).double()
    real = torch.tensor([[True] * 4, [True] * 3 + [False], [True] + [False] * 3])
    found = crop_scores(states, attention, real)
    for crop, size in ((0, 4), (1, 3)):
        unit = torch.nn.functional.normalize(states[crop, :size], dim=1)
        alike = (unit @ unit.T).fill_diagonal_(0)
        mean = alike.sum(dim=1, keepdim=True) / (size - 1)
        uneven = float(((alike - mean) ** 2).sum(dim=1).mean()) / (size - 1)
        expected = 1000 * float(attention[crop, :size].mean()) * (1 + 0.09 * uneven / (uneven + 1e-6))
        assert float(found[crop]) == pytest.approx(expected, rel=1e-6)
    assert found[2] == attention[2, 0]
