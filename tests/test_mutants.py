"""The measurement of what tests notice, on a small tree whose faults and tests are written by hand."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("cosmic_ray")
SCRIPT = Path(__file__).parents[1] / "scripts" / "mutants.py"

SOURCE = '''"""Two functions: one tested to the bone, one not at all."""


def watched(number: int | None, other: int | None) -> bool:
    return number is other


def forgotten(number: int) -> int:
    return number * 3


def endless(number: int) -> int:
    while number > 0:
        number = number - 1
    return number
'''
TESTS = """from tool.logic import endless, watched


def test_watched():
    assert watched(None, None) and not watched(None, 5)


def test_endless():
    assert endless(3) == 0
"""
# What the plugins of pytest import takes seconds, and every mutant has its own run.
TABLE = """preload: [hypothesis, trio.from_thread, _pytest.config]
groups:
  - sources: [tool/**/*.py]
    not: [page]
    tests: [tests]
"""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    for name, text in {
        "tool/__init__.py": "", "tool/logic.py": SOURCE, "tool/page.py": "WIDTH = 3 + 4\n",
        "tests/test_logic.py": TESTS, "tests/test_other.py": "def test_nothing():\n    pass\n",
        "tests/no_test.py": "raise RuntimeError\n", "table.yaml": TABLE,
        "pyproject.toml": "[tool.pytest.ini_options]\ntestpaths = ['tests']\n",
    }.items():  # fmt: skip
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    subprocess.run(["git", "init", "-q"], cwd=root, check=True)
    return root


def run(tree: Path, *more: str, count: int = 5) -> subprocess.CompletedProcess[str]:
    options = ["--root", str(tree), "--table", str(tree / "table.yaml"), "--out", str(tree.parent / "out")]
    command = [sys.executable, str(SCRIPT), *options, "--count", str(count), "--factor", "1", *more]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=600, cwd=tree)


def report(tree: Path) -> dict:
    return json.loads((tree.parent / "out" / "report.json").read_text())


def test_what_no_test_notices_survives_and_what_one_notices_does_not(tree: Path) -> None:
    before = {path: path.read_bytes() for path in tree.rglob("*") if path.is_file()}
    done = run(tree, "--floor", "10", count=6)
    assert done.returncode == 0, done.stdout + done.stderr
    verdicts = {each["line"]: each["verdict"]["status"] for each in report(tree)["mutants"]}
    assert {each["file"] for each in report(tree)["mutants"]} == {"tool/logic.py"}, "page.py is left out"
    assert verdicts[5] == "failed" and verdicts[9] == "passed"
    assert 4 not in verdicts, "annotations do not run"
    assert set(report(tree)["tests"]) == {"tests/test_logic.py", "tests/test_other.py"}
    assert {path: path.read_bytes() for path in before} == before
    page = (tree.parent / "out" / "report.md").read_text()
    assert "-    return number * 3" in page and "logic.py:9" in page and "-    return number is other" not in page


def test_too_few_noticed_is_a_failure_and_an_equivalent_one_gets_its_word(tree: Path) -> None:
    (tree / "tests" / "test_logic.py").write_text("import tool.logic\n\n\ndef test_nothing():\n    pass\n")
    assert run(tree, count=2).returncode == 1
    name = report(tree)["mutants"][0]["name"]
    (tree.parent / "words.yaml").write_text(f"{name}: the same by the law of signs\n")
    done = run(tree, "--equivalent", str(tree.parent / "words.yaml"), count=2)
    assert "noticed 0.0 % of 2" in done.stdout
    assert "Equivalent: the same by the law of signs" in (tree.parent / "out" / "report.md").read_text()


def test_an_interrupted_run_goes_on_and_another_tree_is_refused(tree: Path) -> None:
    run(tree, "--floor", "0")
    path = tree.parent / "out" / "report.json"
    whole = report(tree)
    halved = json.loads(path.read_text())
    for each in halved["mutants"][:3]:
        each["verdict"] = None
    path.write_text(json.dumps(halved))
    again = run(tree, "--floor", "0")
    assert again.stdout.count("/5 ") == 3 and "tests/test_logic.py\n" not in again.stdout.split("/5 ")[0]
    statuses = [[each["verdict"]["status"] for each in state["mutants"]] for state in (whole, report(tree))]
    assert statuses[0] == statuses[1]
    (tree / "tool" / "page.py").write_text("WIDTH = 8\n")
    refused = run(tree, "--floor", "0")
    assert refused.returncode == 1 and "tree=" in refused.stderr and "take another folder" in refused.stderr


def test_tests_that_fail_without_a_mutant_are_named(tree: Path) -> None:
    (tree / "tests" / "test_other.py").write_text("def test_wrong():\n    assert False\n")
    done = run(tree)
    assert done.returncode == 1 and "tests/test_other.py::test_wrong" in done.stderr
    assert not (tree.parent / "out" / "report.md").exists()


def test_a_sample_larger_than_the_faults_is_refused(tree: Path) -> None:
    done = run(tree, count=500)
    assert done.returncode == 1 and "count=500" in done.stderr


def test_faults_are_likely_ones_and_a_seed_gives_the_same_again(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    from mutation.population import draw

    samples = [draw(tree, ["tool/logic.py"], 5, seed) for seed in range(30)]
    assert samples[3] == draw(tree, ["tool/logic.py"], 5, 3) != samples[4]
    faults = {mutant.operator.rpartition("_Mul_")[2] for sample in samples for mutant in sample if mutant.line == 9}
    assert {"Add", "Sub", "Div"} < faults and not faults & {"RShift", "LShift", "BitAnd", "BitOr", "BitXor"}
    assert all(mutant.code(SOURCE) != SOURCE for sample in samples for mutant in sample)


def test_the_table_fits_this_tree() -> None:
    """Every group has sources and tests here, and every computing part is in it."""
    code = (
        "import sys; sys.path.insert(0, 'scripts')\n"
        "from pathlib import Path\n"
        "from mutation.mirrors import Mirrors\n"
        "from mutation.running import tracked\n"
        "tests = Mirrors.read(Path('scripts/mutation/mirrors.yaml')).tests(tracked(Path('.')))\n"
        "print('\\n'.join(sorted(tests)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=SCRIPT.parents[1]
    )
    sources = done.stdout.split()
    for part in ("pruning/methods/fastv.py", "results/record.py", "efficiency/latency.py", "grounding/boxes.py"):
        assert f"swiftvlm_eval/{part}" in sources
    assert any("sweep" in source for source in sources) and any("/rows.py" in source for source in sources)
    assert not any(source.endswith(("html.py", "plots.py", "__init__.py")) for source in sources)
