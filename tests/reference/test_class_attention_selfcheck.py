"""Checks of the references that choose by tower attention: shared parts, FasterVLM, VisPruner, HiPrune and HoloV."""

from typing import Any

import pytest
import torch
from reference.fastervlm import fastervlm, fastervlm_in_place, most_attended
from reference.hiprune import (
    anchors_buffers_registers,
    hiprune,
    middle_layer,
    neighbours,
    received,
    with_buffers,
)
from reference.holov import holistic, holov, quotas, run_score, runs_of, with_room
from reference.patch_choice import look, run_patches, sequence, spread, tokens_of
from reference.single_stage import vanilla
from reference.vision import start_state
from reference.vispruner import important_and_diverse, thinned, vispruner
from tiny_models import make_image, make_inputs, tiny_llava, tiny_llava_next


def llava(attn: str = "sdpa") -> tuple[Any, Any]:
    model, processor = tiny_llava(grid=6, attn=attn)
    return model, make_inputs(processor, make_image(150, 110, seed=3))


def llava_next() -> tuple[Any, Any]:
    model, processor = tiny_llava_next(grid=4)
    return model, make_inputs(processor, make_image(150, 110, seed=4))


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def test_rows_are_spread_with_the_rest_on_the_first_tiles() -> None:
    assert spread(62, 5) == [13, 13, 12, 12, 12] and spread(5, 5) == [1] * 5 and spread(7, 1) == [7]


def test_what_a_tile_shows_is_what_the_tower_computes() -> None:
    model, inputs = llava("eager")
    with torch.no_grad():
        stock = model.model.vision_tower(
            inputs["pixel_values"], output_hidden_states=True, output_attentions=True, return_dict=True
        )
    (tile,) = look(model, inputs)
    # three layers, of which the projector reads the one before the last
    assert tile.number == 1
    torch.testing.assert_close(tile.patches, stock.hidden_states[-2][0, 1:], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(tile.class_row, stock.hidden_states[-2][0, 0], atol=1e-5, rtol=1e-5)
    for number in range(3):
        map_of_layer = stock.attentions[number][0]
        torch.testing.assert_close(tile.class_attention(number), map_of_layer[:, 0, 1:], atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(received(tile, number), map_of_layer.mean(dim=(0, 1))[1:], atol=1e-6, rtol=1e-5)


def test_patches_stand_in_raster_order_of_the_whole_image() -> None:
    model, inputs = llava_next()
    own = [[5, 2], [3, 4, 15], [0, 7], [], [1]]
    # tiles 1 and 2 side by side, 3 and 4 below them; a line of four patches each
    assert sequence(model, inputs, own) == [(0, 5), (0, 2), (1, 3), (2, 0), (1, 4), (2, 7), (1, 15), (4, 1)]
    tokens = tokens_of(model, inputs)
    visual = int((inputs["input_ids"] == model.config.image_token_id).sum())
    assert sorted(tokens.values())[:16] == list(range(16)) and max(tokens.values()) < visual
    # 150 x 110 leaves one line of padding above and one below
    assert (1, 3) not in tokens and tokens[1, 4] == 16 and tokens[2, 7] == 23 and tokens[1, 8] == 25
    states = start_state(model, inputs)
    for tile, patch in [(0, 9), (1, 6), (4, 2)]:
        row = states.hidden[states.visual[tokens[tile, patch]]]
        with torch.no_grad():
            made = model.model.multi_modal_projector(look(model, inputs)[tile].patches[patch])
        torch.testing.assert_close(row, made, atol=1e-5, rtol=1e-5)


def test_all_patches_of_a_single_tile_are_the_unpruned_prompt() -> None:
    model, inputs = llava()
    stock = vanilla(model, inputs, [5, 6])
    for run in (
        run_patches(model, inputs, [5, 6], count=36, choose=lambda tile, rows: range(rows)),
        fastervlm(model, inputs, [5, 6], count=36),
        fastervlm_in_place(model, inputs, [5, 6], count=36),
        vispruner(model, inputs, [5, 6], count=36),
        hiprune(model, inputs, [5, 6], count=36),
        holov(model, inputs, [5, 6], count=36),
    ):
        torch.testing.assert_close(run.logits, stock.logits, atol=1e-4, rtol=1e-4)


def test_fastervlm_positions() -> None:
    model, inputs = llava()
    compact, in_place = (one(model, inputs, [5, 6], count=10) for one in (fastervlm, fastervlm_in_place))
    assert compact.kept_indices == in_place.kept_indices and len(compact.kept_indices[0]) == 10
    prompt = inputs["input_ids"].shape[1]
    assert compact.prompt_positions[0] == tuple(range(prompt - 26))
    assert compact.generated_positions[9] == (prompt - 26.0, prompt - 25.0)
    first = start_state(model, inputs).visual[0]
    kept = [first + index for index in in_place.kept_indices[0]]
    assert in_place.prompt_positions[9] == (*range(first), *kept, *range(first + 36, prompt))
    assert in_place.generated_positions[0] == (prompt, prompt + 1.0)


def test_vispruner_rounds_by_hand() -> None:
    alike = [[0.0] * 6 for _ in range(6)]
    for a, b, value in [(0, 1, 0.3), (2, 5, 0.9), (4, 3, 0.5)]:
        alike[a][b] = alike[b][a] = value
    # 0, 2 and 4 are compared with 1, 3 and 5; the survivors follow by similarity, before those not compared
    assert thinned(range(6), alike, 5) == [4, 0, 1, 3, 5]
    assert thinned(range(6), alike, 4) == [0, 1, 3, 5]
    # then 1 and 5 are compared with 3, to which neither is alike: the earlier one goes
    assert thinned(range(6), alike, 3) == [1, 3, 5] and thinned(range(6), alike, 2) == [5, 3]
    assert thinned([0, 2], [[0.0] * 3] * 3, 1) == [2]
    assert thinned(range(6), alike, 6) == list(range(6)) and thinned(range(6), alike, 0) == []


def test_vispruner_lets_eight_go_at_a_time() -> None:
    alike = random(40, 40).tolist()
    # of 40 the 20 at even places are compared
    maxima = {a: max(alike[a][b] for b in range(1, 40, 2)) for a in range(0, 40, 2)}
    survivors = sorted(maxima, key=lambda a: -maxima[a])[8:]
    assert thinned(range(40), alike, 32) == [*survivors, *range(1, 40, 2)]
    assert thinned(range(40), alike, 27) == thinned(thinned(range(40), alike, 32), alike, 27)


@pytest.mark.parametrize("count", [1, 2, 7, 23, 48, 59, 60])
def test_vispruner_counts_and_bounds(count: int) -> None:
    scores, features = random(60), random(60, 8, seed=1) - 0.5
    best = scores.argsort(descending=True).tolist()
    for ratio in (0.0, 0.25, 0.5, 1.0):
        kept = important_and_diverse(scores, features, count, ratio)
        assert len(set(kept)) == count and kept == sorted(kept)
        assert set(best[: int(count * ratio)]) <= set(kept)
    assert kept == sorted(best[:count])


def test_vispruner_with_important_patches_alone_is_fastervlm() -> None:
    model, inputs = llava()
    (tile,) = look(model, inputs)
    scores = tile.class_attention().mean(dim=0)
    assert important_and_diverse(scores, tile.patches, 11, 1.0) == most_attended(tile, 11)
    assert most_attended(tile, 11) == sorted(tile.class_attention().sum(dim=0).topk(11).indices.tolist())


def test_hiprune_neighbours_are_flat_and_cut_off() -> None:
    assert neighbours(23, 24) == {22, 24, 47, 0} and neighbours(0, 24) == {0, 1, 24}
    assert neighbours(575, 24) == {574, 575, 551} and neighbours(100, 24) == {99, 101, 76, 124}
    assert with_buffers([0], 24, 9) == {0, 1, 24} and with_buffers([23], 24, 9) == {0, 22, 23, 24, 47}


def test_hiprune_takes_neighbours_from_the_weakest_anchor_first() -> None:
    # 14 and 30 of a side of 6: buffers 8, 13, 15, 20 and 24, 29, 31, 35 (36 is cut off)
    strong, weak = {8, 13, 14, 15, 20}, {24, 29, 30, 31, 35}
    assert with_buffers([14, 30], 6, 10) == strong | weak
    assert with_buffers([14, 30], 6, 9) == strong | {30} == with_buffers([14, 30], 6, 6)
    assert with_buffers([30, 14], 6, 9) == weak | {14}
    assert with_buffers([14, 30], 6, 5) == {14, 30} == with_buffers([14, 30], 6, 2)


def test_hiprune_counts() -> None:
    assert [round(total * 0.1 / 5) for total in (192, 128, 64, 75, 125, 25)] == [4, 3, 1, 2, 2, 0]
    assert [middle_layer(number) for number in (22, 1, 2, 11)] == [8, 0, 1, 4]
    middle, deep = random(576), random(576, seed=1)
    deepest = deep.argsort(descending=True).tolist()
    assert anchors_buffers_registers(middle, deep, 24, 128, 0.0) == sorted(deepest[:128])
    for count in (64, 128, 192):
        kept = anchors_buffers_registers(middle, deep, 24, count, 0.1)
        anchors = middle.argsort(descending=True)[: round(count * 0.02)].tolist()
        around = set(anchors).union(*(neighbours(anchor, 24) for anchor in anchors))
        assert len(set(kept)) == count and around <= set(kept)
        assert set(kept) - around == set([p for p in deepest if p not in around][: count - len(around)])
    for count in range(1, 30):
        assert len(set(anchors_buffers_registers(middle, deep, 24, count, 1.0))) == count


def test_holov_runs_and_quotas_by_hand() -> None:
    assert {len(run) for run in runs_of(576)} == {36} and runs_of(3) == [[0], [1], [2]]
    assert [len(run) for run in runs_of(100)] == [7] * 4 + [6] * 12
    assert sum(runs_of(100), []) == list(range(100))
    for count, each in ((192, 12), (128, 8), (64, 4)):
        assert quotas([2.5] * 16, count)[0] == [each] * 16
    # shares .5, .3, .2 of 9 rows: 4, 2, 1, and the two missing ones go to the heaviest runs
    assert quotas([2.0, 5.0, 3.0], 9) == ([1, 5, 3], [1, 2, 0])
    assert with_room([9, 1, 4], [3, 3, 6], [0, 2, 1]) == [3, 3, 6]
    assert with_room([7, 1, 4], [3, 3, 6], [0, 2, 1]) == [3, 3, 6]
    assert with_room([6, 1, 4], [3, 3, 6], [0, 1, 2]) == [3, 3, 5]


def test_holov_features_cancel_in_a_run() -> None:
    scores = random(36)
    for seed in (1, 2):
        features = random(36, 16, seed=seed) - 0.3
        assert run_score(scores, features) == pytest.approx(1090 * float(scores.mean()), rel=1e-3)
    # cosine 0.6 and its mean over the others: each row has (0 - .6)^2 + 0 unevenness
    two = torch.tensor([[2.0, 0.0], [3.0, 4.0]])
    expected = 1000 * 0.4 * (1 + 0.09 * 0.36 / (0.36 + 1e-6))
    assert run_score(torch.tensor([0.2, 0.6]), two) == pytest.approx(expected, rel=1e-5)
    assert run_score(torch.tensor([0.2]), two[:1]) == pytest.approx(0.2)


def test_holov_choices() -> None:
    scores, features = random(100, seed=5), random(100, 16, seed=6) - 0.5
    assert holistic(scores, features, 100, "redistribute") == list(range(100))
    assert len(holistic(scores, features, 100, "official")) < 100
    for count in (7, 30, 60):
        assert holistic(scores, features, count, "official") == holistic(
            scores, random(100, 16, seed=7), count, "official"
        )
    kept = holistic(scores, features, 60, "redistribute")
    assert len(set(kept)) == 60 and kept == sorted(kept)
    even = holistic(torch.ones(576), random(36, 4).repeat(16, 1), 64, "official")
    assert even == [36 * run + place for run in range(16) for place in range(4)]
    # all of a full run stays in raster order, the others fall
    peak = torch.full((32,), 0.01)
    peak[5], peak[4], peak[9] = 1.0, 0.5, 0.02
    assert holistic(peak, torch.eye(32), 4, "official") == [4, 5]
    assert holistic(peak, torch.eye(32), 4, "redistribute") == [4, 5, 8, 9]


def test_holov_rows_that_are_lost_are_zeros_at_the_end() -> None:
    model, inputs = llava()
    run = holov(model, inputs, count=30, overflow="official")
    kept = len(run.kept_indices[0])
    assert kept < 30 and set(run.visual_rows()) == {30}
    rows = start_state(model, inputs).visual[0]
    assert run.boundaries[0][rows + kept : rows + 30].count_nonzero() == 0
    assert run.boundaries[0][rows + kept - 1].count_nonzero() > 0
    assert run.boundaries[0][rows + 30].count_nonzero() > 0
