"""The engine itself: which layer scores, masks, attention kernels, refusals, odd inputs."""

from typing import Any

import pytest
import torch
from probe_methods import HandSignals
from reference.declared import oracle_of
from transformers import StaticCache
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from swiftvlm_eval import make_method, method_names, prune
from swiftvlm_eval.pruning.budget import BudgetError
from swiftvlm_eval.pruning.contract import PruningMethod, Signals
from swiftvlm_eval.pruning.schedule import Plan, Stage
from swiftvlm_eval.testing.greedy import generate
from swiftvlm_eval.testing.tiny_models import make_image, make_inputs, tiny_llava, tiny_llava_next


def build(name: str) -> PruningMethod:
    return make_method(name, oracle_of(name).scale)


def inputs_for(processor: Any, seed: int = 3) -> Any:
    return make_inputs(processor, make_image(150, 110, seed=seed))


@pytest.mark.parametrize("name", method_names())
def test_scores_come_from_the_declared_layer(name: str) -> None:
    oracle = oracle_of(name)
    expected = oracle.score_layers
    model, processor = tiny_llava(grid=12)
    options = {**oracle.scale, **({"layers": tuple(expected)} if expected else {})}
    with prune(model, make_method(name, options), budget=0.4) as session:
        asked: list[int] = []
        stock = session.adapter.decoder.queries

        def queries(layer: int, *states: torch.Tensor) -> torch.Tensor:
            asked.append(layer)
            return stock(layer, *states)

        session.adapter.decoder.queries = queries  # type: ignore[method-assign]
        generate(model, inputs_for(processor))
    assert asked == [layer for layer in expected.values() if layer is not None]


def only_drops(method: PruningMethod) -> bool:
    stages = method.plan(144, 16, 0.4).stages
    kept = all(method.rule_at(stage) == "keep" for stage in stages)
    return bool(stages) and kept and not any(stage.merged for stage in stages) and not oracle_of(method.name).rewrites


DROPPERS = [name for name in method_names() if only_drops(build(name)) and not oracle_of(name).rewrites]


@pytest.mark.parametrize("name", DROPPERS)
def test_dropping_equals_masking_in_the_stock_model(name: str) -> None:
    """Invariant of droppers that keep positions: hide the dropped keys from later layers of the unpruned model."""
    model, processor = tiny_llava(grid=12)
    inputs = inputs_for(processor)
    with prune(model, make_method(name), budget=0.4) as session, torch.no_grad():
        pruned = model(**inputs, logits_to_keep=1).logits
    trace = session.traces[0]
    visual = (inputs["input_ids"][0] == model.config.image_token_id).nonzero()[:, 0]
    length = inputs["input_ids"].shape[1]
    visible = torch.ones(length, length, dtype=torch.bool).tril()
    handles = []
    for layer, module in enumerate(model.model.language_model.layers):
        for stage in trace.stages:
            if stage.boundary == layer:
                dropped = sorted(set(range(len(visual))) - set(stage.kept_indices))
                visible = visible.clone()
                visible[:, visual[dropped]] = False
                visible.fill_diagonal_(True)
        mask = visible[None, None]
        hook = lambda module, args, kwargs, mask=mask: (args, {**kwargs, "attention_mask": mask})  # noqa: E731
        handles.append(module.register_forward_pre_hook(hook, with_kwargs=True))
    with torch.no_grad():
        masked = model(**inputs, logits_to_keep=1).logits
    for handle in handles:
        handle.remove()
    assert not torch.equal(pruned, model(**inputs, logits_to_keep=1).logits)
    torch.testing.assert_close(pruned, masked, atol=1e-4, rtol=1e-4)


def fake_flash(
    module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attention_mask: Any, **kwargs: Any
) -> tuple[torch.Tensor, None]:
    """Flash attention's contract on a CPU: a 2-D key mask or None, causal from the bottom right."""
    assert attention_mask is None or (attention_mask.dim() == 2 and attention_mask.shape[1] == key.shape[2])
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    queries, keys = query.shape[2], key.shape[2]
    visible = torch.ones(queries, keys, dtype=torch.bool).tril(keys - queries)[None, None]
    if attention_mask is not None:
        visible = visible & attention_mask[:, None, None, :].bool()
    logits = (query @ key.transpose(2, 3) * kwargs["scaling"]).masked_fill(~visible, -1e30)
    return (logits.softmax(-1) @ value).transpose(1, 2), None


@pytest.mark.parametrize("name", method_names())
def test_flash_attention_contract(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, processor = tiny_llava(grid=12, kv_heads=2, fresh=True)
    images = [make_image(150, 110, seed=1), make_image(90, 160, seed=2)]
    texts = ["USER: <image>\nWhat is in the picture? ASSISTANT:", "USER: <image>\nRed? ASSISTANT:"]
    inputs = processor(images=images, text=texts, padding=True, return_tensors="pt")
    method = build(name)
    with prune(model, method, budget=0.4):
        expected = generate(model, inputs)
    monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS, "flash_attention_2", fake_flash)
    model.model.language_model.config._attn_implementation_internal = "flash_attention_2"
    with prune(model, method, budget=0.4) as session:
        assert session.adapter.decoder.attention_implementation == "flash_attention_2"
        answer = generate(model, inputs)
    assert torch.equal(answer.sequences, expected.sequences)
    torch.testing.assert_close(answer.logits[-1], expected.logits[-1], atol=2e-4, rtol=2e-4)


def test_nested_blocks_are_refused_and_leave_the_outer_one_alone() -> None:
    model, processor = tiny_llava(grid=12)
    with prune(model, make_method("fastv"), budget=0.4) as session:
        with pytest.raises(RuntimeError, match="already inside a prune"), prune(model, make_method("pdrop")):
            pass
        generate(model, inputs_for(processor))
        assert session.traces[0].rows_per_layer[-1] < 144


def test_what_the_engine_cannot_do_is_refused() -> None:
    model, processor = tiny_llava(grid=12)
    inputs = inputs_for(processor)
    method = make_method("fastv")
    with prune(model, method, budget=0.4), torch.no_grad():
        with pytest.raises(ValueError, match="allowed is DynamicCache"):
            model(**inputs, past_key_values=StaticCache(model.config.text_config, max_cache_len=400))
        with pytest.raises(ValueError, match="output_attentions"):
            model(**inputs, output_attentions=True)
        right_padded = dict(inputs, attention_mask=torch.cat([torch.ones(1, 100), torch.zeros(1, 0)], 1))
        right_padded["attention_mask"] = torch.ones_like(inputs["input_ids"])
        right_padded["attention_mask"][:, -3:] = 0
        with pytest.raises(ValueError, match="padded on the left"):
            model(**right_padded)
        foreign = model(**inputs, use_cache=True).past_key_values
    with prune(model, method, budget=0.4), torch.no_grad():
        with pytest.raises(ValueError, match="not filled inside the current prune"):
            model(input_ids=inputs["input_ids"][:, -1:], past_key_values=foreign)
        ends_with_image = processor(images=make_image(50, 50), text="USER: <image>", return_tensors="pt")
        with pytest.raises(ValueError, match="ends with an image"):
            model(**ends_with_image)
    flex, _ = tiny_llava(grid=4, fresh=True)
    flex.model.language_model.config._attn_implementation_internal = "flex_attention"
    with pytest.raises(ValueError, match="attn_implementation='flex_attention': allowed are sdpa"):
        prune(flex, method, budget=0.4).__enter__()
    spread, _ = tiny_llava(grid=4, fresh=True)
    spread.model.language_model.layers[5].to("meta")
    with pytest.raises(ValueError, match="decoder layers on cpu, meta: allowed is one device"):
        prune(spread, method, budget=0.4).__enter__()
    with pytest.raises(TypeError, match="model_type=.*allowed are llava, llava_next"):
        prune(model.model.language_model, method).__enter__()


def test_a_budget_that_cannot_be_met_names_the_range() -> None:
    model, processor = tiny_llava(grid=12)
    with prune(model, make_method("fastv"), budget=0.05), pytest.raises(ValueError, match="feasible with edits after"):
        generate(model, inputs_for(processor))


@pytest.mark.parametrize("name", [name for name in method_names() if name != "vanilla"])
@pytest.mark.parametrize("poison", ["nan", "equal"])
def test_nan_and_equal_features_select_the_first_tokens_or_any_valid_ones(name: str, poison: str) -> None:
    """NaN counts as the lowest score and ties go to the lower index, so the counts hold whatever the features are."""
    model, processor = tiny_llava(grid=12)
    inputs = inputs_for(processor)
    inputs["pixel_values"] = torch.full_like(inputs["pixel_values"], float("nan") if poison == "nan" else 0.3)
    with prune(model, build(name), budget=0.4) as session, torch.no_grad():
        model(**inputs, logits_to_keep=1)
    trace = session.traces[0]
    if not trace.plan.adaptive:
        assert tuple(trace.rows_per_layer) == trace.plan.rows_per_layer
    if name == "fastv" and poison == "nan":
        assert trace.stages[0].kept_indices == list(range(len(trace.stages[0].kept_indices)))


@pytest.mark.parametrize("name", method_names())
def test_extreme_aspect_ratio(name: str) -> None:
    model, processor = tiny_llava_next(grid=6)
    inputs = make_inputs(processor, make_image(600, 12, seed=5))
    with prune(model, build(name), budget=0.5) as session:
        try:
            answer = generate(model, inputs)
        except BudgetError:
            assert not oracle_of(name).everywhere
            return
    assert torch.isfinite(answer.logits[-1]).all()
    assert session.traces[0].num_visual == int((inputs["input_ids"] == model.config.image_token_id).sum())


def test_swiftvlm_with_every_token_its_own_group_is_the_stock_model() -> None:
    """Groups of one at their own positions: alignment is exact, so keeping all at the end restores everything."""
    model, processor = tiny_llava(grid=12)
    inputs = inputs_for(processor)
    stock = generate(model, inputs)
    method = make_method("swiftvlm", {"layers": "3:6:9", "counts": "60:84:40:104:144"})
    with prune(model, method) as session:
        ours = generate(model, inputs)
    assert [int((stage.index < 0).sum()) for stage in session.traces[0].stages] == [84, 104, 0]
    for expected, got in zip(stock.logits, ours.logits, strict=True):
        torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-4)


def test_a_bypassed_token_of_swiftvlm_returns() -> None:
    model, processor = tiny_llava(grid=12)
    with prune(model, make_method("swiftvlm", {"layers": "3:6:9"}), budget=0.4) as session:
        generate(model, inputs_for(processor))
    first, second, third = (set(stage.kept_indices) for stage in session.traces[0].stages)
    assert second - first
    assert third - second
    hard = make_method("swiftvlm", {"layers": "3:6:9", "merge": False, "bypass": False})
    with prune(model, hard, budget=0.4) as session:
        generate(model, inputs_for(processor))
    first, second, third = (set(stage.kept_indices) for stage in session.traces[0].stages)
    assert first > second > third


def test_alignment_keeps_the_mean_and_identity_layers_move_nothing() -> None:
    method: Any = make_method("swiftvlm")
    generator = torch.Generator().manual_seed(1)
    states = torch.randn(20, 8, generator=generator)

    def signals(stage: Stage, rows: Any, carry: Any, scores: torch.Tensor) -> Signals:
        return HandSignals(stage, 20, *rows, states[:1], 1, carry, scores)

    everything = (states, torch.arange(20), torch.arange(20.0))
    scores = torch.rand(20, generator=generator)
    edit = method.select(signals(Stage(3, 8, 4, "previous"), everything, None, scores))
    waiting = edit.carry
    order = edit.places.argsort(stable=True)
    rows = (edit.states[order], edit.index[order], edit.places[order])
    torch.testing.assert_close(waiting.aligned(*rows[:2]), states)
    assert sorted(waiting.active.tolist() + waiting.index.tolist()) == list(range(20))
    moved = rows[0] + torch.randn(len(order), 8, generator=generator)
    aligned = waiting.aligned(moved, rows[1])
    for group in range(4):
        members = waiting.index[waiting.groups.members == group]
        merged = moved[(rows[1] < 0).nonzero()[group, 0]]
        torch.testing.assert_close(aligned[members].mean(0), merged)


def test_scores_of_feather_ignore_positions() -> None:
    """No rotation: a common or uneven change of position ids leaves the scores alone, unlike FastV's."""
    model, processor = tiny_llava(grid=12)
    inputs = inputs_for(processor)
    stretched = torch.arange(inputs["input_ids"].shape[1])[None] ** 2 % 911
    found = {}
    for name in ("feather", "fastv"):
        for label, positions in (("usual", None), ("stretched", stretched)):
            captured: list[torch.Tensor] = []
            with prune(
                model, make_method(name, {"layers": "1:2" if name == "feather" else "1"}), budget=0.6
            ) as session:
                select = PruningMethod.select

                def watch(signals: Any, method: Any = session.method, captured: Any = captured) -> Any:
                    if signals.stage.boundary == 1:
                        rope = name == "fastv"  # noqa: B023
                        captured.append(signals.attention(rope=rope, scope="visual").mean(0)[0])
                    return type(method).select(method, signals)

                object.__setattr__(session.method, "select", watch)
                with torch.no_grad():
                    model(**inputs, position_ids=positions, logits_to_keep=1)
                assert select is PruningMethod.select
            found[name, label] = captured[0]
    torch.testing.assert_close(found["feather", "usual"], found["feather", "stretched"])
    assert not torch.allclose(found["fastv", "usual"], found["fastv", "stretched"], atol=1e-3)


def test_random_draws_by_sample_and_seed() -> None:
    model, processor = tiny_llava(grid=12)
    kept = {}
    for seed, key in ((0, "a"), (0, "b"), (1, "a"), (0, "a")):
        with prune(model, make_method("random"), budget=0.4, seed=seed) as session:
            session.sample_keys = [key]
            generate(model, inputs_for(processor))
            kept.setdefault((seed, key), []).append(session.traces[0].stages[0].kept_indices)
    assert kept[0, "a"][0] == kept[0, "a"][1]
    assert len({str(value[0]) for value in kept.values()}) == 3


def test_plan_rows_by_hand() -> None:
    assert Plan(10, 4).rows_per_layer == (10, 10, 10, 10)
    assert Plan(10, 4).mean_visual_tokens == 10
