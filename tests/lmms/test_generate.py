"""Answers: order, batches, stop strings, failures, and what each answer says of itself."""

from typing import Any

import pytest
import torch
from lmms.tiny_runs import (
    QUESTIONS,
    SIZES,
    SYSTEM,
    TASK,
    checkpoint,
    evaluate,
    make_model,
    make_requests,
    squared,
    visuals,
)
from PIL import Image

from swiftvlm_eval.lmms import reporting
from swiftvlm_eval.lmms.answering import cut_at, generation_arguments
from swiftvlm_eval.runs.report import RunDescription
from swiftvlm_eval.testing.tiny_models import make_image

SHORT = {"max_new_tokens": 6}
RUN_KEYS = {
    *(
        "method",
        "options",
        "caveat",
        "budget",
        "schedule",
        "planned_mean",
        "pretrained",
        "revision",
        "family",
        "shape",
        "seed",
    ),
    *(
        "dtype",
        "device",
        "attn_implementation",
        "batch_size",
        "batch_size_choice",
        "image_mode",
        "system_prompt_sha256",
        "source_sha256",
        "world_size",
        "versions",
        "commit",
    ),
}


def stock_answer(family: str, question: str, images: list[Image.Image], tokens: int) -> str:
    """The library by itself: its processor on the whole prompt, its own generate()."""
    own = checkpoint(family)
    prompt = f"{SYSTEM} USER: {'<image>' + chr(10) if images else ''}{question} ASSISTANT:"
    ready = [squared(image) if family == "llava" else image for image in images]
    inputs = own.processor(text=prompt, images=ready or None, return_tensors="pt")
    with torch.no_grad():
        ids = own.model.generate(**inputs, max_new_tokens=tokens, do_sample=False)
    return str(own.tokenizer.decode(ids[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)).strip()


@pytest.mark.parametrize("family", ["llava", "llava_next"])
def test_vanilla_answers_are_those_of_the_stock_library(family: str) -> None:
    model = make_model("vanilla", family=family)
    answers = model.generate_until(make_requests(model, [SHORT] * 4))
    expected = [
        stock_answer(family, question, [make_image(*size)], 6)
        for question, size in zip(QUESTIONS[:4], SIZES[:4], strict=True)
    ]
    assert [answer.text for answer in answers] == expected
    assert len(set(expected)) > 1 and all(expected)


def test_prompts_without_images_run_unpruned() -> None:
    model = make_model("fastv", budget=0.4)
    (answer,) = model.generate_until(make_requests(model, [SHORT], sizes=[[]]))
    assert answer.text == stock_answer("llava", QUESTIONS[0], [], 6)
    report = answer.token_counts.to_dict()["swiftvlm"]
    assert (report["visual_tokens"], report["rows_per_layer"]) == (0, [[0, 12]])


def test_answers_come_in_request_order_whatever_their_arguments() -> None:
    wanted = [{"max_new_tokens": 1 + number % 3} for number in range(6)]
    model = make_model("fastv", budget=0.5, batch_size=2)
    requests = make_requests(model, wanted)
    answers = model.generate_until(requests)
    assert [answer.token_counts.output_tokens for answer in answers] == [1, 2, 3, 1, 2, 3]
    alone = [model.generate_until([request])[0].text for request in requests]
    assert [answer.text for answer in answers] == alone
    assert len(set(alone)) > 3
    assert [request.args[1] for request in requests] == wanted  # lmms-eval logs them later


@pytest.mark.parametrize(
    ("method", "family"),
    [("swiftvlm", "llava"), ("random", "llava"), ("fastv", "llava_next"), ("vanilla", "llava_next")],
)
def test_batches_change_nothing(method: str, family: str) -> None:
    found = {}
    for size in (1, 3):
        model = make_model(method, family=family, budget=0.6, batch_size=size)
        answers = model.generate_until(make_requests(model, [{"max_new_tokens": 8}] * 5))
        counts = [answer.token_counts.to_dict() for answer in answers]
        found[size] = [
            (answer.text, own["input_tokens"], own["output_tokens"], own["swiftvlm"]["rows_per_layer"])
            for answer, own in zip(answers, counts, strict=True)
        ]
        timed = [own["swiftvlm"]["total_s"] is not None and own["swiftvlm"]["prefill_s"] is not None for own in counts]
        assert timed == [size == 1] * 5  # the time of a batch is nobody's
    assert found[1] == found[3]
    assert len({text for text, *_ in found[1]}) > 2


@pytest.mark.parametrize("batch_size", [1, 3])
def test_each_answer_names_its_image(batch_size: int) -> None:
    sizes = [[(70, 50)], [(50, 70)], [(70, 50)], [], [(70, 50), (50, 70)]]
    model = make_model("fastv", budget=0.6, batch_size=batch_size)
    answers = model.generate_until(make_requests(model, [{"max_new_tokens": 1}] * 5, sizes=sizes))
    first, second, again, none, two = (answer.token_counts.to_dict()["swiftvlm"]["image"] for answer in answers)
    assert first == again and none is None
    assert len({first, second, two}) == 3


def test_random_pruning_follows_the_seed_and_the_document() -> None:
    def kept(seed: int, order: list[int]) -> dict[int, list[int]]:
        model = make_model("random", budget=0.5, seed=seed)
        requests = make_requests(model, [{"max_new_tokens": 1}] * 3, sizes=[[(60, 60)]] * 3)
        found = {}
        for number in order:
            # one question and one image: only the document's number tells the prompts apart
            requests[number].arguments = ("Why?", *requests[number].arguments[1:])
            model.generate_until([requests[number]])
            found[number] = model.session.traces[0].stages[0].index.tolist()
        return found

    first = kept(0, [0, 1, 2])
    assert first == kept(0, [2, 1, 0])
    assert len({tuple(index) for index in first.values()}) == 3
    assert first != kept(1, [0, 1, 2])


def test_until_cuts_the_answer() -> None:
    model = make_model("vanilla")
    (whole,) = model.generate_until(make_requests(model, [SHORT]))
    stop = whole.text[len(whole.text) // 2]
    (cut,) = model.generate_until(make_requests(model, [{**SHORT, "until": ["never seen", stop]}]))
    assert cut.text == whole.text.split(stop)[0].strip() != whole.text
    # tokens are counted as they were made
    assert cut.token_counts.output_tokens == whole.token_counts.output_tokens == 6


@pytest.mark.parametrize(
    ("text", "until", "expected"),
    [
        (" a b ", None, "a b"),
        ("a b", [], "a b"),
        ("a b c", "b", "a"),
        ("a b c", ["c", "b"], "a"),
        ("a\n\nb", ["\n\n"], "a"),
        ("a b", ["", "x"], "a b"),
        ("b a", ["b"], ""),
    ],
)
def test_cutting(text: str, until: Any, expected: str) -> None:
    assert cut_at(text, until) == expected


def test_tokens_after_the_end_are_not_counted() -> None:
    """In a batch the library fills up answers that ended earlier."""
    model = make_model("vanilla")
    end = model.checkpoint.tokenizer.eos_token_id
    sequence = torch.tensor([7, 8, 9, 11, 12, end, 0, 0])
    assert model.answering._emitted(sequence, 3) == [11, 12, end]
    assert model.answering._emitted(sequence[:5], 3) == [11, 12]


def test_padding_clones_are_answered_but_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """With several processes lmms-eval repeats a request on ranks that have fewer."""
    noted: list[dict[str, Any]] = []
    monkeypatch.setattr(reporting, "log_metrics", lambda **metrics: noted.append(metrics))
    model = make_model("fastv", budget=0.5)
    requests = make_requests(model, [SHORT] * 3)
    requests[2].metadata["__padding_only__"] = True
    answers = model.generate_until(requests)
    model.clean()
    assert len(answers) == 3 and answers[2].text
    (metrics,) = noted
    assert metrics["total_gen_tokens"] == 12
    executed = sum(count * layers for count, layers in answers[0].token_counts.report.rows_per_layer) / 12
    assert metrics["additional_metrics"] == {"n_samples": 2, "mean_visual_tokens": pytest.approx(executed)}


def test_a_failing_document_is_named() -> None:
    def fails_on_the_second(document: Any) -> list[Image.Image]:
        if document["sizes"] == [SIZES[1]]:
            raise OSError("image is gone")
        return visuals(document)

    model = make_model("vanilla")
    requests = make_requests(model, [SHORT] * 3, doc_to_visual=fails_on_the_second)
    with pytest.raises(RuntimeError, match=f"{TASK} doc_id 1: image is gone"):
        model.generate_until(requests)
    # the stock forward is back in its place, and the model works on
    assert "forward" not in model.checkpoint.adapter.decoder.module.__dict__
    assert model.generate_until(requests[:1])[0].text


def test_visuals_that_are_no_images_are_refused() -> None:
    model = make_model("vanilla")
    with pytest.raises(RuntimeError, match=f"{TASK} doc_id 0: visual of type str: only images"):
        model.generate_until(make_requests(model, [SHORT], doc_to_visual=lambda document: ["clip.mp4"]))


def test_a_budget_that_the_document_makes_impossible_is_explained() -> None:
    model = make_model("fastv", budget=0.01)
    with pytest.raises(RuntimeError, match=rf"{TASK} doc_id 0: budget=0.01 of 16 visual tokens .*feasible"):
        model.generate_until(make_requests(model, [SHORT]))


def test_multi_round_tasks_are_refused() -> None:
    with pytest.raises(NotImplementedError, match="multi-round"):
        make_model("vanilla").generate_until_multi_round([])


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, {"max_new_tokens": 1024, "num_beams": 1, "do_sample": False, "temperature": None, "top_p": None}),
        ({"max_new_tokens": 16, "temperature": 0, "top_p": 0.9}, {"max_new_tokens": 16, "top_p": None}),
        ({"do_sample": True, "temperature": 0}, {"do_sample": False, "temperature": None}),
        ({"do_sample": True, "temperature": 0.7, "top_p": 0.9}, {"do_sample": True, "temperature": 0.7, "top_p": 0.9}),
        ({"num_beams": 3, "until": ["\n"], "max_new_tokens": None}, {"num_beams": 3, "max_new_tokens": 1024}),
    ],
)
def test_generation_is_greedy_unless_asked(given: dict[str, Any], expected: dict[str, Any]) -> None:
    found = generation_arguments(given)
    assert {key: found[key] for key in expected} == expected
    assert "until" not in found


def test_a_run_of_the_demo_tasks_describes_itself() -> None:
    """Through lmms-eval: 12 layers, 16 visual tokens; FastV at one half cuts after layer 1 of 12."""
    model = make_model("fastv", budget="1/2")
    output = evaluate(model, "demo", limit=2)
    assert set(output["samples"]) == {"demo_refcoco", "demo_textvqa", "demo_gqa", "demo_pope"}
    for task, samples in output["samples"].items():
        described = []
        for sample in samples:
            (counts,) = sample["token_counts"]
            report = counts["swiftvlm"]
            rows = [count for count, layers in report["rows_per_layer"] for _ in range(layers)]
            # (16 + 11 * 7) / 12 = 7.75 is within half a token of 8
            assert rows == [16] + [7] * 11
            assert report["visual_tokens"] == 16
            assert report["text_tokens"] == counts["input_tokens"] - 16
            assert 0 < counts["output_tokens"] <= 128
            assert 0 < report["prefill_s"] <= report["total_s"]
            # one query and its products with all rows, in hidden size 64; FastV's paper counts no selection
            selection = {"queries": 64**2 / 1e12, "attention": (16 + report["text_tokens"]) * 64 / 1e12}
            assert report["selection_flops_t"] == pytest.approx(selection)
            for key, text in (("flops_t", report["text_tokens"]), ("flops_paper_t", 70)):
                # hidden 64, intermediate 128: 4nd^2 + 2n^2d + 3ndm in each layer
                flops = sum(4 * n * 64**2 + 2 * n**2 * 64 + 3 * n * 64 * 128 for n in (row + text for row in rows))
                flops += sum(selection.values()) * 1e12 if key == "flops_t" else 0
                assert report[key] == pytest.approx(flops / 1e12)
            described.append(report.get("run"))
        run = described[0]
        assert run and described[1:] == [None], task
        assert set(run) == RUN_KEYS == set(RunDescription.model_fields)
        assert run["planned_mean"] == pytest.approx(7.75) == sum(rows) / 12
        assert (run["method"], run["budget"], run["schedule"]) == ("fastv", 0.5, "exact")
        assert run["options"] == {"layers": None, "counts": None, "schedule": "exact", "scope": "all"}
        assert run["shape"]["num_layers"] == 12
        assert (run["pretrained"], run["family"], run["image_mode"]) == ("tiny", "llava", "pad")
        assert (run["dtype"], run["device"], run["attn_implementation"]) == ("float32", "cpu", "sdpa")
        assert (run["batch_size"], run["world_size"], run["seed"]) == (1, 1, 0)
        assert {"torch", "transformers", "lmms-eval", "swiftvlm-eval"} <= set(run["versions"])
    assert output["throughput"]["avg_n_samples"] == 8
    assert output["throughput"]["avg_mean_visual_tokens"] == pytest.approx(7.75)
    assert output["results"]["demo_pope"]["pope_accuracy,none"] >= 0


def test_a_failing_document_ends_the_run_of_lmms_eval(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model("vanilla")
    monkeypatch.setattr(model.checkpoint, "encode_on_host", lambda *_: (_ for _ in ()).throw(MemoryError("too large")))
    with pytest.raises(RuntimeError, match="demo_gqa doc_id 0: too large"):
        evaluate(model, "demo_gqa", limit=1)
