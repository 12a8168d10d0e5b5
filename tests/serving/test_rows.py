"""Exported rows in the stock decoder answer as the method does, and what cannot be served is refused."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from tiny_checkpoint import in_memory

from swiftvlm_eval import make_method, method_names, prune
from swiftvlm_eval.models.checkpoint import Checkpoint, load_checkpoint
from swiftvlm_eval.models.images import image_digest
from swiftvlm_eval.models.prompts import vicuna_v1
from swiftvlm_eval.pruning.contract import PruningMethod
from swiftvlm_eval.pruning.describe import not_servable, outline
from swiftvlm_eval.pruning.engine import PruningSession
from swiftvlm_eval.serving import rows as serving_rows
from swiftvlm_eval.serving.rows import visual_rows
from swiftvlm_eval.testing.greedy import STEPS, generate
from swiftvlm_eval.testing.tiny_models import make_image

QUESTION = "Provide the bounding box."
IMAGE = make_image(150, 110)
# by hand from docs/methods.md: all that act before the decoder and nowhere else
SERVED = {
    *("cdpruner", "divprune", "downsample", "fastervlm", "hiprune", "holov", "prumerge", "prumerge_plus"),
    *("prunesid", "scope", "score", "tome", "vanilla", "visionzip", "vispruner"),
}


def checkpoints() -> Iterator[Any]:
    yield pytest.param(lambda: in_memory("llava", grid=12), id="llava")
    yield pytest.param(lambda: in_memory("llava_next", grid=6), id="llava_next")
    yield pytest.param(lambda: load_checkpoint("demo", device="cpu"), id="demo")


@pytest.fixture(scope="module", params=checkpoints())
def checkpoint(request: pytest.FixtureRequest) -> Any:
    return request.param()


@pytest.fixture(scope="module")
def tiny() -> Checkpoint:
    return in_memory("llava", grid=4)


def stock_answer(checkpoint: Checkpoint, states: torch.Tensor, question: str) -> Any:
    """The stock model on text, rows, text: no pruning code runs, and it numbers positions itself."""
    tokenizer, embed = checkpoint.tokenizer, checkpoint.model.get_input_embeddings()
    before, after = vicuna_v1(question).split("<image>")
    start = [tokenizer.bos_token_id, *tokenizer(before, add_special_tokens=False).input_ids]
    end = tokenizer(after, add_special_tokens=False).input_ids
    whole = torch.cat([embed(torch.tensor(start)), states, embed(torch.tensor(end))])[None]
    return generate(checkpoint.model, {"inputs_embeds": whole, "attention_mask": torch.ones(whole.shape[:2]).long()})


def pruned_answer(checkpoint: Checkpoint, method: PruningMethod, share: float, question: str) -> Any:
    inputs = checkpoint.encode([vicuna_v1(question)], [[IMAGE]])
    with prune(checkpoint.model, method, share) as session:
        session.sample_keys = [str(image_digest([IMAGE]))]
        return generate(checkpoint.model, inputs)


def test_what_can_be_served() -> None:
    assert {name for name in method_names() if not not_servable(make_method(name))} == SERVED
    for name in method_names():
        facts = outline(make_method(name))
        assert facts["servable"] is (name in SERVED) and bool(facts["not_servable_because"]) is (name not in SERVED)


@pytest.mark.parametrize(
    ("method", "reason"),
    [
        ("fastv", "inside the decoder (after layer "),
        ("vscan", "inside the decoder (after layer "),
        ("visionzip+random[layers=3]", "inside the decoder (after layer 3)"),
        ("fastervlm[positions=keep]", "keeps the position ids"),
        ("random[layers=0]", "keeps the position ids"),
    ],
)
def test_what_cannot_be_served_says_why(tiny: Checkpoint, method: str, reason: str) -> None:
    with pytest.raises(ValueError, match=f"^method=.*{re.escape(reason)}"):
        visual_rows(tiny, make_method(method), 0.5, IMAGE)
    assert reason in not_servable(make_method(method))


@pytest.mark.parametrize("name", sorted(SERVED))
def test_the_stock_decoder_answers_as_the_method_does(checkpoint: Checkpoint, name: str) -> None:
    """To the bit: the same rows, the same kernel, the same order of operations."""
    method, share = make_method(name), 1.0 if name == "vanilla" else 0.4
    rows = visual_rows(checkpoint, method, share, IMAGE)
    ours = pruned_answer(checkpoint, method, share, QUESTION)
    served = stock_answer(checkpoint, rows.states, QUESTION)
    assert (len(rows.states) < rows.before) is (name != "vanilla")
    assert torch.equal(ours.sequences[:, -STEPS:], served.sequences[:, -STEPS:])
    for expected, got in zip(ours.logits, served.logits, strict=True):
        assert torch.equal(expected, got)


def test_the_comparison_sees_other_rows_another_order_and_other_positions() -> None:
    checkpoint = in_memory("llava", grid=12)
    method = make_method("visionzip")
    states = visual_rows(checkpoint, method, 0.4, IMAGE).states
    wanted = pruned_answer(checkpoint, method, 0.4, QUESTION).logits[0]
    for other in (states.flip(0), states[:-1], visual_rows(checkpoint, method, 0.4, make_image(90, 160)).states):
        assert not torch.allclose(stock_answer(checkpoint, other, QUESTION).logits[0], wanted, atol=1e-4)
    compact = visual_rows(checkpoint, make_method("fastervlm"), 0.4, IMAGE).states
    kept = pruned_answer(checkpoint, make_method("fastervlm[positions=keep]"), 0.4, QUESTION).logits[0]
    assert not torch.allclose(stock_answer(checkpoint, compact, QUESTION).logits[0], kept, atol=1e-4)


def test_rows_at_other_positions_are_refused_whatever_the_method_says(
    tiny: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving_rows, "why_plan_not_servable", lambda method, plan: "")
    with pytest.raises(RuntimeError, match="other positions than 0 to n-1"):
        visual_rows(tiny, make_method("fastervlm[positions=keep]"), 0.5, IMAGE)


def test_a_method_that_reads_the_question_needs_one(tiny: Checkpoint) -> None:
    method = make_method("cdpruner[relevance=embed]")
    with pytest.raises(ValueError, match=r"^question=None: cdpruner .* allowed is the text of one"):
        visual_rows(tiny, method, 0.5, IMAGE)
    rows = visual_rows(tiny, method, 0.5, IMAGE, QUESTION)
    ours, served = pruned_answer(tiny, method, 0.5, QUESTION), stock_answer(tiny, rows.states, QUESTION)
    assert torch.equal(ours.logits[0], served.logits[0])


def test_a_method_that_drops_nothing_takes_no_budget(tiny: Checkpoint) -> None:
    for text in ("vanilla", "downsample[form=blur]"):
        with pytest.raises(ValueError, match="drops no rows; allowed is 1"):
            visual_rows(tiny, make_method(text), 0.5, IMAGE)


def test_the_run_ends_at_the_first_layer_and_the_model_is_itself_again(tiny: Checkpoint) -> None:
    ran: list[int] = []
    hooks = [
        layer.register_forward_hook(lambda *_, number=number: ran.append(number))
        for number, layer in enumerate(tiny.adapter.decoder.layers)
    ]
    visual_rows(tiny, make_method("visionzip"), 0.5, IMAGE, QUESTION)
    for hook in hooks:
        hook.remove()
    assert ran == []
    assert not tiny.adapter.decoder.layers[0]._forward_pre_hooks
    with PruningSession(tiny.adapter, make_method("vanilla"), None).bound():  # nothing is bound any more
        pass
