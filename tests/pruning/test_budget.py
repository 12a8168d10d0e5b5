import math
import time
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swiftvlm_eval.pruning.budget import BudgetError, budget_in_words, mean_rows, parse_budget, scale_boundaries
from swiftvlm_eval.pruning.registry import make_method


@pytest.mark.parametrize(
    ("given_budget", "share"),
    [
        *[("1/3", 1 / 3), (" 1 / 3 ", 1 / 3), (Fraction(1, 3), 1 / 3), ("640/2880", 2 / 9), ("2880/2880", 1.0)],
        *[(0.222, 0.222), ("0.5", 0.5), (".5", 0.5), ("1e-1", 0.1), (1e-05, 1e-05), (1, 1.0), ("1.0", 1.0)],
        *[("33%", 0.33), ("33.3 %", 0.333), ("100%", 1.0), ("0.5%", 0.005)],
    ],
)
def test_shares_are_read_for_every_model(given_budget: Any, share: float) -> None:
    for visual_tokens in (None, 576, 144):
        assert parse_budget(given_budget, visual_tokens) == pytest.approx(share, abs=1e-12)


@pytest.mark.parametrize(("count", "share"), [(192, 1 / 3), ("192", 1 / 3), (192.0, 1 / 3), (8, 8 / 576), (576, 1.0)])
def test_a_count_alone_is_one_of_576(count: Any, share: float) -> None:
    assert parse_budget(count, 576) == pytest.approx(share, abs=1e-12)
    for visual_tokens in (None, 144, 577):
        with pytest.raises(BudgetError, match=f"budget={count!r}: allowed is a share .*1/3.*640/2880.*576"):
            parse_budget(count, visual_tokens)


MALFORMED = [0, -1, "-1/3", "0/5", "1/0", "many", "", " ", "nan", "inf", "-inf", math.nan, math.inf, None, True, False]
MALFORMED += ["1/3/3", "0.5/2", "1/2%", "%", "0%", "101%", "1_0", "\u0661/\u0663", "0x10", "1e400", "1" * 5000, "1/-3"]
MALFORMED += ["1e10000000", "1e-10000000", 10**6000, Fraction(1, 10**6000), [192], b"192"]


@pytest.mark.parametrize("bad", MALFORMED, ids=lambda value: str(type(value).__name__))
def test_what_is_no_budget_is_named_at_once(bad: Any) -> None:
    for visual_tokens in (None, 576):
        start = time.perf_counter()
        with pytest.raises(BudgetError, match="budget=.*: allowed is a share") as refused:
            parse_budget(bad, visual_tokens)
        assert time.perf_counter() - start < 0.2 and len(str(refused.value)) < 400


@pytest.mark.parametrize("slip", [1.5, "1.5", 3, "7", 7.999, "1.0001"])
def test_numbers_between_a_share_and_a_count_are_slips(slip: Any) -> None:
    for visual_tokens in (None, 576):
        with pytest.raises(BudgetError, match=rf"budget={slip!r}: allowed .*above 1 and below 8 is a slip"):
            parse_budget(slip, visual_tokens)


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        ("2880/640", "2880 is more than the whole, 640"),
        ("577", "577 is more than 576"),
        ("192.5", "not a whole number"),
        ("150%", "more than all"),
    ],
)
def test_the_reason_is_told(bad: str, why: str) -> None:
    with pytest.raises(BudgetError, match=f"budget='{bad}': allowed is a share .*{why}"):
        parse_budget(bad, 576)


def test_a_resolved_budget_in_words() -> None:
    assert budget_in_words(1 / 3, 576) == "0.3333 (192.0 of 576 visual tokens a layer on average)"
    assert budget_in_words(0.25, None) == "0.25 (of each image's own visual tokens, a layer on average)"


def test_mean_of_a_schedule_by_hand() -> None:
    # layers 0..2 see 576, 3..9 see 272, 10..13 see 196, 14..31 see 96
    assert mean_rows([3, 10, 14], [272, 196, 96], 576, 32) == (3 * 576 + 7 * 272 + 4 * 196 + 18 * 96) / 32 == 192


PRESETS = {
    # method, budget, schedule: (rows per layer as runs, mean)
    ("fastv", 192, "exact"): [(576, 2), (166, 30)],
    ("fastv", 128, "exact"): [(576, 2), (98, 30)],
    ("fastv", 64, "exact"): [(576, 2), (30, 30)],
    ("random", 192, "exact"): [(576, 2), (166, 30)],
    ("pdrop", 192, "paper"): [(576, 8), (144, 8), (36, 8), (9, 8)],
    ("pdrop", 128, "paper"): [(576, 2), (288, 2), (144, 4), (72, 24)],
    ("pdrop", 64, "paper"): [(576, 2), (109, 6), (20, 8), (3, 16)],
    ("sparsevlm", 192, "paper"): [(576, 3), (309, 4), (204, 9), (113, 16)],
    ("sparsevlm", 128, "paper"): [(576, 3), (312, 4), (117, 9), (39, 16)],
    ("sparsevlm", 64, "paper"): [(576, 3), (82, 4), (32, 9), (18, 16)],
    ("sparsevlm_plus", 192, "paper"): [(576, 3), (300, 4), (200, 9), (118, 16)],
    ("sparsevlm_plus", 96, "paper"): [(576, 3), (246, 4), (54, 9), (28, 16)],
    ("visionzip", 192, "exact"): [(192, 32)],
    ("visionzip", 64, "exact"): [(64, 32)],
    ("feather", 192, "exact"): [(576, 8), (144, 8), (24, 16)],
    ("feather", 128, "exact"): [(576, 3), (144, 13), (31, 16)],
    ("feather", 64, "exact"): [(576, 2), (48, 14), (14, 16)],
    ("swiftvlm", 192, "exact"): [(576, 3), (272, 7), (196, 4), (96, 18)],
    ("swiftvlm", 128, "paper"): [(576, 3), (176, 7), (104, 4), (34, 18)],
    ("swiftvlm", 128, "exact"): [(576, 3), (176, 7), (104, 4), (40, 18)],
    ("swiftvlm", 64, "exact"): [(576, 3), (24, 7), (20, 4), (4, 18)],
    ("downsample", 192, "exact"): [(196, 32)],
    ("downsample", 128, "exact"): [(121, 32)],
}


@pytest.mark.parametrize("case", PRESETS)
def test_published_schedules(case: tuple[str, int, str]) -> None:
    name, budget, schedule = case
    plan = make_method(name, {"schedule": schedule}).plan(576, 32, parse_budget(budget, 576))
    assert list(plan.rows_per_layer) == [rows for rows, layers in PRESETS[case] for _ in range(layers)]


def test_the_authors_counter_of_sparsevlm() -> None:
    method = make_method("sparsevlm", {"schedule": "paper"})
    for budget, attributed in ((192, 192.03), (128, 128.63), (64, 64.81)):
        found = method.attributed_plan(method.plan(576, 32, parse_budget(budget, 576)))
        assert found is not None
        assert found.mean_visual_tokens == pytest.approx(attributed, abs=0.005)


@settings(max_examples=60, deadline=None)
@given(num_layers=st.integers(4, 80))
def test_scaled_boundaries_ascend(num_layers: int) -> None:
    for boundaries in ((2,), (3, 10, 14), (3, 7, 16), (0,)):
        scaled = scale_boundaries(boundaries, num_layers)
        assert list(scaled) == sorted(set(scaled))
        assert all(0 <= boundary < num_layers for boundary in scaled)
        assert (scaled[0] == 0) == (boundaries[0] == 0)
    assert scale_boundaries((3, 10, 14), 32) == (3, 10, 14)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("fastv", {"layers": "40"}, "layers=.*0 to 31"),
        ("fastv", {"layers": "2:5"}, "fastv has 1 stages"),
        ("swiftvlm", {"layers": "10:3:14"}, "strictly ascending"),
        ("fastv", {"counts": "700"}, "counts=700.*0 to 576"),
        ("swiftvlm", {"counts": "240:32"}, "swiftvlm takes 5, k1:z1:k2:z2:k3"),
        ("visionzip", {"counts": "192"}, "visionzip takes 2, k1:z1"),
        ("sparsevlm_v1", {}, "set scale= and bias="),
        ("fastv", {"schedule": "paper"}, "paper schedules for the shares"),
        ("random", {"schedule": "paper"}, "random has no schedule=paper"),
        ("feather", {"mode": "union"}, "union has no budget; it stands for 0.3333"),
        ("feather", {"schedule": "paper", "counts": "60:20"}, "counts need mode=fill"),
        ("sparsevlm_v1", {"scale": 2, "counts": "9:8:7:6"}, "counts by scale and bias"),
        ("downsample", {"layers": "2"}, "takes form and grid instead"),
        ("downsample", {"grid": 30}, "grid=30: allowed are whole numbers from 1 to 24"),
        ("fastv", {"counts": "inf"}, "counts=inf: allowed"),
        ("fastv", {"counts": "-0.5"}, "counts=-0.5: allowed"),
    ],
)
def test_options_that_do_not_fit_are_named(name: str, options: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_method(name, options).plan(576, 32, 0.4)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("fastvv", {}, "method='fastvv': unknown; allowed are .*Did you mean 'fastv'"),
        ("fastv", {"k": 2}, "option k=2: fastv has no such option; allowed are layers"),
        ("swiftvlm", {"scope": "text"}, "option scope='text' of swiftvlm"),
        ("swiftvlm", {"merge": "perhaps"}, "option merge='perhaps' of swiftvlm"),
        ("sparsevlm_plus", {"heads": 0}, "option heads=0 of sparsevlm_plus"),
        ("feather", {"stride": -3}, "option stride.*-3"),
        ("downsample", {"grid": 0}, "option grid.*0"),
    ],
)
def test_unknown_methods_and_options_are_named(name: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_method(name, options)


def test_one_token_and_small_prompts() -> None:
    assert make_method("fastv").plan(1, 32, 0.5 + 0.5).rows_per_layer == (1,) * 32
    with pytest.raises(BudgetError, match="feasible"):
        make_method("swiftvlm").plan(576, 32, 0.05)


def test_without_merging_the_budget_is_spent_on_kept_tokens() -> None:
    plan = make_method("swiftvlm", {"merge": False, "bypass": False}).plan(576, 32, 1 / 3)
    assert all(stage.merged == 0 for stage in plan.stages)
    assert abs(plan.mean_visual_tokens - 192) <= 0.5


@pytest.mark.parametrize("ratio", [0.07, 0.14, 0.19, 0.28, 0.29, 0.55, 0.56, 0.57, 0.58])
def test_pdrop_truncates_as_the_authors_do(ratio: float) -> None:
    """int(N * ratio), binary fractions and all: 100 * 0.29 is 28.999999999999996 and keeps 28."""
    method = make_method("pdrop", {"counts": f"{ratio}:{ratio}:{ratio}", "layers": "8:16:24"})
    for num_visual in range(1, 3001):
        assert {stage.kept for stage in method.plan(num_visual, 32).stages} == {int(num_visual * ratio)}


def test_published_ratios_of_pdrop_are_truncated_too() -> None:
    method = make_method("pdrop", {"schedule": "paper"})
    for budget, ratios in ((1 / 9, (0.19, 0.0361, 0.006859)), (2 / 9, (0.5, 0.25, 0.125)), (1 / 3, (0.25, 0.0625))):
        for num_visual in (576, 2076, 2144, 2880):
            kept = [stage.kept for stage in method.plan(num_visual, 32, budget).stages]
            assert kept[: len(ratios)] == [int(num_visual * ratio) for ratio in ratios]


@pytest.mark.parametrize(
    ("name", "options"),
    [("fastv", {"schedule": "paper"}), ("feather", {"schedule": "paper"}), ("feather", {"mode": "paperfit"})],
)
def test_published_counts_need_a_budget(name: str, options: dict[str, str]) -> None:
    with pytest.raises(BudgetError, match="budget=None: .*0.2222, 0.3333|budget=None: .*0.3333, 0.2222"):
        make_method(name, options).plan(576, 32)


def test_the_published_union_prunes_without_a_budget() -> None:
    plan = make_method("feather", {"mode": "union"}).plan(576, 32)
    assert plan.adaptive and plan.mean_visual_tokens < 300
    assert plan == make_method("feather", {"mode": "union"}).plan(576, 32, None)


def test_the_feasible_range_counts_recycled_rows() -> None:
    method = make_method("sparsevlm")
    with pytest.raises(BudgetError) as refused:
        method.plan(576, 32, 56 / 576)
    low = float(str(refused.value).split(" is ")[1].split(" to ")[0])
    assert abs(method.plan(576, 32, (low + 0.5) / 576).mean_visual_tokens - low) < 1.5


def test_a_grid_with_more_views_than_rows_ends() -> None:
    from swiftvlm_eval.models.layout import single_grid_layout
    from swiftvlm_eval.pruning.methods.feather import uniform_grid

    assert uniform_grid(single_grid_layout(4, 6), 3, 3).tolist() == [0, 36, 72]
    assert uniform_grid(single_grid_layout(1, 6), 3, 9).tolist() == [0, 3, 18, 21]
