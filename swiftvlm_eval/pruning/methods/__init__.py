"""The pruning methods, one class a file, named as in their papers.

A file in this folder is a registered method: its name is the method's name everywhere.
"""

import difflib
import pkgutil
from collections.abc import Mapping
from dataclasses import fields
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from swiftvlm_eval.pruning.contract import PruningMethod


def method_names() -> list[str]:
    """Names of all registered methods, sorted. Imports no method, so it is cheap."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def method_class(name: str) -> "type[PruningMethod]":
    """The class of a method.

    Raises:
        ValueError: unknown name; the message lists the known ones.
    """
    if name not in method_names():
        near = difflib.get_close_matches(name, method_names(), n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"method={name!r}: unknown; allowed are {', '.join(method_names())}.{hint}")
    from swiftvlm_eval.pruning.contract import PruningMethod

    module = import_module(f"{__name__}.{name}")
    found = [value for value in vars(module).values() if isinstance(value, type) and issubclass(value, PruningMethod)]
    return next(value for value in found if value.__module__ == module.__name__ and value.name == name)


def option_names(name: str) -> list[str]:
    """Names of a method's options."""
    return [option.name for option in fields(method_class(name))]


def make_method(name: str, options: Mapping[str, Any] | None = None) -> "PruningMethod":
    """Builds a method from options as typed on a command line.

    Args:
        name: a registered method.
        options: field -> value; strings are converted to the field's type, lists may be written `3:10:14`.

    Raises:
        ValueError: an unknown option or a value that does not fit; names the field, the value and what is allowed.
    """
    from pydantic import TypeAdapter, ValidationError

    cls = method_class(name)
    values = dict(options or {})
    allowed = option_names(name)
    for key in values:
        if key not in allowed:
            raise ValueError(
                f"option {key}={values[key]!r}: {name} has no such option; allowed are {', '.join(allowed)}"
            )
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
        raise ValueError(f"option {where}={first['input']!r} of {name}: {first['msg']}") from None
    return method
