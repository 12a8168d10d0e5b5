"""The committed checkpoint: loads offline by the Auto classes, stays small, and answers held-out questions."""

import pytest
import torch
from demo_model.card import read_facts
from demo_model.evaluation import answer_questions, read_samples
from transformers import AutoModelForImageTextToText, AutoProcessor, LlavaForConditionalGeneration

from swiftvlm_eval import make_method, method_names
from swiftvlm_eval.demo import checkpoint_path, data_path
from swiftvlm_eval.models.adapter import adapter_for

MAX_BYTES = 8 * 2**20


@pytest.fixture(scope="module")
def loaded():
    processor = AutoProcessor.from_pretrained(checkpoint_path(), local_files_only=True)
    model = AutoModelForImageTextToText.from_pretrained(checkpoint_path(), local_files_only=True)
    return model.eval(), processor


def test_checkpoint_is_small_and_holds_no_pickle():
    files = [path for path in checkpoint_path().iterdir() if path.is_file()]
    assert sum(path.stat().st_size for path in files) < MAX_BYTES
    assert {path.suffix for path in files} <= {".json", ".jinja", ".safetensors"}


def test_auto_classes_load_a_float32_llava_with_the_promised_shape(loaded):
    model, processor = loaded
    assert isinstance(model, LlavaForConditionalGeneration) and model.dtype == torch.float32
    config = model.config
    assert config.text_config.num_hidden_layers >= 12 and config.vision_config.num_hidden_layers >= 3
    assert config.vision_feature_layer == -2 and config.vision_feature_select_strategy == "default"
    assert (config.vision_config.image_size // config.vision_config.patch_size) ** 2 >= 144
    assert processor.patch_size == config.vision_config.patch_size
    assert processor.num_additional_image_tokens == 1 and processor.tokenizer.padding_side == "left"


def test_no_method_has_layers_of_its_own_on_this_checkpoint(loaded):
    """Every method acts after its paper's layers, in proportion: 12 of 32, at least the first."""
    model, _ = loaded
    assert adapter_for(model).recommended_layers == {}
    for name in method_names():
        method, scaled = make_method(name), []
        for boundary in method.layers_for(1 / 3):
            wanted = max(1, round(boundary * 12 / 32)) if boundary else 0
            scaled.append(max([wanted, *(each + 1 for each in scaled[-1:])]))
        found = [stage.boundary for stage in method.plan(144, 12, 1 / 3).stages]
        assert found == scaled, name
    assert make_method("fastv").plan(144, 12, 1 / 3).rows_per_layer == (144, *[39] * 11)  # (12 * 48 - 144) / 11 = 39.3


def test_prompt_has_one_bos_and_a_placeholder_for_every_visual_token(loaded):
    model, processor = loaded
    sample = next(read_samples("gqa", data_path("demo_gqa")))
    inputs = processor(images=sample.image, text="USER: <image>\nWhat? ASSISTANT:", return_tensors="pt")
    assert set(inputs) == {"input_ids", "attention_mask", "pixel_values"}
    ids = inputs["input_ids"][0].tolist()
    assert ids.count(processor.tokenizer.bos_token_id) == 1
    assert ids.count(model.config.image_token_id) == 144


# Between chance (0.05, 0.07, 0.14, 0.5) and the accuracy on the whole split (0.99, 0.98, 0.99, 0.98), far enough below
# the latter for 48 questions.
MARGINS = {"refcoco": 0.85, "textvqa": 0.85, "gqa": 0.85, "pope": 0.85}


@pytest.mark.parametrize("task", MARGINS)
def test_held_out_questions_are_answered(task, loaded):
    samples = list(read_samples(task, data_path(f"demo_{task}")))[::10][:48]
    answers = answer_questions(*loaded, samples)
    right = sum(sample.is_right(answer) for sample, answer in zip(samples, answers, strict=True))
    assert right / len(samples) >= MARGINS[task]


def test_box_scoring_by_hand():
    sample = next(read_samples("refcoco", data_path("demo_refcoco")))
    width, height = sample.image.size
    assert not sample.is_right("[0.00, 0.00, 0.01, 0.01]")
    assert not sample.is_right("left") and not sample.is_right("[0.1, 0.2, 0.3]")
    import pyarrow.parquet as pq

    x, y, w, h = pq.read_table(data_path("demo_refcoco")).to_pylist()[0]["bbox"]
    side = max(width, height)
    dx, dy = (side - width) // 2, (side - height) // 2
    box = [(x + dx) / side, (y + dy) / side, (x + w + dx) / side, (y + h + dy) / side]
    assert sample.is_right("[{:.2f}, {:.2f}, {:.2f}, {:.2f}]".format(*box))
    # Shifted by 60 % of its width the overlap is 40 / 160.
    shifted = [box[0] + 0.6 * w / side, box[1], box[2] + 0.6 * w / side, box[3]]
    assert not sample.is_right("[{:.2f}, {:.2f}, {:.2f}, {:.2f}]".format(*shifted))


def test_facts_of_the_card_hang_together():
    facts = read_facts(checkpoint_path().parent)
    assert set(facts["scores"]) == {"demo_refcoco", "demo_textvqa", "demo_gqa", "demo_pope"}
    for score in facts["scores"].values():
        assert score["low"] <= score["accuracy"] == pytest.approx(score["right"] / score["n"], abs=1e-4)
        assert score["accuracy"] <= score["high"] and score["n"] >= 500
