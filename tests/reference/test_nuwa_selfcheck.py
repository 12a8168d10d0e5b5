"""Checks of the slow Nüwa by hand and by its properties."""

import math
from typing import Any

import pytest
import torch
from reference.nuwa import Patches, affinity, candidates, choose, gather, nuwa, spread_views, threshold
from reference.per_tile import packing_of
from reference.single_stage import vanilla
from tiny_models import make_image, make_inputs, tiny_llava, tiny_llava_next


@pytest.fixture(autouse=True)
def _no_grad() -> Any:
    with torch.no_grad():
        yield


def pair(family: str, **options: Any) -> tuple[Any, Any]:
    model, processor = tiny_llava(grid=8, **options) if family == "llava" else tiny_llava_next(grid=6, **options)
    return model, make_inputs(processor, make_image(150, 110, seed=3))


def test_candidates_of_cells() -> None:
    scores = [1.0, 2, 3, 4, 8, 7, 6, 5]  # 2 x 4
    assert candidates(2, 4, scores, 1) == [4, 6]
    assert candidates(2, 4, scores, 2) == [4, 5, 6, 7]
    assert candidates(2, 4, scores, 3) == [1, 3, 4, 5, 6, 7]
    assert candidates(2, 4, scores, 4) == list(range(8))
    assert candidates(2, 2, [1.0] * 4, 2) == [0, 1]
    assert candidates(3, 3, [0.0, 0, 0, 0, 0, 9, 9, 9, 9], 1) == [0]  # the last line and column are in no cell


def test_choose_takes_the_best_candidates() -> None:
    scores = torch.tensor([1.0, 2, 3, 4, 8, 7, 6, 5])
    assert choose(2, 4, scores, 1) == [4]
    assert choose(2, 4, scores, 2) == [4, 6]
    assert choose(2, 4, scores, 3) == [4, 5, 6]
    assert choose(2, 4, scores, 7) == [1, 2, 3, 4, 5, 6, 7]
    assert choose(3, 3, torch.arange(9.0), 2) == [3, 4]  # one cell: its two best, since one would be too few
    assert choose(3, 3, torch.arange(9.0), 5) == [4, 5, 6, 7, 8]


def test_threshold_is_interpolated() -> None:
    assert threshold([4.0, 1.0, 2.0], 0.5) == 2
    assert threshold([0.0, 10.0], 0.55) == pytest.approx(5.5)
    scores = [float(value) for value in range(21)]
    assert threshold(scores, 0.55) == 11  # a whole place: the score itself


@pytest.mark.parametrize(("count", "frozen"), [(112, 50), (224, 101), (336, 151)])
def test_as_many_anchors_are_frozen_as_published(count: int, frozen: int) -> None:
    scores = torch.rand(count, generator=torch.Generator().manual_seed(1)).tolist()
    assert sum(score >= threshold(scores, 0.55) for score in scores) == frozen


def test_affinity_by_hand() -> None:
    vectors = torch.tensor([[1.0, 0], [0.6, 0.8], [-1, 0], [1, 0]])
    spots = [(0, 0), (0, 1), (1, 0), (3, 4)]
    assert torch.allclose(affinity(0, vectors, spots, 4.0), torch.tensor([1, 0.6 * 0.5, 0, 0]))
    assert torch.allclose(affinity(0, vectors, spots, 100.0), torch.tensor([1, 0.6 * 0.9, 0, 0.5]))
    assert affinity(0, vectors, spots, 0.0).tolist() == [1, 0, 0, 0]


def test_gathering_by_hand() -> None:
    """Two anchors of three patches in a line; the stronger is frozen, the weaker keeps itself whole and adds."""
    patches = Patches(
        scores=torch.tensor([0.2, 0.5, 0.3]),
        affinity=torch.tensor([[2.0, 0], [3, 4], [0, 5]]),  # cosines 0.6, 0, 0.8
        features=torch.tensor([[1.0, 0], [0, 1], [1, 1]]),
    )
    rows = gather(patches, [(0, 0), (0, 1), (0, 2)], [0, 1], 4.0, 0.55)
    assert rows[1].tolist() == [0, 1]
    weight = 0.6 * 0.5 / (1 + 0.6 * 0.5 + 1e-8)
    assert torch.allclose(rows[0], torch.tensor([1, weight]), atol=1e-6)


def test_counts_of_views() -> None:
    model, inputs = pair("next")
    packing = packing_of(model, inputs)
    assert (len(packing.entries), packing.entries.count(None)) == (140, 8)
    assert spread_views(70, packing) == [13, 49]
    assert spread_views(130, packing) == [26, 96]  # the fine view is full
    assert spread_views(10, packing) == [1, 1]
    with pytest.raises(ValueError, match="fewer than the newlines"):
        spread_views(9, packing)
    assert spread_views(40, packing_of(*pair("llava"))) == [40]


@pytest.mark.parametrize("family", ["llava", "next"])
def test_positions_and_frozen_rows_are_those_of_the_unpruned_prompt(family: str) -> None:
    model, inputs = pair(family)
    stock = vanilla(model, inputs, [5])
    run = nuwa(model, inputs, [5], boundaries=(0, 5), counts=(30, 9))
    assert run.visual_rows() == [30] * 5 + [9] * 11
    assert run.generated_positions == stock.generated_positions
    places = {row: place for place, row in enumerate(stock.rows[0])}
    changed = 0
    for layer in (0, 7):
        expected = [stock.prompt_positions[0][places[row]] for row in run.rows[layer]]
        assert list(run.prompt_positions[layer]) == expected
    for row, vector in zip(run.rows[0], run.boundaries[0], strict=True):
        changed += not torch.allclose(vector, stock.boundaries[0][places[row]], atol=1e-5)
    assert 0 < changed < 30
    if family == "llava":
        assert changed == 30 - (30 - math.ceil(0.55 * 29))
    assert set(run.kept_indices[1]) < set(run.kept_indices[0])


def test_without_reach_no_row_changes() -> None:
    model, inputs = pair("llava")
    stock = vanilla(model, inputs)
    run = nuwa(model, inputs, boundaries=(0, 5), counts=(30, 9), radius=0.0)
    places = [stock.rows[0].index(row) for row in run.rows[0]]
    assert torch.allclose(run.boundaries[0], stock.boundaries[0][places], atol=1e-5)


def test_the_last_tower_layer_changes_rows_and_not_anchors() -> None:
    model, inputs = pair("llava", fresh=True)
    before = nuwa(model, inputs, boundaries=(0, 5), counts=(30, 9))
    model.model.vision_tower.encoder.layers[-1].mlp.fc2.weight.mul_(3)
    after = nuwa(model, inputs, boundaries=(0, 5), counts=(30, 9))
    assert before.kept_indices[0] == after.kept_indices[0]
    assert not torch.allclose(before.boundaries[0], after.boundaries[0], atol=1e-4)


def test_stage_two_reads_the_layer_before_the_boundary() -> None:
    for layer in (4, 5):
        model, inputs = pair("llava", fresh=True)
        model.model.language_model.layers[layer].self_attn.q_proj.weight.zero_()
        run = nuwa(model, inputs, boundaries=(0, 5), counts=(30, 9))
        assert (float(run.scores[-1].std()) < 1e-7) == (layer == 4)
