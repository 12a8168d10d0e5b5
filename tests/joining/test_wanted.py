"""What is missing, counted by hand, and commands that a shell reads as they are meant."""

import json
import shlex
from pathlib import Path

import pytest
from command_line import run
from submitted_runs import METRICS, made, spoiled

from swiftvlm_eval.joining.wanted import (
    WantedCell,
    budget_text,
    default_grids,
    wanted_markdown,
    wanted_tables,
    wanted_text,
)
from swiftvlm_eval.results import load_records, shipped_benchmarks

TABLE = shipped_benchmarks()
DEMO = TABLE.sets["demo"]
CELLS = [
    WantedCell("vanilla", "vanilla"),
    WantedCell("fastv", "fastv", {"layers": None}, 1 / 3),
    WantedCell("fastv[layers=3]", "fastv", {"layers": [3]}, 1 / 3),
    WantedCell("random", "random", {}, 1 / 3, seed=0),
    WantedCell("random", "random", {}, 1 / 3, seed=1),
    WantedCell("tome", "tome", {}, 1 / 9, impossible="feasible is 1/2 to 1"),
]


def tables(folder: Path, **changes: object):  # type: ignore[no-untyped-def]
    runs, _ = load_records([folder])
    return wanted_tables("org/model", CELLS, DEMO, runs, TABLE)


def test_gaps_are_counted_by_method_budget_options_and_seed(tmp_path: Path) -> None:
    """Five cells of four benchmarks are meant to be there. Vanilla is whole (4), fastv lacks one (3), random has 4."""
    made(tmp_path, "vanilla")
    part = {task: metric for task, metric in METRICS.items() if task != "demo_pope"}
    made(tmp_path, "fastv", options={"layers": None}, tasks=part)
    made(tmp_path, "random", seed=1)
    made(tmp_path, "fastv", options={"layers": [2]})  # nobody asked for it
    (found,) = tables(tmp_path)
    assert (found.cells, found.missing, found.rows_there) == (20, 9, 4)
    assert [(gap.cell.typed, gap.cell.seed, [c.key for c in gap.benchmarks]) for gap in found.gaps] == [
        ("fastv", None, ["demo_pope"]),
        ("fastv[layers=3]", None, list(DEMO)),
        ("random", 0, list(DEMO)),
    ]
    assert [cell.typed for cell in found.impossible] == ["tome"]
    commands = [shlex.split(gap.command) for gap in found.gaps]
    assert commands[0] == [
        *("swiftvlm-eval", "sweep", "--model", "org/model", "--methods", "fastv", "--budgets", "1/3"),
        *("--tasks", "demo_pope", "--dtype", "float16", "--revision", "abc123", "--out", "results"),
    ]
    assert commands[1][4:6] == ["--methods", "fastv[layers=3]"] and commands[1][8:10] == ["--tasks", "demo"]
    text = wanted_text([found])
    assert "# not wanted: tome 1/9: feasible is 1/2 to 1" in text
    assert "| demo existence | 3 |" in wanted_markdown([found])


def test_a_score_in_the_board_is_needed(tmp_path: Path) -> None:
    path = made(tmp_path, "vanilla")
    for field, value in ((("status",), "limited"), (("status_reasons",), ["limit"])):
        spoiled(path, *field, value=value)
    (found,) = tables(tmp_path)
    assert found.missing == 20 and found.setting.words == "default setting"


def test_records_of_other_models_limits_and_arguments_do_not_count(tmp_path: Path) -> None:
    made(tmp_path, "vanilla", pretrained="org/other")
    path = made(tmp_path, "vanilla")
    spoiled(path, "settings", "gen_kwargs", value={"temperature": 1})
    assert [found.rows_there for found in tables(tmp_path)] == [0]


def test_every_setting_is_a_table(tmp_path: Path) -> None:
    made(tmp_path, "vanilla")
    made(tmp_path, "fastv", options={"layers": None})
    made(tmp_path, "vanilla", dtype="bfloat16", image_mode="hf_default")
    first, second = tables(tmp_path)
    assert (first.setting.dtype, first.missing, second.setting.dtype, second.missing) == (
        *("float16", 12),
        *("bfloat16", 16),
    )
    assert "--dtype bfloat16 --revision abc123 --image-mode hf_default" in second.gaps[0].command


@pytest.mark.parametrize("hostile", ["x; rm -rf ~", "a\nrm -rf ~", "$(id)", "`id`", "-x", "```"])
def test_settings_of_strangers_reach_no_shell(tmp_path: Path, hostile: str) -> None:
    for field in ("dtype", "image_mode", "revision"):
        made(tmp_path / field, "vanilla", **{field: hostile})
        (found,) = tables(tmp_path / field)
        assert found.rows_there == 0 and "rm -rf" not in wanted_text([found]) + wanted_markdown([found])


def test_budgets_are_written_as_typed() -> None:
    assert [budget_text(share) for share in (1 / 3, 2 / 9, 192 / 576, 640 / 2880, 0.1234567)] == [
        *("1/3", "2/9", "1/3", "2/9", "0.1234567"),
    ]


def test_unknown_benchmarks_are_refused() -> None:
    with pytest.raises(ValueError, match="benchmarks=nothing: allowed are refcoco"):
        wanted_tables("m", CELLS, ["nothing"], [], TABLE)


def test_the_shipped_grids_name_known_sets() -> None:
    assert [grid.model for grid in default_grids()][-1] == "demo"
    assert all(grid.set in TABLE.sets for grid in default_grids())


def test_the_command_lists_what_the_demo_lacks(tmp_path: Path) -> None:
    """One method of three at one of two budgets, by a grid file; options as the method's class gives them."""
    options = {"counts": None, "layers": None, "schedule": "exact", "scope": "all"}
    made(tmp_path / "in", "fastv", pretrained="demo", revision=None, options=options, dtype="float32")
    grid = tmp_path / "grid.yaml"
    grid.write_text(json.dumps([{"method": "vanilla"}, {"method": "fastv", "budgets": ["1/3", "2/9"]}]))
    arguments = ["wanted", str(tmp_path / "in"), "--model", "demo", "--grid", str(grid)]
    status, out, _ = run(*arguments)
    assert status == 0
    assert [line for line in out.splitlines() if line and not line.startswith("#")] == [
        "swiftvlm-eval sweep --model demo --methods vanilla --budgets 1/3 --tasks demo --dtype float32 --out results",
        "swiftvlm-eval sweep --model demo --methods fastv --budgets 2/9 --tasks demo --dtype float32 --out results",
    ]
    assert out.startswith("# demo, float32, pad: 8 of 12 cells missing\n")
    status, out, _ = run(*arguments, "--markdown", "--benchmarks", "demo_gqa")
    assert status == 0 and "| demo attributes | 2 |" in out
    status, _, said = run("wanted", str(tmp_path / "in"), "--model", "demo", "--methods", "fastvv")
    assert status == 1 and "Did you mean" in said


def test_what_a_method_cannot_meet_is_not_wanted(tmp_path: Path) -> None:
    made(tmp_path / "in", "vanilla", pretrained="demo")
    status, out, _ = run(
        "wanted", str(tmp_path / "in"), "--model", "demo", "--methods", "transprune", "--budgets", "1/9"
    )
    assert status == 0 and "# not wanted: transprune 1/9: " in out and "--methods transprune" not in out


def test_nothing_is_wanted_of_the_demo_model_beyond_its_committed_records() -> None:
    status, out, _ = run("wanted", str(Path(__file__).resolve().parents[2] / "leaderboards"), "--model", "demo")
    assert status == 0 and out.startswith("# demo, float32, pad: 0 of 360 cells missing\n")
    assert "# not wanted: tome 1/9: three merging layers leave at least 1/8 of the rows" in out
