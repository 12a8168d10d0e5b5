"""The committed leaderboards are what the committed records and published numbers give, byte for byte."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
from demo_model.card import read_facts

from swiftvlm_eval import make_method
from swiftvlm_eval.demo import checkpoint_path
from swiftvlm_eval.leaderboard.board import Board
from swiftvlm_eval.results import load_records, shipped_benchmarks

ROOT = Path(__file__).resolve().parents[2]
TEXT = (".md", ".csv", ".json", ".html", ".svg")


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_leaderboards", ROOT / "scripts" / "make_leaderboards.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def regenerated(script: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Path], Board]:
    out = tmp_path_factory.mktemp("regenerated")
    return out, *script.regenerate(out)


def test_committed_pages_are_regenerated_to_the_byte(regenerated: tuple[Path, list[Path], Board]) -> None:
    out, files, _ = regenerated
    made = {path.relative_to(out): path for path in files}
    assert Path("papers/index.md") in made
    for name, path in made.items():
        committed = ROOT / "leaderboards" / name
        assert committed.is_file(), f"{name} is not committed: run make leaderboard"
        if path.suffix in TEXT:  # pictures as pixels may differ with the font library
            assert committed.read_bytes() == path.read_bytes(), f"{name} is out of date: run make leaderboard"
    for folder in {name.parent for name in made}:
        pages = {path.name for path in (ROOT / "leaderboards" / folder).glob("*.md")} - {"analysis.md"}
        assert pages == {name.name for name in made if name.parent == folder and name.suffix == ".md"}


def test_every_other_page_shows_the_committed_results(
    script: ModuleType, regenerated: tuple[Path, list[Path], Board]
) -> None:
    pages = script.texts(regenerated[2])
    card = checkpoint_path().parent / "README.md"
    assert {card, ROOT / "README.md", ROOT / "docs" / "methods.md"} < pages.keys()
    for path, content in pages.items():
        assert path.read_text(encoding="utf-8") == content, f"{path.name} is out of date: run make leaderboard"
    assert "| visionzip " in pages[card] and "### Budget 33.3 %" in pages[card]


def test_the_records_are_those_of_the_embedded_checkpoint() -> None:
    runs, problems = load_records([ROOT / "leaderboards" / "demo" / "records"])
    vanilla = next(run.record for run in runs if run.record.method.name == "vanilla")
    scores = read_facts(checkpoint_path().parent)["scores"]
    assert not problems
    table = shipped_benchmarks()
    for benchmark in (table.benchmarks[key] for key in table.sets["demo"]):
        ours = vanilla.tasks[benchmark.task].metrics[benchmark.metric].value
        assert ours == pytest.approx(scores[benchmark.task]["accuracy"], abs=0.01)


def test_the_records_prune_where_the_methods_do_on_the_embedded_checkpoint() -> None:
    """Executed rows of every layer; FastV and random also with their papers' layer, which is not scaled there."""
    runs, _ = load_records([ROOT / "leaderboards" / "demo" / "records"])
    first_cut = {}
    for run in runs:
        method, budget = run.record.method, run.record.method.budget
        pruning = make_method(method.name or "", {key: value for key, value in method.options.items() if value})
        plan = pruning.plan(144, 12, budget)
        layers = str(method.options.get("layers"))
        first_cut[method.name, budget, layers] = plan.stages[0].boundary if plan.stages else 0
        executions = [task.execution for task in run.record.tasks.values()]
        assert all(executions)
        if not plan.adaptive:
            assert {tuple(each.rows_per_layer) for each in executions if each} == {plan.rows_per_layer}, run.path.name
    for name in ("fastv", "random"):
        for budget in (1 / 3, 2 / 9):
            assert first_cut[name, budget, "None"] == 1 and first_cut[name, budget, "[2]"] == 2
