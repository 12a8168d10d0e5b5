"""Compiled models: layers may be, a whole model is refused, since the selection would be traced with it."""

from typing import Any

import pytest
import torch

from swiftvlm_eval import make_method, prune
from swiftvlm_eval.testing.tiny_models import make_image, make_inputs, tiny_llava


@pytest.fixture
def model_and_inputs() -> tuple[Any, Any]:
    model, processor = tiny_llava(layers=8, fresh=True)
    return model, make_inputs(processor, make_image(60, 60))


@pytest.mark.parametrize("part", ["wrapped", "model", "core", "decoder"])
def test_a_model_that_is_compiled_whole_is_refused(model_and_inputs: tuple[Any, Any], part: str) -> None:
    model, _ = model_and_inputs
    name = "LlavaForConditionalGeneration"
    given = model
    if part == "wrapped":
        given = torch.compile(model, backend="eager")
    elif part == "model":
        model.compile(backend="eager")
    elif part == "core":
        model.model.compile(backend="eager")
        name = "LlavaModel"
    else:
        model.model.language_model.compile(backend="eager")
        name = "LlamaModel"
    with (
        pytest.raises(ValueError, match=f"^{name} is compiled as a whole; allowed is"),
        prune(given, make_method("fastv")),
    ):
        pytest.fail("bound")


def test_compiled_layers_answer_as_the_others(model_and_inputs: tuple[Any, Any]) -> None:
    """With a backend that computes nothing anew: the same rows, the same logits, in every stage."""
    model, inputs = model_and_inputs
    found = []
    for compiled in (False, True):
        if compiled:
            torch._dynamo.reset()
            for layer in model.model.language_model.layers:
                layer.compile(backend="eager")
        with torch.no_grad(), prune(model, make_method("swiftvlm"), budget=0.6) as session:
            logits = model(**inputs, use_cache=True).logits
            found.append((logits, [stage.index.tolist() for stage in session.traces[0].stages]))
    assert torch.equal(found[0][0], found[1][0]) and found[0][1] == found[1][1] and found[0][1]
