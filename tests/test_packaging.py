"""What is imported is declared, what is declared is imported, and the tested versions are stated."""

import ast
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import pytest
from test_house import MODULES, imports, run_by

import swiftvlm_eval
import swiftvlm_eval.command

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
NAMES = {"PIL": "pillow", "sklearn": "scikit-learn", "yaml": "pyyaml"}

# Run as commands, read by pytest's options, or imported where a browser is there.
TOOLS = {"cosmic-ray", "mypy", "ruff", "pytest-timeout", "pytest-xdist", "selenium"}


def distribution(name: str) -> str:
    return re.sub(r"[-_.]+", "-", NAMES.get(name, name)).lower()


def declared(requirements: Iterable[str]) -> set[str]:
    return {distribution(re.split(r"[<>=!~\[; ]", text)[0]) for text in requirements}


def imported(*folders: str) -> set[str]:
    own = {path.stem for folder in folders for path in (ROOT / folder).rglob("*")} | {"swiftvlm_eval"}
    found = {name for folder in folders for name in imported_in(folder)}
    return {distribution(name) for name in found - own - sys.stdlib_module_names}


@cache
def imported_in(folder: str) -> frozenset[str]:
    found: set[str] = set()
    for path in (ROOT / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {name.name.split(".")[0] for name in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                found.add((node.module or "").split(".")[0])
    return frozenset(found)


EXTRAS = PROJECT["optional-dependencies"]
CORE = declared(PROJECT["dependencies"])
RUN = CORE | declared(EXTRAS["eval"])
DEV = declared(text for name, extra in EXTRAS.items() if name != "eval" for text in extra)


def test_what_the_package_imports_is_declared() -> None:
    assert imported("swiftvlm_eval") - RUN - declared(EXTRAS["projection"]) == set()
    assert imported("swiftvlm_eval", "scripts", "tests") - RUN - DEV == set()


def reached(*modules: str) -> set[str]:
    """Modules of ours that these import, at once or later, and so on; types do not count."""
    found: set[str] = set()
    waiting = [name for module in modules for name in run_by(module)]
    while waiting:
        if (module := waiting.pop()) not in found:
            found.add(module)
            own = {name for name in imports(module, types=False) if name in MODULES}
            waiting += [parent for name in own for parent in run_by(name)]
    return found


def test_the_library_needs_the_core_alone() -> None:
    homes = {home for name, home in swiftvlm_eval._HOMES.items() if name != "picture"}  # letters come from matplotlib
    library = reached(*homes, "swiftvlm_eval.testing.check_method")
    assert {"swiftvlm_eval.pruning.engine", "swiftvlm_eval.models.tower"} <= library
    needed = {
        distribution(name.partition(".")[0])
        for module in library
        for name in imports(module, types=False)
        if name.partition(".")[0] not in {"swiftvlm_eval", "", *sys.stdlib_module_names}
    }
    assert needed - CORE == set()


@pytest.mark.parametrize(("command", "start"), [("swiftvlm-eval", "main"), ("lmms_eval", "lmms_eval_main")])
def test_a_command_without_its_extra_says_what_to_install(
    command: str, start: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [module for module in sys.modules if module.startswith(("swiftvlm_eval.cli", "lmms_eval.cli"))]:
        monkeypatch.delitem(sys.modules, name)
    for name in ("typer", "lmms_eval"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(SystemExit) as ended:
        getattr(swiftvlm_eval.command, start)()
    assert str(ended.value.code).startswith(f"{command}: needs the package ")
    assert str(ended.value.code).endswith("pip install 'swiftvlm-eval[eval]'")


def test_a_module_of_ours_that_is_missing_is_no_missing_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "swiftvlm_eval.cli", None)
    with pytest.raises(ModuleNotFoundError, match=r"swiftvlm_eval\.cli"):
        swiftvlm_eval.command.main()


def test_the_version_is_stated_once_more_and_equal() -> None:
    assert swiftvlm_eval.__version__ == PROJECT["version"]
    assert f"## {PROJECT['version']}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_what_is_declared_is_imported_or_explained() -> None:
    assert RUN - imported("swiftvlm_eval", "scripts") == set()
    stubs = {name for name in DEV if name.startswith("types-") or name.endswith("-stubs")}
    assert DEV - stubs - TOOLS - imported("swiftvlm_eval", "scripts", "tests") == set()


def test_every_declared_package_has_a_tested_version_and_no_address() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    assert all(re.fullmatch(r"[A-Za-z0-9_.-]+==[0-9][A-Za-z0-9.]*", line) for line in lines)
    assert RUN | DEV <= declared(lines)
    assert lines == sorted(lines, key=str.lower)


@pytest.mark.parametrize("name", ["RUN", "DEV"])
def test_the_reader_found_something(name: str) -> None:
    assert len({"RUN": RUN, "DEV": DEV}[name]) > 5
    assert {"torch", "pillow", "pyyaml"} <= imported("swiftvlm_eval")


def make_setup(folder: Path, *arguments: str, **programs: int) -> subprocess.CompletedProcess[str]:
    """`make setup` in a copy, with the named programs as the only Pythons there; each ends with the given status."""
    for name, status in programs.items():
        program = folder / name.replace("_", ".")
        program.write_text(f'#!/bin/sh\necho "{program.name} $*" >> "{folder}/said"\nexit {status}\n')
        program.chmod(0o755)
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, folder)
    make = shutil.which("make")
    assert make is not None
    command = [make, "SHELL=/bin/sh", "setup", *arguments]
    return subprocess.run(command, cwd=folder, env={"PATH": str(folder)}, capture_output=True, text=True)


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
@pytest.mark.parametrize(
    ("there", "taken"),
    [
        ({"python3_11": 0, "python3_12": 0}, "python3.11"),
        ({"python3_12": 0}, "python3.12"),
        ({"python3_11": 127, "python3_12": 0}, "python3.12"),  # a shim of a version that is not there
    ],
)
def test_make_takes_the_python_that_starts(there: dict[str, int], taken: str, tmp_path: Path) -> None:
    make_setup(tmp_path, **there)
    assert f"{taken} -m venv .venv" in (tmp_path / "said").read_text()


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_make_says_which_python_it_needs(tmp_path: Path) -> None:
    done = make_setup(tmp_path)
    assert done.returncode != 0 and "PYTHON='': Python 3.11 or 3.12 is needed" in done.stdout
    done = make_setup(tmp_path, "PYTHON=/no/python")
    assert done.returncode != 0 and "PYTHON='/no/python': Python 3.11 or 3.12 is needed" in done.stdout
    assert not (tmp_path / "said").exists()
