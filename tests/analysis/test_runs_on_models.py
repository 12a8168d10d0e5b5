"""What is read off models: the unpruned one against the stock model, a method against hooks on its layers."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from analysis.small_prompts import checkpoint, contender, make_prompt
from torch import Tensor

from swiftvlm_eval.analysis.contenders import prefill
from swiftvlm_eval.analysis.drift_run import drift_of, drift_summary, looks_of, require_bypass, waiting_at
from swiftvlm_eval.analysis.overlap_run import at_equal_flops, overlap_of, overlap_summary
from swiftvlm_eval.analysis.watching import Look, Watcher, watched
from swiftvlm_eval.efficiency.cost import executed_cost
from swiftvlm_eval.pruning.prune import prune


@pytest.fixture(scope="module", params=["llava", "llava_next"])
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def stock(family: str) -> tuple[list[Tensor], list[Tensor]]:
    """By layer: states of the visual tokens at its input, and the last token's attention to them."""
    own = checkpoint(family)
    prompt = make_prompt(own)
    visual = prompt.inputs["input_ids"][0] == own.adapter.image_token_id
    with torch.no_grad():
        out = own.model(**prompt.inputs, output_hidden_states=True, output_attentions=True)
    rows = [layer[0, :, -1, visual] for layer in out.attentions]
    return [states[0, visual] for states in out.hidden_states], [
        (row / row.sum(dim=1, keepdim=True)).mean(dim=0) for row in rows
    ]


def test_the_unpruned_model_is_the_stock_model(family: str) -> None:
    own = checkpoint(family)
    watcher = Watcher(at=tuple(range(12)), with_states=True)
    prefill(own, watcher, None, make_prompt(own), 0)
    states, scores = stock(family)
    for layer in range(12):
        assert torch.allclose(watcher.seen.states[layer], states[layer], atol=1e-4)
        assert torch.allclose(watcher.seen.scores[layer], scores[layer], atol=1e-5)


def test_overlap_counts_what_a_method_holds_of_the_stock_model_s_best(family: str) -> None:
    own = checkpoint(family)
    prompt = make_prompt(own)
    contenders = [contender("fastv[layers=3]"), contender("vispruner")]
    found = overlap_of(prompt, own, contenders, 0)
    scores = stock(family)[1]
    best = [set(row.argsort(descending=True)[: round(0.1 * prompt.num_visual)].tolist()) for row in scores]
    worst = [set(row.argsort()[: round(0.5 * prompt.num_visual)].tolist()) for row in scores]
    for one, told, boundary in zip(contenders, found["methods"], (3, 0), strict=True):
        with prune(own.model, one.method, one.budget) as session, torch.no_grad():
            own.model(**prompt.inputs)
        held = {index for index in session.traces[0].stages[-1].index.tolist() if index >= 0}
        assert told["boundary"] == boundary and told["held"] == len(held)
        assert told["hits"][1] == [len(held & best[boundary]), len(best[boundary])]
    expected = [[len(worst[early] & best[late]) for late in range(early + 1, 12)] for early in range(12)]
    assert found["low_then_high"] == expected and found["top"] == len(best[0])
    assert len({count for row in expected for count in row}) > 2  # not all alike


def test_a_watched_method_does_what_it_does_unwatched(family: str) -> None:
    own = checkpoint(family)
    prompt = make_prompt(own)
    looks: list[Look] = []
    method = contender("swiftvlm").method
    logits, traces = [], []
    for each in (method, watched(method, looks.append)):
        with prune(own.model, each, 1 / 3) as session, torch.no_grad():
            logits.append(own.model(**prompt.inputs).logits)
        traces.append([stage.index.tolist() for stage in session.traces[0].stages])
    assert torch.equal(*logits) and traces[0] == traces[1]
    assert [look.carry is not None for look in looks] == [False, True, True]


def layer_outputs(own: Any, prompt: Any, method: Any) -> tuple[list[Tensor], Any]:
    """What every decoder layer gave out in a pruned prefill, and the trace."""
    given: list[Tensor] = []
    hooks = [
        layer.register_forward_hook(lambda _, __, out: given.append(out[0] if isinstance(out, tuple) else out))
        for layer in own.adapter.decoder.layers
    ]
    try:
        with prune(own.model, method, 1 / 3) as session, torch.no_grad():
            own.model(**prompt.inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return [out[0] if out.dim() == 3 else out for out in given], session.traces[0]


def test_aligned_tokens_are_what_equals_the_gain_of_their_merged_row(family: str) -> None:
    """From the layers' own outputs: a stored token plus (the merged row now, less the mean of its group then)."""
    own = checkpoint(family)
    prompt = make_prompt(own)
    one = contender("swiftvlm")
    outputs, trace = layer_outputs(own, prompt, one.method)
    first, second = (stage.boundary for stage in trace.stages[:2])
    before = int((prompt.inputs["input_ids"][0] == own.adapter.image_token_id).nonzero()[0, 0])
    found = waiting_at(looks_of(prompt, own, one, 0)[0], "swiftvlm")
    kept = set(trace.stages[0].kept_indices)
    assert found.index.tolist() == [index for index in range(prompt.num_visual) if index not in kept]
    visual = (prompt.inputs["input_ids"][0] == own.adapter.image_token_id).nonzero()[:, 0]
    then = outputs[first - 1][visual]
    rows = trace.stages[0].index
    now = outputs[second - 1][before : before + len(rows)]
    merged = now[rows < 0]
    assert torch.allclose(found.stored, then[found.index], atol=1e-5)
    for token, group in zip(found.index.tolist(), found.members.tolist(), strict=True):
        mean = then[found.index[found.members == group]].mean(dim=0)
        assert torch.allclose(found.candidates[token], then[token] + merged[group] - mean, atol=1e-4)
    live = {index: now[place] for place, index in enumerate(rows.tolist()) if index >= 0}
    assert all(torch.allclose(found.candidates[index], row) for index, row in live.items())


def test_drift_of_a_document(family: str) -> None:
    own = checkpoint(family)
    prompt = make_prompt(own)
    one = contender("swiftvlm")
    document = drift_of(prompt, own, [one], 0)
    (stages,) = document["methods"]
    states = stock(family)[0]
    for look, stage in zip(looks_of(prompt, own, one, 0), stages, strict=True):
        waiting = waiting_at(look, "swiftvlm")
        unpruned = states[stage["boundary"]][waiting.index].double()
        for arm, mine in (("aligned", waiting.candidates[waiting.index]), ("stored", waiting.stored)):
            relative = (mine.double() - unpruned).norm(dim=1) / unpruned.norm(dim=1)
            cosine = torch.cosine_similarity(mine.double(), unpruned)
            told = next(row for row in stage["rows"] if row["arm"] == arm and row["size"] == "all")
            assert told["relative"] == pytest.approx(float(relative.mean()), rel=1e-3)
            assert told["cosine"] == pytest.approx(float(cosine.mean()), abs=1e-4)
    assert document == drift_of(prompt, own, [one], 0) != drift_of(prompt, own, [one], 1)
    summary = drift_summary([one], [document, drift_of(make_prompt(own, 1), own, [one], 0)])
    assert [stage["boundary"] for stage in summary["methods"][0]["re_entries"]] == [4, 5]
    assert summary["methods"][0]["re_entries"][0]["rows"][0]["relative"]["documents"] == 2


def test_groups_of_one_are_told_as_such() -> None:
    own = checkpoint()
    found = drift_of(make_prompt(own), own, [contender("swiftvlm[counts=40:24:24:40:8]")], 0)
    sizes = {row["size"] for stage in found["methods"][0] for row in stage["rows"]}
    assert sizes == {"all", "1"}
    assert [stage["groups"] for stage in found["methods"][0]] == [24, 40]


@pytest.mark.parametrize(
    "text", ["fastv", "swiftvlm[bypass=false]", "swiftvlm[merge=false]", "fastv+random[layers=9]"]
)
def test_methods_without_a_bypass_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="what leaves never comes back.*allowed are methods with a bypass") as caught:
        require_bypass(text, contender(text).method)
    assert repr(text) in str(caught.value)


@pytest.mark.parametrize(
    ("text", "budget", "message"),
    [
        ("swiftvlm[counts=40:0:24:0:8]", 1 / 3, "it makes no merged rows, so nothing is aligned"),
        ("swiftvlm", 1.0, "no token waits at any stage"),
    ],
)
def test_nothing_to_compare_is_said(text: str, budget: float, message: str) -> None:
    own = checkpoint()
    with pytest.raises(RuntimeError, match=f"^by_hand/0: .*{message}"):
        drift_of(make_prompt(own), own, [contender(text, budget)], 0)


def test_another_kind_of_carry_is_refused() -> None:
    own = checkpoint()
    look = looks_of(make_prompt(own), own, contender("swiftvlm"), 0)[0]
    for other in (replace(look, carry=[1, 2]), replace(look, candidates=None)):
        with pytest.raises(ValueError, match="other: its stages leave no merging.Bypass"):
            waiting_at(other, "other")


def test_a_model_that_overflows_is_named() -> None:
    own = checkpoint(grid=4)
    with torch.no_grad():
        own.adapter.decoder.layers[2].mlp.down_proj.weight[0] = torch.nan
    for measure in (overlap_of, drift_of):
        with pytest.raises(RuntimeError, match="^by_hand/3: .*not finite"):
            measure(make_prompt(own, 3), own, [contender("swiftvlm")], 0)
    checkpoint.cache_clear()


def test_other_methods_get_the_budget_of_equal_cost() -> None:
    own = checkpoint(grid=12)
    prompt = make_prompt(own)
    texts = ["swiftvlm", "swiftvlm[merge=false]", "fastv", "pdrop"]
    found = at_equal_flops([contender(text) for text in texts], own, prompt)
    costs = []
    for one in found:
        trace = prefill(own, one.method, one.budget, prompt, 0)
        costs.append(executed_cost(one.method, trace, own.adapter.decoder.shape, own.adapter.tower.shape).executed)
    assert found[0].budget == 1 / 3 and all(abs(cost / costs[0] - 1) < 0.01 for cost in costs)
    with pytest.raises(ValueError, match="methods='vanilla': it never prunes"):
        at_equal_flops([contender("swiftvlm"), contender("vanilla")], own, prompt)
    summary = overlap_summary(found[:2], [overlap_of(prompt, own, found[:2], 0)])
    assert [one["equal_flops"] for one in summary["methods"]] == [True, True]
    dear = [found[0], replace(found[1], budget=0.6)]
    summary = overlap_summary(dear, [overlap_of(prompt, own, dear, 0)])
    assert [one["equal_flops"] for one in summary["methods"]] == [True, False]
    assert [one["overlap"]["0.10"]["less_first"]["mean"] == 0 for one in summary["methods"]] == [True, False]
