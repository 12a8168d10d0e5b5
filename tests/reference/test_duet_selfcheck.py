"""Checks of the slow DUET-VLM by hand and by its properties."""

from typing import Any

import pytest
import torch
from reference.duet import choose, contextual_row, duet
from reference.visionzip import visionzip
from tiny_models import make_image, make_inputs, tiny_llava, tiny_llava_next

FALLING = torch.tensor([0.1, 0.9, 0.3, 0.8, 0.2, 0.7, 0.6, 0.5, 0.4])  # 1 3 5 6 7 8 2 4 0


@pytest.fixture(autouse=True)
def _no_grad() -> Any:
    with torch.no_grad():
        yield


def pair(family: str, **options: Any) -> tuple[Any, Any]:
    model, processor = tiny_llava(grid=8, **options) if family == "llava" else tiny_llava_next(grid=6, **options)
    return model, make_inputs(processor, make_image(150, 110, seed=3))


def test_anchors_stand_in_the_order_of_scores() -> None:
    alike = torch.ones(9, 1)  # all ties: the first anchor takes everything
    assert choose(FALLING, alike, 2, 1) == ([1], [[3, 5, 6, 7]])
    assert choose(FALLING, alike, 1, 2) == ([], [[1, 3, 5, 6, 8, 2, 4], [7]])
    # seven are left for two: a pool of seven, every third one an anchor, the first two of them
    assert choose(FALLING, alike, 3, 2) == ([1, 3], [[5, 6, 7, 2, 4, 0], [8]])
    assert choose(FALLING, alike, 7, 3) == ([1, 3, 5, 6, 7, 8], [[2], [4], [0]])
    assert choose(FALLING, alike, 4, 0) == ([1, 3, 5], [])


def test_others_join_the_anchor_most_like_them() -> None:
    keys = torch.tensor([[0.0, 1]] * 9)
    keys[1] = keys[2] = keys[8] = torch.tensor([1.0, 0])
    assert choose(FALLING, keys, 1, 2).groups == [[1, 8, 2], [7, 3, 5, 6, 4]]


def test_contextual_rows() -> None:
    features = torch.tensor([[1.0, 0], [0, 2], [0, 4]])
    assert contextual_row(features, [0]).tolist() == [1, 0]
    assert contextual_row(features, [0, 1, 2]).tolist() == [1, 3]
    assert contextual_row(torch.ones(3, 2), [0, 1, 2]).tolist() == [2, 2]


@pytest.mark.parametrize("family", ["llava", "next"])
def test_dominant_rows_of_the_base_are_those_of_visionzip(family: str) -> None:
    model, inputs = pair(family)
    own = 50 if family == "llava" else 10
    ours = duet(model, inputs, boundaries=(5, 9), counts=(50, 0, 20, 5))
    theirs = visionzip(model, inputs, dominant=own, contextual=1)
    first = next(place for place, row in enumerate(ours.rows[0]) if row.kind != "text")
    block = slice(first, first + own)
    assert torch.equal(ours.boundaries[0][block], theirs.boundaries[0][block])


def test_all_rows_of_visionzip_where_nothing_is_left_to_join() -> None:
    """As many contextual rows as patches left: the same set of rows as VisionZip's, in another order."""
    model, inputs = pair("llava")
    ours = duet(model, inputs, boundaries=(5, 9), counts=(50, 15, 20, 5))
    theirs = visionzip(model, inputs, dominant=50, contextual=15)
    for run in (ours, theirs):
        assert run.visual_rows()[0] == 65
    assert torch.allclose(ours.boundaries[0].sum(dim=0), theirs.boundaries[0].sum(dim=0), atol=1e-3)


@pytest.mark.parametrize("family", ["llava", "next"])
def test_rows_and_positions(family: str) -> None:
    model, inputs = pair(family)
    run = duet(model, inputs, [5, 6], boundaries=(5, 9), counts=(43, 12, 20, 0))
    assert run.visual_rows() == [55] * 5 + [20] * 4 + [0] * 7
    for layer in range(16):
        length = len(run.rows[layer])
        assert run.prompt_positions[layer] == tuple(range(length))
        assert run.generated_positions[layer] == (length, length + 1)
    assert run.kept_indices[2] == [] and set(run.kept_indices[1]) <= set(run.kept_indices[0])
    labels = [row for row in run.rows[0] if row.kind != "text"]
    assert labels[0].kind == "made"  # the class token of the base tile comes first
    own = 9 if family == "next" else 43
    assert [row.kind for row in labels[1:own]] == ["visual"] * (own - 1)
    assert labels[own].kind == "made"
    if family == "next":
        # four class tokens, then the contextual tokens of the tiles: two or three each, twelve in all
        tail = [row.index for row in labels if row.kind == "made"][-13:]
        assert tail == list(range(tail[0], tail[0] + 13)) and len(labels) == 55


def test_stages_ask_all_text_after_the_image_in_the_next_layer() -> None:
    for queries in ("all", "last"):
        for layer in (4, 5):
            model, inputs = pair("llava", fresh=True)
            model.model.language_model.layers[layer].self_attn.q_proj.weight.zero_()
            run = duet(model, inputs, boundaries=(5, 9), counts=(43, 12, 20, 4), queries=queries)
            assert (float(run.scores[1].std()) < 1e-7) == (layer == 5)
    model, inputs = pair("llava")
    runs = [duet(model, inputs, boundaries=(5, 9), counts=(43, 12, 20, 4), queries=q) for q in ("all", "last")]
    assert not torch.allclose(runs[0].scores[1], runs[1].scores[1])
    assert torch.equal(runs[0].boundaries[0], runs[1].boundaries[0])
