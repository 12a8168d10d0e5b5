"""Scores of continuations against one plain forward pass of the stock model over the whole text."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lmms.tiny_runs import SYSTEM, checkpoint, evaluate, make_model, make_requests, score_request, squared
from lmms_eval.tasks import TaskManager
from torch.nn.functional import log_softmax

from swiftvlm_eval.lmms.answering import Answering
from swiftvlm_eval.testing.tiny_models import make_image

SIZE = (70, 50)


def stock_score(question: str, continuation: str, images: bool = True) -> tuple[float, bool]:
    """Mean negative log-likelihood and greediness, by one forward pass without a cache."""
    own = checkpoint()
    prompt = f"{SYSTEM} USER: {'<image>' + chr(10) if images else ''}{question} ASSISTANT:"
    picture = squared(make_image(*SIZE)) if images else None
    start = own.processor(text=prompt, images=picture, return_tensors="pt")["input_ids"].shape[1]
    inputs = own.processor(text=prompt + continuation, images=picture, return_tensors="pt")
    with torch.no_grad():
        logits = own.model(**inputs).logits[0, start - 1 : -1]
    wanted = inputs["input_ids"][0, start:]
    losses = [-float(log_softmax(row, dim=0)[token]) for row, token in zip(logits, wanted, strict=True)]
    return sum(losses) / len(losses), logits.argmax(dim=1).tolist() == wanted.tolist()


def greedy_text(monkeypatch: pytest.MonkeyPatch, method: str, tokens: int, **options: Any) -> tuple[str, str]:
    """A question, and an answer of the model that is tokenised back into the tokens it was made of."""
    model = make_model(method, **options)
    tokenizer, emitted = model.checkpoint.tokenizer, Answering._emitted
    for number in range(200):
        question = f"What is {number}?"
        (request,) = make_requests(model, [{"max_new_tokens": tokens}], sizes=[[SIZE]])
        request.arguments = (question, *request.arguments[1:])
        made: list[int] = []
        monkeypatch.setattr(Answering, "_emitted", lambda *args, made=made: made.extend(emitted(*args)) or made)
        model.generate_until([request])
        text = tokenizer.decode(made)
        whole = tokenizer("ASSISTANT:" + text, add_special_tokens=False).input_ids
        if whole == tokenizer("ASSISTANT:", add_special_tokens=False).input_ids + made and text == text.rstrip():
            return question, text
    raise AssertionError("no answer can be tokenised back")


@pytest.mark.parametrize("choice", [" A", " Yes", "A", " a red square left of it"])
def test_choices_are_scored_as_the_stock_model_scores_them(choice: str) -> None:
    model = make_model("vanilla")
    (found,) = model.loglikelihood([score_request(model, "Which one?", choice)])
    loss, greedy = stock_score("Which one?", choice)
    assert found.text == (pytest.approx(loss, abs=1e-4), greedy)
    tokens = len(model.checkpoint.tokenizer(f"ASSISTANT:{choice}", add_special_tokens=False).input_ids)
    start = len(model.checkpoint.tokenizer("ASSISTANT:", add_special_tokens=False).input_ids)
    assert found.token_counts.output_tokens == tokens - start


def test_one_and_several_tokens_were_tried() -> None:
    tokenizer = checkpoint().tokenizer
    choices = (" A", " a red square left of it")
    lengths = [len(tokenizer(choice, add_special_tokens=False).input_ids) for choice in choices]
    assert lengths[0] == 1 and lengths[1] > 3


def test_a_target_function_gets_its_space() -> None:
    model = make_model("vanilla")
    (found,) = model.loglikelihood([score_request(model, "Which one?", lambda document: "red ")])
    assert found.text[0] == pytest.approx(stock_score("Which one?", " red")[0], abs=1e-4)
    assert found.text[0] != pytest.approx(stock_score("Which one?", "  red")[0], abs=1e-2)


def test_text_alone() -> None:
    model = make_model("fastv", budget=0.5)
    (found,) = model.loglikelihood([score_request(model, "Which one?", " red", sizes=[])])
    assert found.text[0] == pytest.approx(stock_score("Which one?", " red", images=False)[0], abs=1e-4)


@pytest.mark.parametrize("tokens", [1, 2])
def test_the_greedy_continuation_is_recognised(monkeypatch: pytest.MonkeyPatch, tokens: int) -> None:
    question, text = greedy_text(monkeypatch, "vanilla", tokens)
    model = make_model("vanilla")
    (found,) = model.loglikelihood([score_request(model, question, text)])
    loss, greedy = stock_score(question, text)
    assert greedy and found.text == (pytest.approx(loss, abs=1e-4), True)
    assert found.token_counts.output_tokens == tokens


@pytest.mark.parametrize("tokens", [1, 2])
def test_pruned_scores_agree_with_pruned_answers(monkeypatch: pytest.MonkeyPatch, tokens: int) -> None:
    question, text = greedy_text(monkeypatch, "fastv", tokens, budget=0.3)
    model = make_model("fastv", budget=0.3)
    (found,) = model.loglikelihood([score_request(model, question, text)])
    assert found.text[1] is True
    assert found.text[0] != pytest.approx(stock_score(question, text)[0], abs=1e-4)
    rows = found.token_counts.to_dict()["swiftvlm"]["rows_per_layer"]
    assert rows[0] == [16, 1] and rows[-1][0] < 16


def test_a_failing_document_is_named() -> None:
    model = make_model("vanilla")
    with pytest.raises(RuntimeError, match="by_hand doc_id 0: continuation=''"):
        model.loglikelihood([score_request(model, "Which one?", lambda document: " ")])


def test_multiple_choice_through_lmms_eval(tmp_path: Path) -> None:
    """lmms-eval takes the choice with the smallest loss."""
    choices = ["red", "blue circle", "yes"]
    (tmp_path / "data.jsonl").write_text('{"question": "Which one?"}\n{"question": "What is it?"}\n')
    (tmp_path / "functions.py").write_text("def no_visual(doc):\n    return []\n")
    (tmp_path / "choice.yaml").write_text(
        "task: toy_choice\ndataset_path: json\ndataset_kwargs: {data_files: {test: data.jsonl}}\ntest_split: test\n"
        "output_type: multiple_choice\ndoc_to_visual: !function functions.no_visual\ndoc_to_text: question\n"
        f"doc_to_target: 0\ndoc_to_choice: {choices}\nmetadata: {{version: 1.0}}\n"
        "metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]\n"
    )
    manager = TaskManager(include_path=str(tmp_path), include_defaults=False)
    output = evaluate(make_model("vanilla"), "toy_choice", manager=manager)
    for sample, question in zip(output["samples"]["toy_choice"], ("Which one?", "What is it?"), strict=True):
        losses = [stock_score(question, f" {choice}", images=False)[0] for choice in choices]
        found = [resp[0][0] for resp in sample["resps"]]
        assert found == [pytest.approx(loss, abs=1e-4) for loss in losses]
        assert sample["acc"] == float(losses.index(min(losses)) == 0)
