"""`layers=auto:FILE`: the boundaries of the model that they were chosen for, and nothing else."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from lmms.tiny_runs import checkpoint, make_model
from tiny_checkpoint import in_memory

from swiftvlm_eval import make_method, prune
from swiftvlm_eval.models.weights import content_digest
from swiftvlm_eval.pruning.engine import PruningSession
from swiftvlm_eval.sweep.configurations import Configuration, make_grid, parse_methods, settled

LAYERS = 12


def choices(*sets: tuple[int, ...]) -> list[dict[str, Any]]:
    """Written by hand: the first stage acts after its layer, later ones before theirs."""
    return [
        {"layers": list(layers), "boundaries": [*layers[:1], *(layer - 1 for layer in layers[1:])], "objective": 1.0}
        for layers in sets
    ]


def facts(**changes: Any) -> dict[str, Any]:
    """A `layers.json` of the tiny model."""
    model = {
        "name": "tiny",
        "content": content_digest(checkpoint().model),
        "dtype": "float32",
        "num_layers": LAYERS,
    } | changes.pop("model", {})
    by_stages = choices((5,), (4, 9), (3, 6, 9))
    return {"format": "swiftvlm-eval layer choice 1", "model": model, "by_stages": by_stages, "note": ""} | changes


def write(folder: Path, **changes: Any) -> str:
    path = folder / "layers.json"
    path.write_text(json.dumps(facts(**changes)), encoding="utf-8")
    return f"auto:{path}"


@pytest.mark.parametrize(
    ("method", "layers"),
    [("fastv", (5,)), ("feather", (4, 8)), ("swiftvlm", (3, 5, 8)), ("pdrop", (3, 5, 8)), ("random", (5,))],
)
def test_every_method_takes_as_many_as_it_has_stages(tmp_path: Path, method: str, layers: tuple[int, ...]) -> None:
    made = make_method(method, {"layers": write(tmp_path)})
    assert tuple(stage.boundary for stage in made.plan(16, LAYERS, 0.5).stages) == layers
    assert PruningSession(checkpoint().adapter, made, 0.5).method.options["layers"] == layers
    assert make_method(f"{method}[layers={write(tmp_path)}]") == made


def test_what_is_executed_is_what_the_numbers_say(tmp_path: Path) -> None:
    own = checkpoint()
    inputs = own.encode(["USER: <image>\nWhy? ASSISTANT:"], [[_image()]])
    with torch.inference_mode():
        for layers in (write(tmp_path), "3:5:8"):
            with prune(own.model, make_method("swiftvlm", {"layers": layers}), "50%") as session:
                logits = own.model(**inputs).logits
            assert [stage.boundary for stage in session.traces[0].stages] == [3, 5, 8]
            if layers != "3:5:8":
                chosen = logits
    assert torch.equal(chosen, logits)


def _image() -> Any:
    from swiftvlm_eval.testing.tiny_models import make_image

    return make_image(60, 60)


def test_a_sweep_writes_the_boundaries_out(tmp_path: Path) -> None:
    """Names, records and labels do not depend on a file that may change."""
    text = write(tmp_path)
    adapter = checkpoint().adapter
    grid = make_grid(parse_methods(f"vanilla,swiftvlm[layers={text};scope=all],fastv"), ["1/3"], visual_tokens=16)
    found = [settled(cell, adapter) for cell in grid]
    assert [cell.options for cell in found] == [{}, {"layers": "3:5:8", "scope": "all"}, {}]
    composed = Configuration(f"fastv[layers=2]+random[layers={text}]", 0.5)
    assert settled(composed, adapter).method == "fastv[layers=2]+random[layers=5]"
    both = make_method(composed.method)
    assert PruningSession(adapter, both, 0.5).method.options["then.layers"] == (5,)


def test_lmms_evals_model_reports_the_boundaries(tmp_path: Path) -> None:
    model = make_model("swiftvlm", budget="1/2", layers=write(tmp_path))
    assert model.method.options["layers"] == (3, 5, 8)
    assert model.description.options["layers"] in ((3, 5, 8), [3, 5, 8])


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ({"num_layers": 16}, "chosen for tiny of 16 decoder layers; this model has 12"),
        ({"content": "0" * 16}, r"chosen for tiny \(config and weights 0{16}\), and this model's are"),
        ({"dtype": "float16"}, "chosen for tiny in float16, and this model runs in float32; load it in float16"),
    ],
)
def test_layers_of_another_model_are_refused(tmp_path: Path, model: dict[str, Any], said: str) -> None:
    method = make_method("swiftvlm", {"layers": write(tmp_path, model=model)})
    with pytest.raises(ValueError, match=said):
        PruningSession(checkpoint().adapter, method, 0.5)
    cell = Configuration("swiftvlm", 0.5, {"layers": str(method.layers)})
    with pytest.raises(ValueError, match=said):
        settled(cell, checkpoint().adapter)


def test_other_weights_are_another_model_and_another_kernel_is_not(tmp_path: Path) -> None:
    method = make_method("fastv", {"layers": write(tmp_path)})
    changed = in_memory(layers=LAYERS)
    with torch.no_grad():
        changed.model.lm_head.weight[0, 0] += 1
    with pytest.raises(ValueError, match="run select-layers on it"):
        PruningSession(changed.adapter, method, 0.5)
    PruningSession(in_memory(layers=LAYERS, attn="eager").adapter, method, 0.5)


@pytest.mark.parametrize(
    ("changes", "method", "said"),
    [
        (
            {"by_stages": choices((5,), (4, 9))},
            "swiftvlm",
            "for up to 2 stages, and swiftvlm has 3; run select-layers",
        ),
        ({"by_stages": choices((5,), (5,), (5,))}, "swiftvlm", "holds 1 layers, and swiftvlm has 3 stages.*at most 1"),
        ({"by_stages": choices((), (), ())}, "fastv", "holds 0 layers, and fastv has 1 stages.*no stages"),
        ({}, "vanilla", "vanilla has no stages"),
        ({}, "visionzip", "visionzip acts before the decoder"),
    ],
)
def test_what_does_not_fit_the_method_is_refused(
    tmp_path: Path, changes: dict[str, Any], method: str, said: str
) -> None:
    made = make_method(method, {"layers": write(tmp_path, **changes)})
    with pytest.raises(ValueError, match=said):
        PruningSession(checkpoint().adapter, made, 0.5)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "no such file"),
        ("{", "Expecting"),
        ("[]", "valid dictionary"),
        (json.dumps({"format": "x"}), "format"),
        (json.dumps({"format": "swiftvlm-eval layer choice 1", "model": {}, "by_stages": []}), "model.name"),
        ("moved", "boundaries .* are not those of layers"),
        ("outside", "by_stages"),
        ("equal", "do not ascend"),
        (" " * (2 << 20), "more than"),
    ],
)
def test_what_is_no_choice_is_refused_by_name(tmp_path: Path, content: str | None, said: str) -> None:
    path = tmp_path / "layers.json"
    wrong = {
        "moved": [{"layers": [5], "boundaries": [4], "objective": 1.0}],
        "outside": choices((12,)),
        "equal": choices((3, 4)) * 2,
    }
    if content in wrong:
        write(tmp_path, by_stages=wrong[content])
    elif content is not None:
        path.write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=f"layers='auto:.*{said}.*allowed is layers=auto:FILE") as error:
        make_method("swiftvlm", {"layers": f"auto:{path}"})
    assert "\n" not in str(error.value)
