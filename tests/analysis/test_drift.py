"""Drift by hand: distances, offsets of groups, the control, and classes of group sizes."""

import math

import pytest
import torch
from torch import tensor

from swiftvlm_eval.analysis.drift import (
    Distances,
    Waiting,
    by_group_size,
    distances,
    drift,
    group_offsets,
    other_groups,
    size_class,
)

STORED = tensor([[1.0, 0.0], [0.0, 1.0], [2.0, 0.0]])
MEMBERS = tensor([0, 1, 0])
OFFSETS = tensor([[1.0, 1.0], [0.0, -3.0]])


def waiting() -> Waiting:
    """Tokens 1, 3, 4 of five wait: 1 and 4 in group 0, which gains (1, 1); 3 in group 1, which gains (0, -3)."""
    candidates = tensor([[5.0, 0.0], [2.0, 1.0], [0.0, 5.0], [0.0, -2.0], [3.0, 1.0]])
    return Waiting(candidates, tensor([1, 3, 4]), STORED, MEMBERS)


def test_distances_by_hand() -> None:
    found = distances(tensor([[3.0, 4.0], [0.0, 2.0]]), tensor([[3.0, 0.0], [0.0, 4.0]]))
    assert found.relative.tolist() == pytest.approx([4 / 3, 0.5])
    assert found.cosine.tolist() == pytest.approx([3 / 5, 1.0])


@pytest.mark.parametrize("bad", [[0.0, 0.0], [math.nan, 1.0], [math.inf, 1.0]])
def test_states_without_a_distance_are_refused(bad: list[float]) -> None:
    for pair in ((tensor([bad]), tensor([[1.0, 0.0]])), (tensor([[1.0, 0.0]]), tensor([bad]))):
        with pytest.raises(ValueError, match="not finite, or zero"):
            distances(*pair)


def test_offsets_are_read_off_the_aligned_tokens() -> None:
    assert torch.equal(group_offsets(waiting()).float(), OFFSETS)


def test_another_alignment_is_refused() -> None:
    other = waiting()
    other.candidates[4] += 0.01
    with pytest.raises(ValueError, match="tokens of one group were moved differently"):
        group_offsets(other)
    with pytest.raises(ValueError, match="a group without tokens"):
        group_offsets(Waiting(other.candidates, other.index, STORED, tensor([0, 2, 0])))


def test_half_precision_is_no_other_alignment() -> None:
    generator = torch.Generator().manual_seed(0)
    stored, gained = torch.randn(200, 8, generator=generator), torch.randn(5, 8, generator=generator)
    members = torch.arange(200) % 5
    for dtype in (torch.float16, torch.bfloat16):
        aligned = stored.to(dtype) + gained.to(dtype)[members]
        found = group_offsets(Waiting(aligned, torch.arange(200), stored.to(dtype), members))
        assert torch.allclose(found.float(), gained, atol=0.02)


def test_every_arm_by_hand() -> None:
    unpruned = tensor([[5.0, 0.0], [2.0, 0.0], [0.0, 4.0], [0.0, 2.0], [3.0, 1.0]])
    found = drift(waiting(), unpruned, torch.Generator().manual_seed(0))
    assert list(found) == ["aligned", "stored", "other", "live"]
    assert found["aligned"].relative.tolist() == pytest.approx([0.5, 2.0, 0.0])
    assert found["aligned"].cosine.tolist() == pytest.approx([2 / math.sqrt(5), -1.0, 1.0])
    assert found["stored"].relative.tolist() == pytest.approx([0.5, 0.5, math.sqrt(2 / 10)])
    # of two groups the other one is not a matter of chance: (1, -3), (1, 2), (2, -3)
    expected = [math.sqrt(10) / 2, 0.5, math.sqrt(17 / 10)]
    assert found["other"].relative.tolist() == pytest.approx(expected)
    assert found["live"].relative.tolist() == pytest.approx([0.0, 0.25])


def test_arms_that_are_not_there_are_left_out() -> None:
    all_wait = Waiting(
        tensor([[2.0, 1.0], [1.0, 2.0]]), tensor([0, 1]), tensor([[1.0, 1.0], [0.0, 2.0]]), tensor([0, 0])
    )
    assert list(drift(all_wait, tensor([[1.0, 0.0], [0.0, 1.0]]), torch.Generator())) == ["aligned", "stored"]
    with pytest.raises(ValueError, match="1 group: allowed are two or more"):
        other_groups(tensor([0, 0]), 1, torch.Generator())


def test_the_other_group_is_never_the_own_and_drawn_evenly() -> None:
    members = torch.arange(4).repeat(3000)
    drawn = other_groups(members, 4, torch.Generator().manual_seed(1))
    assert not (drawn == members).any()
    for own in range(4):
        counts = torch.bincount(drawn[members == own], minlength=4)
        assert counts[own] == 0 and all(850 < count < 1150 for count in counts.tolist() if count)
    assert torch.equal(drawn, other_groups(members, 4, torch.Generator().manual_seed(1)))


@pytest.mark.parametrize(
    ("size", "name"),
    [(1, "1"), (2, "2"), (3, "3-4"), (4, "3-4"), (5, "5-8"), (8, "5-8"), (16, "9-16"), (17, "17+"), (999, "17+")],
)
def test_size_classes(size: int, name: str) -> None:
    assert size_class(size) == name


def test_a_group_has_one_token_at_least() -> None:
    with pytest.raises(ValueError, match="size=0: allowed are whole numbers from 1"):
        size_class(0)


def test_means_by_group_size() -> None:
    own = Distances(tensor([1.0, 3.0, 5.0]), tensor([0.5, 0.0, 1.0]))
    rows = by_group_size({"live": Distances(tensor([2.0]), tensor([0.25])), "aligned": own}, MEMBERS)
    assert [tuple(row.values()) for row in rows] == [
        ("aligned", "all", 3, 3.0, 0.5),
        ("aligned", "2", 2, 3.0, 0.75),
        ("aligned", "1", 1, 3.0, 0.0),
        ("live", "all", 1, 2.0, 0.25),
    ]
