"""How a grid is written, and what stands in it."""

import pytest

from swiftvlm_eval.pruning.registry import make_method, method_names
from swiftvlm_eval.sweep import Configuration, make_grid, parse_methods, parse_shard


def test_methods_are_read_with_their_options() -> None:
    assert parse_methods("vanilla, fastv[layers=3; scope=visual],random") == [
        ("vanilla", {}),
        ("fastv", {"layers": "3", "scope": "visual"}),
        ("random", {}),
    ]


def test_all_is_every_method_vanilla_first() -> None:
    names = [name for name, _ in parse_methods("all")]
    assert names[0] == "vanilla" and sorted(names) == method_names()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"methods='': allowed are all, .*fastv"),
        (" , ", "allowed are all"),
        ("fastv[layers=3", r"methods='fastv\[layers=3': options are written as name\[option=value"),
        ("fastv[layers]", "options are written as"),
        ("fastv[colour=red]", r"option colour='red': fastv has no such option"),
        ("fastvv", r"method='fastvv': unknown; allowed are .*Did you mean 'fastv'"),
        ("fastv[scope=some]", "option scope='some' of fastv"),
    ],
)
def test_bad_methods(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_methods(text)


def test_the_grid_holds_vanilla_once_and_every_seed_of_what_draws() -> None:
    grid = make_grid(parse_methods("vanilla,fastv,random"), ["192", "1/3", "0.5"], seeds=(0, 7))
    cells = [(cell.method, round(cell.budget, 4), cell.seed) for cell in grid]
    # 192 of 576 is one third: the same cell
    assert cells == [
        ("vanilla", 1.0, 0),
        ("fastv", 0.3333, 0),
        ("fastv", 0.5, 0),
        ("random", 0.3333, 0),
        ("random", 0.3333, 7),
        ("random", 0.5, 0),
        ("random", 0.5, 7),
    ]


def test_seeds_are_for_methods_that_say_they_draw_whatever_their_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(make_method("fastv", {})), "draws", True)
    monkeypatch.setattr(type(make_method("random", {})), "draws", False)
    cells = [(cell.method, cell.seed) for cell in make_grid([("fastv", {}), ("random", {})], ["0.5"], seeds=(0, 7))]
    assert cells == [("fastv", 0), ("fastv", 7), ("random", 0)]


@pytest.mark.parametrize("budget", ["0", "577", "x", "-1", ""])
def test_bad_budgets(budget: str) -> None:
    with pytest.raises(ValueError, match=f"budget='{budget}': allowed is a share"):
        make_grid([("fastv", {})], ["192", budget])


@pytest.mark.parametrize("text", ["0/4", "5/4", "4", "/4", "1/", "a/b", "-1/4", "1/4/2", "", "1.0/4"])
def test_bad_shards(text: str) -> None:
    with pytest.raises(ValueError, match=rf"shard='{text}': allowed is K/N with K from 1 to N, such as 3/16"):
        parse_shard(text)


@pytest.mark.parametrize("parts", [1, 2, 3, 16, 100])
def test_shards_share_a_grid_without_gap_or_overlap(parts: int) -> None:
    grid = [Configuration("fastv", share / 100) for share in range(1, 41)]
    shards = [grid[parse_shard(f"{part}/{parts}")] for part in range(1, parts + 1)]
    assert sorted((cell for shard in shards for cell in shard), key=lambda cell: cell.budget) == grid
    assert max(map(len, shards)) - min(map(len, shards)) <= 1
    assert [cell.budget for cell in grid[parse_shard("3/16")]] == [0.03, 0.19, 0.35]


def test_labels_tell_cells_apart() -> None:
    assert Configuration("fastv", 1 / 3).label == "fastv 0.333"
    assert Configuration("random", 0.5, {"layers": "3"}, seed=2).label == "random[layers=3] 0.5 seed 2"
