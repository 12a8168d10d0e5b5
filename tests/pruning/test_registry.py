"""What every registered method must do; a new method is covered by being registered."""

import copy
from itertools import pairwise
from typing import Any

import pytest
import torch
from greedy import generate
from reference.declared import oracle_of
from tiny_models import SYSTEM, make_image, tiny_llava, tiny_llava_next

from swiftvlm_eval import make_method, method_names, prune

BUDGET = 0.4
METHODS = method_names()
QUESTIONS = ("What is in the picture?", "Red?", "Provide the bounding box.", "Yes or no: two triangles and a star?")
PROMPTS = [f"{SYSTEM}USER: <image>\n{question} ASSISTANT:" for question in QUESTIONS]


def build(name: str) -> Any:
    return make_method(name, oracle_of(name).scale)


def model_for(family: str, **options: Any) -> tuple[Any, Any]:
    return tiny_llava(grid=12, **options) if family == "llava" else tiny_llava_next(grid=6, **options)


def batch(processor: Any, sizes: list[tuple[int, int]]) -> Any:
    images = [make_image(*size, seed=number) for number, size in enumerate(sizes)]
    return processor(images=images, text=PROMPTS[: len(sizes)], padding=True, return_tensors="pt")


@pytest.mark.parametrize("family", ["llava", "llava_next"])
@pytest.mark.parametrize("attn", ["sdpa", "eager"])
@pytest.mark.parametrize("name", METHODS)
def test_keep_all_is_the_stock_model(name: str, attn: str, family: str) -> None:
    model, processor = model_for(family, attn=attn)
    sizes = [(150, 110), (90, 160)]
    for inputs in (batch(processor, sizes[:1]), batch(processor, sizes)):
        stock = generate(model, inputs)
        with prune(model, make_method(name), budget=1) as session:
            ours = generate(model, inputs)
        assert torch.equal(stock.sequences, ours.sequences)
        for expected, got in zip(stock.logits, ours.logits, strict=True):
            torch.testing.assert_close(got, expected, atol=1e-5, rtol=0)
        assert all(set(trace.rows_per_layer) == {trace.num_visual} for trace in session.traces)


@pytest.mark.parametrize("family", ["llava", "llava_next"])
@pytest.mark.parametrize("name", [name for name in METHODS if name != "vanilla"])
def test_executed_rows_are_the_plan(name: str, family: str) -> None:
    model, processor = model_for(family)
    with prune(model, build(name), budget=BUDGET) as session:
        generate(model, batch(processor, [(150, 110), (90, 160)]))
    for trace in session.traces:
        assert trace.rows_per_layer[-1] < trace.num_visual
        if not trace.plan.adaptive or (name == "downsample" and family == "llava"):
            assert tuple(trace.rows_per_layer) == trace.plan.rows_per_layer
        if not trace.plan.adaptive:
            assert abs(trace.mean_visual_tokens - BUDGET * trace.num_visual) <= 0.5


@pytest.mark.parametrize("name", METHODS)
def test_kept_indices_are_ordered_and_unique(name: str) -> None:
    model, processor = model_for("llava")
    with prune(model, build(name), budget=BUDGET) as session:
        generate(model, batch(processor, [(150, 110)]))
    for stage in session.traces[0].stages:
        kept = stage.kept_indices
        assert len(set(kept)) == len(kept)
        assert all(a < b for a, b in pairwise(kept)) or not oracle_of(name).raster
        assert all(0 <= index < session.traces[0].num_visual for index in kept)


@pytest.mark.parametrize("name", METHODS)
def test_cache_holds_the_rows_of_each_layer_and_grows_by_one(name: str) -> None:
    model, processor = model_for("llava")
    inputs = batch(processor, [(150, 110)])
    with prune(model, build(name), budget=BUDGET) as session, torch.no_grad():
        output = model(**inputs, use_cache=True)
        trace = session.traces[0]
        expected = [rows + trace.num_text for rows in trace.rows_per_layer]
        assert [layer.keys.shape[-2] for layer in output.past_key_values.layers] == expected
        for step in range(1, 4):
            output = model(
                input_ids=output.logits[:, -1:].argmax(-1), past_key_values=output.past_key_values, use_cache=True
            )
            assert [layer.keys.shape[-2] for layer in output.past_key_values.layers] == [n + step for n in expected]


@pytest.mark.parametrize("family", ["llava", "llava_next"])
@pytest.mark.parametrize("name", METHODS)
def test_batch_of_four_answers_as_four_batches_of_one(name: str, family: str) -> None:
    model, processor = model_for(family)
    sizes = [(150, 110), (90, 160), (100, 100), (200, 60)]
    together = batch(processor, sizes)
    keys = [f"sample {number}" for number in range(4)]
    with prune(model, build(name), budget=BUDGET) as session:
        session.sample_keys = keys
        joint = generate(model, together)
        rows = [trace.rows_per_layer for trace in session.traces]
    width = together["input_ids"].shape[1]
    for number, size in enumerate(sizes):
        image = make_image(*size, seed=number)
        alone = processor(images=image, text=PROMPTS[number], return_tensors="pt")
        with prune(model, build(name), budget=BUDGET) as session:
            session.sample_keys = keys[number : number + 1]
            single = generate(model, alone)
            assert session.traces[0].rows_per_layer == rows[number]
        assert torch.equal(joint.sequences[number, width:], single.sequences[0, alone["input_ids"].shape[1] :])
        for whole, part in zip(joint.logits, single.logits, strict=True):
            torch.testing.assert_close(whole[number], part[0], atol=2e-4, rtol=2e-4)


@pytest.mark.parametrize("name", METHODS)
def test_eager_and_sdpa_choose_the_same(name: str) -> None:
    found = []
    for attn in ("sdpa", "eager"):
        model, processor = model_for("llava", attn=attn)
        with prune(model, build(name), budget=BUDGET) as session:
            answer = generate(model, batch(processor, [(150, 110)]))
        found.append((answer.sequences.tolist(), [stage.index.tolist() for stage in session.traces[0].stages]))
    assert found[0] == found[1]


@pytest.mark.parametrize("name", METHODS)
def test_model_is_itself_afterwards_and_the_run_repeats(name: str) -> None:
    model, processor = tiny_llava(grid=12, fresh=True)
    inputs = batch(processor, [(150, 110)])
    weights = copy.deepcopy(model.state_dict())
    modules = {path: set(vars(module)) for path, module in model.named_modules()}
    hooks = {path: (len(m._forward_hooks), len(m._forward_pre_hooks)) for path, m in model.named_modules()}
    stock = generate(model, inputs)
    answers = []
    for _ in range(2):
        with prune(model, build(name), budget=BUDGET, seed=3):
            answers.append(generate(model, inputs))
    with pytest.raises(ZeroDivisionError), prune(model, build(name), budget=BUDGET):
        raise ZeroDivisionError
    assert torch.equal(answers[0].sequences, answers[1].sequences)
    assert all(torch.equal(a, b) for a, b in zip(answers[0].logits, answers[1].logits, strict=True))
    assert {path: set(vars(module)) for path, module in model.named_modules()} == modules
    assert {path: (len(m._forward_hooks), len(m._forward_pre_hooks)) for path, m in model.named_modules()} == hooks
    assert all(torch.equal(weights[key], value) for key, value in model.state_dict().items())
    assert torch.equal(stock.logits[0], generate(model, inputs).logits[0])


@pytest.mark.parametrize("name", METHODS)
def test_a_method_whose_choice_depends_on_the_seed_declares_that_it_draws(name: str) -> None:
    model, processor = model_for("llava")
    inputs = batch(processor, [(150, 110)])
    chosen = []
    for seed in (0, 1, 2):
        with prune(model, build(name), budget=BUDGET, seed=seed) as session:
            session.sample_keys = ["sample"]
            answer = generate(model, inputs)
        stages = [stage.index.tolist() for stage in session.traces[0].stages]
        chosen.append((stages, [logits.tolist() for logits in answer.logits]))
    assert (chosen[0] != chosen[1] and chosen[1] != chosen[2]) == build(name).draws
    assert (chosen[0] == chosen[1] == chosen[2]) != build(name).draws


@pytest.mark.parametrize("name", METHODS)
def test_half_precision_runs(name: str) -> None:
    model, processor = tiny_llava(grid=12, fresh=True)
    model = model.to(torch.bfloat16)
    inputs = batch(processor, [(150, 110)])
    inputs["pixel_values"] = inputs["pixel_values"].to(torch.bfloat16)
    with prune(model, build(name), budget=BUDGET) as session:
        answer = generate(model, inputs)
    assert torch.isfinite(answer.logits[-1]).all()
    assert session.traces[0].mean_visual_tokens <= session.traces[0].num_visual


@pytest.mark.parametrize("family", ["llava", "llava_next"])
@pytest.mark.parametrize("name", METHODS)
def test_several_images_are_one_visual_set(name: str, family: str) -> None:
    model, processor = model_for(family)
    images = [make_image(150, 110, seed=1), make_image(90, 160, seed=2)]
    text = "USER: <image>\n<image>\nWhat is in the picture? ASSISTANT:"
    inputs = processor(images=images, text=text, return_tensors="pt")
    with prune(model, build(name), budget=BUDGET) as session:
        answer = generate(model, inputs)
    trace = session.traces[0]
    assert trace.num_visual == int((inputs["input_ids"] == model.config.image_token_id).sum())
    assert torch.isfinite(answer.logits[-1]).all()
    if not trace.plan.adaptive and name != "vanilla":
        assert abs(trace.mean_visual_tokens - BUDGET * trace.num_visual) <= 0.5


@pytest.mark.parametrize("name", METHODS)
def test_text_only_prompts_run_unpruned(name: str) -> None:
    model, processor = model_for("llava")
    inputs = processor(text="USER: Yes or no? ASSISTANT:", return_tensors="pt")
    stock = generate(model, inputs)
    with prune(model, build(name), budget=BUDGET):
        ours = generate(model, inputs)
    assert torch.equal(stock.sequences, ours.sequences)


@pytest.mark.parametrize("name", METHODS)
def test_second_turn_continues_from_the_pruned_cache(name: str) -> None:
    """The next turn through generate() equals feeding its tokens one by one after the first answer."""
    model, processor = model_for("llava")
    inputs = batch(processor, [(150, 110)])
    more = processor.tokenizer(" USER: Red? ASSISTANT:", add_special_tokens=False, return_tensors="pt").input_ids
    with prune(model, build(name), budget=BUDGET), torch.no_grad():
        first = generate(model, inputs)
        conversation = torch.cat([first.sequences, more], dim=1)
        second = model.generate(
            input_ids=conversation,
            attention_mask=torch.ones_like(conversation),
            past_key_values=first.past_key_values,
            max_new_tokens=3,
            min_new_tokens=3,
            do_sample=False,
            output_logits=True,
            return_dict_in_generate=True,
        )
    with prune(model, build(name), budget=BUDGET), torch.no_grad():
        output = model(**inputs, use_cache=True)
        logits = []
        for token in conversation[0, inputs["input_ids"].shape[1] :].tolist():
            output = model(input_ids=torch.tensor([[token]]), past_key_values=output.past_key_values, use_cache=True)
            logits.append(output.logits[0, -1])
    torch.testing.assert_close(second.logits[0][0], logits[-1], atol=2e-4, rtol=2e-4)


@pytest.mark.parametrize("name", METHODS)
def test_beam_search_runs_on_the_right_samples(name: str) -> None:
    """Every beam of a sample is pruned alike, and as the sample alone is."""
    model, processor = model_for("llava")
    together = batch(processor, [(150, 110), (90, 160)])
    with prune(model, build(name), budget=BUDGET) as session:
        session.sample_keys = ["a", "a", "b", "b"]
        model.generate(**together, num_beams=2, max_new_tokens=3, do_sample=False)
        beams = [[stage.index.tolist() for stage in trace.stages] for trace in session.traces]
    with prune(model, build(name), budget=BUDGET) as session:
        session.sample_keys = ["a", "b"]
        generate(model, together)
        single = [[stage.index.tolist() for stage in trace.stages] for trace in session.traces]
    assert beams == [single[0], single[0], single[1], single[1]]
