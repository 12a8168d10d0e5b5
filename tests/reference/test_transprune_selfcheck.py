"""TransPrune's reference by hand, and by properties of its description."""

import math
from typing import Any

import pytest
import torch
from reference.full_length import State
from reference.transprune import DROPS, guidance, share, transition, transitions, transprune
from reference.vision import start_state
from tiny_models import make_image, make_inputs, tiny_llava
from torch import Tensor


@pytest.fixture(autouse=True)
def _no_grad() -> Any:
    with torch.no_grad():
        yield


def tiny(**options: Any) -> tuple[Any, Any]:
    model, processor = tiny_llava(grid=8, layers=8, **options)
    return model, make_inputs(processor, make_image(150, 110, seed=3))


def test_transition_by_hand() -> None:
    taken = torch.tensor([[3.0, 4.0], [1.0, 0.0]])
    given = torch.tensor([[6.0, 8.0], [0.0, 3.0]])
    # twice as long and not turned; three times as long and turned by a right angle
    whole = 1 + math.e
    expected = torch.tensor([2 / whole, 3 * math.e / whole], dtype=torch.float64)
    torch.testing.assert_close(transition(taken, given), expected)
    torch.testing.assert_close(transition(taken, 2 * given), 2 * expected)
    assert share(torch.tensor([1.0, 3.0])).tolist() == pytest.approx([0.25, 0.75])


class Modules:
    """What the modules of one layer of the stock model took and gave."""

    def __init__(self, model: Any, inputs: Any, number: int) -> None:
        self.seen: dict[str, tuple[Tensor, Tensor]] = {}
        layer = model.model.language_model.layers[number]
        hooks = [
            module.register_forward_hook(self._watch(name), with_kwargs=True)
            for name, module in (("attention", layer.self_attn), ("mlp", layer.mlp))
        ]
        model(**inputs)
        for hook in hooks:
            hook.remove()

    def _watch(self, name: str) -> Any:
        def hook(module: Any, args: Any, kwargs: Any, output: Any) -> None:
            taken = args[0] if args else kwargs["hidden_states"]
            self.seen[name] = (taken[0], (output[0] if isinstance(output, tuple) else output)[0])

        return hook


def test_signals_are_those_of_the_stock_modules() -> None:
    model, inputs = tiny(attn="eager", kv_heads=2)
    out = model(**inputs, output_hidden_states=True, output_attentions=True)
    start = start_state(model, inputs)
    for layer in (0, 3):
        state = State(start.rows, out.hidden_states[layer][0], start.positions, start.next_position)
        seen = Modules(model, inputs, layer).seen
        expected = transition(*seen["attention"]) + transition(*seen["mlp"])
        found = transitions(model.model.language_model, model.model.language_model.layers[layer], state)
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-4)
        rows = out.attentions[layer][0].mean(dim=0)[start.question][:, start.visual].mean(dim=0)
        torch.testing.assert_close(guidance(model.model.language_model, layer, state).float(), rows)


def test_sums_of_survivors_are_carried_and_not_renewed() -> None:
    """By hand up to the second drop: layers 2, 3 and 4 were seen with 64, 30 and 30 visual rows."""
    model, inputs = tiny()
    decoder = model.model.language_model
    run = transprune(model, inputs, boundaries=(2, 3, 4, 5, 6, 7), counts=(30, 10, 4))
    total: dict[Any, float] = {}
    for layer in (1, 2, 3):
        state = State(run.rows[layer], run.boundaries[layer], run.prompt_positions[layer], 0)
        for place, value in enumerate(transitions(decoder, decoder.layers[layer], state).tolist()):
            total[run.rows[layer][place]] = total.get(run.rows[layer][place], 0.0) + value
    before = State(run.rows[3], run.outputs[3], run.prompt_positions[3], 0)
    sums = torch.tensor([total[before.rows[place]] for place in before.visual], dtype=torch.float64)
    torch.testing.assert_close(run.scores[1], share(sums) + share(guidance(decoder, 4, before)))
    assert float(run.scores[1].sum()) == pytest.approx(2, abs=1e-5)


def test_rows_positions_and_stages() -> None:
    model, inputs = tiny()
    length = inputs["input_ids"].shape[1]
    run = transprune(model, inputs, [5], boundaries=(1, 3, 4, 5, 6, 7), counts=(30, 10, 4))
    assert run.visual_rows() == [64, 30, 30, 30, 10, 10, 10, 4]
    assert [len(kept) for kept in run.kept_indices] == [30, 30, 10, 10, 10, 4] and len(DROPS) == len(run.scores)
    for layer, rows in enumerate(run.visual_rows()):
        whole = length - 64 + rows
        assert run.prompt_positions[layer] == tuple(range(whole))
        assert run.generated_positions[layer] == (whole,)


def test_collecting_boundaries_change_the_choice_of_the_next_drop_only() -> None:
    model, inputs = tiny()
    runs = [transprune(model, inputs, boundaries=(1, x, 4, 5, 6, 7), counts=(30, 10, 4)) for x in (2, 3)]
    assert runs[0].kept_indices[0] == runs[1].kept_indices[0]
    assert torch.equal(runs[0].scores[0], runs[1].scores[0]) and not torch.equal(runs[0].scores[1], runs[1].scores[1])


def test_all_rows_are_the_whole_model() -> None:
    model, inputs = tiny()
    stock = model(**inputs).logits[0, -1]
    run = transprune(model, inputs, boundaries=(1, 2, 3, 4, 5, 6), counts=(64, 64, 64))
    torch.testing.assert_close(run.logits[0], stock, atol=1e-4, rtol=1e-4)
