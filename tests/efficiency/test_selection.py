"""What a selection costs: every item against torch's own counter, and against sums made by hand."""

import math
import random
from contextlib import nullcontext
from functools import cache
from typing import Any

import pytest
import torch
from reference.declared import oracle_of
from torch.utils.flop_counter import FlopCounterMode

from swiftvlm_eval import make_method, method_names, prune
from swiftvlm_eval.efficiency.selection import executed_work, planned_work, prices, selection_flops
from swiftvlm_eval.efficiency.table import flops_rows
from swiftvlm_eval.models.shape import CLIP_L, LLAVA_7B, DecoderShape, TowerShape
from swiftvlm_eval.pruning.budget import BudgetError
from swiftvlm_eval.pruning.uniform import expected_union
from swiftvlm_eval.pruning.work import Work
from swiftvlm_eval.testing.tiny_models import make_image, make_inputs, tiny_llava, tiny_llava_next

CASES: list[tuple[str, dict[str, Any]]] = [(name, dict(oracle_of(name).scale)) for name in method_names()] + [
    ("fastv", {"scope": "visual"}),
    ("pdrop", {"positions": "keep"}),
    ("feather", {"mode": "union"}),
    ("sparsevlm", {"counts": (90, 90, 20)}),  # the second stage drops nothing
    ("sparsevlm_v1", {"scale": 6.0}),
    ("swiftvlm", {"scope": "all"}),
    ("swiftvlm", {"merge": False}),
    ("swiftvlm", {"bypass": False}),
    ("swiftvlm", {"counts": (60, 0, 40, 8, 20)}),  # the first stage merges nothing, but its tokens wait
    ("visionzip", {"counts": (50, 0)}),
    ("downsample", {"form": "pool"}),
    ("cdpruner", {"relevance": "embed"}),
]


def of_matrix_and_vector(matrix: torch.Size, vector: torch.Size, **_: Any) -> int:
    """Operations of a product that torch's counter does not know."""
    return 2 * matrix[0] * matrix[1]


def beside_the_layers(counter: FlopCounterMode) -> int:
    """Multiply-accumulates outside of the decoder layers, the vision tower's own pass and the rotary tables."""
    counts = {module: sum(operators.values()) for module, operators in counter.get_flop_counts().items()}
    apart = ("vision_tower", "rotary_emb")
    inside = [
        flops
        for module, flops in counts.items()
        if module.endswith(apart) or module.rpartition(".")[0].endswith("language_model.layers")
    ]
    total = counts["Global"] - sum(inside)
    assert total % 2 == 0
    return total // 2


def executed(
    model: Any, inputs: Any, name: str, options: dict[str, Any], counter: FlopCounterMode | None = None
) -> tuple[Any, Any]:
    """What was declared for the executed rows, and the trace."""
    method = make_method(name, options)
    with prune(model, method, budget=1 / 3) as session, torch.no_grad():
        with counter or nullcontext():
            model(**inputs, use_cache=True, logits_to_keep=1)
        shape, tower = session.adapter.decoder.shape, session.adapter.tower.shape
        trace = session.traces[0]
        return selection_flops(method, executed_work(trace, tower), shape, tower), trace


def counted(family: str, name: str, options: dict[str, Any]) -> tuple[int, Any, Any]:
    """Counted operations beside the layers, what was declared for the executed rows, and the trace."""
    build = tiny_llava if family == "llava" else tiny_llava_next
    model, processor = build(grid=12 if family == "llava" else 6, kv_heads=2, attn="eager")
    counter = FlopCounterMode(display=False, custom_mapping={torch.ops.aten.mv: of_matrix_and_vector})
    items, trace = executed(model, make_inputs(processor, make_image(150, 110)), name, options, counter)
    return beside_the_layers(counter), items, trace


@cache
def unpruned(family: str) -> int:
    """Counted operations beside the layers of the model as it is; the same for every method."""
    found, items, _ = counted(family, "vanilla", {})
    assert items == {}
    return found


@pytest.mark.parametrize("family", ["llava", "llava_next"])
@pytest.mark.parametrize(("name", "options"), CASES)
def test_items_agree_with_torchs_counter(
    name: str, options: dict[str, Any], family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exactly: matrix products by the counter, which takes two per multiply-accumulate; distances by their calls."""
    whole = unpruned(family)
    distances: list[int] = []
    stock = torch.cdist

    def watched(points: torch.Tensor, others: torch.Tensor, **options: Any) -> torch.Tensor:
        distances.append(points.numel() * len(others))
        return stock(points, others, **options)

    monkeypatch.setattr(torch, "cdist", watched)
    found, items, trace = counted(family, name, options)
    assert items.pop("distance", 0) == sum(distances)
    assert sum(items.values()) == found - whole
    assert not items if oracle_of(name).free else items
    if name != "vanilla":
        assert trace.rows_per_layer[-1] < trace.num_visual


@pytest.mark.parametrize(("name", "options"), CASES)
def test_a_plan_expects_what_is_executed(name: str, options: dict[str, Any]) -> None:
    model, processor = tiny_llava(grid=12)
    tower = TowerShape.of_config(model.config.vision_config)
    shape = DecoderShape.of_config(model.config.text_config)
    items, trace = executed(model, make_inputs(processor, make_image(150, 110)), name, options)
    planned = planned_work(trace.plan, trace.num_text, trace.num_question, tower)
    expected = selection_flops(make_method(name, options), planned, shape, tower)
    if name == "sparsevlm_v1" or options.get("mode") == "union":  # counts that depend on the image
        assert set(expected) == set(items)
    else:
        assert expected == items


def test_every_kind_of_work_has_a_price() -> None:
    assert list(prices(LLAVA_7B, CLIP_L)) == list(vars(Work()))


def test_items_by_hand() -> None:
    """LLaVA-1.5-7B, 576 tokens, 70 text rows of which 35 ask; d = 4096."""
    d = 4096
    rows = {name: flops_rows([(name, {})], ["192"])[-1] for name in ("random", "fastv", "pdrop", "sparsevlm_plus")}
    assert rows["random"]["selection_tflops"] == {}
    assert rows["fastv"]["selection_tflops"] == pytest.approx({"queries": d**2 / 1e12, "attention": 646 * d / 1e12})
    # 146, 37 and 9 of 576 are kept; scores at N = 576, 146, 37, with 70 text rows
    seen = (576 + 146 + 37) + 3 * 70
    expected = {"queries": 3 * d**2 / 1e12, "keys": seen * d**2 / 1e12, "attention": seen * d / 1e12}
    assert rows["pdrop"]["selection_tflops"] == pytest.approx(expected)
    # stages keep 286, 177, 105
    visual = 576 + 286 + 177
    expected = {
        "queries": 3 * 35 * d**2 / 1e12,
        "attention": 35 * (visual + 3 * 70) * d / 1e12,
        "position_similarity": 35 * visual * 128 / 1e12,
        "similarity": 576 * 35 * d / 1e12,
    }
    assert rows["sparsevlm_plus"]["selection_tflops"] == pytest.approx(expected)
    for row in rows.values():
        assert row["tflops"] == pytest.approx(row["layers_tflops"] + sum(row["selection_tflops"].values()))


def simulated_union(side: int, best: int, stride: int) -> float:
    """Mean size of the union of a drawn set and the grid."""
    draw = random.Random(0)
    grid = {row * side + column for row in range(0, side, stride) for column in range(0, side, stride)}
    return sum(len(grid | set(draw.sample(range(side * side), best))) for _ in range(2000)) / 2000


@pytest.mark.parametrize(
    ("side", "ratio", "stride"), [(24, 0.3, 3), (24, 0.3, 2), (24, 0.6, 5), (12, 0.3, 3), (7, 0.5, 2)]
)
def test_the_plan_of_feathers_union_is_what_independent_choices_give(side: int, ratio: float, stride: int) -> None:
    method = make_method("feather", {"mode": "union", "keep_ratio": ratio, "stride": stride})
    plan = method.plan(side * side, 32, 1 / 3)
    first = plan.stages[0].kept
    assert first == pytest.approx(simulated_union(side, int(ratio * side * side), stride), abs=1)
    assert plan.stages[1].kept == int(first * ratio**2)


def test_feathers_union_by_hand() -> None:
    # 172 by score, 64 on the grid, 172 * 64 / 576 = 19.1 in both
    plan = make_method("feather", {"mode": "union"}).plan(576, 32, 1 / 3)
    assert [stage.kept for stage in plan.stages] == [217, 19]
    assert plan.mean_visual_tokens == 207.75
    # several grids of LLaVA-NeXT: one in nine of 2340
    assert expected_union(2340, 702, 3) == round(702 + 260 - 702 / 9)
    assert math.isclose(expected_union(576, 576, 3), 576)


def test_the_record_has_feathers_union_as_planned_and_as_its_reported_flops_have_it() -> None:
    method = make_method("feather", {"mode": "union"})
    attributed = method.attributed_plan(method.plan(576, 32, 1 / 3))
    assert attributed is not None and [stage.kept for stage in attributed.stages] == [212, 19]
    other = make_method("feather", {"mode": "union", "keep_ratio": 0.4})
    assert other.attributed_plan(other.plan(576, 32, 1 / 3)) is None
    fill = make_method("feather")
    assert fill.attributed_plan(fill.plan(576, 32, 1 / 3)) is None


@pytest.mark.parametrize("name", method_names())
def test_a_selection_among_2880_rows_is_below_five_percent_of_its_prefill(name: str) -> None:
    """A 7B decoder with 70 text rows; the layers' FLOPs by hand, as the papers count them."""
    found = 0
    for share in (1 / 3, 2 / 9, 1 / 9):
        method = make_method(name, oracle_of(name).scale)
        try:
            plan = method.plan(2880, 32, share)
        except BudgetError:
            continue
        selection = sum(selection_flops(method, planned_work(plan, 70, 30, CLIP_L), LLAVA_7B, CLIP_L).values())
        rows = [visual + 70 for visual in plan.rows_per_layer]
        layers = sum(4 * n * 4096**2 + 2 * n**2 * 4096 + 3 * n * 4096 * 11008 for n in rows)
        assert selection < 0.05 * layers, share
        found += 1
    assert found
