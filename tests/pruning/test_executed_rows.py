"""Executed rows are the planned rows: by a plain simulation of the rows alive, and by the engine on a tiny model."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from reference.declared import oracle_of

from swiftvlm_eval import make_method, method_names, prune
from swiftvlm_eval.pruning.budget import BudgetError
from swiftvlm_eval.testing.tiny_models import make_image, make_inputs, tiny_llava, tiny_llava_next


def is_exact(name: str) -> bool:
    """Whether a method drops rows by counts that a plan knows."""
    if oracle_of(name).scale or not oracle_of(name).everywhere or make_method(name).adaptive:
        return False
    return bool(make_method(name).plan(576, 32, 1 / 3).stages)


EXACT = [name for name in method_names() if is_exact(name)]
OPTIONS: dict[str, dict[str, Any]] = {name: {} for name in EXACT} | {
    "swiftvlm without bypass": {"bypass": False},
    "swiftvlm without merging": {"merge": False},
    "random before the decoder": {"layers": "0"},
    "pdrop at other layers": {"layers": "2:3:4"},
}


def build(variant: str) -> Any:
    return make_method(variant.split()[0], OPTIONS[variant])


def rows_alive(variant: str, num_visual: int, num_layers: int, stages: Sequence[tuple[int, int, int]]) -> list[int]:
    """What a prompt's rows become under (boundary, kept, merged), one row object at a time, by the papers' rules."""
    oracle, options = oracle_of(variant.split()[0]), OPTIONS[variant]
    alive: list[object] = [object() for _ in range(num_visual)]
    waiting: list[object] = []
    counted, due = [], {boundary: (number, kept, merged) for number, (boundary, kept, merged) in enumerate(stages)}
    for layer in range(num_layers):
        if layer in due:
            number, kept, merged = due[layer]
            candidates = waiting or alive
            chosen, rest = candidates[:kept], candidates[kept:]
            last = number == len(stages) - 1
            made = oracle.made(len(rest), merged, options, last)
            waiting = candidates if rest and oracle.returns(options) and not last else []
            alive = chosen + [object() for _ in range(made)]
        counted.append(len(alive))
    return counted


def refused_rightly(variant: str, num_visual: int, num_layers: int, share: float) -> bool:
    """Whether the fewest rows that a stage keeps are too many, or already more than half a token above the budget."""
    boundaries, fewest = build(variant).boundaries(num_layers, share), oracle_of(variant.split()[0]).least
    least = rows_alive(variant, num_visual, num_layers, [(boundary, fewest, 0) for boundary in boundaries])
    return fewest > num_visual or sum(least) / num_layers > share * num_visual + 0.5


def verify(variant: str, num_visual: int, num_layers: int, share: float) -> None:
    try:
        plan = build(variant).plan(num_visual, num_layers, share)
    except BudgetError:
        assert refused_rightly(variant, num_visual, num_layers, share), (variant, num_visual, num_layers, share)
        return
    stages = [(stage.boundary, stage.kept, stage.merged) for stage in plan.stages]
    executed = rows_alive(variant, num_visual, num_layers, stages)
    facts = (variant, num_visual, num_layers, share, stages)
    assert list(plan.rows_per_layer) == executed, facts
    assert abs(sum(executed) / num_layers - share * num_visual) <= 0.5, facts


@settings(max_examples=1500, deadline=None)
@given(
    variant=st.sampled_from(list(OPTIONS)),
    share=st.one_of(st.floats(0.001, 1.0), st.floats(0.85, 1.0)),
    num_visual=st.one_of(st.integers(1, 100), st.integers(1, 3000)),
    num_layers=st.integers(5, 48),
)
def test_what_is_planned_can_be_executed(variant: str, share: float, num_visual: int, num_layers: int) -> None:
    assume(num_layers > len(build(variant).layers_for(share)))
    verify(variant, num_visual, num_layers, share)


@pytest.mark.parametrize("variant", OPTIONS)
def test_small_prompts_over_the_whole_range(variant: str) -> None:
    for num_visual in [*range(1, 10), *range(10, 41, 3)]:
        for hundredth in range(2, 101, 7):
            verify(variant, num_visual, 32, hundredth / 100)


@pytest.mark.parametrize(
    ("name", "num_visual", "share"), [("sparsevlm", 64, 0.944), ("pdrop", 16, 0.19), ("sparsevlm_plus", 64, 0.95)]
)
def test_plans_that_once_held_rows_that_were_gone(name: str, num_visual: int, share: float) -> None:
    verify(name, num_visual, 32, share)


ENGINE = [(4, 0.19), (4, 0.6), (4, 0.97), (8, 0.3), (8, 0.944), (12, 0.15), (12, 0.93)]


@pytest.mark.parametrize("variant", OPTIONS)
def test_the_engine_executes_the_plan(variant: str) -> None:
    met = 0
    for side, share in ENGINE:
        model, processor = tiny_llava(grid=side, layers=16)
        inputs = make_inputs(processor, make_image(150, 110))
        with prune(model, build(variant), budget=share) as session, torch.no_grad():
            try:
                model(**inputs, use_cache=True)
            except BudgetError:
                assert refused_rightly(variant, side**2, 16, share)
                continue
        (trace,) = session.traces
        assert tuple(trace.rows_per_layer) == trace.plan.rows_per_layer
        assert abs(trace.mean_visual_tokens - share * side**2) <= 0.5
        met += 1
    assert met >= 4


def test_visionzip_refuses_more_rows_than_its_encoder_inputs_have() -> None:
    """Newline tokens make a square LLaVA-NeXT image larger than its five encoder inputs with their CLS tokens."""
    model, processor = tiny_llava_next(grid=6)
    inputs = make_inputs(processor, make_image(168, 168))
    total = int((inputs["input_ids"] == model.config.image_token_id).sum())
    assert total == 36 + 12 * 13 and total > 5 * 37
    for share in (0.5, 0.9, 0.95):
        with prune(model, make_method("visionzip"), budget=share) as session, torch.no_grad():
            model(**inputs, use_cache=True)
        assert tuple(session.traces[0].rows_per_layer) == session.traces[0].plan.rows_per_layer
    for share in (0.96, 0.97, 0.99):  # rows would be missing
        with (
            prune(model, make_method("visionzip"), budget=share),
            torch.no_grad(),
            pytest.raises(BudgetError, match=r"3[78] \+ [01] tokens of an encoder input: it has 37"),
        ):
            model(**inputs, use_cache=True)


RISING = [
    ("pdrop", {"counts": "100:200:300"}, "stage 2 keeps 200 rows out of 100"),
    ("sparsevlm_plus", {"counts": "100:100:101"}, "stage 3 keeps 101 rows out of 100"),
    ("sparsevlm", {"counts": "100:120:30"}, "stage 2 keeps 120 rows out of 115"),  # 100 kept, 15 recycled
    ("feather", {"counts": "20:60"}, "stage 2 keeps 60 rows out of 20"),
    ("swiftvlm", {"counts": "60:12:80:8:20", "bypass": False}, "stage 2 keeps 80 rows out of 72"),
    ("swiftvlm", {"counts": "60:0:80:0:20", "merge": False}, "stage 2 keeps 80 rows out of 60"),
]


@pytest.mark.parametrize(("name", "options", "message"), RISING)
def test_counts_above_the_rows_alive_are_refused(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"counts=.*{message}"):
        make_method(name, options).plan(576, 32)


def test_tokens_on_the_bypass_may_return() -> None:
    plan = make_method("swiftvlm", {"counts": "60:12:80:8:90"}).plan(576, 32)
    assert [stage.kept for stage in plan.stages] == [60, 80, 90]
    model, processor = tiny_llava(grid=12, layers=16)
    with prune(model, make_method("swiftvlm", {"counts": "30:6:40:4:50"})) as session, torch.no_grad():
        model(**make_inputs(processor, make_image(150, 110)), use_cache=True)
    assert tuple(session.traces[0].rows_per_layer) == session.traces[0].plan.rows_per_layer
    assert session.traces[0].rows_per_layer[-1] == 50


def test_rows_that_recycling_added_count_as_alive() -> None:
    plan = make_method("sparsevlm", {"counts": "100:110:30"}).plan(576, 32)  # 100 kept and 15 recycled
    stages = [(stage.boundary, stage.kept, stage.merged) for stage in plan.stages]
    assert list(plan.rows_per_layer) == rows_alive("sparsevlm", 576, 32, stages)


def test_merged_rows_are_refused_where_nothing_is_merged() -> None:
    with pytest.raises(ValueError, match="counts=.*merges nothing here; allowed are 0 merged rows"):
        make_method("swiftvlm", {"counts": "240:32:164:32:96", "merge": False}).plan(576, 32)


@pytest.mark.parametrize(
    ("name", "layers", "message"),
    [
        ("fastv", "0", "layers=\\[0\\]: fastv scores by the layer that has just run; allowed .* 1 to 31"),
        ("sparsevlm", "0:7:16", "layers=.*sparsevlm scores by the layer that has just run"),
        ("sparsevlm_v1", "0:7:16:20", "layers=.*sparsevlm_v1 scores by the layer"),
        ("sparsevlm_plus", "0:7:16", "layers=.*sparsevlm_plus scores by the layer"),
        ("feather", "0:16", "layers=.*feather scores by the layer that has just run"),
        ("swiftvlm", "0:10:14", "layers=.*swiftvlm scores by the layer that has just run"),
        ("visionzip", "5", "layers=\\[5\\]: visionzip acts before the decoder; allowed is 0"),
    ],
)
def test_boundaries_that_a_method_cannot_act_at(name: str, layers: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_method(name, {"layers": layers}).plan(576, 32, 1 / 3)


def test_methods_that_need_no_executed_layer_may_act_before_the_decoder() -> None:
    assert make_method("random", {"layers": "0"}).plan(576, 32, 1 / 3).rows_per_layer == (192,) * 32
    assert make_method("pdrop", {"layers": "0:8:16"}).plan(576, 32, 1 / 3).stages[0].boundary == 0


def test_rank_adaptive_sparsevlm_may_keep_nothing_but_what_it_recycles() -> None:
    """The authors' count is int(rank * scale + bias), without a least one."""
    case = oracle_of("sparsevlm_v1").cases["keeps-none"]
    model, processor = tiny_llava(grid=12)
    with prune(model, make_method("sparsevlm_v1", case.options)) as session, torch.no_grad():
        model(**make_inputs(processor, make_image(150, 110, seed=3)), use_cache=True)
    assert session.traces[0].stages[0].kept_indices == []
