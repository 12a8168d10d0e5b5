"""A checkpoint that does not fill the model, or whose files could run code, is refused; a sound one loads as it is."""

import builtins
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from demo_model.evaluation import evaluate
from loguru import logger
from safetensors.torch import load_file, save_file
from tiny_checkpoint import save

from swiftvlm_eval.models.checkpoint import CheckpointError, load_checkpoint
from swiftvlm_eval.testing.tiny_models import tiny_llava

Weights = dict[str, torch.Tensor]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save(tmp_path / "tiny", as_on_the_hub=True, grid=4, layers=2)


@pytest.fixture
def warnings() -> Iterator[list[str]]:
    """What our log warns of."""
    noted: list[str] = []
    number = logger.add(lambda message: noted.append(str(message.record["message"])), level="WARNING")
    yield noted
    logger.remove(number)


def weights_of(folder: Path) -> Weights:
    return dict(load_file(folder / "model.safetensors"))


def put(folder: Path, weights: Weights) -> None:
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def configure(folder: Path, **text: Any) -> None:
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config["text_config"] |= text
    path.write_text(json.dumps(config))


def same_as_saved(folder: Path) -> bool:
    loaded = load_checkpoint(str(folder), device="cpu").model.state_dict()
    saved = tiny_llava(grid=4, layers=2)[0].state_dict()
    return loaded.keys() == saved.keys() and all(torch.equal(loaded[name], saved[name]) for name in saved)


def without(part: str) -> Callable[[Weights], Weights]:
    def drop(weights: Weights) -> Weights:
        left = {name: value for name, value in weights.items() if part not in name}
        assert len(left) < len(weights)
        return left

    return drop


def renamed(weights: Weights) -> Weights:
    return {f"backbone.{name}": value for name, value in weights.items()}


def reshaped(weights: Weights) -> Weights:
    (name,) = [name for name in weights if name.endswith("model.layers.1.self_attn.q_proj.weight")]
    return {**weights, name: torch.zeros(3, 5)}


Q_PROJ = "model.language_model.layers.1.self_attn.q_proj.weight"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (renamed, r"80 of the model's weights are missing .*lm_head.weight, .* and 75 more"),
        (without("multi_modal_projector"), r"4 of .* are missing .*model.multi_modal_projector.linear_1.bias, "),
        (without("vision_tower"), r"are missing .*model.vision_tower.embeddings.class_embedding, "),
        (without("layers.1.self_attn.q_proj"), rf"missing .*{Q_PROJ}"),
        (without("lm_head"), r"1 of the model's weights is missing .*lm_head.weight"),
        (reshaped, rf"{Q_PROJ} \(\[3, 5\] for \[64, 64\]\)"),
    ],
)
def test_weights_that_do_not_fill_the_model_are_refused(
    folder: Path, change: Callable[[Weights], Weights], message: str
) -> None:
    put(folder, change(weights_of(folder)))
    with pytest.raises(CheckpointError, match=rf"^pretrained='{re.escape(str(folder))}': .*{message}") as caught:
        load_checkpoint(str(folder), device="cpu")
    assert len(str(caught.value)) < 1000 and "\n" not in str(caught.value)


def test_two_layers_more_than_the_file_has_are_refused(folder: Path) -> None:
    configure(folder, num_hidden_layers=4)
    with pytest.raises(CheckpointError, match=r"18 of .* missing .*model.language_model.layers.2.input_layernorm"):
        load_checkpoint(str(folder), device="cpu")


def test_a_tied_head_is_no_missing_weight(folder: Path) -> None:
    configure(folder, tie_word_embeddings=True)
    put(folder, without("lm_head")(weights_of(folder)))
    model = load_checkpoint(str(folder), device="cpu").model
    assert model.lm_head.weight is model.get_input_embeddings().weight


def in_the_form_of_2023(name: str) -> str:
    """As the checkpoints on the hub name them."""
    return re.sub(r"^vision_tower\.(?!vision_model)", "vision_tower.vision_model.", name)


def in_the_form_of_2025(name: str) -> str:
    """As the model itself names them."""
    if name.startswith("language_model.lm_head"):
        return name.removeprefix("language_model.")
    if name.startswith("language_model.model."):
        return name.replace("language_model.model.", "model.language_model.", 1)
    return f"model.{name}"


@pytest.mark.parametrize("form", [in_the_form_of_2023, in_the_form_of_2025])
def test_both_forms_of_names_are_whole(folder: Path, form: Callable[[str], str], warnings: list[str]) -> None:
    weights = weights_of(folder)
    assert any(name.startswith("language_model.model.layers.") for name in weights)
    assert {form(name) for name in weights} != set(weights)
    put(folder, {form(name): value for name, value in weights.items()})
    assert same_as_saved(folder)
    assert not warnings


def test_buffers_of_older_libraries_are_no_matter(folder: Path, warnings: list[str]) -> None:
    buffers = {
        "vision_tower.vision_model.embeddings.position_ids": torch.arange(17)[None],
        "language_model.model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(8),
    }
    put(folder, weights_of(folder) | buffers)
    assert same_as_saved(folder)
    assert not warnings


def test_weights_that_nothing_asks_for_are_named_in_a_warning(folder: Path, warnings: list[str]) -> None:
    put(folder, weights_of(folder) | {f"adapter.{number}": torch.ones(2) for number in range(9)})
    assert same_as_saved(folder)
    (warning,) = warnings
    assert re.search(r"9 weights .*adapter.0, adapter.1, .* and 4 more", warning)


def test_the_demo_evaluation_reads_whole_checkpoints_alone(folder: Path) -> None:
    put(folder, without("q_proj")(weights_of(folder)))
    with pytest.raises(CheckpointError, match=r"missing .*q_proj"):
        evaluate(folder, torch.device("cpu"))


# doors


@pytest.mark.parametrize("shard", ["pytorch_model.bin", "model.ckpt", "../elsewhere.bin"])
def test_a_pickle_in_the_index_is_never_opened(folder: Path, shard: str) -> None:
    """Not even one of plain tensors, which torch reads without running anything."""
    weights = weights_of(folder)
    (folder / "model.safetensors").unlink()
    torch.save(weights, folder / shard)
    index = {"metadata": {}, "weight_map": dict.fromkeys(weights, shard)}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match=rf"names '{re.escape(shard)}'.*safetensors"):
        load_checkpoint(str(folder), device="cpu")


def test_a_pickle_that_the_config_names_is_never_opened(folder: Path) -> None:
    torch.save(weights_of(folder), folder / "adapter_model.bin")
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"transformers_weights": "adapter_model.bin"}))
    with pytest.raises(CheckpointError, match=r"names 'adapter_model.bin'.*safetensors"):
        load_checkpoint(str(folder), device="cpu")


def test_sharded_safetensors_are_read(folder: Path) -> None:
    weights = weights_of(folder)
    (folder / "model.safetensors").unlink()
    tiny_llava(grid=4, layers=2)[0].save_pretrained(folder, max_shard_size="200KB")
    assert len(list(folder.glob("*.safetensors"))) > 1 and weights
    assert same_as_saved(folder)


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"weight_map": 3}', '{"metadata": {}, "weight_map": {"a": 1}}'])
def test_a_broken_index_is_one_line(folder: Path, content: str) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"model.safetensors.index.json") as caught:
        load_checkpoint(str(folder), device="cpu")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kept", [0, 5, 1000, -100])
def test_corrupt_safetensors_are_one_line_that_names_the_file(folder: Path, kept: int) -> None:
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[:kept])
    with pytest.raises(CheckpointError, match=r"'model.safetensors' .*(\w+)") as caught:
        load_checkpoint(str(folder), device="cpu")
    assert "\n" not in str(caught.value)


def test_a_corrupt_shard_is_named(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    tiny_llava(grid=4, layers=2)[0].save_pretrained(folder, max_shard_size="200KB")
    shard = sorted(folder.glob("*.safetensors"))[1]
    shard.write_bytes(b"\xff" * 100)
    with pytest.raises(CheckpointError, match=f"'{shard.name}'"):
        load_checkpoint(str(folder), device="cpu")


CODE = """
from pathlib import Path
Path({sentinel!r}).touch()
from transformers import {base}
class Mine({base}):
    model_type = "mine"
"""


@pytest.mark.parametrize(
    ("file", "classes", "changes"),
    [
        ("config.json", {"AutoConfig": "LlavaConfig"}, {}),
        ("config.json", {"AutoConfig": "LlavaConfig"}, {"model_type": "mine"}),
        ("config.json", {"AutoModelForImageTextToText": "LlavaForConditionalGeneration"}, {}),
        ("processor_config.json", {"AutoProcessor": "LlavaProcessor"}, {}),
        ("processor_config.json", {"AutoProcessor": "LlavaProcessor"}, {"processor_class": "Mine"}),
        ("processor_config.json", {"AutoImageProcessor": "CLIPImageProcessor"}, {}),
        ("tokenizer_config.json", {"AutoTokenizer": [None, "PreTrainedTokenizerFast"]}, {}),
        ("tokenizer_config.json", {"AutoTokenizer": [None, "PreTrainedTokenizerFast"]}, {"tokenizer_class": "Mine"}),
    ],
)
def test_code_in_the_folder_never_runs(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, classes: Any, changes: dict[str, Any]
) -> None:
    """Also when somebody answers yes to whatever is asked."""
    asked: list[str] = []
    monkeypatch.setattr(builtins, "input", lambda text="": asked.append(text) or "y")
    ((auto, base),) = classes.items()
    sentinel = tmp_path / "ran"
    (folder / "mine.py").write_text(CODE.format(sentinel=str(sentinel), base=base[1] if base[0] is None else base))
    path = folder / file
    settings = json.loads(path.read_text()) | {
        "auto_map": {auto: [None, "mine.Mine"] if base[0] is None else "mine.Mine"}
    }
    path.write_text(json.dumps(settings | changes))
    try:
        load_checkpoint(str(folder), device="cpu")
    except CheckpointError as error:
        assert "\n" not in str(error)
    assert not sentinel.exists() and not asked


def test_code_for_generation_in_the_folder_never_runs(folder: Path, tmp_path: Path) -> None:
    (folder / "custom_generate").mkdir()
    (folder / "custom_generate" / "generate.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    try:
        load_checkpoint(str(folder), device="cpu")
    except CheckpointError as error:
        assert "\n" not in str(error)
    assert not (tmp_path / "ran").exists()
