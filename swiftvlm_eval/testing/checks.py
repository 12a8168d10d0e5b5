"""What every method must do, each as a function that raises if a method does not.

The models are tiny and random, with the architecture of the real checkpoints; the budget is two fifths of their N.
"""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import pairwise
from typing import Any

import torch
from torch.testing import assert_close

from swiftvlm_eval.pruning.consultation import is_vectorized
from swiftvlm_eval.pruning.contract import PruningMethod
from swiftvlm_eval.pruning.prune import prune
from swiftvlm_eval.pruning.trace import SampleTrace
from swiftvlm_eval.testing.greedy import generate
from swiftvlm_eval.testing.tiny_models import SYSTEM, make_image, tiny_llava, tiny_llava_next

BUDGET = 0.4
FAMILIES = ("llava", "llava_next")
KERNELS = ("sdpa", "eager")
SIZES = ((150, 110), (90, 160), (100, 100), (200, 60))
QUESTIONS = ("What is in the picture?", "Red?", "Provide the bounding box.", "Yes or no: two triangles and a star?")
PROMPTS = tuple(f"{SYSTEM}USER: <image>\n{question} ASSISTANT:" for question in QUESTIONS)


@dataclass(frozen=True)
class Subject:
    """A method under test.

    Attributes:
        make: options -> the method.
        options: with which it meets `BUDGET`.
        raster: whether kept tokens stay in the order of the image.
    """

    make: Callable[[Mapping[str, Any]], PruningMethod]
    options: Mapping[str, Any]
    raster: bool = True

    @cached_property
    def method(self) -> PruningMethod:
        """With those options."""
        return self.make(self.options)

    @cached_property
    def bare(self) -> PruningMethod:
        """With its defaults."""
        return self.make({})

    @property
    def name(self) -> str:
        """Its name."""
        return self.method.name

    @property
    def prunes(self) -> bool:
        """Whether it has a stage at all."""
        return bool(self.method.plan(144, 16, BUDGET).stages)


def require(holds: bool, message: str) -> None:
    """Raises an AssertionError with a message, also where assertions are switched off."""
    if not holds:
        raise AssertionError(message)


def model_for(family: str, **options: Any) -> tuple[Any, Any]:
    """A tiny model and its processor, of 144 visual tokens (`llava`) or several tiles of 36 (`llava_next`)."""
    return tiny_llava(grid=12, **options) if family == "llava" else tiny_llava_next(grid=6, **options)


def batch(processor: Any, count: int) -> Any:
    """`count` images of different sizes with questions of different lengths."""
    images = [make_image(*size, seed=number) for number, size in enumerate(SIZES[:count])]
    return processor(images=images, text=list(PROMPTS[:count]), padding=True, return_tensors="pt")


def keep_all_is_the_stock_model(subject: Subject) -> None:
    """At budget 1 every logit is that of the stock model, alone and in a batch, on either kernel."""
    for family in FAMILIES:
        for kernel in KERNELS:
            model, processor = model_for(family, attn=kernel)
            for inputs in (batch(processor, 1), batch(processor, 2)):
                stock = _stock_answer(family, kernel, len(inputs["input_ids"]))
                with prune(model, subject.bare, budget=1) as session:
                    ours = generate(model, inputs)
                require(torch.equal(stock.sequences, ours.sequences), f"other answers on {family}, {kernel}")
                for expected, got in zip(stock.logits, ours.logits, strict=True):
                    assert_close(got, expected, atol=1e-5, rtol=0)
                for trace in session.traces:
                    require(set(trace.rows_per_layer) == {trace.num_visual}, f"{trace.rows_per_layer} rows of all")


@lru_cache(maxsize=len(FAMILIES) * len(KERNELS) * 2)
def _stock_answer(family: str, kernel: str, count: int) -> Any:
    """What the stock model says to `batch`; the same for every method."""
    model, processor = model_for(family, attn=kernel)
    return generate(model, batch(processor, count))


def executed_rows_are_the_plan(subject: Subject) -> None:
    """What ran is what was planned, and the plan meets the budget within half a token."""
    if not subject.prunes:
        return
    for family in FAMILIES:
        model, processor = model_for(family)
        with prune(model, subject.method, budget=BUDGET) as session:
            generate(model, batch(processor, 2))
        for trace in session.traces:
            require(trace.rows_per_layer[-1] < trace.num_visual, "no row was dropped")
            if not trace.plan.adaptive:
                executed, planned = tuple(trace.rows_per_layer), trace.plan.rows_per_layer
                require(executed == planned, f"executed {executed}, planned {planned} on {family}")
                _on_budget(trace)


def _on_budget(trace: SampleTrace) -> None:
    wanted = BUDGET * trace.num_visual
    require(abs(trace.mean_visual_tokens - wanted) <= 0.5, f"{trace.mean_visual_tokens} rows, budget {wanted}")


def kept_indices_are_unique(subject: Subject) -> None:
    """Kept tokens are tokens of the prompt, none of them twice, in the order of the image if the method says so."""
    model, processor = model_for("llava")
    with prune(model, subject.method, budget=BUDGET) as session:
        generate(model, batch(processor, 1))
    trace = session.traces[0]
    for stage in trace.stages:
        kept = stage.kept_indices
        require(len(set(kept)) == len(kept), f"a token twice after boundary {stage.boundary}")
        require(all(0 <= index < trace.num_visual for index in kept), f"{kept}: of {trace.num_visual} tokens")
        require(not subject.raster or all(a < b for a, b in pairwise(kept)), f"{kept}: not in the image's order")


def cache_holds_the_rows_of_each_layer(subject: Subject) -> None:
    """Each layer's cache has the rows it saw, or those of a later one that emptied it, and grows token by token."""
    model, processor = model_for("llava")
    inputs = batch(processor, 1)
    with prune(model, subject.method, budget=BUDGET) as session, torch.no_grad():
        output = model(**inputs, use_cache=True)
        trace = session.traces[0]
        held = [layer.keys.shape[-2] for layer in output.past_key_values.layers]
        seen = [rows + trace.num_text for rows in trace.rows_per_layer]
        for layer, length in enumerate(held):
            require(length in seen[layer:], f"caches {held}, rows {seen}")  # a later edit may empty earlier caches
        require(len(held) == len(seen) and held[-1] == seen[-1], f"caches {held}, rows {seen}")
        for step in range(1, 4):
            output = model(
                input_ids=output.logits[:, -1:].argmax(-1), past_key_values=output.past_key_values, use_cache=True
            )
            grown = [layer.keys.shape[-2] for layer in output.past_key_values.layers]
            require(grown == [n + step for n in held], f"caches {grown} after {step} tokens, {held} before")


def a_batch_answers_as_its_samples(subject: Subject) -> None:
    """Four samples in one batch and one by one: the same rows, answers and logits."""
    for family in FAMILIES:
        model, processor = model_for(family)
        together, keys = batch(processor, 4), [f"sample {number}" for number in range(4)]
        with prune(model, subject.method, budget=BUDGET) as session:
            session.sample_keys = keys
            joint = generate(model, together)
            rows = [trace.rows_per_layer for trace in session.traces]
        width = together["input_ids"].shape[1]
        for number, size in enumerate(SIZES):
            image = make_image(*size, seed=number)
            alone = processor(images=image, text=PROMPTS[number], return_tensors="pt")
            with prune(model, subject.method, budget=BUDGET) as session:
                session.sample_keys = keys[number : number + 1]
                single = generate(model, alone)
                require(session.traces[0].rows_per_layer == rows[number], f"other rows in a batch on {family}")
            answer = single.sequences[0, alone["input_ids"].shape[1] :]
            require(torch.equal(joint.sequences[number, width:], answer), f"another answer in a batch on {family}")
            for whole, part in zip(joint.logits, single.logits, strict=True):
                assert_close(whole[number], part[0], atol=2e-4, rtol=2e-4)


def a_vectorized_method_is_asked_in_one_go(subject: Subject) -> None:
    """Where samples are alike, a method that declares itself `vectorized` never needs them one by one."""
    for family in FAMILIES if is_vectorized(subject.method) else ():
        model, processor = model_for(family)
        images = [make_image(*SIZES[0], seed=number) for number in range(2)]
        inputs = processor(images=images, text=[PROMPTS[0]] * 2, padding=True, return_tensors="pt")
        with prune(model, subject.method, budget=BUDGET) as session:
            generate(model, inputs, 1)
            found = [boundary for boundary, with_padding in session.asked_alone if not with_padding]
        require(not found, f"declared vectorized, but at boundary {found} on {family} one sample is asked at a time")


def eager_and_sdpa_choose_the_same(subject: Subject) -> None:
    """The attention kernel of the model changes no choice."""
    found = []
    for kernel in KERNELS:
        model, processor = model_for("llava", attn=kernel)
        with prune(model, subject.method, budget=BUDGET) as session:
            answer = generate(model, batch(processor, 1))
        found.append((answer.sequences.tolist(), [stage.index.tolist() for stage in session.traces[0].stages]))
    require(found[0] == found[1], "eager and sdpa choose differently")


def the_model_is_itself_afterwards(subject: Subject) -> None:
    """Nothing stays on the model, whatever happens inside the block, and a run repeats to the bit."""
    model, processor = tiny_llava(grid=12, fresh=True)
    inputs, weights = batch(processor, 1), copy.deepcopy(model.state_dict())
    before, stock = _attachments(model), generate(model, inputs)
    answers = []
    for _ in range(2):
        with prune(model, subject.method, budget=BUDGET, seed=3):
            answers.append(generate(model, inputs))
    try:
        with prune(model, subject.method, budget=BUDGET):
            raise KeyError("planted")
    except KeyError:
        pass
    same = all(torch.equal(a, b) for a, b in zip(answers[0].logits, answers[1].logits, strict=True))
    require(same and torch.equal(answers[0].sequences, answers[1].sequences), "a run does not repeat")
    require(_attachments(model) == before, "something stays on the model's modules")
    require(all(torch.equal(weights[key], value) for key, value in model.state_dict().items()), "weights changed")
    require(torch.equal(stock.logits[0], generate(model, inputs).logits[0]), "the model answers otherwise")


def _attachments(model: Any) -> dict[str, tuple[set[str], int, int]]:
    return {
        path: (set(vars(module)), len(module._forward_hooks), len(module._forward_pre_hooks))
        for path, module in model.named_modules()
    }


def only_a_method_that_draws_depends_on_the_seed(subject: Subject) -> None:
    """Three seeds give three choices if the method declares `draws`, else one."""
    model, processor = model_for("llava")
    inputs, chosen = batch(processor, 1), []
    for seed in (0, 1, 2):
        with prune(model, subject.method, budget=BUDGET, seed=seed) as session:
            session.sample_keys = ["sample"]
            answer = generate(model, inputs)
        stages = [stage.index.tolist() for stage in session.traces[0].stages]
        chosen.append((stages, [logits.tolist() for logits in answer.logits]))
    draws = subject.method.draws
    require((chosen[0] != chosen[1] and chosen[1] != chosen[2]) == draws, f"draws={draws}, but seeds say otherwise")
    require((chosen[0] == chosen[1] == chosen[2]) != draws, f"draws={draws}, but seeds say otherwise")


def half_precision_runs(subject: Subject) -> None:
    """A bfloat16 model gives finite logits."""
    model, processor = tiny_llava(grid=12, fresh=True)
    model, inputs = model.to(torch.bfloat16), batch(processor, 1)
    inputs["pixel_values"] = inputs["pixel_values"].to(torch.bfloat16)
    with prune(model, subject.method, budget=BUDGET) as session:
        answer = generate(model, inputs)
    require(bool(torch.isfinite(answer.logits[-1]).all()), "logits that are not finite")
    require(session.traces[0].mean_visual_tokens <= session.traces[0].num_visual, "more rows than there were")


def several_images_are_one_visual_set(subject: Subject) -> None:
    """Two images in one prompt are pruned together, on budget."""
    for family in FAMILIES:
        model, processor = model_for(family)
        images = [make_image(*size, seed=number) for number, size in enumerate(SIZES[:2], 1)]
        text = "USER: <image>\n<image>\nWhat is in the picture? ASSISTANT:"
        inputs = processor(images=images, text=text, return_tensors="pt")
        with prune(model, subject.method, budget=BUDGET) as session:
            answer = generate(model, inputs)
        trace = session.traces[0]
        ids = int((inputs["input_ids"] == model.config.image_token_id).sum())
        require(trace.num_visual == ids, f"{trace.num_visual} visual tokens, {ids} in the prompt")
        require(bool(torch.isfinite(answer.logits[-1]).all()), "logits that are not finite")
        if not trace.plan.adaptive and subject.prunes:
            _on_budget(trace)


def text_alone_runs_unpruned(subject: Subject) -> None:
    """A prompt without an image is answered as the stock model answers it."""
    model, processor = model_for("llava")
    inputs = processor(text="USER: Yes or no? ASSISTANT:", return_tensors="pt")
    stock = generate(model, inputs)
    with prune(model, subject.method, budget=BUDGET):
        ours = generate(model, inputs)
    require(torch.equal(stock.sequences, ours.sequences), "another answer to text alone")


def a_second_turn_continues_from_the_pruned_cache(subject: Subject) -> None:
    """The next turn through generate() equals feeding its tokens one by one after the first answer."""
    model, processor = model_for("llava")
    inputs = batch(processor, 1)
    more = processor.tokenizer(" USER: Red? ASSISTANT:", add_special_tokens=False, return_tensors="pt").input_ids
    with prune(model, subject.method, budget=BUDGET, seed=3) as session, torch.no_grad():
        session.sample_keys = ["sample"]
        first = generate(model, inputs)
        conversation = torch.cat([first.sequences, more], dim=1)
        rest = {"attention_mask": torch.ones_like(conversation), "past_key_values": first.past_key_values}
        second = generate(model, {"input_ids": conversation, **rest}, steps=3)
    with prune(model, subject.method, budget=BUDGET, seed=3) as session, torch.no_grad():
        session.sample_keys = ["sample"]
        output = model(**inputs, use_cache=True)
        for token in conversation[0, inputs["input_ids"].shape[1] :].tolist():
            output = model(input_ids=torch.tensor([[token]]), past_key_values=output.past_key_values, use_cache=True)
    assert_close(second.logits[0][0], output.logits[0, -1], atol=2e-4, rtol=2e-4)


def beams_are_pruned_as_their_sample(subject: Subject) -> None:
    """Every beam of a sample is pruned alike, and as the sample alone is."""
    model, processor = model_for("llava")
    together = batch(processor, 2)
    with prune(model, subject.method, budget=BUDGET) as session:
        session.sample_keys = ["a", "a", "b", "b"]
        model.generate(**together, num_beams=2, max_new_tokens=3, do_sample=False)
        beams = [[stage.index.tolist() for stage in trace.stages] for trace in session.traces]
    with prune(model, subject.method, budget=BUDGET) as session:
        session.sample_keys = ["a", "b"]
        generate(model, together)
        single = [[stage.index.tolist() for stage in trace.stages] for trace in session.traces]
    require(beams == [single[0], single[0], single[1], single[1]], "beams keep other rows than their sample")


CHECKS: tuple[Callable[[Subject], None], ...] = (
    keep_all_is_the_stock_model,
    executed_rows_are_the_plan,
    kept_indices_are_unique,
    cache_holds_the_rows_of_each_layer,
    a_batch_answers_as_its_samples,
    a_vectorized_method_is_asked_in_one_go,
    eager_and_sdpa_choose_the_same,
    the_model_is_itself_afterwards,
    only_a_method_that_draws_depends_on_the_seed,
    half_precision_runs,
    several_images_are_one_visual_set,
    text_alone_runs_unpruned,
    a_second_turn_continues_from_the_pruned_cache,
    beams_are_pruned_as_their_sample,
)
