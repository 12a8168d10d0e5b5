"""Parts of methods that choose or merge inside an encoder input, by hand; and what features that are no numbers do."""

from typing import Any

import pytest
import torch

from swiftvlm_eval import make_method, prune
from swiftvlm_eval.pruning.methods.cdpruner import relevance
from swiftvlm_eval.pruning.methods.prumerge_plus import sampled
from swiftvlm_eval.pruning.methods.prunesid import principal_groups, within_quotas
from swiftvlm_eval.pruning.methods.vscan import scan
from swiftvlm_eval.pruning.selection import cosines, greedy_volume, unlike_better_ones
from swiftvlm_eval.testing.tiny_models import make_image, make_inputs, tiny_llava, tiny_llava_next


@pytest.mark.parametrize(
    ("patches", "count", "expected"),
    [
        (10, 2, [2, 7]),
        (9, 4, [1, 3, 5, 7]),
        (10, 4, [1, 3, 5, 7]),  # cut: 9 is the last patch, which the range leaves out anyway
        (12, 5, [1, 3, 5, 7, 9]),  # step 2, cut to five
        (6, 6, [0, 1, 2, 3, 4, 5]),  # the range ends before the last patch: evenly instead
        (576, 96, list(range(3, 575, 6))),
        (7, 0, []),
    ],
)
def test_sampled_patches(patches: int, count: int, expected: list[int]) -> None:
    assert sampled(patches, count) == expected


def test_the_scans_of_vscan() -> None:
    """A grid of 8 x 8: each window of 2 x 2 gives its best patch, the rest goes by the other scores."""
    local, overall = torch.zeros(64), torch.arange(64.0)
    local[[9, 2, 54]] = 1.0  # of windows 0, 1 and 15
    firsts = [row * 16 + column * 2 for row in range(4) for column in range(4)]
    best = {*firsts} - {0, 54} | {9, 54}
    assert {2, 54} <= best
    others = [patch for patch in range(63, -1, -1) if patch not in best][:17]
    assert scan(local, overall, 33, 8).tolist() == sorted([*best, *others])
    assert scan(local, overall, 31, 8).tolist() == list(range(33, 64))  # half is less than one of each window
    assert len(set(scan(local * torch.nan, overall * torch.nan, 40, 8).tolist())) == 40


def test_every_window_has_the_patches_that_it_gives() -> None:
    for side in range(1, 41):
        scores = torch.rand(side**2, generator=torch.Generator().manual_seed(side))
        for count in (1, side**2 // 2 + 1, side**2):
            assert len(set(scan(scores, scores, count, side).tolist())) == count


def test_what_is_like_a_better_one_is_not_taken_but_hides_nothing_itself() -> None:
    conflicts = torch.zeros(2, 4, 4, dtype=torch.bool)
    for one, other in ((0, 1), (1, 2)):  # a chain: 1 falls to 0, so that 2 stands
        conflicts[0, one, other] = conflicts[0, other, one] = True
    assert unlike_better_ones(conflicts).tolist() == [[True, False, True, True], [True] * 4]


def test_groups_follow_the_strongest_directions() -> None:
    towards = torch.tensor([[6.0, -6, 0, 0], [-5, 5, 0, 0], [0, 0, 2, -2], [0, 0, -2, 2], [4, -4, 0, 0]])
    assert principal_groups(towards, 2).tolist() == [0, 0, 1, 1, 0]
    assert principal_groups(towards, 1).tolist() == [0] * 5
    assert len(principal_groups(torch.full((5, 4), torch.nan), 2)) == 5


def test_quotas_of_groups() -> None:
    groups = torch.tensor([0, 0, 1, 0, 1, 2, 0, 0, 1])
    taken = torch.tensor([True, False, True, True, True, True, True, False, False])
    # sizes 5, 3, 1, of these unlike 3, 2, 1; of 7 rows one is CLS, and of the other six each group has one
    # 3/6, 5/6, 6/6 of three are 1.5, 2.5, 3, rounded to even: 2, 2, 3; so 3, 1, 2, and no more than 4, 3, 1
    # the one that is left over goes to the first group
    assert within_quotas(groups, taken, 7).tolist() == [0, 3, 6, 1, 2, 5]
    # of five two are left: 3/6 and 5/6 of one are 0.5 and 0.83, rounded to 0 and 1
    assert within_quotas(groups, taken, 5).tolist() == [0, 2, 4, 5]
    assert within_quotas(groups, taken, 9).tolist() == [0, 3, 6, 1, 2, 4, 8, 5]


def test_volume_is_that_of_every_next_determinant() -> None:
    rows = torch.randn(8, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    kernel = cosines(rows)
    found = greedy_volume(kernel, 8).tolist()
    for count in range(1, 9):
        chosen = found[: count - 1]
        gains = {row: float(torch.det(kernel[[*chosen, row]][:, [*chosen, row]])) for row in {*range(8)} - {*chosen}}
        assert gains[found[count - 1]] == pytest.approx(max(gains.values()))
    assert len(set(found)) == 8


def test_doubles_come_last() -> None:
    rows = torch.eye(4)[[0, 0, 1, 1, 2, 3]]
    assert sorted(greedy_volume(cosines(rows), 4).tolist()) == [0, 2, 4, 5]


def test_relevance_lies_between_nothing_and_one() -> None:
    rows, text = torch.tensor([[[1.0, 0], [1, 1]], [[0, 2], [-1, 0]]]), torch.tensor([[2.0, 0], [0, 0]])
    expected = (torch.tensor([[1.0, 0.5**0.5], [0, -1]]) + 1 + 1e-6) / 2
    torch.testing.assert_close(relevance(rows, text), expected)
    assert relevance(torch.ones(3, 2), text).tolist() == [1.0] * 3


NAMES = ["cdpruner", "prumerge", "prumerge_plus", "prunesid", "vscan"]


@pytest.mark.parametrize("family", ["llava", "llava_next"])
@pytest.mark.parametrize("name", [*NAMES, "cdpruner[relevance=embed]", "prumerge_plus[counts=10:50]"])
def test_features_that_are_no_numbers_stop_nothing(name: str, family: str) -> None:
    model, processor = tiny_llava(grid=12) if family == "llava" else tiny_llava_next(grid=6)
    inputs = make_inputs(processor, make_image(150, 110))
    inputs["pixel_values"] = inputs["pixel_values"] * torch.nan
    with prune(model, make_method(name), budget=0.4) as session, torch.no_grad():
        model(**inputs, use_cache=True)
    assert tuple(session.traces[0].rows_per_layer) == session.traces[0].plan.rows_per_layer


@pytest.mark.parametrize(
    ("name", "options", "budget", "message"),
    [
        ("prumerge", {"counts": (3,)}, None, r"3 rows of 5 encoder inputs: allowed are 1 to 36 of each"),
        ("prumerge_plus", {"counts": (4, 40)}, None, r"4 scored and 40 sampled rows of 5 encoder inputs"),
        ("prumerge_plus", {"counts": (40,)}, None, r"counts=\[40.0\]: prumerge_plus takes 2, scored:sampled"),
        ("prumerge", {"counts": (30,), "mode": "adaptive"}, None, r"counts=\[30.0\]: mode=adaptive takes none"),
        ("prunesid", {"counts": (9,)}, None, r"9 rows of 5 encoder inputs: allowed are 2 to 36 of each"),
        ("cdpruner", {"counts": (4,)}, None, r"4 rows of 5 encoder inputs: allowed are 1 to 36 of each"),
        ("vscan", {"counts": (4, 2)}, None, r"4 rows of 5 encoder inputs: allowed are 1 to 36 of each"),
        ("vscan", {"layers": (3, 8)}, 0.4, r"layers=\[3, 8\]: vscan acts before the decoder"),
        ("vscan", {"local_layer": 3}, 0.4, r"local_layer=3: the vision tower has layers 0 to 2"),
    ],
)
def test_what_cannot_be_is_refused(name: str, options: dict[str, Any], budget: float | None, message: str) -> None:
    model, processor = tiny_llava_next(grid=6)
    inputs = make_inputs(processor, make_image(150, 150))
    with (
        pytest.raises(ValueError, match=message),
        prune(model, make_method(name, options), budget=budget),
        torch.no_grad(),
    ):
        model(**inputs, use_cache=True)


def test_the_adaptive_count_is_executed_and_recorded() -> None:
    model, processor = tiny_llava(grid=12)
    inputs = make_inputs(processor, make_image(150, 110, seed=3))
    for name in ("prumerge", "prumerge_plus"):
        with prune(model, make_method(name, {"mode": "adaptive"})) as session, torch.no_grad():
            model(**inputs, use_cache=True)
        (trace,) = session.traces
        assert trace.plan.adaptive and set(trace.rows_per_layer) == {len(trace.stages[0].kept_indices) + 1}
        assert trace.stages[0].index[-1] == -1 and trace.stages[0].made == 1
