"""Prompts of documents are those that a run of lmms-eval gives to the model."""

from typing import Any

import pytest
from lmms.tiny_runs import checkpoint, evaluate, make_model
from small_sweeps import documents

from swiftvlm_eval.analysis.sampled_prompts import SampledPrompts, naming
from swiftvlm_eval.models.checkpoint import Checkpoint

TASKS = ("demo_gqa", "demo_refcoco")


def test_a_prompt_is_what_lmms_eval_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    encode = Checkpoint.encode_on_host

    def note(self: Checkpoint, *arguments: Any) -> Any:
        asked.append(encode(self, *arguments))
        return asked[-1]

    monkeypatch.setattr(Checkpoint, "encode_on_host", note)
    evaluate(make_model("vanilla", budget=1), *TASKS, limit=1)
    of_a_run, asked = list(asked), asked
    prompts = SampledPrompts(documents(), 3)
    own = [prompts.prompt(number, checkpoint()) for number, key in enumerate(prompts.keys) if key.endswith("/0")]
    assert [prompt.key for prompt in own] == [f"{task}/0" for task in TASKS]
    runs = {inputs["input_ids"].numpy().tobytes(): inputs for inputs in of_a_run}
    assert len(runs) == 2
    for prompt in own:
        inputs = runs[prompt.inputs["input_ids"].numpy().tobytes()]
        assert (inputs["pixel_values"] == prompt.inputs["pixel_values"]).all()
        assert prompt.num_visual == 16 and prompt.num_text == inputs["input_ids"].numel() - 16
        assert "<image>" not in prompt.question and prompt.question


def test_documents_are_spread_over_every_task() -> None:
    prompts = SampledPrompts(documents(), 4)
    assert len(prompts.keys) == len(set(prompts.keys)) == 8
    for task in TASKS:
        numbers = [int(key.split("/")[1]) for key in prompts.keys if key.startswith(f"{task}/")]
        assert numbers == sorted(numbers) and numbers[-1] >= documents().counts[task] * 0.7


def test_more_samples_than_documents_are_refused() -> None:
    least = min(documents().counts.items(), key=lambda pair: pair[1])
    with pytest.raises(ValueError, match=r"samples=1000000: \w+ has \d+ documents; allowed are 1 to \d+"):
        SampledPrompts(documents(), 1_000_000)
    with pytest.raises(ValueError, match=f"{least[0]} has {least[1]} documents"):
        SampledPrompts(documents(), least[1] + 1)


def test_a_document_without_an_image_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    prompts = SampledPrompts(documents(), 1)
    monkeypatch.setattr(prompts._tasks["demo_gqa"], "doc_to_visual", lambda document: [])
    with pytest.raises(ValueError, match="demo_gqa doc_id 0: it has no image; allowed are"):
        prompts.prompt(prompts.keys.index("demo_gqa/0"), checkpoint())


def test_a_language_model_without_a_prompt_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    prompts = SampledPrompts(documents(), 1)
    monkeypatch.setattr(checkpoint().model.config.text_config, "model_type", "opt")
    with pytest.raises(ValueError, match="language model 'opt': no prompt is known; allowed are llama, mistral"):
        prompts.prompt(0, checkpoint())


def test_what_goes_wrong_names_the_document() -> None:
    with pytest.raises(RuntimeError, match="^demo_gqa/7: in two lines$"), naming("demo_gqa/7"):
        raise ValueError("in two\n lines")
