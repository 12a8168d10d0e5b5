"""Methods by name or reference, with options, as people write them.

    fastv                               a registered method: a file in `pruning/methods`
    fastv[layers=3;scope=visual]        with options
    path/to/file.py:MyMethod            from a file, whose code runs
    package.module:MyMethod             from a module
    swiftvlm[layers=auto:layers.json]   at the layers that select-layers chose for the model
    mymethod                            from an installed package (entry point group `swiftvlm_eval.methods`)
    visionzip+random[layers=16]         one after the other (`pruning.composed`)

Listing names imports no method, so it is cheap.
"""

import difflib
import pkgutil
import re
from collections.abc import Mapping
from dataclasses import fields
from functools import reduce
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from swiftvlm_eval.pruning import outside

if TYPE_CHECKING:
    from swiftvlm_eval.pruning.contract import PruningMethod

_FOLDER = Path(__file__).parent / "methods"
_COMPLETE = re.compile(r"\w+|.*:\w+", re.DOTALL)
_BREAK = re.compile(r"([,+])(?![^\[]*\])")


def method_names() -> list[str]:
    """Names of all registered methods, sorted."""
    return sorted(module.name for module in pkgutil.iter_modules([str(_FOLDER)]))


def known_names() -> list[str]:
    """Names of all registered methods and of those of installed packages, sorted."""
    registered = method_names()
    return sorted([*registered, *outside.installed_methods(registered)])


def method_class(name: str) -> "type[PruningMethod]":
    """The class of a method, given by name or reference.

    Raises:
        ValueError: unknown name (the message lists the known ones), or a reference to what is no method.
    """
    registered = method_names()
    if name in registered:
        from swiftvlm_eval.pruning.contract import PruningMethod

        module = import_module(f"swiftvlm_eval.pruning.methods.{name}")
        found = [item for item in vars(module).values() if isinstance(item, type) and issubclass(item, PruningMethod)]
        return next(item for item in found if item.__module__ == module.__name__ and item.name == name)
    if outside.is_reference(name):
        return outside.outside_class(name, registered)
    installed = outside.installed_methods(registered)
    if name in installed:
        cls = outside.outside_class(installed[name].value.replace(" ", ""), registered)
        if cls.name != name:
            raise ValueError(f"method={name!r}: the entry point's class has name={cls.name!r}; they must be equal")
        return cls
    near = difflib.get_close_matches(name, known_names(), n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise ValueError(
        f"method={name!r}: unknown; allowed are {', '.join(known_names())}, and path/to/file.py:ClassName.{hint}"
    )


def split_outside_brackets(text: str, sign: str) -> list[str]:
    """Parts between signs (`,` or `+`) that stand in no brackets, stripped; a path may hold a `+`."""
    parts, start = [], 0
    for found in _BREAK.finditer(text):
        part = text[start : found.start()].strip()
        if found[1] == sign and (sign == "," or _COMPLETE.fullmatch(part.partition("[")[0])):
            parts.append(part)
            start = found.end()
    return [*parts, text[start:].strip()]


def read_method(text: str) -> tuple[str, dict[str, str]]:
    """Reads `name[option=value;option=value]` as name or reference, and options.

    Raises:
        ValueError: brackets or options that are written otherwise.
    """
    name, bracket, rest = text.partition("[")
    pairs = [pair.partition("=") for pair in rest.removesuffix("]").split(";") if pair.strip()]
    if (bracket and not rest.endswith("]")) or not all(sign for _, sign, _ in pairs):
        raise ValueError(f"methods={text!r}: options are written as name[option=value;option=value]")
    return name.strip(), {key.strip(): value.strip() for key, _, value in pairs}


def make_method(text: str, options: Mapping[str, Any] | None = None) -> "PruningMethod":
    """Builds a method as typed on a command line.

    Args:
        text: see above.
        options: field -> value; strings are converted to the field's type, lists may be written `3:10:14`.

    Raises:
        ValueError: an unknown method or option, or a value that does not fit; names the field, the value and what is
            allowed.
    """
    parts = split_outside_brackets(text, "+")
    if len(parts) > 1:
        return _composed(text, parts, options)
    name, own = read_method(text)
    if both := sorted(own.keys() & (options or {}).keys()):
        raise ValueError(f"option {both[0]}={own[both[0]]!r}: given twice for {name}")
    return _build(name, {**own, **(options or {})})


def _composed(text: str, parts: list[str], options: Mapping[str, Any] | None) -> "PruningMethod":
    from swiftvlm_eval.pruning.composed import Composed

    for option, value in (options or {}).items():
        raise ValueError(f"option {option}={value!r}: of {text} write it as name[{option}={value}]")
    return reduce(lambda first, then: Composed(first=first, then=then), map(make_method, parts))


def _build(name: str, values: dict[str, Any]) -> "PruningMethod":
    from pydantic import TypeAdapter, ValidationError

    cls = method_class(name)
    allowed = [option.name for option in fields(cls)]
    for key in values:
        if key not in allowed:
            raise ValueError(
                f"option {key}={values[key]!r}: {cls.name} has no such option; allowed are {', '.join(allowed)}"
            )
    if str(values.get("layers", "")).startswith("auto:"):
        from swiftvlm_eval.pruning.selected_layers import read_selected_layers

        values["layers"] = read_selected_layers(str(values["layers"]))
    for key in ("layers", "counts"):
        if isinstance(values.get(key), str):
            values[key] = [part for part in values[key].split(":") if part]
        elif isinstance(values.get(key), int | float):
            values[key] = [values[key]]
    try:
        method: PruningMethod = TypeAdapter(cls).validate_python(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ValueError(f"option {where}={first['input']!r} of {cls.name}: {first['msg']}") from None
    return method
