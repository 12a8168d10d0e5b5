"""Checks of the slow PruMerge and PruMerge+ by hand and by their properties."""

from typing import Any

import pytest
import torch
from reference.prumerge import Seen, every, merge, outlier_share, prumerge, prumerge_plus, see
from reference.vision import tiles
from tiny_models import make_image, make_inputs, tiny_llava, tiny_llava_next


@pytest.fixture(autouse=True)
def _no_grad() -> Any:
    with torch.no_grad():
        yield


def pair(family: str) -> tuple[Any, Any]:
    model, processor = tiny_llava(grid=8) if family == "llava" else tiny_llava_next(grid=6)
    return model, make_inputs(processor, make_image(150, 110, seed=3))


def made_up(patches: int) -> Seen:
    """Keys that turn by a degree from patch to patch: the nearest are the neighbours by number."""
    angle = torch.arange(patches, dtype=torch.float64) * torch.pi / 180
    scores = torch.arange(1.0, patches + 1) / 100
    return Seen(scores, torch.stack([angle.cos(), angle.sin()], dim=1), torch.eye(patches))


def test_samples_at_even_distances() -> None:
    assert every(576, 96) == list(range(3, 576, 6))
    assert every(576, 64) == list(range(4, 576, 9))
    assert every(576, 33) == list(range(8, 575, 17))[:33]
    assert every(576, 288) == list(range(1, 576, 2))  # the authors' range is one short of it
    assert every(36, 12) == [1, 4, 7, 10, 13, 16, 19, 22, 25, 28, 31, 34]
    assert every(36, 1) == [18]
    assert every(36, 0) == []
    assert every(10, 10) == list(range(10))  # not 0 to 8


def test_share_of_outliers() -> None:
    assert outlier_share([torch.tensor([1.0, 2, 3, 4, 5, 6, 7, 100])]) == 1 / 8
    assert outlier_share([torch.tensor([1.0, 2, 3, 4]), torch.tensor([5.0, 6, 7, 100])]) == 1 / 8
    assert outlier_share([torch.arange(8.0)]) == 0


def test_few_patches_are_all_neighbours() -> None:
    chosen = merge(made_up(4), [3, 1])
    assert chosen.complement == [0, 2]
    assert torch.allclose(chosen.rows[0], torch.tensor([0.01, 0.02, 0.03, 1.0]))  # weights are not normalised
    assert torch.allclose(chosen.rows[1], torch.tensor([0.01, 1.0, 0.03, 0.04]))


def test_a_centre_has_32_neighbours() -> None:
    (row,) = merge(made_up(60), [2]).rows
    assert row.nonzero()[:, 0].tolist() == list(range(33))
    assert row[2] == 1 and torch.allclose(row[32], torch.tensor(0.33))


def test_a_repeated_centre_is_its_own_neighbour_and_costs_the_lowest_patch() -> None:
    chosen = merge(made_up(6), [4, 2, 4])
    assert chosen.complement == [1, 3, 5]  # 0 is lost
    expected = torch.tensor([0, 0.02, 0.03, 0.04, 1.05, 0.06])
    assert torch.allclose(chosen.rows[0], expected) and torch.allclose(chosen.rows[2], expected)
    assert torch.allclose(chosen.rows[1], torch.tensor([0, 0.02, 1, 0.04, 0.1, 0.06]))


def test_scores_are_those_of_one_wide_head_of_the_last_layer() -> None:
    model, inputs = pair("llava")
    before = see(model, tiles(inputs)[0])
    assert 0 < float(before.scores.sum()) < 1
    model, processor = tiny_llava(grid=8, fresh=True)
    last = model.model.vision_tower.encoder.layers[-1]
    last.self_attn.q_proj.weight.zero_()
    last.self_attn.q_proj.bias.zero_()
    after = see(model, tiles(inputs)[0])
    assert torch.allclose(after.scores, torch.full_like(after.scores, 1 / 65))
    assert torch.allclose(before.features, after.features)


@pytest.mark.parametrize("family", ["llava", "next"])
def test_rows_and_the_one_of_the_rest(family: str) -> None:
    model, inputs = pair(family)
    run = prumerge(model, inputs, [5], count=21)
    assert run.visual_rows() == [22] * 16
    assert [row.kind for row in run.rows[0]].count("made") == 1 + 21 - len(run.kept_indices[0])
    seen = [see(model, pixels) for pixels in tiles(inputs)]
    gone = [set(range(len(part.scores))) for part in seen]
    for merged in run.merged:
        gone[merged.members[0]].remove(merged.members[1])
    parts = [
        part.scores[patch] * part.features[patch] for part, left in zip(seen, gone, strict=True) for patch in left
    ]
    rest = torch.stack(parts).sum(dim=0)
    last = max(place for place, row in enumerate(run.rows[0]) if row.kind != "text")
    assert torch.allclose(run.boundaries[0][last], model.model.multi_modal_projector(rest[None])[0], atol=1e-4)
    if family == "llava":
        assert run.kept_indices[0] == run.scores[0].argsort(descending=True)[:21].tolist()


def test_plus_without_spatial_samples_is_prumerge() -> None:
    for family in ("llava", "next"):
        model, inputs = pair(family)
        plus, plain = prumerge_plus(model, inputs, counts=(21, 0)), prumerge(model, inputs, count=21)
        assert torch.equal(plus.logits, plain.logits) and plus.rows == plain.rows


def test_repeated_samples_are_rows_of_their_own() -> None:
    model, inputs = pair("llava")
    run = prumerge_plus(model, inputs, counts=(40, 32))
    assert run.visual_rows() == [73] * 16
    labels = [row for row in run.rows[0] if row.kind != "text"]
    assert labels[-1].kind == "made" and all(row.kind == "visual" for row in labels[:40])
    spatial = every(64, 32)
    again = [patch for patch in spatial if patch in run.kept_indices[0][:40]]
    assert [row.kind for row in labels[40:-1]] == ["made" if patch in again else "visual" for patch in spatial]
    assert len(again) > 5
    model, inputs = pair("next")
    labels = [row for row in prumerge_plus(model, inputs, counts=(60, 50)).rows[0] if row.kind != "text"]
    assert len(labels) == 111
    further = [row.index for row in labels[22:] if row.kind == "visual"]
    assert further == sorted(further)  # the base tile's 22 rows are in their own order


def test_scores_decide_how_many() -> None:
    for family in ("llava", "next"):
        model, inputs = pair(family)
        seen = [see(model, pixels) for pixels in tiles(inputs)]
        share, patches = outlier_share([part.scores for part in seen]), len(seen[0].scores)
        each = max(1, int(patches * share))
        assert prumerge(model, inputs).visual_rows()[0] == each * len(seen) + 1
        labels = prumerge_plus(model, inputs).kept_indices[0]
        assert len(labels) == len(set(labels)) > each
