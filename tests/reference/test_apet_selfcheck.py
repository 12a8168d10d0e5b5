"""Checks of the slow ApET by hand and by its properties."""

from typing import Any

import pytest
import torch
from reference.apet import apet, errors, farthest_points, join, reduce
from tiny_models import make_image, make_inputs, tiny_llava, tiny_llava_next


@pytest.fixture(autouse=True)
def _no_grad() -> Any:
    with torch.no_grad():
        yield


def pair(family: str) -> tuple[Any, Any]:
    model, processor = tiny_llava(grid=8) if family == "llava" else tiny_llava_next(grid=6)
    return model, make_inputs(processor, make_image(150, 110, seed=3))


def drawn(rows: int, width: int = 40) -> torch.Tensor:
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(rows))


def test_sampling_by_hand() -> None:
    line = torch.tensor([[0.0], [1], [2], [10], [4], [10]])  # the mean is 4.5
    assert farthest_points(line, 1) == [3]
    assert farthest_points(line, 3) == [3, 0, 4]
    assert farthest_points(line, 6) == [3, 0, 4, 2, 1, 5]  # the double comes last


def test_errors_by_hand() -> None:
    rows = torch.tensor([[2.0, 0, 0], [0, 3, 0], [5, 7, 0], [1, 1, 4], [0, 0, 0]])
    assert torch.allclose(errors(rows, [0, 1]), torch.tensor([0, 0, 0, 4, 0.0]).double(), atol=1e-4)


@pytest.mark.parametrize("size", [4, 10])
def test_basis_rows_have_no_error(size: int) -> None:
    rows = drawn(60)
    basis = farthest_points(rows, size)
    found = errors(rows, basis)
    assert (found[basis] < 1e-3 * rows[basis].norm(dim=1)).all()
    assert not set(found.argsort(descending=True)[: 60 - size].tolist()) & set(basis)


def test_joining_is_the_mean_of_the_nearest() -> None:
    rows = torch.tensor([[1.0, 0], [0, 1], [3, 1], [1, 5], [9, -1]])
    found = join(rows, [0, 1], [1, 0])
    assert {receiver: members for receiver, (members, _) in found.items()} == {0: [0, 2, 4], 1: [1, 3]}
    assert torch.allclose(found[0][1], torch.tensor([13 / 3, 0]))
    assert torch.allclose(found[1][1], torch.tensor([0.5, 3]))
    assert join(rows, [2], []) == {}


@pytest.mark.parametrize("placed", ["raster", "error"])
def test_official_overwrites_the_least_of_the_kept(placed: Any) -> None:
    rows = drawn(50)
    basis = farthest_points(rows, 6)
    falling = errors(rows, basis).argsort(descending=True)[:20].tolist()
    kept = reduce(rows, 20, 6, "official", placed)
    assert list(kept) == sorted(falling)
    filled = sorted(falling[14:]) if placed == "raster" else falling[14:]
    for place, row in zip(filled, basis, strict=True):
        assert torch.equal(kept[place][1], rows[row])
    # the basis rows come once more, at the places where they were; what was overwritten is lost
    joined = sorted(member for place in falling[:14] for member in kept[place][0])
    assert joined == sorted(set(range(50)) - set(filled))


def test_official_knows_its_range() -> None:
    for count in (6, 45):
        with pytest.raises(ValueError, match="allowed are 7 to 44"):
            reduce(drawn(50), count, 6, "official", "raster")
    assert len(reduce(drawn(50), 7, 6, "official", "raster")) == 7
    assert len(reduce(drawn(50), 44, 6, "official", "raster")) == 44
    assert len(reduce(drawn(50), 50, 6, "official", "raster")) == 50


def test_clean_keeps_the_basis_where_it_is() -> None:
    rows = drawn(50)
    basis = farthest_points(rows, 6)
    kept = reduce(rows, 20, 6, "clean", "raster")
    assert len(kept) == 20 and set(basis) < set(kept)
    assert all(torch.equal(kept[row][1], rows[row]) for row in basis)
    assert sorted(member for members, _ in kept.values() for member in members) == list(range(50))
    few = reduce(rows, 4, 6, "clean", "raster")
    assert list(few) == sorted(basis[:4]) and all(torch.equal(vector, rows[row]) for row, (_, vector) in few.items())


@pytest.mark.parametrize("mode", ["official", "clean"])
@pytest.mark.parametrize("family", ["llava", "next"])
def test_rows_and_positions(family: str, mode: Any) -> None:
    model, inputs = pair(family)
    run = apet(model, inputs, [5], boundary=5, counts=(50, 20), basis=4, mode=mode)
    assert run.visual_rows() == [50] * 5 + [20] * 11
    for layer in (0, 9):
        assert run.prompt_positions[layer] == tuple(range(len(run.rows[layer])))
        assert run.generated_positions[layer] == (len(run.rows[layer]),)
    for kept in run.kept_indices:
        assert kept == sorted(set(kept))
    assert len(run.kept_indices[0]) == 50 or family == "next"


def test_keeping_all_of_a_set_changes_nothing() -> None:
    model, inputs = pair("llava")
    run = apet(model, inputs, boundary=5, counts=(64, 64))
    assert run.visual_rows() == [64] * 16
    assert all(len(merged.members) == 1 for merged in run.merged)
