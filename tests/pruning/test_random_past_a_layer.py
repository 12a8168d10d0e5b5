"""A uniform draw past a layer, after any other method: `fastv+random[layers=9;counts=20]`.

Oracle: the slow implementation of the first method, with one more edit at the boundary of the draw, which keeps the
rows that were drawn; who draws them is asked of `random` itself, how it draws is tested by counting.
"""

import math
import sys
from collections import Counter
from collections.abc import Sequence
from itertools import combinations, pairwise
from typing import Any

import pytest
import torch
from greedy import generate
from reference.declared import Case, oracle_of
from reference.full_length import Edit, Run, State, run_full_length
from tiny_models import make_image, make_inputs, tiny_llava, tiny_llava_next

from swiftvlm_eval import make_method, prune
from swiftvlm_eval.pruning.contract import RowEdit, Signals
from swiftvlm_eval.pruning.methods.random import Random

FIRST = {
    "fastv[layers=3;counts=20]": ("fastv", "k3"),
    "fastv[layers=2;counts=50;scope=visual]": ("fastv", "visual-softmax"),
    "visionzip[counts=45:15]": ("visionzip", "evenly"),
    "pdrop[layers=3:6:9;counts=70:40:10]": ("pdrop", "compact"),
    "sparsevlm[layers=3:6:9;counts=80:40:25]": ("sparsevlm", "counts"),
}
"""First methods as text, and the cases of their oracles."""


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """The rows that `random` keeps, one list for each draw, counted among the rows that it found."""
    seen: list[list[int]] = []
    stock = Random.select

    def select(self: Random, signals: Signals) -> RowEdit:
        assert signals.index.tolist() == list(range(len(signals.states))), "the rows it finds are its prompt"
        edit = stock(self, signals)
        seen.append(edit.index.tolist())
        return edit

    monkeypatch.setattr(Random, "select", select)
    return seen


def model_and_inputs(family: str) -> tuple[Any, Any]:
    if family == "llava":
        model, processor = tiny_llava(grid=12)
        return model, make_inputs(processor, make_image(150, 110, seed=3))
    model, processor = tiny_llava_next(grid=6, language="mistral", kv_heads=2)
    return model, make_inputs(processor, make_image(150, 110, seed=4))


def keeping(numbers: Sequence[int]) -> Edit:
    """Keeps these of the rows that are not text; positions stay, and so does the next one."""

    def edit(state: State, entered: State | None, record: Run) -> State:
        kept = {state.visual[number] for number in numbers}
        return state.take([place for place, row in enumerate(state.rows) if row.kind == "text" or place in kept])

    return edit


def with_a_draw(
    monkeypatch: pytest.MonkeyPatch, case: Case, boundary: int, numbers: Sequence[int], arguments: Sequence[Any]
) -> Run:
    """What the slow implementation computes if these rows alone go on at the boundary."""
    module = sys.modules[getattr(case.run, "func", case.run).__module__]

    def longer(model: Any, start: State, generated: Any, edits: Any, *others: Any, **named: Any) -> Run:
        return run_full_length(model, start, generated, {**edits, boundary: keeping(numbers)}, *others, **named)

    with monkeypatch.context() as patched:
        patched.setattr(module, "run_full_length", longer)
        return case.run(*arguments)


@pytest.mark.parametrize("family", ["llava", "llava_next"])
@pytest.mark.parametrize("count", [6, 0])
@pytest.mark.parametrize("first", FIRST)
def test_it_is_the_slow_implementation_cut_to_the_drawn_rows(
    first: str, count: int, family: str, drawn: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, inputs = model_and_inputs(family)
    boundary = 11
    with prune(model, make_method(f"{first}+random[layers={boundary};counts={count}]"), seed=5) as session:
        answer = generate(model, inputs)
        (trace,) = session.traces
    (numbers,) = drawn
    assert len(numbers) == count and all(a < b for a, b in pairwise(numbers))
    generated = answer.sequences[0, inputs["input_ids"].shape[1] :].tolist()
    name, case = FIRST[first]
    arguments = (model, inputs, generated[:-1])
    truth = with_a_draw(monkeypatch, oracle_of(name).cases[case], boundary, numbers, arguments)
    assert trace.rows_per_layer == truth.visual_rows() and trace.rows_per_layer[boundary:] == [count] * 5
    before, after = trace.stages[-2:]
    assert after.index.tolist() == before.index[numbers].tolist() and after.live == len(before.index)
    logits = torch.stack([step[0] for step in answer.logits])
    torch.testing.assert_close(logits, truth.logits, atol=2e-4, rtol=2e-4)
    alone = oracle_of(name).cases[case].run(*arguments).logits
    assert (alone - logits).abs().max() > 1e-2, "a cut that changes nothing would hide an error"


@pytest.mark.parametrize("family", ["llava", "llava_next"])
@pytest.mark.parametrize("first", ["fastv[layers=3;counts=20]", "visionzip[counts=45:15]"])
def test_drawing_all_survivors_changes_nothing(first: str, family: str, drawn: list[list[int]]) -> None:
    model, inputs = model_and_inputs(family)
    found = []
    survivors = 20 if first.startswith("fastv") else 60
    for text in (first, f"{first}+random[layers=9;counts={survivors}]"):
        with prune(model, make_method(text)) as session:
            answer = generate(model, inputs)
            found.append((answer.sequences.tolist(), session.traces[0].rows_per_layer, torch.cat(answer.logits)))
    assert drawn == [list(range(survivors))]
    assert found[0][:2] == found[1][:2]
    torch.testing.assert_close(found[0][2], found[1][2], atol=1e-5, rtol=0)


def draws(text: str, seeds: Sequence[int], model: Any, inputs: Any, keys: Sequence[str]) -> list[list[list[int]]]:
    """Original indices of the drawn rows, for every seed and sample."""
    found = []
    for seed in seeds:
        with prune(model, make_method(text), seed=seed) as session, torch.no_grad():
            session.sample_keys = list(keys)
            model(**inputs, logits_to_keep=1)
            found.append([trace.stages[-1].index.tolist() for trace in session.traces])
    return found


@pytest.mark.parametrize("first", ["fastv[layers=1;counts=30]", "visionzip[counts=20:10]"])
def test_the_same_seed_draws_the_same_rows(first: str) -> None:
    model, processor = tiny_llava(grid=8, layers=4)
    images = [make_image(150, 110, seed=3), make_image(90, 160, seed=4)]
    prompts = ["USER: <image>\nWhat is in the picture? ASSISTANT:", "USER: <image>\nRed? ASSISTANT:"]
    text = f"{first}+random[layers=2;counts=7]"
    joint = processor(images=images, text=prompts, padding=True, return_tensors="pt")
    once = draws(text, (0, 1, 2), model, joint, ("a", "b"))
    assert once == draws(text, (0, 1, 2), model, joint, ("a", "b"))
    assert once[0] != once[1] != once[2]
    single = processor(images=images[1], text=prompts[1], return_tensors="pt")
    assert [[pair[1]] for pair in once] == draws(text, (0, 1, 2), model, single, ("b",)), "alone as in a batch"
    assert draws(text, (0,), model, single, ("c",)) != draws(text, (0,), model, single, ("b",))


def test_every_survivor_is_as_likely_as_every_other_and_so_is_every_pair(drawn: list[list[int]]) -> None:
    model, processor = tiny_llava(grid=4, layers=3)
    inputs = make_inputs(processor, make_image(60, 50, seed=3), question="Red?", system="")
    survivors, count, times = 8, 3, 400
    text = f"fastv[layers=1;counts={survivors}]+random[layers=2;counts={count}]"
    kept = draws(text, range(times), model, inputs, ("sample",))
    assert len({index for [rows] in kept for index in rows}) == survivors, "of the rows that were left, no other"
    for size in (1, 2):
        seen = Counter(group for numbers in drawn for group in combinations(numbers, size))
        share = math.comb(count, size) / math.comb(survivors, size)
        expected, deviation = times * share, math.sqrt(times * share * (1 - share))
        groups = list(combinations(range(survivors), size))
        off = [(seen[group] - expected) / deviation for group in groups]
        assert max(map(abs, off)) < 3.5, off
        # a draw that never varied, or one too even, is no draw: the squares are about 1 on average
        assert 0.3 < sum(value**2 for value in off) / len(off) < 2, off


@pytest.mark.parametrize(
    ("first", "before", "halved"),
    [
        ("fastv[layers=2]", 2, [(192, 227, 113), (128, 134, 67), (64, 41, 20)]),
        ("visionzip", 0, [(192, 256, 128), (128, 171, 85), (64, 85, 43)]),
    ],
)
def test_halving_at_the_middle_meets_the_budgets(first: str, before: int, halved: list[tuple[int, int, int]]) -> None:
    for budget, kept, half in halved:
        plan = make_method(f"{first}+random[layers=16;counts=0.5]").plan(576, 32, budget / 576)
        rows = plan.rows_per_layer
        assert rows == (576,) * before + (rows[before],) * (16 - before) + (rows[16],) * 16
        assert abs(rows[before] - kept) <= 1 and abs(rows[16] - half) <= 1
        assert plan.mean_visual_tokens == pytest.approx(budget, abs=0.5)
