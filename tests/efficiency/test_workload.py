"""Workloads: the visual tokens that a model really makes, the names, and what is refused."""

from typing import Any

import pytest
import torch

from swiftvlm_eval.efficiency.workload import NAMED, Workload, build_inputs, build_model, read_workload
from swiftvlm_eval.models.shape import DecoderShape
from swiftvlm_eval.pruning.prune import prune
from swiftvlm_eval.pruning.registry import make_method

SHAPE = DecoderShape(hidden_size=32, intermediate_size=64, num_layers=2, num_heads=2, num_kv_heads=2)
CPU = torch.device("cpu")


@pytest.mark.parametrize("size", [(84, 84), (168, 168), (60, 170), (170, 60), (100, 250), (40, 40)])
def test_a_tiled_image_has_as_many_tokens_as_the_model_makes_of_it(size: tuple[int, int]) -> None:
    """The model refuses a prompt whose image tokens are another number than its features."""
    workload = Workload(SHAPE, side=6, text_tokens=6, image_size=size, batch_size=2)
    model = build_model(workload, torch.float32, CPU)
    inputs = build_inputs(workload, model)
    with torch.no_grad(), prune(model, make_method("vanilla")) as session:
        model(**inputs, use_cache=True)
    assert [trace.num_visual for trace in session.traces] == [workload.visual_tokens] * 2
    assert inputs["pixel_values"].shape[:2] == (2, workload.encoder_inputs)
    longer = inputs | {"input_ids": torch.cat([inputs["input_ids"], torch.full((2, 1), 3)], dim=1)}
    longer["attention_mask"] = torch.ones_like(longer["input_ids"])
    with torch.no_grad(), pytest.raises(ValueError, match="token"):
        model(**longer)


def test_the_images_of_a_batch_differ_and_its_texts_do_not() -> None:
    workload = Workload(SHAPE, side=6, text_tokens=6, batch_size=3)
    inputs = build_inputs(workload, build_model(workload, torch.float32, CPU))
    assert inputs["input_ids"].shape == (3, 36 + 6) and (inputs["input_ids"] == inputs["input_ids"][0]).all()
    assert not torch.equal(inputs["pixel_values"][0], inputs["pixel_values"][1])


@pytest.mark.parametrize(
    ("name", "tokens", "inputs"),
    [("llava-1.5-7b", 576, 1), ("llava-next-vicuna-7b", 2928, 5), ("llava-next-mistral-7b", 2928, 5)],
)
def test_named_shapes_have_their_own_tower_and_tokens(name: str, tokens: int, inputs: int) -> None:
    """2928: 24 x 24 of the base view, 48 x 48 of the fine one and a newline for each of its rows."""
    workload = read_workload(name)
    assert (workload.visual_tokens, workload.encoder_inputs, workload.name) == (tokens, inputs, name)
    assert (workload.vision_layers, workload.vision_width, workload.vocabulary) == (24, 1024, 32064)


def test_a_size_makes_a_model_tiled_and_is_read_as_width_times_height() -> None:
    assert read_workload("64,128,4,4").family == "llava" and read_workload("64,128,4,4").vision_layers == 3
    wide = read_workload("64,128,4,4", "672x336", "clip-l", batch_size=4)
    assert wide.family == "llava_next" and wide.image_size == (336, 672) and wide.batch_size == 4
    assert wide.vision_layers == 24 and wide.encoder_inputs == 3
    assert wide.visual_tokens == 576 + 24 * (48 + 1)
    assert read_workload("llava-next-vicuna-7b", "336x336").visual_tokens < 2928


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("llava-7b",), "shape='llava-7b': allowed are llava-1.5-7b"),
        (("",), "shape='': allowed is hidden"),
        (("1,2",), "shape='1,2': allowed is hidden"),
        (("64,128,4,4", "672"), "image_size='672': allowed is WIDTHxHEIGHT"),
        (("64,128,4,4", "0x10"), "image_size='0x10': allowed is WIDTHxHEIGHT"),
        (("64,128,4,4", "99999x10"), "image_size='99999x10': allowed is WIDTHxHEIGHT"),
        (("llava-1.5-7b", "672x672"), "image_size='672x672': shape='llava-1.5-7b' has one square"),
        (("llava-1.5-7b", "", "small"), "vision='small': allowed with shape='llava-1.5-7b' is auto or clip-l"),
    ],
)
def test_what_is_not_allowed_is_said(given: Any, said: str) -> None:
    with pytest.raises(ValueError) as error:  # noqa: PT011 (the words are compared below)
        read_workload(*given)
    assert said in str(error.value)


def test_every_name_is_a_model_that_can_be_sized_without_weights() -> None:
    for name in NAMED:
        model = build_model(read_workload(name), torch.float16, torch.device("meta"))
        assert next(model.parameters()).device.type == "meta"
