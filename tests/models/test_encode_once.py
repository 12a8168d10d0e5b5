"""Image features kept apart from the pass that made them: the tower's own, made once, and told apart."""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_checkpoint import in_memory

from swiftvlm_eval.models.checkpoint import Checkpoint
from swiftvlm_eval.models.encode_once import EncodeOnce, image_name, maker_of, weights_digest
from swiftvlm_eval.models.feature_store import FeatureStore
from swiftvlm_eval.models.image_features import parts_for
from swiftvlm_eval.testing.tiny_models import make_image

SIZES = [(70, 50), (50, 70), (60, 60), (90, 30)]
FAMILIES = ["llava", "llava_next"]
PROMPT = "USER: <image>\nWhy? ASSISTANT:"


@contextmanager
def passes(checkpoint: Checkpoint) -> Iterator[dict[str, int]]:
    """How often the tower ran, on how many encoder inputs, and how many images were preprocessed."""
    seen = {"tower": 0, "inputs": 0, "images": 0}
    processor = checkpoint.processor.image_processor
    stock = type(processor).preprocess

    def watch(module: Any, args: Any, kwargs: Any) -> None:
        seen["tower"] += 1
        seen["inputs"] += len(kwargs["pixel_values"] if "pixel_values" in kwargs else args[0])

    def preprocess(self: Any, images: Any, *args: Any, **kwargs: Any) -> Any:
        seen["images"] += len(images) if isinstance(images, list) else 1
        return stock(self, images, *args, **kwargs)

    handle = checkpoint.adapter.tower.module.register_forward_pre_hook(watch, with_kwargs=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(processor), "preprocess", preprocess)
        yield seen
    handle.remove()


def once_for(checkpoint: Checkpoint, *parts: Any, memory: int = 1 << 30) -> EncodeOnce:
    return EncodeOnce(checkpoint, FeatureStore(memory), parts)


@torch.inference_mode()
def stock_rows(checkpoint: Checkpoint, images: list[Image.Image]) -> list[torch.Tensor]:
    """The library's own image features of each image by itself."""
    core = checkpoint.model.model
    inputs = [checkpoint.to_device(checkpoint.preprocess([image])[0]) for image in images]
    return [core.get_image_features(**own).pooler_output[0] for own in inputs]


@pytest.mark.parametrize("family", FAMILIES)
def test_rows_are_the_models_own_and_the_tower_runs_once_for_each_image(family: str) -> None:
    checkpoint = in_memory(family)
    images = [make_image(*size, seed) for seed, size in enumerate(SIZES)]
    wanted = stock_rows(checkpoint, images)
    checkpoint.once = once_for(checkpoint)
    with passes(checkpoint) as seen, torch.inference_mode():
        first = checkpoint.encode([PROMPT] * 4, [[image] for image in images])
        assert (seen["tower"], seen["images"]) == (4, 4)
        seen.update(tower=0, images=0)
        again = checkpoint.encode([PROMPT] * 5, [[images[number]] for number in (2, 1, 1, 3, 0)])
        assert seen == {"tower": 0, "images": 0, "inputs": seen["inputs"]}
        mixed = checkpoint.encode([PROMPT] * 3, [[make_image(61, 33, 9)], [images[0]], [make_image(61, 33, 9)]])
        assert (seen["tower"], seen["images"]) == (1, 1)  # twice in one batch is once
    assert "pixel_values" not in again and "image_sizes" not in again
    for inputs, order in ((first, (0, 1, 2, 3)), (again, (2, 1, 1, 3, 0))):
        rows = inputs["mm_encoder_outputs"]["image"].pooler_output
        for found, number in zip(rows, order, strict=True):
            assert torch.equal(found, wanted[number])
    assert torch.equal(mixed["mm_encoder_outputs"]["image"].pooler_output[1], wanted[0])
    assert (checkpoint.once.encoded, checkpoint.once.found) == (5, 6)


@pytest.mark.parametrize("family", FAMILIES)
def test_prompts_are_the_same(family: str) -> None:
    checkpoint = in_memory(family)
    prompts = ["USER: <image>\nWhy? ASSISTANT:", "USER: What? ASSISTANT:", "USER: <image>\n<image>\nA? ASSISTANT:"]
    images = [[make_image(70, 50)], [], [make_image(50, 70, 1), make_image(90, 30, 2)]]
    usual = checkpoint.encode(prompts, images)
    checkpoint.once = once_for(checkpoint)
    for _ in range(2):
        inputs = checkpoint.encode(prompts, images)
        for name in ("input_ids", "attention_mask"):
            assert torch.equal(inputs[name], usual[name])
    assert checkpoint.encode(prompts[1:2], [[]]).keys() == {"input_ids", "attention_mask"}


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_kept_is_what_the_hooks_of_the_tower_see(family: str) -> None:
    checkpoint = in_memory(family, vision_layers=4)
    image = make_image(70, 50)
    inputs = checkpoint.to_device(checkpoint.preprocess([image])[0])
    tower = checkpoint.model.model.vision_tower
    pixels = inputs["pixel_values"].reshape(-1, *inputs["pixel_values"].shape[-3:])
    with torch.inference_mode():
        states = tower(pixels, output_hidden_states=True).hidden_states
    once = once_for(checkpoint, "layer_input", "states", "pixels")
    at_hand, _ = once.on_host([image], checkpoint.preprocess)
    with torch.inference_mode():
        shown = at_hand.to_device()["mm_encoder_outputs"]["image"].shown
    assert torch.equal(shown.pixels, pixels)
    assert len(shown.states) == 5 and all(torch.equal(a, b) for a, b in zip(shown.states, states, strict=True))
    assert torch.equal(shown.features, states[-2])
    assert shown.layer_input is None  # the states hold it
    plain = once_for(checkpoint, "layer_input").on_host([image], checkpoint.preprocess)[0]
    with torch.inference_mode():
        shown = plain.to_device()["mm_encoder_outputs"]["image"].shown
    assert torch.equal(shown.layer_input, states[-3]) and shown.pixels is None and shown.states == []


def test_images_of_one_size_are_told_apart_by_a_single_pixel_and_by_mode() -> None:
    pixels = np.asarray(make_image(70, 50)).copy()
    names = [image_name(Image.fromarray(pixels))]
    pixels[49, 69, 2] ^= 1
    names.append(image_name(Image.fromarray(pixels)))
    names.append(image_name(Image.fromarray(pixels.reshape(70, 50, 3))))
    grey = Image.fromarray(pixels).convert("L")
    names += [image_name(grey), image_name(grey.convert("RGB"))]
    palette = grey.convert("P")
    names.append(image_name(palette))
    palette.putpalette([255 - value for value in palette.getpalette() or []])
    names.append(image_name(palette))
    assert len(set(names)) == len(names)
    assert image_name(make_image(70, 50)) == names[0]


def other_last_weight(checkpoint: Checkpoint) -> None:
    with torch.no_grad():
        checkpoint.model.model.vision_tower.encoder.layers[0].mlp.fc1.weight[-1, -1] += 1


def other_decoder(checkpoint: Checkpoint) -> None:
    with torch.no_grad():
        checkpoint.model.model.language_model.embed_tokens.weight[0, 0] += 1


CHANGES: dict[str, Callable[[Checkpoint], object]] = {
    "image mode": lambda own: setattr(own, "image_mode", "hf_default"),
    "type": lambda own: own.model.to(torch.bfloat16),
    "last weight of a tower layer": other_last_weight,
    "weight of the decoder": other_decoder,
    "processor": lambda own: setattr(own.processor.image_processor, "image_mean", [0.5, 0.5, 0.5]),
    "name": lambda own: setattr(own, "name", "another"),
    "revision": lambda own: setattr(own, "revision", "another"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_features_of_another_make_have_another_name(change: str) -> None:
    checkpoint, other = in_memory(), in_memory()
    assert maker_of(checkpoint, ["features"]) == maker_of(in_memory(), [])
    CHANGES[change](other)
    assert maker_of(checkpoint, ["features"]) != maker_of(other, ["features"])
    assert maker_of(checkpoint, ["layer_input"]) != maker_of(checkpoint, ["features"])


def test_the_digest_of_weights_reads_all_of_them() -> None:
    module = torch.nn.Linear(40, 40)
    other = copy.deepcopy(module)
    assert weights_digest(module) == weights_digest(other)
    with torch.no_grad():
        other.weight[39, 39] += 1e-6
    assert weights_digest(module) != weights_digest(other)


def test_entries_without_what_is_needed_are_not_taken() -> None:
    checkpoint = in_memory()
    store, image = FeatureStore(1 << 30), make_image(70, 50)
    with passes(checkpoint) as seen, torch.inference_mode():
        EncodeOnce(checkpoint, store, []).on_host([image], checkpoint.preprocess)[0].to_device()
        wanting = EncodeOnce(checkpoint, FeatureStore(1 << 30), ["layer_input"])
        wanting.store = store  # a mistake, as it were
        at_hand, _ = wanting.on_host([image], checkpoint.preprocess)
        shown = at_hand.to_device()["mm_encoder_outputs"]["image"].shown
    assert seen["tower"] == 2 and shown.layer_input is not None


def test_needs_decide_what_is_kept_and_who_runs_the_tower() -> None:
    assert parts_for([]) == parts_for(["question_text", "patch_features"]) == {"features"}
    assert parts_for(["patch_keys"]) == parts_for(["cls_attention"]) == {"features", "layer_input"}
    assert parts_for(["pixels", "tower_states"]) == {"features", "pixels", "states"}
    assert parts_for(["image_resizing", "patch_features"]) is None and parts_for(["tower_rows"]) is None
    once = once_for(in_memory(), "states")
    assert once.serves([]) and once.serves(["cls_attention", "tower_states"])
    assert not once.serves(["pixels"]) and not once.serves(["tower_rows"])
    assert not once_for(in_memory(), "layer_input").serves(["tower_states"])


def test_a_projector_that_sees_the_class_token_is_refused() -> None:
    checkpoint = in_memory()
    checkpoint.model.config.vision_feature_select_strategy = "full"
    with pytest.raises(ValueError, match=r"vision_feature_select_strategy='full': allowed .* 'default'"):
        once_for(checkpoint)
