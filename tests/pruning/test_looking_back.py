"""What methods that read the layer just run choose, plan and refuse, by hand."""

from typing import Any

import pytest
import torch

from swiftvlm_eval import make_method, prune
from swiftvlm_eval.models.layout import VisualLayout
from swiftvlm_eval.pruning.budget import BudgetError
from swiftvlm_eval.pruning.methods.transprune import transition
from swiftvlm_eval.pruning.methods.vlmpruner import distance_to
from swiftvlm_eval.pruning.scores import key_norms, value_attention
from swiftvlm_eval.pruning.selection import outwards
from swiftvlm_eval.testing.tiny_models import make_image, make_inputs, tiny_llava

LOOKING_BACK = ("dart", "v2drop", "vlmpruner", "transprune", "ivcprune")


def kept(name: str, budget: float | None, num_visual: int = 576, **options: Any) -> list[tuple[int, int]]:
    plan = make_method(name, options).plan(num_visual, 32, budget)
    return [(stage.boundary, stage.kept) for stage in plan.stages]


@pytest.mark.parametrize("name", LOOKING_BACK)
def test_no_layer_has_run_before_the_first(name: str) -> None:
    stages = make_method(name).layers_for(1 / 3)
    with pytest.raises(ValueError, match="layer that has just run; allowed are boundaries from 1 to 31"):
        make_method(name, {"layers": list(range(len(stages)))}).plan(576, 32, 1 / 3)


@pytest.mark.parametrize("name", ["dart", "vlmpruner"])
def test_pivots_are_the_fewest_rows(name: str) -> None:
    with pytest.raises(BudgetError, match=rf"counts=\[3.0\]: {name} keeps from 4 to 576 rows"):
        kept(name, None, counts=3)
    with pytest.raises(BudgetError, match="feasible"):
        kept(name, 0.06)
    assert kept(name, None, counts=4) == [(2, 4)]
    assert kept(name, None, num_visual=3, counts=3) == [(2, 3)]


def test_published_counts() -> None:
    for budget, dart, clean, v2drop in (
        (192 / 576, 196, 192, [288, 86, 1]),
        (128 / 576, 132, 128, [161, 40, 1]),
        (64 / 576, 68, 64, [28, 1, 1]),
    ):
        assert kept("dart", budget, schedule="paper") == [(2, dart)]
        assert kept("vlmpruner", budget, schedule="paper") == [(2, clean)]
        assert [count for _, count in kept("v2drop", budget, schedule="paper")] == v2drop
    assert kept("transprune", 236.25 / 576, schedule="paper") == [(7, 504), (8, 504), (9, 360)] + [
        (10, 360),
        (11, 360),
        (12, 72),
    ]
    assert [count for _, count in kept("transprune", 1 / 3)] == [432, 432, 288, 288, 288, 19]
    assert [kept(name, 192 / 576) for name in ("dart", "vlmpruner", "ivcprune")] == [[(2, 166)]] * 3


def test_seven_whole_layers_are_too_much_for_small_budgets() -> None:
    with pytest.raises(BudgetError, match=r"64.0 per layer .* is 126.8 to 576 tokens"):
        kept("transprune", 64 / 576)


def test_the_rule_for_llava_has_its_own_budget_alone() -> None:
    assert kept("ivcprune", None, rule="llava") == kept("ivcprune", 0.6426, rule="llava") == [(16, 164)]
    with pytest.raises(BudgetError, match="budget=0.3333: rule=llava has none and stands for 0.6426"):
        kept("ivcprune", 1 / 3, rule="llava")
    with pytest.raises(ValueError, match="counts need rule=target"):
        kept("ivcprune", None, rule="llava", counts=30)


@pytest.mark.parametrize("name", [*LOOKING_BACK, "dart[order=official]", "vlmpruner[mode=official]"])
def test_what_is_no_number_neither_fails_nor_hangs(name: str) -> None:
    model, processor = tiny_llava(grid=6, layers=16)
    inputs = make_inputs(processor, make_image(60, 50, seed=1))
    inputs["pixel_values"] = inputs["pixel_values"] * torch.nan
    with prune(model, make_method(name), budget=0.4) as session, torch.no_grad():
        model(**inputs)
    (trace,) = session.traces
    if not trace.plan.adaptive:
        assert tuple(trace.rows_per_layer) == trace.plan.rows_per_layer
    for stage in trace.stages:
        assert stage.kept_indices == sorted(set(stage.kept_indices))


def test_dart_names_a_question_that_is_too_short() -> None:
    model, processor = tiny_llava(grid=6, layers=16)
    inputs = processor(images=make_image(60, 50, seed=1), text="USER: Red? <image>", return_tensors="pt")
    ids = torch.cat([inputs["input_ids"], torch.tensor([[5, 6, 7]])], dim=1)
    inputs = {**inputs, "input_ids": ids, "attention_mask": torch.ones_like(ids)}
    with prune(model, make_method("dart"), budget=1), torch.no_grad():
        model(**inputs)
    with pytest.raises(ValueError, match="3 text rows after the image: dart takes 4 of them"):
        with prune(model, make_method("dart"), budget=0.4), torch.no_grad():
            model(**inputs)


def test_key_norms() -> None:
    keys = torch.tensor([[[1.0, -2.0], [0.5, 0.0]], [[-3.0, 1.0], [0.0, -0.25]]])
    assert key_norms(keys).tolist() == [7.0, 0.75]
    assert key_norms(torch.full((2, 1, 64), 60000.0).half()).isfinite().all()


def test_value_attention_is_a_mean_over_heads_of_a_softmax_over_all_rows() -> None:
    # inner products 0 and 2 log 3 in the first head, by the root of 4: weights 1/4 and 3/4; equal in the second
    three = 2 * torch.tensor(3.0).log().item()
    asking = torch.tensor([[[1.0, 0, 0, 0]], [[1.0, 0, 0, 0]]])
    values = torch.tensor([[[0.0, 9, 9, 9], [three, 1, 1, 1]], [[0.5, 0, 0, 0], [0.5, 7, 7, 7]]])
    assert value_attention(asking, values, 2).tolist() == [pytest.approx([0.375, 0.625])]
    assert value_attention(asking, values, 1).tolist() == [pytest.approx([0.375])]


LIKENESS = torch.tensor(
    [
        [1.00, 0.50, 0.85, 0.95],
        [0.50, 1.00, 0.20, 0.10],
        [0.85, 0.20, 1.00, 0.30],
        [0.95, 0.10, 0.30, 1.00],
    ]
)


def choose(count: int, threshold: float = 0.8, buffer: float = 0.0, patient: bool = True) -> list[bool]:
    steps = torch.tensor([[0.0, 1.0, 0.0, 0.5]] * 4)
    first = torch.tensor([0])
    found = outwards(LIKENESS, lambda rows: steps[rows], first, count, threshold, buffer, patient)
    return [bool(chosen) for chosen in found]


def test_outwards_takes_what_is_below_a_rising_threshold() -> None:
    assert choose(1) == [True, False, False, False]
    assert choose(2) == [True, True, False, False]
    assert choose(3) == [True, True, True, False], "0.85 is below the second threshold, 0.95 is not"
    assert choose(4) == [True] * 4
    # likeness 0.5 at distance 1 is 1.5 with a buffer of 2, so the near one at 0.85 comes first
    assert choose(2, buffer=2.0) == [True, False, True, False]


def test_outwards_gives_up_or_goes_on_after_an_empty_pass() -> None:
    assert choose(3, threshold=0.4, patient=False) == [True, False, False, False]
    assert choose(3, threshold=0.4) == [True, True, True, False]
    # the second pass takes 0.85, but the third would have to be at 1.0 and is asked for no more
    assert choose(3, threshold=0.6, patient=False) == [True, True, False, False]


def test_outwards_takes_the_best_of_the_chunk_that_is_too_large() -> None:
    assert choose(2, threshold=0.96) == [True, True, False, False]


def test_distances_on_the_image() -> None:
    """A 2 x 2 base view; a fine view of 1 x 2 with a newline token."""
    layout = VisualLayout(
        view=torch.tensor([0, 0, 0, 0, 1, 1, 1]),
        row=torch.tensor([0, 0, 1, 1, 0, 0, 0]),
        column=torch.tensor([0, 1, 0, 1, 0, 1, 2]),
        tile=torch.tensor([0, 0, 0, 0, 1, 1, -1]),
        patch=torch.tensor([0, 1, 2, 3, 0, 1, -1]),
        grids=((2, 2), (1, 2)),
        image=torch.zeros(7, dtype=torch.int64),
        tilings=((1, 1),),
        side=2,
    )
    step = 1 / 8**0.5
    found = distance_to(layout, torch.tensor([0, 6])).tolist()
    assert found[0] == pytest.approx([0, step, step, 0.5, 1, 1, 1])
    assert found[1] == pytest.approx([1, 1, 1, 1, 2 * step, step, 0])


def test_a_module_that_gives_twice_as_much_transforms_twice_as_much() -> None:
    taken, given = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(0))
    text = torch.tensor([[1.0, 0, 0, 0, 0, 0, 0, 0]])
    once = transition(taken, given, text, -text)
    torch.testing.assert_close(transition(taken, 2 * given, text, -text), 2 * once)
    # one visual row that is only turned around, one text row likewise: half of the sum each
    assert transition(text, -3 * text, text, -text).tolist() == pytest.approx([1.5])
    # the same beside a text row that is not turned: e^2 of e^2 + 1
    half = torch.tensor(2.0).exp().item()
    assert transition(text, -text, text, text).tolist() == pytest.approx([half / (half + 1)])
