"""Methods that live outside this package: in a file, in a module, or in a package that announces them.

A file or module that is named is imported, so its code runs.
"""

import hashlib
import inspect
import re
import sys
from collections.abc import Iterable
from functools import lru_cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from swiftvlm_eval.pruning.contract import PruningMethod

GROUP = "swiftvlm_eval.methods"
"""Entry point group of packages that bring methods: name -> class."""
_HASH = "__swiftvlm_source_sha256__"
_NAME = re.compile(r"[a-z][a-z0-9_]*")


def installed_methods(registered: Iterable[str]) -> dict[str, EntryPoint]:
    """Methods of installed packages by name; nothing of them is imported.

    A name that is registered, or is not written in small letters, digits and underscores, does not count: it could
    not be told apart, or not be part of a model name.
    """
    taken = set(registered)
    return {
        point.name: point
        for point in sorted(entry_points(group=GROUP), key=lambda point: (point.name, point.value))
        if point.name not in taken and _NAME.fullmatch(point.name)
    }


def is_reference(text: str) -> bool:
    """Whether a method is given by file or module, `file.py:Class` or `package.module:Class`, and not by name."""
    return ":" in text


def outside_class(reference: str, registered: Iterable[str]) -> "type[PruningMethod]":
    """The class that a reference names.

    Args:
        reference: `path/to/file.py:ClassName` or `package.module:ClassName`.
        registered: names that are taken.

    Raises:
        ValueError: no such file, module or class, code that fails when it is imported, or a class that is no method;
            one line that names it.
    """
    source, _, name = reference.rpartition(":")
    is_file = source.endswith(".py") or "/" in source or "\\" in source
    module = _from_file(reference, Path(source)) if is_file else _from_package(reference, source)
    cls = _checked(reference, getattr(module, name, None), module, set(registered))
    _remember_source(cls, module)
    return cls


def source_sha256(method: "type[PruningMethod]") -> str | None:
    """SHA-256 of the source file of a method from outside; None for a registered one."""
    module = sys.modules.get(method.__module__)
    found: str | None = getattr(module, _HASH, None)
    return found


def _from_file(reference: str, path: Path) -> ModuleType:
    if not path.is_file():
        raise ValueError(f"method={reference!r}: there is no file {str(path)!r}")
    source = path.read_bytes()
    try:
        return _module(path.resolve(), source)
    except (Exception, SystemExit) as error:
        raise ValueError(f"method={reference!r}: {_in_one_line(error)}") from error


@lru_cache
def _module(path: Path, source: bytes) -> ModuleType:
    """A file's code as a module, run once for every content. What is hashed is what runs."""
    digest = hashlib.sha256(source).hexdigest()
    name = f"swiftvlm_outside_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}_{digest[:8]}"
    module = ModuleType(name)
    module.__file__ = str(path)
    setattr(module, _HASH, digest)
    sys.modules[name] = module  # dataclasses look their own module up
    try:
        exec(compile(source, str(path), "exec"), module.__dict__)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _from_package(reference: str, name: str) -> ModuleType:
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(f"{error.name}.")):
            raise ValueError(
                f"method={reference!r}: there is no module {name!r}; a file is written as path/to/file.py:ClassName"
            ) from error
        raise ValueError(f"method={reference!r}: {_in_one_line(error)}") from error
    except (Exception, SystemExit) as error:
        raise ValueError(f"method={reference!r}: {_in_one_line(error)}") from error


def _in_one_line(error: BaseException) -> str:
    words = str(error).splitlines()
    return f"importing it fails with {type(error).__name__}: {words[0] if words else 'no message'}"


def _checked(reference: str, found: Any, module: ModuleType, registered: set[str]) -> "type[PruningMethod]":
    """The class; refuses what is no complete method, or would pass for a registered one."""
    from swiftvlm_eval.pruning.contract import PruningMethod

    if found is None:
        own = [key for key, value in vars(module).items() if _is_method(value, module)]
        raise ValueError(f"method={reference!r}: there is no such class; methods there are {', '.join(own) or 'none'}")
    if not (isinstance(found, type) and issubclass(found, PruningMethod)):
        raise ValueError(f"method={reference!r}: not a subclass of swiftvlm_eval.PruningMethod")
    if missing := sorted(getattr(found, "__abstractmethods__", ())):
        raise ValueError(f"method={reference!r}: {found.__name__} does not define {', '.join(missing)}")
    if lacking := [word for word in ("name", "title", "source", "summary") if not isinstance(_word(found, word), str)]:
        raise ValueError(f"method={reference!r}: {found.__name__} does not say its {', '.join(lacking)}")
    if not _NAME.fullmatch(found.name):
        raise ValueError(
            f"method={reference!r}: name={found.name!r}; allowed are small letters, digits and underscores"
        )
    if found.name in registered and not found.__module__.startswith("swiftvlm_eval.pruning.methods."):
        raise ValueError(f"method={reference!r}: name={found.name!r} is that of a registered method; choose another")
    cls: type[PruningMethod] = found
    return cls


def _word(cls: type, word: str) -> object:
    return getattr(cls, word, None)


def _is_method(value: object, module: ModuleType) -> bool:
    from swiftvlm_eval.pruning.contract import PruningMethod

    return isinstance(value, type) and issubclass(value, PruningMethod) and value.__module__ == module.__name__


def _remember_source(cls: type, module: ModuleType) -> None:
    """Hashes the source of an imported module once, where its class is defined."""
    home = sys.modules.get(cls.__module__, module)
    if cls.__module__.startswith("swiftvlm_eval.") or hasattr(home, _HASH):
        return
    file = inspect.getsourcefile(cls)
    if file is not None:
        setattr(home, _HASH, hashlib.sha256(Path(file).read_bytes()).hexdigest())
