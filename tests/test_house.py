"""The rules of the house, read from the sources: who imports whom, sizes and names."""

import ast
import subprocess
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "swiftvlm_eval"


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def nodes(tree: ast.AST, *, lazy: bool, types: bool) -> Iterator[ast.AST]:
    """Statements of a module; with what runs later (`lazy`), with what only type checkers see (`types`)."""
    for node in ast.iter_child_nodes(tree):
        if not lazy and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if not types and isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            continue
        yield node
        yield from nodes(node, lazy=lazy, types=types)


@cache
def imports(module: str, *, lazy: bool = True, types: bool = True) -> frozenset[str]:
    """Names that a module of ours imports; `from a import b` gives a, and a.b if that is a module of ours."""
    found: set[str] = set()
    path = MODULES[module]
    for node in nodes(ast.parse(path.read_text(encoding="utf-8")), lazy=lazy, types=types):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                package = module.split(".")
                above = node.level if path.name != "__init__.py" else node.level - 1
                base = ".".join([*package[: len(package) - above], *([base] if base else [])])
            found.add(base)
            found |= {f"{base}.{name.name}" for name in node.names if f"{base}.{name.name}" in MODULES}
    return frozenset(found)


def within(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(f"{prefix}.")


def run_by(module: str) -> set[str]:
    """A module and what importing it runs first: the packages around it."""
    parts = module.split(".")
    return {".".join(parts[: end + 1]) for end in range(len(parts))}


def reached(module: str) -> dict[str, str]:
    """Everything imported when a module and its functions run -> the module of ours that imports it."""
    found = dict.fromkeys(imports(module, types=False), module)
    waiting = [name for name in found if name in MODULES]
    done: set[str] = set()
    while waiting:
        for ours in run_by(waiting.pop()) & set(MODULES) - done:
            done.add(ours)
            for name in imports(ours, lazy=False, types=False):
                found.setdefault(name, ours)
                waiting += [name] if name in MODULES else []
    return found


def ours(*parts: str) -> list[str]:
    """Our modules within the given parts of the package."""
    found = [module for module in MODULES if any(within(module, f"swiftvlm_eval.{part}") for part in parts)]
    assert found, parts
    return found


def test_the_reader_of_imports_sees_what_it_should() -> None:
    tree = ast.parse(
        "from typing import TYPE_CHECKING\nimport a.b\n"
        "if TYPE_CHECKING:\n    import c\n"
        "def f():\n    from d import e\n"
    )
    kinds = {
        options: [
            ast.unparse(node)
            for node in nodes(tree, lazy=options[0], types=options[1])
            if isinstance(node, ast.Import | ast.ImportFrom)
        ][1:]
        for options in ((True, True), (False, True), (True, False), (False, False))
    }
    assert kinds == {
        (True, True): ["import a.b", "import c", "from d import e"],
        (False, True): ["import a.b", "import c"],
        (True, False): ["import a.b", "from d import e"],
        (False, False): ["import a.b"],
    }
    assert {"torch", "swiftvlm_eval.pruning.engine"} <= imports("swiftvlm_eval.lmms.model")
    assert "torch" in reached("swiftvlm_eval.sweep.running")


MAY_IMPORT: dict[str, set[str]] = {
    "grounding": set(),
    "demo": set(),
    "runs": set(),
    "models": {"demo"},
    "pruning": {"models"},
    "testing": {"models", "pruning"},
    "efficiency": {"models", "pruning"},
    "serving": {"models", "pruning", "runs"},
    "results": {"runs"},
    "leaderboard": {"results"},
    "check": {"results", "leaderboard"},
    "joining": {"results", "leaderboard"},
    "tasks": {"grounding"},
    "lmms": {"models", "pruning", "efficiency", "runs"},
    "plugin": {"models", "pruning"},
    "sweep": {"lmms", "plugin", "models", "pruning", "results", "runs"},
    "analysis": {
        *(
            "models",
            "pruning",
            "sweep",
            "lmms",
            "results",
            "runs",
            "demo",
            "efficiency",
            "leaderboard",
            "grounding",
            "plugin",
        ),
    },
    "cli": {
        *(
            "analysis",
            "demo",
            "models",
            "pruning",
            "efficiency",
            "results",
            "leaderboard",
            "check",
            "joining",
            "lmms",
            "plugin",
            "sweep",
            "analysis",
            "runs",
            "serving",
        ),
    },
    "__init__": {"pruning", "analysis"},
    "command": {"cli"},
    "__main__": {"command"},
}
"""Folder or file of the package -> what it may import of the others; types and lazy imports count, too."""


def folder(module: str) -> str:
    """The floor of the house on which a module stands."""
    return module.split(".")[1] if "." in module else "__init__"


def arrows(sources: Mapping[str, frozenset[str]]) -> dict[str, set[str]]:
    """Folder -> the folders that its modules import."""
    found: dict[str, set[str]] = {}
    for module, names in sources.items():
        own = {folder(name) for name in names if within(name, "swiftvlm_eval") and name != "swiftvlm_eval"}
        found.setdefault(folder(module), set()).update(own - {folder(module)})
    return found


def broken_rules(found: Mapping[str, set[str]], table: Mapping[str, set[str]]) -> list[str]:
    """What a graph of folders does that the table does not allow."""
    unlisted = [f"{name} is not in the table" for name in sorted(found.keys() - table.keys())]
    return unlisted + [
        f"{name} imports {other}"
        for name, others in sorted(found.items())
        for other in sorted(others - table.get(name, others))
    ]


def test_every_folder_imports_what_the_table_allows() -> None:
    assert broken_rules(arrows({module: imports(module) for module in MODULES}), MAY_IMPORT) == []
    assert not MAY_IMPORT.keys() - {folder(module) for module in MODULES}, "the table lists what is not there"


def test_the_table_has_no_circle() -> None:
    tuple(TopologicalSorter(MAY_IMPORT).static_order())
    with pytest.raises(CycleError):
        tuple(TopologicalSorter({**MAY_IMPORT, "models": {"pruning"}}).static_order())


def test_a_planted_import_and_an_unlisted_folder_are_seen() -> None:
    planted = {
        "swiftvlm_eval.models.adapter": frozenset({"swiftvlm_eval.pruning.engine", "torch"}),
        "swiftvlm_eval.attic.old": frozenset({"swiftvlm_eval.models"}),
        "swiftvlm_eval.leaderboard.render.html": frozenset({"swiftvlm_eval.leaderboard.board", "swiftvlm_eval"}),
    }
    assert broken_rules(arrows(planted), MAY_IMPORT) == ["attic is not in the table", "models imports pruning"]


@pytest.mark.parametrize(
    "part", [name for name in MAY_IMPORT if name in ("pruning", "models", "efficiency", "demo", "serving")]
)
def test_the_library_knows_no_lmms_eval(part: str) -> None:
    broken = [
        f"{module} imports {name}" for module in ours(part) for name in imports(module) if within(name, "lmms_eval")
    ]
    assert not broken


@pytest.mark.parametrize("module", ours("results", "leaderboard", "joining"))
def test_records_and_pages_need_no_torch(module: str) -> None:
    heavy = ("torch", "transformers", "lmms_eval", "datasets", "torchvision", "accelerate")
    broken = [
        f"{by} imports {name}"
        for name, by in sorted(reached(module).items())
        if any(within(name, prefix) for prefix in heavy)
    ]
    assert not broken


@pytest.mark.parametrize(
    "engine", ["engine", "rows", "masks", "signals", "trace", "prompt", "caches", "layer_attention", "layer_rows"]
)
def test_the_engine_knows_no_method(engine: str) -> None:
    module = f"swiftvlm_eval.pruning.{engine}"
    assert not [name for name in imports(module) if within(name, "swiftvlm_eval.pruning.methods")]
    names = {path.stem for path in (PACKAGE / "pruning/methods").glob("[!_]*.py")}
    tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
    strings = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    assert not names & strings


METHODS = [module for module in ours("pruning.methods") if module != "swiftvlm_eval.pruning.methods"]


# What a method may be built of.
CONTRACT = "contract words schedule budget solver scores selection merging tiles uniform work".split()


@pytest.mark.parametrize("module", METHODS)
def test_a_method_stands_on_the_contract_alone(module: str) -> None:
    base = "swiftvlm_eval.pruning"
    allowed = {f"{base}.{part}" for part in CONTRACT}
    allowed |= {"swiftvlm_eval.models.layout", "swiftvlm_eval.models.tower_rows"}
    # a variant of a method may build on it
    siblings = {
        name for name in METHODS if name != module and module.rpartition(".")[2].startswith(name.split(".")[-1])
    }
    own = {name for name in imports(module) if within(name, "swiftvlm_eval")}
    assert own <= allowed | siblings
    assert not {name for name in imports(module) if within(name, "transformers") or within(name, "lmms_eval")}


@pytest.mark.parametrize("module", METHODS)
def test_a_method_is_under_120_lines(module: str) -> None:
    assert len(MODULES[module].read_text(encoding="utf-8").splitlines()) < 120


def test_no_file_is_over_350_lines() -> None:
    """Tables of data and templates do not count."""
    lengths = {module: len(path.read_text(encoding="utf-8").splitlines()) for module, path in MODULES.items()}
    assert not {module: count for module, count in lengths.items() if count > 350}


def test_the_readme_is_under_200_lines() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) < 200


@pytest.mark.parametrize("module", MODULES)
def test_no_environment_and_no_printing(module: str) -> None:
    tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
    text = [ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute | ast.Call)]
    assert not [code for code in text if code.startswith(("os.environ", "os.getenv"))]
    assert not {"environ", "getenv"} & {
        name.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for name in node.names
    }
    if not module.startswith("swiftvlm_eval.cli"):
        assert not [code for code in text if code.startswith("print(")]


def test_no_file_without_an_idea() -> None:
    vague = {"utils", "util", "helpers", "helper", "manager", "common", "misc"}
    assert not [path for path in (*PACKAGE.rglob("*.py"), *(ROOT / "scripts").rglob("*.py")) if path.stem in vague]


@pytest.mark.parametrize(
    "statement",
    [
        "import swiftvlm_eval",
        "import swiftvlm_eval; swiftvlm_eval.method_names()",
        "import swiftvlm_eval.plugin; assert swiftvlm_eval.plugin.model_classes()",
        "import swiftvlm_eval.results, swiftvlm_eval.leaderboard",
    ],
)
def test_cheap_imports_stay_cheap(statement: str) -> None:
    """In a fresh interpreter: also what our libraries import counts."""
    heavy = ("torch", "transformers", "lmms_eval", "datasets")
    code = f"import sys\n{statement}\nprint(sorted(set({heavy!r}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"
