"""Images encoded once for a whole sweep: the same answers, no pass of the tower, no times that are none."""

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from datasets import Dataset
from lmms.tiny_runs import SIZES, checkpoint, make_model, make_requests, score_request
from models.test_encode_once import passes
from PIL import ImageFile
from sweep.small_sweeps import LIMIT, documents, make_sweep

from swiftvlm_eval.models.checkpoint import Checkpoint
from swiftvlm_eval.models.encode_once import EncodeOnce
from swiftvlm_eval.models.feature_folder import FeatureFolder
from swiftvlm_eval.models.feature_store import FeatureStore
from swiftvlm_eval.models.image_features import ImageFeatures, parts_for
from swiftvlm_eval.pruning.registry import make_method, method_names
from swiftvlm_eval.results import read_record
from swiftvlm_eval.sweep import Configuration, features, make_grid
from swiftvlm_eval.sweep.features import (
    GIB,
    Wish,
    bytes_per_image,
    count_images,
    decide,
    encoding_once,
    open_store,
)
from swiftvlm_eval.testing.tiny_models import make_image

FAMILIES = ["llava", "llava_next"]
ALL = ["features", "layer_input", "states", "pixels"]
SHORT = {"max_new_tokens": 5}


@pytest.fixture(scope="module", params=FAMILIES)
def stocked(request: pytest.FixtureRequest) -> EncodeOnce:
    """A store that all methods of a family share, with the images of `answered`."""
    own = checkpoint(request.param)
    once = EncodeOnce(own, FeatureStore(1 << 30), ALL)  # type: ignore[arg-type]
    answered(own, "vanilla", once, 8)
    return once


def answered(own: Checkpoint, method: str, once: EncodeOnce | None, batch_size: int) -> list[tuple[Any, ...]]:
    """Answers, and what pruning did to each sample, of a few prompts, two of them about one image."""
    budget = {"vanilla": 1, "sparsevlm_v1": 1 / 3}.get(method, 0.5)
    options = {"mode": "clean"} if method == "apet" else {}
    model = make_model(method, family=own.family, own=own, budget=budget, batch_size=batch_size, **options)
    with encoding_once(own, once, model.method.needs):
        sizes = [SIZES[:1], SIZES[1:2], SIZES[:1], SIZES[3:4]]
        results = model.generate_until(make_requests(model, [SHORT] * 4, sizes))
    found = []
    for result in results:
        report = result.token_counts.report.to_dict()
        timed = report.pop("prefill_s") is not None, report.pop("total_s") is not None
        found.append((result.text, timed, report))
    return found


@pytest.mark.parametrize("method", sorted(method_names()))
@pytest.mark.parametrize("batch_size", [1, 8])
def test_every_method_answers_the_same(stocked: EncodeOnce, method: str, batch_size: int) -> None:
    own = stocked.checkpoint
    usual = answered(own, method, None, batch_size)
    with passes(own) as seen:
        found = answered(own, method, stocked, batch_size)
    runs_tower = parts_for(make_method(method).needs) is None
    assert [answer[0] for answer in found] == [answer[0] for answer in usual]
    assert [answer[2] for answer in found] == [answer[2] for answer in usual]  # rows of every layer, operations
    assert all(answer[1] == (batch_size == 1, batch_size == 1) for answer in usual)
    if runs_tower:
        assert seen["tower"] == (4 if batch_size == 1 else 1) and seen["images"] == 4
        assert [answer[1] for answer in found] == [answer[1] for answer in usual]
    else:
        assert all(answer[1] == (False, False) for answer in found)
        assert seen == {"tower": 0, "inputs": 0, "images": 0}
    assert own.once is None


def test_several_images_beams_and_likelihoods(stocked: EncodeOnce) -> None:
    own = stocked.checkpoint
    for method in ("vanilla", "visionzip", "random", "feather"):
        model = make_model(method, family=own.family, own=own, budget=1 if method == "vanilla" else 0.5, batch_size=3)
        seen: list[Any] = []
        for once in (None, stocked, stocked):
            with encoding_once(own, once, model.method.needs):
                requests = make_requests(model, [{**SHORT, "num_beams": 2}] * 3, [SIZES[:2], SIZES[2:3], SIZES[3:5]])
                texts = [result.text for result in model.generate_until(requests)]
                loss, greedy = model.loglikelihood([score_request(model, "What?", " a circle")])[0].text
            seen.append((texts, greedy, pytest.approx(loss, rel=1e-5)))
        assert seen[0] == seen[1] == seen[2]


def test_a_prompt_without_images_is_answered(stocked: EncodeOnce) -> None:
    own = stocked.checkpoint
    model = make_model("fastv", family=own.family, own=own, budget=0.5, batch_size=2)
    with encoding_once(own, stocked, model.method.needs):
        mixed = model.generate_until(make_requests(model, [SHORT] * 3, [[], SIZES[:1], []]))
    plain = model.generate_until(make_requests(model, [SHORT] * 3, [[], SIZES[:1], []]))
    assert [result.text for result in mixed] == [result.text for result in plain]


GRID = [
    *(Configuration("vanilla", 1.0), Configuration("fastv", 0.5), Configuration("visionzip", 0.5)),
    *(Configuration("downsample", 0.5625), Configuration("fastv", 0.75)),
]


def different_images(limit: int) -> int:
    """By their pixels."""
    return len(
        {
            (visual.size, visual.convert("RGB").tobytes())
            for task in documents().tasks.values()
            for number in range(limit)
            for visual in task.doc_to_visual(task.eval_docs[number])
        }
    )


def lines_of(record: Path) -> list[dict[str, Any]]:
    """A record's samples, those that differ from run to run in time alone."""
    content = gzip.decompress(next(record.parent.glob("*samples*")).read_bytes())
    return [json.loads(line) for line in content.splitlines()]


@pytest.mark.parametrize("batch_size", [1, 8])
def test_a_sweep_encodes_each_image_once(tmp_path: Path, batch_size: int) -> None:
    own, limit, times = checkpoint(), 4, ("prefill_s", "total_s")
    grid = GRID if batch_size == 8 else [GRID[0], GRID[1], GRID[3]]
    options = {"batch_size": batch_size, "limit": limit}
    usual = [outcome.record for outcome in make_sweep(tmp_path / "usual", **options).run(grid)]
    sweep = make_sweep(tmp_path / "once", once=EncodeOnce(own, FeatureStore(1 << 30), ["layer_input"]), **options)
    runs = []
    for cell in grid:
        with passes(own) as seen:
            (outcome,) = sweep.run([cell])
        runs.append((outcome.record, seen["inputs"]))
    assert different_images(limit) > 1 and own.once is None
    ours = [2 * limit if cell.method == "downsample" else 0 for cell in grid[1:]]
    assert [inputs for _, inputs in runs] == [different_images(limit), *ours] and 2 * limit in ours
    for before, (after, _), cell in zip(usual, runs, grid, strict=True):
        assert before is not None and after is not None
        timed = batch_size == 1 and cell.method == "downsample"
        for old, new in zip(lines_of(before), lines_of(after), strict=True):
            assert [new.pop(name) is not None for name in times] == [timed, timed]
            assert [old.pop(name) is not None for name in times] == [batch_size == 1] * 2
            assert new == old
        for name, task in read_record(after).tasks.items():
            assert (task.timing is not None) == timed
            assert task.execution == read_record(before).tasks[name].execution


def test_lmms_evals_throughput_says_what_its_seconds_leave_out(tmp_path: Path) -> None:
    once = EncodeOnce(checkpoint(), FeatureStore(1 << 30), [])
    for name, given in (("usual", None), ("once", once)):
        list(make_sweep(tmp_path / name, batch_size=8, once=given).run(GRID[:1]))
    said = {}
    for name in ("usual", "once"):
        (file,) = (tmp_path / name / "lmms_eval").rglob("*_results.json")
        said[name] = json.dumps(json.loads(file.read_text(encoding="utf-8"))["throughput"])
    assert "n_samples_timed_without_vision_tower" in said["once"] and "without" not in said["usual"]


def test_what_overflows_goes_to_the_folder_and_an_interrupted_call_finds_it(tmp_path: Path) -> None:
    own, images = checkpoint(), different_images(LIMIT)
    for cell, tower in ((GRID[0], images), (GRID[1], 0)):
        folder = FeatureFolder(tmp_path / "features", "maker", GIB)
        once = EncodeOnce(own, FeatureStore(0, folder), [])  # as another process would, with an empty memory
        with passes(own) as seen:
            list(make_sweep(tmp_path, once=once).run([cell]))
        assert seen["tower"] == tower
    assert len(list((tmp_path / "features").rglob("*.safetensors"))) == images


@pytest.fixture(params=FAMILIES)
def own(request: pytest.FixtureRequest) -> Iterator[Checkpoint]:
    yield checkpoint(request.param)


def test_the_size_is_stated_as_it_will_be(own: Checkpoint) -> None:
    largest = make_image(56 * 2, 56 * 2)
    for parts in (["features"], ["features", "layer_input"], ["features", "states", "pixels"]):
        once = EncodeOnce(own, FeatureStore(GIB), parts)  # type: ignore[arg-type]
        with torch.inference_mode():
            once.on_host([largest], once.checkpoint.preprocess)[0].to_device()
        assert once.store.used == bytes_per_image(own.adapter, parts, 4)  # type: ignore[arg-type]


def decided(own: Checkpoint, methods: str, wish: Wish, **more: Any) -> Any:
    grid = make_grid([(name, {}) for name in methods.split(",")], ["1/2"])
    return decide(wish, own, grid, **{"count": lambda: 1000, "documents": 3000, "batch_size": 8, **more})


def test_it_is_on_where_it_pays_and_fits(own: Checkpoint) -> None:
    found = decided(own, "vanilla,fastv,visionzip,tome", Wish())
    assert found.parts == {"features", "layer_input"} and found.spills
    size = 1000 * bytes_per_image(own.adapter, found.parts, 4)
    assert f"{size / (1 << 20):.3g} MiB" in found.said and "1,000 images" in found.said
    assert "once for 3 configurations" in found.said and "the other 1 run the vision tower" in found.said
    few = decided(own, "vanilla", Wish(), documents=1000)
    assert few.parts is None and "no image is met twice" in few.said
    assert decided(own, "vanilla", Wish()).parts is not None  # three questions about each image
    assert decided(own, "tome,downsample", Wish()).parts is None


def test_times_at_batch_size_1_are_not_given_up_unasked(own: Checkpoint) -> None:
    found = decided(own, "vanilla,fastv", Wish(), batch_size=1, count=None)  # which takes a while, and is not asked
    assert found.parts is None and "at batch size 1 answers are timed" in found.said and "--features" in found.said
    assert decided(own, "vanilla,fastv", Wish("memory"), batch_size=1).parts == {"features"}


def test_it_is_off_where_it_does_not_fit_and_says_so(own: Checkpoint, tmp_path: Path) -> None:
    one = 1000 * bytes_per_image(own.adapter, ["features"], 4) / GIB
    found = decided(own, "vanilla,fastv", Wish("auto", 0.4 * one, 0.5 * one))
    assert found.parts is None and "image features: off" in found.said and "does not fit" in found.said
    assert open_store(found, Wish(), own, tmp_path) is None
    fits = decided(own, "vanilla,fastv", Wish("auto", 0.5 * one, 0.6 * one))
    assert fits.parts == {"features"}
    assert decided(own, "vanilla,fastv", Wish("auto", 0.3 * one, 0.1 * one), processes=4).parts == {"features"}
    asked = decided(own, "vanilla,fastv", Wish("memory", 0.4 * one))
    assert asked.parts == {"features"} and not asked.spills and "encoded anew" in asked.said


def test_a_small_machine_lowers_the_bounds_of_auto_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    facts = {"SC_PHYS_PAGES": 2 << 20, "SC_PAGE_SIZE": 4096}
    monkeypatch.setattr(features.os, "sysconf", facts.__getitem__)  # 8 GiB
    monkeypatch.setattr(features.shutil, "disk_usage", lambda path: SimpleNamespace(free=10 * GIB))
    assert features.on_this_machine(Wish(), tmp_path, 1) == Wish("auto", 2, 5)
    assert features.on_this_machine(Wish("auto", 1, 3), tmp_path, 1) == Wish("auto", 1, 3)
    assert features.on_this_machine(Wish(), tmp_path, 4) == Wish("auto", 0.5, 5)
    for wish in (Wish("memory"), Wish("folder", 99, 999), Wish("off")):
        assert features.on_this_machine(wish, tmp_path, 1) == wish


def test_the_states_of_all_layers_are_left_out_where_only_they_do_not_fit(own: Checkpoint) -> None:
    both = 1000 * bytes_per_image(own.adapter, ["features", "layer_input"], 4) / GIB
    found = decided(own, "vanilla,visionzip,hiprune", Wish("auto", 1.1 * both, 0))
    assert found.parts == {"features", "layer_input"}
    assert "2 configurations" in found.said and "the other 1 run the vision tower themselves" in found.said
    assert decided(own, "vanilla,visionzip,hiprune", Wish()).parts == {"features", "states"}


def test_off_is_off_and_other_projectors_are_left_alone() -> None:
    assert decided(checkpoint(), "vanilla,fastv", Wish("off")).parts is None
    shown = SimpleNamespace(model=SimpleNamespace(config=SimpleNamespace(vision_feature_select_strategy="full")))
    found = decided(shown, "vanilla,fastv", Wish())  # type: ignore[arg-type]
    assert found.parts is None and "vision_feature_select_strategy='full'" in found.said


def test_images_are_counted_without_decoding_them(monkeypatch: pytest.MonkeyPatch) -> None:
    tasks, wanted = documents().tasks, different_images(20)
    (own,) = (task for name, task in tasks.items() if name == "demo_gqa")
    monkeypatch.setattr(ImageFile.ImageFile, "load", None)
    assert count_images({"demo_gqa": own}, 20) <= wanted <= count_images(tasks, 20) < 2 * 20
    clusters = {own["cluster_id"] for own in tasks["demo_refcoco"].eval_docs.select(range(20))}
    assert count_images(tasks, 20) == count_images({"demo_gqa": own}, 20) + len(clusters)
    plain = SimpleNamespace(eval_docs=Dataset.from_dict({"question": ["a", "b", "c"]}))
    assert count_images({"plain": plain}, None) == 3 and count_images({"plain": plain}, 2) == 2
    assert count_images({"one": plain, "two": plain}, 2) == 4


def test_features_of_other_images_would_show() -> None:
    """The trap behind all of these: wrong features of the right shape change answers."""
    own = checkpoint()
    usual = answered(own, "vanilla", None, 1)
    once = EncodeOnce(own, FeatureStore(GIB), [])
    answered(own, "vanilla", once, 1)
    entries = once.store._entries
    for name, entry in list(entries.items()):
        entries[name] = ImageFeatures({"features": entry.parts["features"].flip(1)}, entry.visual_tokens, entry.size)
    assert [answer[0] for answer in answered(own, "vanilla", once, 1)] != [answer[0] for answer in usual]
