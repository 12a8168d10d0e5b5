import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swiftvlm_eval.pruning.budget import BudgetError, mean_rows, parse_budget, scale_boundaries
from swiftvlm_eval.pruning.methods import make_method, method_names


@pytest.mark.parametrize(
    ("given_budget", "share"),
    [(192, 1 / 3), ("192", 1 / 3), ("1/3", 1 / 3), (0.222, 0.222), ("0.5", 0.5), (1, 1.0), (576, 1.0)],
)
def test_budget_is_a_share_or_a_count_for_576(given_budget: object, share: float) -> None:
    assert parse_budget(given_budget) == pytest.approx(share)  # type: ignore[arg-type]


@pytest.mark.parametrize("bad", [0, -1, 577, "many", "", "1/0", "nan", "inf", None])
def test_bad_budgets_are_named(bad: object) -> None:
    with pytest.raises(BudgetError, match="budget=.*allowed"):
        parse_budget(bad)  # type: ignore[arg-type]


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
    plan = make_method(name, {"schedule": schedule}).plan(576, 32, parse_budget(budget))
    assert list(plan.rows_per_layer) == [rows for rows, layers in PRESETS[case] for _ in range(layers)]


def test_the_authors_counter_of_sparsevlm() -> None:
    method = make_method("sparsevlm", {"schedule": "paper"})
    for budget, attributed in ((192, 192.03), (128, 128.63), (64, 64.81)):
        found = method.attributed_plan(method.plan(576, 32, parse_budget(budget)))
        assert found is not None
        assert found.mean_visual_tokens == pytest.approx(attributed, abs=0.005)


SOLVED = [name for name in method_names() if name not in ("vanilla", "downsample", "sparsevlm_v1")]


@settings(max_examples=150, deadline=None)
@given(
    name=st.sampled_from(SOLVED),
    share=st.floats(0.01, 1.0),
    num_visual=st.integers(1, 3000),
    num_layers=st.integers(4, 48),
)
def test_plans_meet_the_budget_or_give_the_range(name: str, share: float, num_visual: int, num_layers: int) -> None:
    method = make_method(name)
    try:
        plan = method.plan(num_visual, num_layers, share)
    except BudgetError as error:
        assert "feasible" in str(error)
        low = float(str(error).split("feasible with")[1].split(" is ")[1].split(" to ")[0])
        assert share * num_visual < low + 1
        return
    assert abs(plan.mean_visual_tokens - share * num_visual) <= 0.5
    assert len(plan.rows_per_layer) == num_layers
    for stage in plan.stages:
        assert 1 <= stage.kept <= num_visual
        assert 0 <= stage.merged
        assert stage.kept + stage.merged <= num_visual


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


def test_pdrop_truncates_its_shares() -> None:
    # 2076 tokens: 0.125 of them are 259.5
    plan = make_method("pdrop", {"counts": "0.5:0.25:0.125", "layers": "8:16:24"}).plan(2076, 32)
    assert [stage.kept for stage in plan.stages] == [1038, 519, 259]


def test_the_feasible_range_counts_recycled_rows() -> None:
    method = make_method("sparsevlm")
    with pytest.raises(BudgetError) as refused:
        method.plan(576, 32, 56 / 576)
    low = float(str(refused.value).split(" is ")[1].split(" to ")[0])
    assert abs(method.plan(576, 32, (low + 0.5) / 576).mean_visual_tokens - low) < 1.5


def test_a_grid_with_more_views_than_rows_ends() -> None:
    from swiftvlm_eval.llava.adapter import single_grid_layout
    from swiftvlm_eval.pruning.methods.feather import uniform_grid

    assert uniform_grid(single_grid_layout(4, 6), 3, 3).tolist() == [0, 36, 72]
    assert uniform_grid(single_grid_layout(1, 6), 3, 9).tolist() == [0, 3, 18, 21]
