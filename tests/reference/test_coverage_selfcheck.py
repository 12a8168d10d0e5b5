"""Checks of the references that choose rows unlike each other: DivPrune, SCoRe, SCOPE, CDPruner and PruneSID."""

from itertools import pairwise
from typing import Any

import pytest
import torch
from reference import prunesid as sid
from reference.cdpruner import cdpruner, conditional_kernel, largest_volume, scaled, text_relevance
from reference.divprune import divprune, farthest_apart
from reference.patch_choice import cosines, look
from reference.prunesid import Group, prunesid
from reference.scope import coverage_gains, covering, scope
from reference.score import score, weighted_centres
from reference.vision import start_state
from tiny_models import make_image, make_inputs, tiny_llava, tiny_llava_next
from torch import Tensor


def llava() -> tuple[Any, Any]:
    model, processor = tiny_llava(grid=6)
    return model, make_inputs(processor, make_image(150, 110, seed=3))


def llava_next() -> tuple[Any, Any]:
    model, processor = tiny_llava_next(grid=4)
    return model, make_inputs(processor, make_image(150, 110, seed=4))


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def angles(*degrees: float) -> Tensor:
    turned = torch.tensor(degrees, dtype=torch.float64).deg2rad()
    return torch.stack([turned.cos(), turned.sin()], dim=1)


def test_cosines() -> None:
    rows = random(12, 5) - 0.5
    expected = torch.nn.functional.cosine_similarity(rows[:, None], rows[None], dim=2)
    torch.testing.assert_close(cosines(rows).float(), expected, atol=1e-6, rtol=0)
    rows[4] = rows[9]
    assert torch.equal(cosines(rows)[:, 4], cosines(rows)[:, 9])


def test_divprune_by_hand() -> None:
    # 80 degrees to the nearest for the last one; then 170, 80, 20 and 10 degrees away
    rows = angles(0, 10, 20, 90, 170)
    assert farthest_apart(rows, 5) == [4, 0, 3, 2, 1]
    assert farthest_apart(rows, 1) == [4] and farthest_apart(rows, 0) == []
    # of equal rows the lower one is taken, and its doubles wait until nothing else is left
    assert farthest_apart(rows[[4, 4, 0, 4, 3]], 5) == [2, 0, 4, 1, 3]


def test_divprune_does_not_see_lengths() -> None:
    rows = random(40, 6) - 0.4
    assert farthest_apart(rows, 20) == farthest_apart(rows * (1 + random(40, 1, seed=2)), 20)
    assert farthest_apart(rows, 20)[:7] == farthest_apart(rows, 7)


def test_divprune_sees_newline_rows() -> None:
    model, inputs = llava_next()
    run = divprune(model, inputs, [5], count=20)
    full = start_state(model, inputs)
    rows = full.hidden[full.visual]
    newlines = [place for place, row in enumerate(rows) if torch.equal(row, model.model.image_newline)]
    assert len(newlines) > 3 and [place for place in run.kept_indices[0] if place in newlines] == newlines[:1]
    text = len(full.rows) - len(rows)
    assert run.prompt_positions[0] == tuple(range(20 + text)) and run.generated_positions[8] == (20.0 + text,)


def test_score_by_hand() -> None:
    rows = angles(0, 10, 60, 90, 180)
    weights = torch.tensor([0.4, 0.35, 0.15, 0.05, 0.05])
    # distances to the first: .015, .5, 1, 2; with the weights .005, .075, .05, .1
    assert weighted_centres(weights, rows, 3, 1.0) == [0, 4, 2]
    assert weighted_centres(weights, rows, 3, 0.0) == [0, 4, 3]
    # cubes of the weights: .00065, .0017, .00013, .00025
    assert weighted_centres(weights, rows, 3, 3.0) == [0, 2, 1]
    assert weighted_centres(torch.tensor([0.2, 0.4, 0.4]), rows[:3], 1, 0.8) == [1]


def test_score_properties() -> None:
    rows, weights = random(40, 6) - 0.4, random(40, seed=1) + 0.01
    assert weighted_centres(weights, rows, 15, 0.8) == weighted_centres(7 * weights, rows, 15, 0.8)
    by_weight = weights.argsort(descending=True).tolist()
    assert weighted_centres(weights, rows, 15, 300.0)[:5] == by_weight[:5]
    farthest = weighted_centres(weights, rows, 15, 0.0)
    assert farthest[0] == by_weight[0]
    distance = 1 - cosines(rows)
    for number in range(1, 15):
        to_picked = distance[farthest[:number]].min(dim=0).values
        assert int(to_picked.argmax()) == farthest[number]
    # a row and its double are not both taken while others differ
    twins = torch.cat([rows[:20], rows[:20]])
    assert len({place % 20 for place in weighted_centres(weights, twins, 20, 0.8)}) == 20


def test_scope_by_hand() -> None:
    rows = angles(0, 0, 90, 180)
    ones = torch.ones(4)
    # the doubled direction covers two rows; then the others cover themselves, and the double nothing
    assert covering(ones, rows, 4, 1.0, "multi") == [0, 2, 3, 1]
    assert covering(torch.tensor([1.0, 1.0, 1.5, 3.0]), rows, 2, 1.0, "multi") == [3, 0]
    assert covering(torch.tensor([1.0, 1.0, 1.5, 3.0]), rows, 2, 0.0, "multi") == [0, 2]
    # gains 2, 2, 1, 1 and what is added to them
    assert covering(torch.tensor([0.0, 0.2, 0.5, 1.1]), rows, 2, 1.0, "add") == [1, 3]
    assert covering(torch.tensor([0.0, 0.2, 0.5, 1.3]), rows, 2, 1.0, "add") == [3, 1]
    # opposite rows take nothing away
    assert coverage_gains(cosines(rows), torch.zeros(4, dtype=torch.float64)).tolist() == pytest.approx([2, 2, 1, 1])


def test_scope_properties() -> None:
    rows, weights = random(50, 6) - 0.4, random(50, seed=1) + 0.01
    picked = covering(weights, rows, 25, 1.0, "multi")
    assert len(set(picked)) == 25 and picked[:9] == covering(weights, rows, 9, 1.0, "multi")
    assert picked == covering(5 * weights, rows, 25, 1.0, "multi")
    assert covering(weights, rows, 25, 1.0, "add") != covering(200 * weights, rows, 25, 1.0, "add")
    cosine = cosines(rows)
    covered = cosine[picked].max(dim=0).values.clamp(min=0)
    gains = coverage_gains(cosine, covered)
    assert (gains >= 0).all() and gains[picked].abs().max() < 1e-12
    # the gain is the growth of the sum of what is covered
    more = torch.maximum(covered, cosine[3])
    assert float(gains[3]) == pytest.approx(float((more - covered).sum()))


def test_volume_is_that_of_brute_force() -> None:
    for kernel in (
        conditional_kernel(random(8, 12) - 0.5, torch.ones(8)),
        conditional_kernel(random(8, 12, seed=3) - 0.5, random(8, seed=4)),
    ):
        picked: list[int] = []
        for _ in range(6):
            rest = [i for i in range(8) if i not in picked]
            volumes = [float(torch.linalg.det(kernel[[*picked, i]][:, [*picked, i]])) for i in rest]
            picked.append(rest[volumes.index(max(volumes))])
        assert largest_volume(kernel, 6) == picked and len(set(largest_volume(kernel, 8))) == 8


def test_volume_starts_with_the_first_of_equals_and_leaves_doubles() -> None:
    rows = random(10, 16) - 0.5
    rows[7], rows[2] = rows[1], rows[0]
    picked = largest_volume(conditional_kernel(rows, torch.ones(10)), 10)
    assert picked[0] == 0 and sorted(picked[8:]) == [2, 7]
    weights = torch.ones(10)
    weights[5] = 1.5
    assert largest_volume(conditional_kernel(rows, weights), 1) == [5]


def test_relevance_is_scaled_over_all_tiles() -> None:
    found = scaled(torch.tensor([2.0, 4.0, 3.0], dtype=torch.float64)).tolist()
    assert found == pytest.approx([5e-7, 1 + 5e-7, 0.5 + 5e-7])
    assert scaled(torch.full((3,), 0.2)).tolist() == [1.0] * 3
    model, inputs = llava_next()
    with torch.no_grad():
        projected = [model.model.multi_modal_projector(tile.patches) for tile in look(model, inputs)]
        parts = text_relevance(model, inputs, projected)
        ids = inputs["input_ids"][0]
        after = int((ids == model.config.image_token_id).nonzero().max()) + 1
        text = model.get_input_embeddings()(ids[after:]).mean(dim=0)
    assert [len(part) for part in parts] == [16] * 5
    everything = torch.cat(parts)
    assert float(everything.max()) == pytest.approx(1, abs=1e-4) and 0 < float(everything.min()) < 1e-4
    closeness = torch.nn.functional.cosine_similarity(torch.cat(projected), text[None])
    assert everything.argsort().tolist() == closeness.argsort().tolist()


def test_prunesid_groups_by_direction() -> None:
    # after the squashing, rows of two kinds that are orthogonal once centred; there are more of the second kind
    high = torch.tensor([[4.0, -4.0, 0.0, 0.0], [0.0, 0.0, 4.0, -4.0]])
    assert sid.directions_of(high[[0, 1, 1, 0, 1]], 2) == [1, 0, 0, 1, 0]
    rows = random(30, 12) - 0.5
    assert sid.directions_of(rows, 5) == sid.directions_of(rows[:, torch.randperm(12)], 5)
    assert set(sid.directions_of(rows, 1)) == {0}


def test_prunesid_suppression_by_hand() -> None:
    cosine = cosines(angles(0, 10, 50, 60, 90))
    assert sid.mean_of_pairs(torch.tensor([[1.0, 0.2, 0.3], [0.2, 1.0, 0.7], [0.3, 0.7, 1.0]])) == pytest.approx(0.4)
    # within 30 degrees of a kept one a row is out
    assert sid.suppressed([1, 0, 2, 4, 3], cosine, 0.866) == Group([1, 2, 4, 0, 3], 3)
    assert sid.suppressed([3, 2, 4, 1], cosine, 0.867) == Group([3, 4, 1, 2], 3)
    assert sid.suppressed([3, 2], cosine, 1.1) == Group([3, 2], 2) and sid.suppressed([], cosine, 0.0) == Group([], 0)


def test_prunesid_quotas_by_hand() -> None:
    def groups(*sizes_and_kept: tuple[int, int]) -> list[Group]:
        return [Group(list(range(size)), kept) for size, kept in sizes_and_kept]

    # five at most, and no suppressed ones: 5 + 2 + 3 suffice for 9
    assert sid.upper_quotas(groups((20, 8), (6, 2), (3, 3)), 9) == [5, 2, 3]
    # 8 without CLS: one each, then 5 by 8 : 2 : 3, 3.08, 3.85 and 5, that is 3, 1, 1
    assert sid.quotas(groups((20, 8), (6, 2), (3, 3)), 9) == [4, 2, 2]
    # too few for 12: one more each
    assert sid.upper_quotas(groups((20, 8), (6, 2), (3, 3)), 12) == [6, 3, 3]
    # 1 + 8 * 8 / 13 -> 6, 1 + 1, 1 + 2
    assert sid.quotas(groups((20, 8), (6, 2), (3, 3)), 12) == [6, 2, 3]
    # everything is asked for, and a group is empty
    assert (
        sid.upper_quotas(groups((4, 1), (0, 0), (3, 3)), 8)
        == [4, 0, 3]
        == sid.quotas(groups((4, 1), (0, 0), (3, 3)), 8)
    )
    # 4.5, 5 and 7: a half goes to the even number
    assert sid.quotas(groups((9, 9), (9, 1), (9, 4)), 11) == [5, 2, 3]
    # 6.5, 7.3 and 8 give 8, 1 and 2, of which the bound 7 leaves one row to the next group by unlike ones
    assert sid.upper_quotas(groups((9, 9), (9, 1), (9, 1)), 12) == [7, 3, 3]
    assert sid.quotas(groups((9, 9), (9, 1), (9, 1)), 12) == [7, 2, 2]


@pytest.mark.parametrize("total", [2, 3, 4, 17, 40, 64, 90, 144, 145])
def test_prunesid_counts(total: int) -> None:
    scores, features = random(144), random(144, 40, seed=2) - 0.3
    found = sid.principal_groups(scores, features, total)
    assert len(set(found)) == len(found) == total - 1
    assert found == sid.principal_groups(scores, features, total)
    if total <= 90:
        shuffled = features[:, torch.randperm(40, generator=torch.Generator().manual_seed(total))]
        assert found == sid.principal_groups(scores, shuffled, total)


def test_prunesid_rows_of_a_model() -> None:
    model, inputs = llava_next()
    run = prunesid(model, inputs, [5], count=27)
    assert set(run.visual_rows()) == {27}
    first = start_state(model, inputs).visual[0]
    with torch.no_grad():
        classes = [model.model.multi_modal_projector(tile.class_row) for tile in look(model, inputs)]
    rows = run.boundaries[0]
    torch.testing.assert_close(rows[first], classes[0])
    torch.testing.assert_close(rows[first + 23 : first + 27], torch.stack(classes[1:]))
    # 6, 6, 5, 5 and 5 rows a tile
    further = [index for index in run.kept_indices[0] if index >= 16]
    assert sum(index < 16 for index in run.kept_indices[0]) == 5 and further == sorted(further)


@pytest.mark.parametrize("method", [score, scope, cdpruner])
def test_patches_of_every_tile_stay(method: Any) -> None:
    model, inputs = llava_next()
    run = method(model, inputs, [5], count=23)
    assert set(run.visual_rows()) == {23} and all(a < b for a, b in pairwise(run.kept_indices[0]))
    assert sum(index < 16 for index in run.kept_indices[0]) == 5
    model, inputs = llava()
    base, other = method(model, inputs, count=12), method(model, inputs, count=13)
    assert set(base.kept_indices[0]) < set(other.kept_indices[0])
