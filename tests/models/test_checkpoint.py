"""Loading checkpoints: what arrives, and errors that name the field, the value and what is allowed."""

import json
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from tiny_checkpoint import save

from swiftvlm_eval.models.checkpoint import CheckpointError, load_checkpoint, resolve_device, resolve_dtype
from swiftvlm_eval.testing.tiny_models import make_image, tiny_llava


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("tiny"), as_on_the_hub=True, grid=4, layers=2)


def test_a_loaded_checkpoint_is_the_saved_one(folder: Path) -> None:
    checkpoint = load_checkpoint(str(folder), device="cpu", attn_implementation="eager")
    saved, _ = tiny_llava(grid=4, layers=2)
    loaded = checkpoint.model.state_dict()
    assert loaded and all(torch.equal(loaded[name], value) for name, value in saved.state_dict().items())
    assert (checkpoint.name, checkpoint.family, checkpoint.image_mode) == (str(folder), "llava", "pad")
    assert checkpoint.model.dtype == torch.float32 and not checkpoint.model.training
    assert checkpoint.adapter.decoder.attention_implementation == "eager"
    assert checkpoint.tokenizer.padding_side == "left"
    assert type(checkpoint.processor.image_processor).__name__ == "CLIPImageProcessorPil"


def test_a_next_checkpoint(tmp_path: Path) -> None:
    checkpoint = load_checkpoint(str(save(tmp_path, "llava_next", grid=2, layers=2)), dtype="bfloat16", device="cpu")
    assert (checkpoint.family, checkpoint.model.dtype) == ("llava_next", torch.bfloat16)
    inputs = checkpoint.encode(["<image>"], [[make_image(56, 28)]])
    assert inputs["pixel_values"].dtype == torch.bfloat16
    assert type(checkpoint.processor.image_processor).__name__ == "LlavaNextImageProcessorPil"


def test_a_processor_that_leaves_its_token_count_open_is_completed(tmp_path: Path) -> None:
    folder = save(tmp_path, as_on_the_hub=True, grid=4, layers=2)
    path = folder / "processor_config.json"
    settings = json.loads(path.read_text())
    for key in ("num_additional_image_tokens", "patch_size", "vision_feature_select_strategy"):
        settings.pop(key)
    path.write_text(json.dumps(settings))
    checkpoint = load_checkpoint(str(folder), device="cpu")
    inputs = checkpoint.encode(["<image>"], [[make_image(56, 28)]])
    assert int((inputs["input_ids"] == checkpoint.model.config.image_token_id).sum()) == 16


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "fp64"}, r"dtype='fp64': allowed are auto, float16, bfloat16, float32"),
        ({"device": "warp"}, r"device='warp': not on this machine; allowed are auto, cpu"),
        ({"device": "cuda:99"}, r"device='cuda:99': not on this machine; allowed are auto, cpu"),
        ({"image_mode": "stretch"}, r"image_mode='stretch': allowed are pad, hf_default"),
        ({"attn_implementation": "magic"}, r"attn_implementation='magic': allowed are sdpa, eager, flash_attention_2"),
    ],
)
def test_bad_options(folder: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_checkpoint(str(folder), **options)


def test_a_missing_folder(tmp_path: Path) -> None:
    missing = tmp_path / "nowhere"
    with pytest.raises(CheckpointError, match=r"pretrained='.*nowhere': no folder with a config.json"):
        load_checkpoint(str(missing), device="cpu")
    with pytest.raises(CheckpointError, match=r"pretrained='./nowhere': no folder with a config.json"):
        load_checkpoint("./nowhere", device="cpu")


def test_a_hub_id_that_cannot_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(CheckpointError, match=r"pretrained='no-such/model': cannot be loaded .*allowed are a hub id"):
        load_checkpoint("no-such/model", device="cpu")


def test_another_kind_of_model(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    with pytest.raises(CheckpointError, match="model_type='gpt2': allowed are llava, llava_next"):
        load_checkpoint(str(tmp_path), device="cpu")


@pytest.mark.parametrize("missing", ["model.safetensors", "tokenizer.json"])
def test_an_incomplete_folder(tmp_path: Path, missing: str) -> None:
    folder = save(tmp_path, as_on_the_hub=True, grid=4, layers=2)
    (folder / missing).unlink()
    with pytest.raises(CheckpointError, match=r"pretrained='.*': cannot be loaded"):
        load_checkpoint(str(folder), device="cpu")


def test_pickled_weights_are_not_read(tmp_path: Path) -> None:
    folder = save(tmp_path, as_on_the_hub=True, grid=4, layers=2)
    (folder / "model.safetensors").unlink()
    torch.save(tiny_llava(grid=4, layers=2)[0].state_dict(), folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="cannot be loaded"):
        load_checkpoint(str(folder), device="cpu")


@pytest.mark.parametrize(("dtype", "device", "expected"), [("auto", "cpu", "float32"), ("auto", "cuda", "float16")])
def test_the_automatic_dtype(dtype: str, device: str, expected: str) -> None:
    assert resolve_dtype(dtype, torch.device(device)) == getattr(torch, expected)


def test_the_cpu_is_always_there() -> None:
    assert resolve_device("cpu") == torch.device("cpu")
    assert resolve_device("auto").type in ("cpu", "cuda", "mps", "xpu")


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2)])
def test_prompts_of_a_batch_keep_their_own_images(tmp_path: Path, order: tuple[int, ...]) -> None:
    """None, one and two images; on LLaVA-NeXT each has another number of tokens."""
    checkpoint = load_checkpoint(str(save(tmp_path, "llava_next", grid=2, layers=2)), device="cpu")
    prompts = ["USER: Yes or no ASSISTANT:", "USER: <image> A red square ASSISTANT:", "USER: <image> and <image> ?"]
    images = [[], [make_image(56, 28, 1)], [make_image(28, 84, 2), make_image(56, 56, 3)]]
    alone = [checkpoint.encode([prompts[number]], [images[number]]) for number in order]
    batch = checkpoint.encode([prompts[number] for number in order], [images[number] for number in order])
    lengths = [own["input_ids"].shape[1] for own in alone]
    assert len(set(lengths)) == 3
    for row, (own, length) in enumerate(zip(alone, lengths, strict=True)):
        assert batch["input_ids"][row, -length:].tolist() == own["input_ids"][0].tolist()
        padding = batch["attention_mask"].shape[1] - length
        assert batch["attention_mask"][row].tolist() == [0] * padding + [1] * length
    seen = [size for own in alone if "image_sizes" in own for size in own["image_sizes"].tolist()]
    assert batch["image_sizes"].tolist() == seen and len(seen) == 3
    tiles = [tile for own in alone if "pixel_values" in own for tile in own["pixel_values"]]
    for found, expected in zip(batch["pixel_values"], tiles, strict=True):
        assert torch.equal(found[: len(expected)], expected)


def test_a_prompt_of_exactly_the_models_context(folder: Path) -> None:
    checkpoint = load_checkpoint(str(folder), device="cpu")
    length = checkpoint.encode(["USER: A"], [[]])["input_ids"].shape[1]
    checkpoint.model.config.text_config.max_position_embeddings = length
    assert checkpoint.adapter.decoder.context == length
    assert checkpoint.encode(["USER: A"], [[]])["input_ids"].shape[1] == length
    checkpoint.model.config.text_config.max_position_embeddings = length - 1
    with pytest.raises(
        ValueError, match=f"prompt of {length} tokens: longer than the model's context of {length - 1}"
    ):
        checkpoint.encode(["USER: A"], [[]])


def test_a_prompt_beyond_the_models_context(folder: Path) -> None:
    checkpoint = load_checkpoint(str(folder), device="cpu")
    with pytest.raises(ValueError, match="longer than the model's context of 4096"):
        checkpoint.encode(["USER: " + "red square " * 5000 + "ASSISTANT:"], [[]])
