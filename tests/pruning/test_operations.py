"""What a prefill with pruning asks of the device beyond the stock model: counts, never times."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from benchmarks.counted import Counted, counted
from benchmarks.small_llava import prompts, small_llava
from probe_methods import apply_edit

from swiftvlm_eval import make_method, method_names, prune
from swiftvlm_eval.pruning import engine, merging, rows
from swiftvlm_eval.pruning.arrangement import OneRun
from swiftvlm_eval.pruning.contract import RowEdit
from swiftvlm_eval.pruning.merging import density_peak_clusters, distances
from swiftvlm_eval.pruning.rows import apply_edits, initial_rows
from swiftvlm_eval.pruning.scores import rank_of_rows
from swiftvlm_eval.testing.greedy import generate
from swiftvlm_eval.testing.tiny_models import SYSTEM, make_image, tiny_llava

MOST = {
    "vanilla": 0,
    "fastv": 25,
    "pdrop": 90,
    "sparsevlm": 150,
    "sparsevlm_plus": 125,
    "swiftvlm": 150,
    "visionzip": 60,
}
"""Method -> operations beyond the stock model at 32 layers."""
SIDE = 24


@cache
def narrow(side: int) -> Any:
    return small_llava(side)


def prefill(name: str | None, batch: int = 1, side: int = SIDE) -> Counted:
    """Counts of one prefill after another one; None is the stock model."""
    inputs, model = prompts(side, batch), narrow(side)
    with torch.no_grad():
        if name is None:
            with counted() as found:
                model(**inputs, use_cache=True)
            return found
        with prune(model, make_method(name), budget=1 if name == "vanilla" else 1 / 3):
            model(**inputs, use_cache=True)
            with counted() as found:
                model(**inputs, use_cache=True)
    return found


@cache
def stock(batch: int = 1, side: int = SIDE) -> Counted:
    return prefill(None, batch, side)


@pytest.mark.parametrize("name", MOST)
def test_few_operations_and_no_wait_beyond_the_stock_model(name: str) -> None:
    found = prefill(name)
    assert found.operations.total() - stock().operations.total() <= MOST[name]
    assert found.waits.total() <= stock().waits.total()


def test_the_rank_makes_each_of_four_stages_wait_once() -> None:
    assert prefill("sparsevlm_v1").waits.total() - stock().waits.total() == 4


def test_the_counter_sees_operations_and_waits() -> None:
    values = torch.arange(6.0)
    with counted() as found:
        _ = values.view(2, 3).T[:1]
        _ = values * 2 + 1
    assert (dict(found.operations), dict(found.waits)) == ({"mul": 1, "add": 1}, {})
    reads: list[Callable[[], Any]] = [
        lambda: values[0].item(),
        lambda: int(values[1]),
        lambda: values[values > 2],
        lambda: (values > 2).nonzero(),
        lambda: values.unique(),
        lambda: values.tolist(),
        lambda: values.cpu(),
        lambda: torch.equal(values, values),
    ]
    for read in reads:
        with counted() as found:
            read()
        assert found.waits.total() == 1
    with counted() as found:
        values.cpu().numpy()
    assert found.waits.total() == 1, "what is on the host may be read there"


@pytest.mark.parametrize("name", MOST)
def test_a_batch_of_eight_takes_hardly_more_operations_than_one_sample(name: str) -> None:
    alone, together = (prefill(name, batch, 12) for batch in (1, 8))
    beyond = [
        found.operations.total() - stock(batch, 12).operations.total() for found, batch in ((alone, 1), (together, 8))
    ]
    assert beyond[1] <= max(1.5 * beyond[0], beyond[0] + 5)
    assert together.waits.total() <= stock(8, 12).waits.total()


@pytest.mark.parametrize("name", method_names())
def test_the_short_way_of_an_edit_equals_sorting_all_rows(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, processor = tiny_llava(grid=12)
    images = [make_image(150, 110), make_image(90, 160, seed=1)]
    prompts = [f"{SYSTEM}USER: <image>\n{question} ASSISTANT:" for question in ("Red?", "What is in the picture?")]
    inputs = processor(images=images, text=prompts, padding=True, return_tensors="pt")
    short: list[bool] = []

    def both(samples: Any, states: Any, edits: Any, renumber: Any) -> Any:
        found, pieces = apply_edits(samples, states, edits, renumber)
        for sample, own, edit, anew, new, parts in zip(samples, states, edits, renumber, found, pieces, strict=True):
            expected, after = rows._sorted_anew(sample, own, edit, anew)
            short.append(isinstance(new.arrangement, OneRun))
            for attribute in ("places", "position_ids", "text", "visual", "index"):
                assert torch.equal(getattr(new, attribute), getattr(expected, attribute)), attribute
            assert torch.equal(torch.cat([*parts]), after)
        return found, pieces

    monkeypatch.setattr(engine, "apply_edits", both)
    with prune(model, make_method(name), budget=1 if name == "vanilla" else 1 / 3):
        generate(model, inputs, 1)
    assert all(short)


@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize("name", ["fastv", "pdrop", "sparsevlm", "swiftvlm"])
def test_every_layer_gets_the_rotation_of_its_rows(name: str, ragged: bool) -> None:
    model, inputs = small_llava(12, layers=18), prompts(12, 3, ragged)
    if ragged:
        inputs["position_ids"] = (inputs["attention_mask"].cumsum(dim=1) - 1).clamp(min=0)
    tables: list[Any] = []
    layers = model.model.language_model.layers
    hooks = [
        layer.register_forward_pre_hook(
            lambda module, args, kwargs: tables.append(kwargs["position_embeddings"]), with_kwargs=True
        )
        for layer in layers
    ]
    with prune(model, make_method(name), budget=1 / 3) as session, torch.no_grad():
        model(**inputs, use_cache=True)
        for given, batch in zip(tables, session._layer_rows, strict=True):
            for number, sample in enumerate(batch):
                expected = session.adapter.decoder.rotary(torch.empty(0), sample.position_ids[:, None])
                for found, table in zip(given, expected, strict=True):
                    own = found.expand(3, -1, -1)[number, found.shape[1] - len(sample) :]
                    torch.testing.assert_close(own, table[0], atol=1e-6, rtol=0)
    for hook in hooks:
        hook.remove()


def test_what_is_sure_of_an_edit_is_forgotten_where_it_is_changed() -> None:
    edit = RowEdit(torch.zeros(2, 1), torch.tensor([0, 1]), torch.tensor([1.0, 2.0])).sure("ascending", whole=True)
    assert (edit.order, edit.whole) == ("ascending", True)
    changed = replace(edit, places=torch.tensor([9.0, 1.0]))
    assert (changed.order, changed.whole) == ("any", False)
    sample = initial_rows([False, True, True, False, False], torch.arange(5.0)[None], start=0)
    states = torch.arange(5.0)[:, None]
    moved, after = apply_edit(sample, states, replace(edit, places=torch.tensor([3.5, 1.0])), renumber=False)
    assert (moved.visual.tolist(), moved.index.tolist()) == ([1, 3], [1, 0])
    assert after[:, 0].tolist() == [0, 0, 3, 0, 4]


@pytest.mark.parametrize("kept", [torch.tensor([3, 0, 2]), torch.tensor([True, False, True, True, False])])
def test_kept_rows_stay_in_order_however_they_are_named(kept: torch.Tensor) -> None:
    from probe_methods import HandSignals

    from swiftvlm_eval.pruning.schedule import Stage

    numbers = torch.arange(5)
    signals = HandSignals(
        Stage(1, 3), 5, numbers[:, None].float(), numbers, numbers.float(), torch.zeros(1, 1), 1, None, torch.zeros(5)
    )
    assert signals.keep(kept).index.tolist() == [0, 2, 3]


def test_distances_by_products_are_those_by_differences(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        points = torch.randn(150, 64, generator=generator) + 3
        points[40:60] = points[7]
        points[90] = points[91] * (1 + 1e-6)
        found = distances(points)
        exact = points.double()
        expected = (exact[:, None] - exact).norm(dim=-1)
        torch.testing.assert_close(found.double(), expected, atol=1e-6, rtol=1e-6)
        assert not found[40:60, 40:60].any()
        assert found[90, 91] > 0
        by_products = density_peak_clusters(points, 15)
        with monkeypatch.context() as patched:
            patched.setattr(merging, "COMPARED_BY_DIFFERENCES", 10**6)
            assert torch.equal(by_products, density_peak_clusters(points, 15))


def test_ranks_are_those_of_the_library() -> None:
    generator = torch.Generator().manual_seed(0)
    for number in range(100):
        asking, seen, rank = torch.randint(1, 40, (3,), generator=generator).tolist()
        matrix = torch.rand(asking, rank, generator=generator) @ torch.rand(rank, seen, generator=generator)
        matrix = matrix.softmax(dim=1) if number % 2 else matrix
        empty = torch.rand(asking, generator=generator) < 0.3
        empty[0] = False
        found = rank_of_rows(matrix.masked_fill(empty[:, None], 0), empty)
        assert found == int(torch.linalg.matrix_rank(matrix[~empty]))
    assert rank_of_rows(torch.full((2, 3), torch.nan), torch.tensor([False, False])) == 0
