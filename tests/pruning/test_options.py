"""Every option of every method changes the answer, in the way its docstring says, or is refused by name.

The method's oracle holds one case for each option (`reference.declared`). An option without a case fails.
"""

from dataclasses import fields
from typing import Any

import pytest
import torch
from reference.declared import oracle_of, oracles
from reference.options import LAYERS, Answer, Changes, N, Refused, Unused

from swiftvlm_eval import make_method, method_names, prune
from swiftvlm_eval.pruning.budget import BudgetError
from swiftvlm_eval.testing.tiny_models import make_image, make_inputs, tiny_llava

CASES = [(name, option) for name, oracle in oracles().items() for option in oracle.options]


@pytest.mark.parametrize("name", method_names())
def test_every_option_has_a_case(name: str) -> None:
    options, cases = {option.name for option in fields(make_method(name))}, set(oracle_of(name).options)
    missing = ", ".join(sorted(options - cases))
    assert not missing, f"{name} has the option {missing}, but its oracle has no case of it: add one"
    assert cases <= options, f"{name} has no option {cases - options}"


def answer(name: str, options: dict[str, Any], budget: float) -> Answer:
    model, processor = tiny_llava(grid=12, layers=LAYERS)
    inputs = make_inputs(processor, make_image(150, 110, seed=3))
    with prune(model, make_method(name, options), budget=budget) as session, torch.no_grad():
        session.sample_keys = ["sample"]
        logits = model(**inputs, logits_to_keep=1).logits[0, -1]
        trace, end = session.traces[0], int(session._segments[-1].next_ids)
    assert trace.num_visual == N and torch.isfinite(logits).all()
    kept = [stage.kept_indices for stage in trace.stages]
    return Answer(trace.rows_per_layer, kept, [stage.boundary for stage in trace.stages], logits, end)


@pytest.mark.parametrize(("name", "option"), CASES)
def test_an_option_does_what_it_says(name: str, option: str) -> None:
    case = oracle_of(name).options[option]
    if isinstance(case, Refused):
        with pytest.raises((BudgetError, ValueError), match=case.says):
            answer(name, {option: case.value}, case.budget)
        return
    if isinstance(case, Unused):
        assert torch.equal(answer(name, {}, 0.4).logits, answer(name, {option: case.value}, 0.4).logits)
        return
    base = {key: value for key, value in case.base if key != option}
    without = answer(name, base, case.budget)
    given = answer(name, {**base, option: case.value}, case.budget)
    same = torch.allclose(without.logits, given.logits, atol=1e-3)
    assert not same, f"{name}: {option}={case.value} changed nothing"
    assert case.judge(without, given)


FEW = [
    (name, option, case)
    for name, oracle in oracles().items()
    for option, case in oracle.options.items()
    if isinstance(case, Changes) and case.all_values
]


@pytest.mark.parametrize(("name", "option", "case"), FEW)
def test_all_values_of_an_option_differ(name: str, option: str, case: Changes) -> None:
    found = [answer(name, {**dict(case.base), option: value}, 0.4).logits for value in case.all_values]
    for number, one in enumerate(found):
        assert not any(torch.allclose(one, other, atol=1e-4) for other in found[:number]), case.all_values[number]
