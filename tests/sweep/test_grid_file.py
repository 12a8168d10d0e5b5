"""Grid files: what they say, and what is refused with file, entry, field and value."""

from pathlib import Path

import pytest
from command_line import run

from swiftvlm_eval.cli import runs
from swiftvlm_eval.pruning.registry import make_method
from swiftvlm_eval.sweep import Configuration
from swiftvlm_eval.sweep.grid_file import LARGEST_GRID, GridFileError, read_grid

ABLATION = Path(__file__).parents[2] / "examples/ablation.yaml"


def written(folder: Path, text: str) -> Path:
    path = folder / "grid.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_grid_is_read_in_the_order_of_the_file(tmp_path: Path) -> None:
    text = """
- method: vanilla
- method: pdrop[layers=3:10:14]
  budgets: [1/3, 0.50, 25%]
- method: random
  budgets: [1/3]
  seeds: [0, 010]
- {method: 'visionzip+random[layers=16]', budgets: ["64/576"]}
"""
    found = read_grid(written(tmp_path, text))
    assert found.budgets == ("1/3", "0.50", "25%", "64/576")
    assert found.grid == (
        Configuration("vanilla", 1.0),
        Configuration("pdrop", 1 / 3, {"layers": "3:10:14"}),
        Configuration("pdrop", 0.5, {"layers": "3:10:14"}),
        Configuration("pdrop", 0.25, {"layers": "3:10:14"}),
        Configuration("random", 1 / 3),
        Configuration("random", 1 / 3, seed=10),  # plain YAML reads 010 as eight
        Configuration("visionzip+random[layers=16]", 64 / 576),
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "an empty file; allowed is a YAML list of entries with method, budgets, seeds"),
        ("method: vanilla", "a dict; allowed is a YAML list"),
        ("just words", "a str; allowed is a YAML list"),
        ("- {method: vanilla", "no YAML"),
        ("- !!python/object/apply:os.system [x]", "no YAML .*could not determine a constructor"),
        ("[" * 5000, "no YAML .*nested too deeply"),
        ("- vanilla", "entry 1: 'vanilla'; allowed is a mapping with method, budgets, seeds"),
        ("- {method: vanilla}\n-", "entry 2: ''; allowed is a mapping"),
        ("- {method: vanilla}\n- {method: fastv, budget: [1/3]}", "entry 2, 'budget': unknown field; allowed are met"),
        ("- {budgets: [1/3]}", "entry 1, method=none: allowed is one method"),
        ("- {method: [fastv, random], budgets: [1/3]}", r"entry 1, method=\['fastv', 'random'\]: allowed is one"),
        ("- {method: 'fastv,random', budgets: [1/3]}", "entry 1, method='fastv,random': 2 methods; allowed is one"),
        ("- {method: all, budgets: [1/3]}", r"entry 1, method='all': \d+ methods; allowed is one"),
        (
            "- {method: fastw, budgets: [1/3]}",
            "entry 1, method='fastw': .*unknown; .*Did you mean 'fastv'",
        ),
        ("- {method: 'fastv[colour=1]', budgets: [1/3]}", "entry 1, method=.*: option colour='1': fastv has no such"),
        ("- {method: fastv}", "entry 1, budgets=none: allowed is a list of at least one"),
        ("- {method: fastv, budgets: 1/3}", "entry 1, budgets='1/3': allowed is a list"),
        ("- {method: fastv, budgets: []}", r"entry 1, budgets=\[\]: allowed is a list"),
        ("- {method: fastv, budgets: [[1/3]]}", r"entry 1, budgets=\['1/3'\]: allowed is a list"),
        ("- {method: fastv, budgets: [1/3, 3]}", "entry 1, budgets='3': budget='3': allowed is a share.* a slip"),
        ("- {method: fastv, budgets: [1/3, 192]}", "entry 1, budgets='192': the same as '1/3'"),
        ("- {method: vanilla, budgets: [1/3]}", r"entry 1, budgets=\['1/3'\]: vanilla keeps everything"),
        ("- {method: fastv, budgets: [1/3], seeds: [0]}", r"entry 1, seeds=\['0'\]: fastv draws nothing at random"),
        ("- {method: random, budgets: [1/3], seeds: 0}", "entry 1, seeds='0': allowed is a list"),
        ("- {method: random, budgets: [1/3], seeds: [-1]}", "entry 1, seeds='-1': allowed is a list"),
        ("- {method: random, budgets: [1/3], seeds: [0, 00]}", "one of them twice; allowed is a list"),
        ("- {method: random, budgets: [1/3], seeds: [99999999999999999999]}", "seeds='99999999999999999999': allowed"),
        ("- {method: fastv, budgets: [1/3], budgets: [1/2]}", "no YAML .*'budgets' stands twice in one entry"),
        (
            "- {method: fastv, budgets: [1/3]}\n- {method: fastv, budgets: [0.5, 2/6]}",
            "entry 2: fastv 0.333 stands in entry 1 already; allowed is once",
        ),
    ],
)
def test_a_bad_grid_is_refused_by_name(tmp_path: Path, text: str, message: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(GridFileError, match=f"(?s)^grid=.*grid.yaml.*{message}") as caught:
        read_grid(path)
    assert "\n" not in str(caught.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(GridFileError, match="none.yaml: cannot be read .No such file"):
        read_grid(tmp_path / "none.yaml")
    with pytest.raises(GridFileError, match="is not a regular file"):
        read_grid(tmp_path)
    (tmp_path / "grid.yaml").write_bytes(b"\xff\xfe- \x00")
    with pytest.raises(GridFileError, match="no YAML"):
        read_grid(tmp_path / "grid.yaml")
    with pytest.raises(GridFileError, match=f"allowed are {LARGEST_GRID}"):
        read_grid(written(tmp_path, "#" * (LARGEST_GRID + 1)))


def test_counts_are_refused_for_models_whose_tokens_are_others(tmp_path: Path) -> None:
    path = written(tmp_path, "- {method: fastv, budgets: [192]}")
    assert read_grid(path).grid == (Configuration("fastv", 1 / 3),)
    with pytest.raises(GridFileError, match="entry 1, budgets='192'.*images are 144"):
        read_grid(path, visual_tokens=144)


@pytest.mark.parametrize(("option", "value"), [("--methods", "fastv"), ("--budgets", "1/3"), ("--seeds", "0")])
def test_a_grid_file_stands_alone(tmp_path: Path, option: str, value: str) -> None:
    path = written(tmp_path, "- {method: vanilla}")
    status, _, said = run("sweep", "--model", "none", "--out", str(tmp_path / "o"), "--grid", str(path), option, value)
    assert status == 1 and f"{option[2:]}='{value}': " in said and f"allowed is one of {option} and --grid" in said


def test_the_command_runs_what_the_file_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[list[Configuration], list[str]]] = []

    def note(_: str, __: Path, grid: list[Configuration], ___: object, *, budgets: list[str], **____: object) -> list:
        asked.append((list(grid), budgets))
        return []

    monkeypatch.setattr(runs, "run_sweep", note)
    path = written(
        tmp_path, "- {method: vanilla}\n- {method: fastv, budgets: [1/3]}\n- {method: dart, budgets: [1/2]}"
    )
    command = ["sweep", "--model", "demo", "--out", str(tmp_path / "out"), "--grid", str(path)]
    assert run(*command)[0] == 0 == run(*command, "--shard", "2/2")[0]
    cells = [Configuration("vanilla", 1.0), Configuration("fastv", 1 / 3), Configuration("dart", 0.5)]
    assert asked == [(cells, ["1/3", "1/2"]), (cells[1:2], ["1/3", "1/2"])]


def test_a_bad_grid_ends_the_command_before_anything_is_made(tmp_path: Path) -> None:
    path = written(tmp_path, "- {method: fastw, budgets: [1/3]}")
    status, _, said = run("sweep", "--model", "demo", "--out", str(tmp_path / "out"), "--grid", str(path))
    assert status == 1 and "entry 1, method='fastw'" in said
    assert not (tmp_path / "out").exists()


def test_the_ablation_adds_one_idea_at_a_time() -> None:
    """Table 3 of arXiv 2602.03134: the baseline, S, S+M, S+M+B, at 192 and 128 of 576."""
    grid = read_grid(ABLATION).grid
    assert grid[0] == Configuration("vanilla", 1.0) and len(grid) == 9
    assert [round(576 * cell.budget) for cell in grid[1:]] == [192, 128] * 4
    methods = [make_method(cell.method, cell.options) for cell in grid]
    assert {method.position_rule if method.name != "pdrop" else method.positions for method in methods} == {"keep"}
    s, s_m, s_m_b = (methods[number] for number in (3, 5, 7))
    assert [(m.merges_rows, m.rows_return) for m in (s, s_m, s_m_b)] == [(False, False), (True, False), (True, True)]
    for method, cell in zip(methods[1:], grid[1:], strict=True):
        for tokens, layers in ((576, 32), (144, 12)):
            plan = method.plan(tokens, layers, cell.budget)
            assert len(plan.stages) == 3
            assert abs(plan.mean_visual_tokens - cell.budget * tokens) <= 0.5
