"""Methods from a file, a module, or an installed package."""

import hashlib
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from swiftvlm_eval import plugin
from swiftvlm_eval.pruning import outside
from swiftvlm_eval.pruning.registry import (
    known_names,
    make_method,
    method_class,
    method_names,
    split_outside_brackets,
)
from swiftvlm_eval.results.record import MethodDescription
from swiftvlm_eval.sweep import make_grid, parse_methods

METHOD = '''
from dataclasses import dataclass
from typing import ClassVar
from swiftvlm_eval import PromptWork, PruningMethod, RowEdit, Signals, Work


@dataclass(frozen=True, kw_only=True)
class First(PruningMethod):
    """The first rows."""

    name: ClassVar[str] = "NAME"
    title: ClassVar[str] = "First"
    source: ClassVar[str] = "test"
    summary: ClassVar[str] = "the first rows"
    default_layers: ClassVar[tuple[int, ...]] = (2,)

    def select(self, signals: Signals) -> RowEdit:
        return signals.keep(signals.index[: signals.stage.kept])

    def work(self, prompt: PromptWork) -> Work:
        return Work()
'''


def write(folder: Path, name: str = "first_rows", old: str = "", new: str = "") -> Path:
    path = folder / "own.py"
    path.write_text(METHOD.replace("NAME", name).replace(old or "\0", new), encoding="utf-8")
    return path


def test_a_file_is_a_method_with_options(tmp_path: Path) -> None:
    path = write(tmp_path)
    method = make_method(f"{path}:First[layers=3]", {"counts": "20"})
    assert (method.name, method.layers, method.counts) == ("first_rows", (3,), (20.0,))
    assert method.plan(100, 4).rows_per_layer == (100, 100, 100, 20)
    assert method.source_sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert method_class(f"{path}:First") is type(method), "one file is one class"
    with pytest.raises(ValueError, match="option layers='3': given twice for"):
        make_method(f"{path}:First[layers=3]", {"layers": "2"})
    with pytest.raises(ValueError, match="option colour='red': first_rows has no such option; allowed are layers"):
        make_method(f"{path}:First[colour=red]")


def test_an_edited_file_is_another_method(tmp_path: Path) -> None:
    before = make_method(f"{write(tmp_path)}:First").source_sha256
    after = make_method(f"{write(tmp_path, new='# more', old='NOTHING')}:First")
    assert after.source_sha256 == before
    path = tmp_path / "own.py"
    path.write_text(path.read_text(encoding="utf-8") + "# an edit\n", encoding="utf-8")
    assert make_method(f"{path}:First").source_sha256 not in (None, before)


def test_registered_methods_have_no_source_hash() -> None:
    assert {make_method(name).source_sha256 for name in method_names()} == {None}
    assert make_method("swiftvlm_eval.pruning.methods.fastv:FastV") == make_method("fastv")
    old = MethodDescription.model_validate({"name": "fastv", "options": {}, "budget": 0.5, "schedule": "exact"})
    assert old.source_sha256 is None


def test_a_module_is_found_as_python_finds_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path).rename(tmp_path / "own_module_of_a_test.py")
    monkeypatch.syspath_prepend(str(tmp_path))
    method = make_method("own_module_of_a_test:First")
    assert method.source_sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    with pytest.raises(ValueError, match=r"there is no module 'not_there'; a file is written as path/to/file\.py"):
        make_method("not_there:First")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("class First", "class Second", r"own\.py:First': there is no such class; methods there are Second$"),
        ("class First(PruningMethod)", "class First", "not a subclass of swiftvlm_eval.PruningMethod"),
        ("def work", "def play", "First does not define work"),
        ('    title: ClassVar[str] = "First"\n', "", "First does not say its title"),
        ("from typing", "from typo", r"own\.py:First': importing it fails with ModuleNotFoundError: No module .*typo"),
        ("def select", "def select select", "importing it fails with SyntaxError: "),
        ('"NAME"', '"Fast V"', "name='Fast V'; allowed are small letters"),
        ('"NAME"', '"fastv"', "name='fastv' is that of a registered method"),
        ("@dataclass", "raise SystemExit('stop')\n@dataclass", "importing it fails with SystemExit: stop"),
    ],
)
def test_what_is_no_method_is_refused_in_one_line(old: str, new: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "own.py"
    path.write_text(METHOD.replace(old, new).replace("NAME", "first_rows"), encoding="utf-8")
    modules = set(sys.modules)
    with pytest.raises(ValueError, match=message) as raised:
        make_method(f"{path}:First")
    assert "\n" not in str(raised.value)
    if "importing" in message:
        assert set(sys.modules) == modules, "a module that failed is forgotten"


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is no file '.*gone.py'"):
        make_method(f"{tmp_path}/gone.py:First")


def test_methods_of_a_command_line(tmp_path: Path) -> None:
    (tmp_path / "c++").mkdir()
    path = write(tmp_path / "c++")
    text = f"vanilla, {path}:First[layers=2;counts=0.5] ,fastv"
    assert parse_methods(text) == [
        ("vanilla", {}),
        (f"{path}:First", {"layers": "2", "counts": "0.5"}),
        ("fastv", {}),
    ]
    assert split_outside_brackets(f"{path}:First[layers=2]+random", "+") == [f"{path}:First[layers=2]", "random"]
    assert [cell.method for cell in make_grid(parse_methods(text), ["0.5"])] == ["vanilla", f"{path}:First", "fastv"]


def test_packages_bring_methods_without_being_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path).rename(tmp_path / "package_of_a_test.py")
    monkeypatch.syspath_prepend(str(tmp_path))

    def points(**wanted: str) -> list[EntryPoint]:
        assert wanted == {"group": "swiftvlm_eval.methods"}
        names = ("first_rows", "fastv", "not a name", "other")
        return [EntryPoint(name, "package_of_a_test:First", wanted["group"]) for name in names]

    monkeypatch.setattr(outside, "entry_points", points)
    assert known_names() == sorted([*method_names(), "first_rows", "other"])
    models = plugin.model_classes()
    assert models["first_rows_llava_next"] == "SwiftvlmLlavaNext__first_rows"
    assert models["fastv_llava"] == "SwiftvlmLlava__fastv"
    assert "package_of_a_test" not in sys.modules
    assert make_method("first_rows").name == "first_rows"
    assert make_method("fastv").source_sha256 is None, "a package cannot take a registered name"
    with pytest.raises(ValueError, match="method='other': the entry point's class has name='first_rows'"):
        make_method("other")
    from swiftvlm_eval import lmms

    assert lmms.SwiftvlmLlavaNext__first_rows.preset_method == "first_rows"  # type: ignore[attr-defined]
