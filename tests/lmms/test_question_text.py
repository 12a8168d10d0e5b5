"""Methods that read the question as text get it from the requests of lmms-eval."""

from typing import Any

import pytest
from lmms.tiny_runs import QUESTIONS, make_model, make_requests, score_request
from probe_methods import probe

from swiftvlm_eval.lmms import model as model_module
from swiftvlm_eval.models.prompts import without_images


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Questions that a method saw, in the place of any method that is asked for."""
    seen: list[str] = []
    method = probe(lambda signals: seen.append(signals.question_text), needs=["question_text"])
    monkeypatch.setattr(model_module, "make_method", lambda name, options: method)
    return seen


@pytest.mark.parametrize(("batch_size", "order"), [(1, [0, 1, 2, 3]), (2, [3, 1, 2, 0])])  # batches: longest first
def test_every_sample_has_its_own_question(asked: list[str], batch_size: int, order: list[int]) -> None:
    model = make_model(batch_size=batch_size)
    model.generate_until(make_requests(model, [{"max_new_tokens": 1}] * 4))
    assert asked == [QUESTIONS[number] for number in order]


def test_beams_share_their_question(asked: list[str]) -> None:
    model = make_model(batch_size=2)
    model.generate_until(make_requests(model, [{"max_new_tokens": 1, "num_beams": 2}] * 2))
    assert set(asked) == set(QUESTIONS[:2])


def test_placeholders_are_no_part_of_it(asked: list[str]) -> None:
    model = make_model()
    (request,) = make_requests(model, [{"max_new_tokens": 1}])
    request.arguments = ("<image>\nWhat is it?", *request.arguments[1:])
    model.generate_until([request])
    assert asked == ["What is it?"]


def test_the_context_of_a_continuation_is_its_question(asked: list[str]) -> None:
    model = make_model()
    model.loglikelihood([score_request(model, "Which one?", " red")])
    assert asked == ["Which one?"]


@pytest.mark.parametrize(
    ("text", "words"),
    [("Why?", "Why?"), ("<image>\n<image>\nWhy?", "Why?"), ("In <image>: why?", "In : why?"), ("<image>", "")],
)
def test_words_without_placeholders(text: Any, words: str) -> None:
    assert without_images(text) == words
