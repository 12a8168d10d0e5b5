"""V2Drop's reference by hand, and by properties of its description."""

from typing import Any

import pytest
import torch
from reference.v2drop import movement, v2drop
from tiny_models import make_image, make_inputs, tiny_llava


@pytest.fixture(autouse=True)
def _no_grad() -> Any:
    with torch.no_grad():
        yield


def tiny(**options: Any) -> tuple[Any, Any]:
    model, processor = tiny_llava(grid=8, layers=6, **options)
    return model, make_inputs(processor, make_image(150, 110, seed=3))


def test_movement_by_hand() -> None:
    before = torch.tensor([[1.0, 1.0], [100.0, 0.0], [0.0, 0.0]])
    after = torch.tensor([[4.0, 5.0], [100.0, 0.0], [0.0, -2.0]])
    assert movement(before, after).tolist() == [5.0, 0.0, 2.0]


def test_scores_are_the_steps_of_the_stock_model() -> None:
    model, inputs = tiny()
    states = model(**inputs, output_hidden_states=True).hidden_states
    slots = (inputs["input_ids"][0] == model.config.image_token_id).nonzero()[:, 0]
    for boundary in (1, 3):
        expected = (states[boundary][0] - states[boundary - 1][0]).norm(dim=1)[slots]
        run = v2drop(model, inputs, boundaries=[boundary], counts=[20])
        torch.testing.assert_close(run.scores[0].float(), expected, atol=1e-3, rtol=1e-4)
        assert run.kept_indices[0] == sorted(expected.topk(20).indices.tolist())


def test_the_step_is_that_of_the_layer_before_the_boundary() -> None:
    """Silencing a layer makes every step equal, whatever other layers do."""
    for layer, silent in ((1, True), (2, False)):
        changed, inputs = tiny(fresh=True)
        module = changed.model.language_model.layers[layer]
        module.self_attn.o_proj.weight.zero_()
        module.mlp.down_proj.weight.zero_()
        run = v2drop(changed, inputs, boundaries=[2], counts=[5])
        assert (float(run.scores[0].max()) == 0.0) == silent
        assert (run.kept_indices[0] == [0, 1, 2, 3, 4]) == silent


def test_at_least_one_row_stays_and_sets_are_nested() -> None:
    model, inputs = tiny()
    run = v2drop(model, inputs, boundaries=[2, 3, 5], counts=[30, 7, 0])
    assert run.visual_rows() == [64, 64, 30, 7, 7, 1]
    assert set(run.kept_indices[2]) < set(run.kept_indices[1]) < set(run.kept_indices[0])
    assert [len(scores) for scores in run.scores] == [64, 30, 7]


def test_all_rows_are_the_whole_model() -> None:
    model, inputs = tiny()
    stock = model(**inputs).logits[0, -1]
    run = v2drop(model, inputs, boundaries=[1, 2, 4], counts=[64, 64, 64])
    torch.testing.assert_close(run.logits[0], stock, atol=1e-4, rtol=1e-4)
