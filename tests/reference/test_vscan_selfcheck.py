"""Checks of the slow VScan by hand and by its properties."""

from typing import Any

import pytest
import torch
from reference.vision import tiles
from reference.vscan import choose, merge, vscan, windows
from tiny_models import make_image, make_inputs, tiny_llava, tiny_llava_next


@pytest.fixture(autouse=True)
def _no_grad() -> Any:
    with torch.no_grad():
        yield


def pair(family: str, **options: Any) -> tuple[Any, Any]:
    model, processor = tiny_llava(grid=8, **options) if family == "llava" else tiny_llava_next(grid=6, **options)
    return model, make_inputs(processor, make_image(150, 110, seed=3))


def drawn(count: int, seed: int) -> torch.Tensor:
    return torch.rand(count, generator=torch.Generator().manual_seed(seed))


def test_windows() -> None:
    assert [len(window) for window in windows(24)] == [36] * 16
    assert windows(24)[1][:7] == [6, 7, 8, 9, 10, 11, 30]
    assert windows(4) == [[patch] for patch in range(16)]
    assert [len(window) for window in windows(6)] == [1, 2, 1, 2, 2, 4, 2, 4] * 2  # edges 0, 1, 3, 4, 6
    assert windows(6)[5] == [7, 8, 13, 14]
    for side in (4, 5, 6, 7, 8, 12, 24):
        assert sorted(patch for window in windows(side) for patch in window) == list(range(side**2))


def test_a_part_for_every_window_and_a_part_for_all() -> None:
    local, whole = drawn(64, 1), drawn(64, 2)
    for count, quota in ((64, 2), (63, 1), (40, 1), (33, 1), (32, 1), (31, 0), (5, 0)):
        kept = choose(local, whole, count)
        assert len(kept) == count and kept == sorted(set(kept))
        assert all(len(set(window) & set(kept)) >= quota for window in windows(8))
        first = [max(window, key=lambda patch: float(local[patch])) for window in windows(8)]
        assert not quota or set(first) <= set(kept)
    assert choose(local, whole, 5) == sorted(whole.argsort(descending=True)[:5].tolist())
    best = [max(window, key=lambda patch: float(local[patch])) for window in windows(8)]
    others = [patch for patch in whole.argsort(descending=True).tolist() if patch not in best][:17]
    assert choose(local, whole, 33) == sorted([*best, *others])


def test_the_quota_of_a_window_may_be_too_much() -> None:
    assert len(choose(drawn(36, 1), drawn(36, 2), 36)) == 36
    with pytest.raises(ValueError, match="2 patches of a window of 1"):
        choose(drawn(36, 1), drawn(36, 2), 64)


def test_merging_by_hand() -> None:
    rows = torch.tensor([[1.0, 0], [0, 1], [3, 1], [1, 5], [0, -1]])
    found = merge(rows, [0, 1, 4])
    assert [members for members, _ in found] == [[0, 2], [1, 3], [4]]
    assert torch.allclose(found[0][1], torch.tensor([2, 0.5])) and torch.allclose(found[1][1], torch.tensor([0.5, 3]))
    assert torch.equal(found[2][1], rows[4])


@pytest.mark.parametrize("family", ["llava", "next"])
def test_rows_sum_back_to_all_rows(family: str) -> None:
    model, inputs = pair(family)
    run = vscan(model, inputs, boundary=5, counts=(33, 9))
    patches = len(run.scores[0])
    assert sum(len(merged.members) for merged in run.merged) == patches * len(tiles(inputs))
    total = torch.stack([len(merged.members) * merged.vector for merged in run.merged]).sum(dim=0)
    everything = vscan(model, inputs, boundary=5, counts=(patches * len(tiles(inputs)), 9))
    assert torch.allclose(total, torch.stack([m.vector for m in everything.merged]).sum(dim=0), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("family", ["llava", "next"])
def test_rows_and_positions(family: str) -> None:
    model, inputs = pair(family)
    run = vscan(model, inputs, [5], boundary=5, counts=(48, 9))
    assert run.visual_rows() == [48] * 5 + [9] * 11
    for layer in (0, 9):
        length = len(run.rows[layer])
        assert run.prompt_positions[layer] == tuple(range(length)) and run.generated_positions[layer] == (length,)
    for kept in run.kept_indices:
        assert kept == sorted(set(kept))


def test_scores_come_from_two_tower_layers_and_the_next_decoder_layer() -> None:
    for layer in (0, 1):
        model, inputs = pair("llava", fresh=True)
        projection = model.model.vision_tower.encoder.layers[layer].self_attn.q_proj
        projection.weight.zero_(), projection.bias.zero_()
        run = vscan(model, inputs, boundary=5, counts=(48, 9))
        assert [float(scores.std()) < 1e-7 for scores in run.scores[:2]] == [layer == 0, layer == 1]
    for layer in (4, 5):
        model, inputs = pair("llava", fresh=True)
        model.model.language_model.layers[layer].self_attn.q_proj.weight.zero_()
        run = vscan(model, inputs, boundary=5, counts=(48, 9))
        assert (float(run.scores[2].std()) < 1e-7) == (layer == 5)
