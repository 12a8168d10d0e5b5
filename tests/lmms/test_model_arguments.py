"""Model arguments as lmms-eval passes them: names, defaults, errors."""

from pathlib import Path
from typing import Any

import pytest
from lmms.tiny_runs import checkpoint, make_model
from lmms_eval.models import MODEL_REGISTRY_V2
from loguru import logger

from swiftvlm_eval import lmms
from swiftvlm_eval.lmms import SwiftvlmLlava, SwiftvlmLlavaNext
from swiftvlm_eval.lmms.model import model_class


@pytest.fixture
def log() -> Any:
    lines: list[str] = []
    sink = logger.add(lambda message: lines.append(str(message)), level="INFO", format="{message}")
    yield lines
    logger.remove(sink)


@pytest.mark.parametrize(("name", "method"), [("swiftvlm_llava", "swiftvlm"), ("fastv_llava", "fastv")])
def test_a_name_presets_the_method_and_a_third_is_the_default(name: str, method: str, log: list[str]) -> None:
    model = MODEL_REGISTRY_V2.get_model_class(name)(checkpoint=checkpoint(), device="cpu")
    assert (model.method.name, model.budget) == (method, pytest.approx(1 / 3))
    assert model.description.budget == pytest.approx(1 / 3)
    (line,) = [line for line in log if "budget" in line]
    assert f"method {type(model.method).__name__}(" in line and "budget 0.3333" in line and "tiny" in line


def test_method_wins_over_the_name() -> None:
    preset = MODEL_REGISTRY_V2.get_model_class("fastv_llava")
    assert issubclass(preset, SwiftvlmLlava) and preset.__name__ == "SwiftvlmLlava__fastv"
    model = preset(checkpoint=checkpoint(), method="random", device="cpu")
    assert model.method.name == "random"


def test_options_reach_the_method_as_typed_on_the_command_line() -> None:
    model = make_model("fastv", budget="1/3", layers="3", scope="visual", batch_size="2")
    assert model.budget == pytest.approx(1 / 3)
    assert model.batch_size == 2
    assert model.description.options == {"layers": (3,), "counts": None, "schedule": "exact", "scope": "visual"}


def test_a_count_is_read_where_every_image_has_576_visual_tokens(log: list[str]) -> None:
    own = checkpoint(grid=24, layers=5)
    assert make_model("fastv", own=own, budget=192).budget == pytest.approx(1 / 3)
    (line,) = [line for line in log if "budget" in line]
    assert "budget 0.3333 (192.0 of 576 visual tokens a layer on average)" in line


@pytest.mark.parametrize(("budget", "share"), [("33%", 0.33), ("640/2880", 2 / 9), ("1/3", 1 / 3), (0.25, 0.25)])
def test_shares_are_read_for_llava_next_and_said_once(budget: Any, share: float, log: list[str]) -> None:
    assert make_model("fastv", family="llava_next", budget=budget).budget == pytest.approx(share)
    (line,) = [line for line in log if "budget" in line]
    assert f"budget {share:.4g} (of each image's own visual tokens, a layer on average)" in line


def test_a_count_for_llava_next_is_found_before_a_checkpoint_is_loaded() -> None:
    with pytest.raises(ValueError, match="budget=192: allowed is a share"):
        SwiftvlmLlavaNext(pretrained="./nowhere", device="cpu", budget=192)


def test_a_count_for_other_images_is_found_before_weights_are_read(tmp_path: Path) -> None:
    checkpoint().model.config.save_pretrained(tmp_path)  # a config and nothing else
    with pytest.raises(ValueError, match="budget=192: .*images are 16"):
        SwiftvlmLlava(pretrained=str(tmp_path), device="cpu", budget=192)


def test_a_function_for_answers_cannot_come_from_the_command_line() -> None:
    with pytest.raises(ValueError, match="on_answers='x': allowed is a function"):
        make_model("vanilla", on_answers="x")


def test_vanilla_has_no_budget_but_the_whole() -> None:
    assert make_model("vanilla").description.budget == 1.0


def test_other_arguments_of_lmms_eval_are_taken() -> None:
    assert make_model("vanilla", max_batch_size="8", rev="abc").batch_size == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "fastvv"}, r"method='fastvv': unknown; allowed are .*swiftvlm.*Did you mean 'fastv'"),
        ({"method": "fastv", "colour": "red"}, r"option colour='red': fastv has no such option; allowed are .*scope"),
        ({"method": "fastv", "scope": "some"}, r"option scope='some' of fastv: .*'all' or 'visual'"),
        ({"budget": "0"}, r"budget='0': allowed is a share"),
        ({"budget": 577}, r"budget=577: allowed is a share .*577 is more than 576"),
        ({"budget": 1.5}, r"budget=1.5: allowed is a share .*is a slip"),
        ({"budget": True}, r"budget=True: allowed is a share"),
        ({"budget": "2880/640"}, r"budget='2880/640': .*more than the whole"),
        # 16 visual tokens an image
        ({"budget": 192}, r"budget=192: .*1/3.*640/2880.*the visual tokens of this model's images are 16"),
        ({"budget": "192", "family": "llava_next"}, r"budget='192': .*640/2880.*images depend on the image"),
        ({"budget": "many"}, r"budget='many': allowed is a share"),
        ({"batch_size": "0"}, r"batch_size='0': allowed are whole numbers from 1, and auto"),
        ({"batch_size": "Auto"}, r"batch_size='Auto': allowed are whole numbers from 1, and auto"),
        ({"batch_size": True}, r"batch_size=True: allowed are whole numbers from 1, and auto"),
        ({"max_batch_size": "0"}, r"max_batch_size='0': allowed are whole numbers from 1"),
        ({"look_ahead": "-1"}, r"look_ahead='-1': allowed are whole numbers from 0"),
        ({"batch_size": "²"}, r"batch_size='²': allowed are whole numbers from 1"),
        ({"seed": "x"}, r"seed='x': allowed are whole numbers from 0"),
        ({"seed": -1}, r"seed=-1: allowed are whole numbers from 0"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_model(**arguments)


def test_bad_arguments_are_found_before_a_checkpoint_is_loaded() -> None:
    for arguments, field in (({"method": "x"}, "method"), ({"budget": 0}, "budget"), ({"seed": "x"}, "seed")):
        with pytest.raises(ValueError, match=f"{field}="):
            SwiftvlmLlava(pretrained="./nowhere", device="cpu", **arguments)
    with pytest.raises(ValueError, match="pretrained='./nowhere'"):
        SwiftvlmLlava(pretrained="./nowhere", device="cpu")


def test_the_other_family_is_refused() -> None:
    with pytest.raises(ValueError, match="pretrained='tiny': a llava checkpoint; allowed .* are llava_next"):
        SwiftvlmLlavaNext(checkpoint=checkpoint(), device="cpu")


def test_a_journal_is_an_object() -> None:
    with pytest.raises(ValueError, match="journal='answers.jsonl': allowed is a Journal"):
        make_model("vanilla", journal="answers.jsonl")


def test_classes_are_made_once_and_documented() -> None:
    assert lmms.SwiftvlmLlava is SwiftvlmLlava is model_class("llava")
    assert lmms.SwiftvlmLlavaNext__fastv is model_class("llava_next", "fastv")
    assert "budget: mean visual tokens" in (SwiftvlmLlavaNext.__doc__ or "")
    with pytest.raises(ValueError, match="model_type='gpt': allowed are llava, llava_next"):
        model_class("gpt")


def test_unknown_names_are_no_classes() -> None:
    assert not hasattr(lmms, "SwiftvlmLlava__magic")
    assert not hasattr(lmms, "Other__fastv")


def test_a_run_from_a_folder_does_not_name_the_folders_above_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ckpt").mkdir()
    monkeypatch.chdir(tmp_path)
    names = set()
    for name in ("ckpt", "./ckpt", str(tmp_path / "ckpt")):
        model = make_model("vanilla")
        monkeypatch.setattr(model.checkpoint, "name", name)
        names.add(model.description.pretrained)
    (name,) = names
    assert name.startswith("local:ckpt-")
