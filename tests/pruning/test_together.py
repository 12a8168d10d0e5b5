"""Samples that a method is asked about in one go: the same edits as one by one, and one by one where that must be."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar, NamedTuple

import pytest
import torch
from probe_methods import Probe, probe
from torch import Tensor
from torch.testing import assert_close

from swiftvlm_eval import make_method, method_names, prune
from swiftvlm_eval.analysis.watching import watched
from swiftvlm_eval.pruning import consultation
from swiftvlm_eval.pruning.arrangement import Apart
from swiftvlm_eval.pruning.consultation import Consultation, is_vectorized
from swiftvlm_eval.pruning.contract import PruningMethod, RowEdit, Signals
from swiftvlm_eval.pruning.trees import form, side_by_side, tensors_of, with_tensors
from swiftvlm_eval.testing.tiny_models import SYSTEM, make_image, tiny_llava, tiny_llava_next

ALONE = {"apet", "downsample", "prunesid", "random", "sparsevlm_v1", "vanilla", "vlmpruner"}
"""They draw, or the host must know what the device has found, or the size of an image."""
WITH_TEXT = {"dart", "duet", "ivcprune", "sparsevlm", "sparsevlm_plus", "transprune"}
"""They look at text rows, of which samples have different numbers."""
EQUAL, LONGER_QUESTIONS, LONGER_SYSTEM = "equal", "longer questions", "longer system"


def batch(processor: Any, kind: str, sizes: Sequence[tuple[int, int]] = ((150, 110),) * 3) -> Any:
    images = [make_image(*size, seed=number) for number, size in enumerate(sizes)]
    more = ["", "Look well. ", "Look well, and twice. "]
    texts = [
        f"{more[number] if kind == LONGER_SYSTEM else ''}{SYSTEM}USER: <image>\n"
        f"{more[number] if kind == LONGER_QUESTIONS else ''}Red? ASSISTANT:"
        for number in range(len(images))
    ]
    return processor(images=images, text=texts, padding=True, return_tensors="pt")


class Outcome(NamedTuple):
    logits: Tensor
    kept: list[list[Tensor]]
    gone: list[int]  # how many samples were asked about in one go, each time
    alone: set[tuple[int, bool]]


@contextmanager
def counting(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """How many samples each success in one go had."""
    found, stock = list[int](), Consultation._vectorized

    def noting(self: Any, what: Any, stage: Any, samples: Any, at: Any) -> Any:
        made = stock(self, what, stage, samples, at)
        found.append(len(samples))
        return made

    with monkeypatch.context() as patched:
        patched.setattr(Consultation, "_vectorized", noting)
        yield found


def run(
    model: Any,
    inputs: Any,
    method: PruningMethod,
    monkeypatch: pytest.MonkeyPatch,
    one_go: bool = True,
    budget: float = 1 / 3,
) -> Outcome:
    with monkeypatch.context() as patched, counting(monkeypatch) as gone, torch.no_grad():
        if not one_go:
            patched.setattr(consultation, "is_vectorized", lambda method: False)
        with prune(model, method, budget=1 if method.name == "vanilla" else budget) as session:
            session.questions = ["What?"] * len(inputs["input_ids"])
            logits = model(**inputs, use_cache=True).logits[:, -1]
            kept = [[stage.index for stage in trace.stages] for trace in session.traces]
        return Outcome(logits, kept, gone, session.asked_alone)


def same(first: Outcome, second: Outcome) -> None:
    for ours, theirs in zip(first.kept, second.kept, strict=True):
        for one, other in zip(ours, theirs, strict=True):
            assert torch.equal(one, other)
    assert_close(first.logits, second.logits, atol=1e-5, rtol=1e-5)


@pytest.mark.filterwarnings("error:There is a performance drop")
@pytest.mark.parametrize(
    ("name", "kind"),
    [(name, kind) for name in method_names() for kind in (EQUAL, LONGER_QUESTIONS)]
    + [(name, LONGER_SYSTEM) for name in ("fastv", "pdrop", "swiftvlm", "visionzip")],
)
def test_in_one_go_is_as_one_by_one(name: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, processor = tiny_llava(grid=12)
    inputs, method = batch(processor, kind), make_method(name)
    together = run(model, inputs, method, monkeypatch)
    apart = run(model, inputs, method, monkeypatch, one_go=False)
    same(together, apart)
    assert apart.gone == []
    if name in ALONE:
        assert together.gone == []
    elif kind == EQUAL or name not in WITH_TEXT:
        assert set(together.gone) == {3}
        assert together.alone == set()
    else:
        assert {with_padding for _, with_padding in together.alone} == {True}


@pytest.mark.parametrize("name", sorted(set(method_names()) - ALONE))
def test_several_tiles_in_one_go(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, processor = tiny_llava_next(grid=6)
    inputs = batch(processor, LONGER_QUESTIONS, ((90, 160), (160, 90), (90, 160)))
    method = make_method(name)
    together = run(model, inputs, method, monkeypatch, budget=0.4)
    same(together, run(model, inputs, method, monkeypatch, one_go=False, budget=0.4))


def test_samples_that_differ_in_length_fall_into_groups_where_text_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    model, processor = tiny_llava(grid=12)
    images = [make_image(150, 110, seed=number) for number in range(4)]
    texts = [f"{SYSTEM}USER: <image>\n{question} ASSISTANT:" for question in ("Red?", "Blue and red?", "Red?", "Hm?")]
    inputs = processor(images=images, text=texts, padding=True, return_tensors="pt")
    method = make_method("sparsevlm")
    together = run(model, inputs, method, monkeypatch)
    assert set(together.gone) <= {2, 3}
    assert together.gone
    same(together, run(model, inputs, method, monkeypatch, one_go=False))


def test_a_prompt_without_an_image_stands_aside(monkeypatch: pytest.MonkeyPatch) -> None:
    model, processor = tiny_llava(grid=12)
    images = [make_image(150, 110, seed=number) for number in range(2)]
    texts = [f"{SYSTEM}USER: <image>\nRed? ASSISTANT:", f"{SYSTEM}USER: Red? ASSISTANT:"]
    inputs = processor(images=images, text=[texts[0], texts[1], texts[0]], padding=True, return_tensors="pt")
    for name in ("swiftvlm", "visionzip", "sparsevlm"):
        together = run(model, inputs, make_method(name), monkeypatch)
        assert set(together.gone) == {2}
        same(together, run(model, inputs, make_method(name), monkeypatch, one_go=False))


def test_only_the_class_itself_can_say_that_it_is_vectorized() -> None:
    method = make_method("fastv")
    assert is_vectorized(method)
    assert not is_vectorized(type("Loud", (type(method),), {})())
    assert not is_vectorized(watched(method, lambda look: None))
    assert is_vectorized(make_method("visionzip+pdrop"))
    assert not is_vectorized(make_method("visionzip+random[layers=16]"))
    assert {name for name in method_names() if not is_vectorized(make_method(name))} == ALONE


def test_who_looks_on_sees_every_sample() -> None:
    model, processor = tiny_llava(grid=12)
    seen: list[Any] = []
    with prune(model, watched(make_method("fastv"), seen.append), budget=0.4), torch.no_grad():
        model(**batch(processor, EQUAL), use_cache=True)
    assert [look.edit.index.shape for look in seen] == [seen[0].edit.index.shape] * 3


def vectorized(act: Any, **options: Any) -> Probe:
    made = probe(act, **options)
    type(made).vectorized = True
    return made


def test_what_reads_a_tensor_is_asked_one_by_one_from_then_on(monkeypatch: pytest.MonkeyPatch) -> None:
    model, processor = tiny_llava(grid=12)
    asked: list[int] = []

    def act(signals: Signals) -> RowEdit:
        asked.append(1)
        return signals.keep(torch.arange(int(signals.states.sum() > 0) + 5))

    inputs = batch(processor, EQUAL)
    with prune(model, vectorized(act, kept=5), budget=0.4) as session, torch.no_grad():
        model(**inputs, use_cache=True)
        assert (sum(asked), session.asked_alone) == (1 + 3, {(3, False)})
        model(**inputs, use_cache=True)
        assert sum(asked) == 1 + 3 + 3


def test_a_fault_of_the_method_is_still_its_own() -> None:
    model, processor = tiny_llava(grid=12)

    def act(signals: Signals) -> RowEdit:
        raise RuntimeError("my own fault")

    with (
        prune(model, vectorized(act, kept=5), budget=0.4),
        pytest.raises(RuntimeError, match="my own fault"),
        torch.no_grad(),
    ):
        model(**batch(processor, EQUAL), use_cache=True)


@pytest.mark.parametrize("word", ["question_text", "generator"])
def test_what_samples_have_of_their_own_is_not_shared(word: str) -> None:
    model, processor = tiny_llava(grid=12)
    seen: list[Any] = []

    def act(signals: Signals) -> RowEdit:
        found = getattr(signals, word)
        seen.append(found if word == "question_text" else found.initial_seed())
        return signals.keep_all()

    with prune(model, vectorized(act, needs=["question_text"]), budget=0.4) as session, torch.no_grad():
        session.questions, session.sample_keys = ["one", "two", "three"], ["a", "b", "c"]
        model(**batch(processor, EQUAL), use_cache=True)
    assert len(set(seen)) == 3


def test_too_little_memory_for_all_is_enough_for_one(monkeypatch: pytest.MonkeyPatch) -> None:
    model, processor = tiny_llava(grid=12)
    inputs, method = batch(processor, EQUAL), make_method("fastv")
    expected = run(model, inputs, method, monkeypatch)

    def full(*args: Any, **kwargs: Any) -> Any:
        raise torch.OutOfMemoryError("full")

    with monkeypatch.context() as patched:
        patched.setattr(torch, "vmap", full)
        found = run(model, inputs, method, monkeypatch)
    assert (found.gone, found.alone) == ([], set())
    same(found, expected)


def test_large_images_are_not_looked_at_together(monkeypatch: pytest.MonkeyPatch) -> None:
    model, processor = tiny_llava(grid=12)
    inputs, method = batch(processor, EQUAL), make_method("fastv")
    for pairs, expected in ((144 * 144 * 3, [3]), (144 * 144 * 2, [2]), (144 * 144, [])):
        monkeypatch.setattr(consultation, "MOST_PAIRS", pairs)
        assert run(model, inputs, method, monkeypatch).gone == expected


@pytest.mark.parametrize("word", ["text_states", "num_question", "question_rows", "rotation"])
def test_samples_of_unequal_length_do_not_show_their_text(word: str) -> None:
    model, processor = tiny_llava(grid=12)
    refused: list[str] = []

    def act(signals: Signals) -> RowEdit:
        try:
            getattr(signals, word)
        except Apart as reason:
            refused.append(str(reason))
            raise
        return signals.keep_all()

    with prune(model, vectorized(act), budget=0.4) as session, torch.no_grad():
        model(**batch(processor, LONGER_QUESTIONS), use_cache=True)
        assert len(refused) == 1
        assert session.asked_alone == {(3, True)}


# values taken apart and put together


class Pair(NamedTuple):
    one: Tensor
    two: Tensor | None


@dataclass(frozen=True)
class Held:
    pair: Pair
    parts: list[Tensor]
    named: dict[str, Tensor]
    count: int

    @cached_property
    def total(self) -> Tensor:
        return self.pair.one.sum() + self.parts[0].sum()


def held(value: float, count: int = 2) -> Held:
    return Held(Pair(torch.full((2,), value), None), [torch.full((3,), value)], {"a": torch.tensor(value)}, count)


def test_a_value_with_other_tensors_forgets_what_it_has_cached() -> None:
    given = held(1.0)
    assert given.total == 5
    made = with_tensors(given, iter([2 * tensor for tensor in tensors_of(given)]))
    assert isinstance(made, Held)
    assert (made.total, made.pair.one.tolist(), made.pair.two, made.named["a"], made.count) == (10, [2, 2], None, 2, 2)


def test_form_is_everything_but_the_numbers() -> None:
    assert form(held(1.0)) == form(held(2.0))
    for other in (held(1.0, count=3), replace(held(1.0), parts=[]), replace(held(1.0), named={"b": torch.ones(())})):
        assert form(held(1.0)) != form(other)
    assert form([torch.ones(2)]) != form([torch.ones(3)])
    assert form([torch.ones(2)]) != form([torch.ones(2).double()])
    assert form([torch.ones(2)]) != form((torch.ones(2),))
    assert form({}) == form({})


def test_neighbours_in_memory_are_not_copied() -> None:
    whole = torch.arange(24.0).view(4, 3, 2)
    for tensors, copied in (
        ([whole[0], whole[1], whole[2]], False),
        ([whole[0, 1:], whole[2, 1:]], False),
        ([whole[2], whole[1]], True),
        ([whole[0], whole[1], whole[3]], True),
        ([whole[0], whole[1].clone()], True),
        ([whole[0].T, whole[1].T], False),
        ([whole[0, :2, :2], whole[1, :2, :2].T], True),
    ):
        found, dim = side_by_side(tensors)
        assert dim == 0
        assert torch.equal(found, torch.stack(tensors))
        assert (found.untyped_storage().data_ptr() != whole.untyped_storage().data_ptr()) == copied
    assert side_by_side([whole[1], whole[1]])[1] is None


def test_a_class_variable_is_what_says_so() -> None:
    class Said(Probe):
        vectorized: ClassVar[bool] = True

    assert is_vectorized(Said(act=lambda signals: signals.keep_all()))
    assert not is_vectorized(probe(lambda signals: None))
