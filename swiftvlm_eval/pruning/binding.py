"""Putting functions of our own in a model's place for the length of a block, and taking them out again."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

from torch import Tensor


@contextmanager
def restored(*attributes: tuple[Any, str]) -> Iterator[None]:
    """Gives every (module, name) back the instance attribute that it had before the block, or none."""
    before = [(module, name, module.__dict__.get(name)) for module, name in attributes]
    try:
        yield
    finally:
        for module, name, value in before:
            if value is None:
                module.__dict__.pop(name, None)
            else:
                setattr(module, name, value)


def refuse_compiled(*modules: Any) -> None:
    """Refuses modules that `torch.compile` has taken whole: it would trace the engine and every selection.

    Raises:
        ValueError: names the class of the first one, and what can be compiled.
    """
    for module in modules:
        if hasattr(module, "_orig_mod") or getattr(module, "_compiled_call_impl", None) is not None:
            name = type(getattr(module, "_orig_mod", module)).__name__
            raise ValueError(
                f"{name} is compiled as a whole; allowed is a model that is not, or whose decoder layers are, one by "
                "one (layer.compile())"
            )


def telling_ids(stock: Callable[..., Any], tell: Callable[[Tensor | None], None]) -> Callable[..., Any]:
    """A model's `generate` that first tells the prompt's ids: it runs the vision tower before the core sees them."""

    @wraps(stock)
    def generate(*args: Any, **kwargs: Any) -> Any:
        tell(kwargs.get("input_ids", kwargs.get("inputs", args[0] if args else None)))
        return stock(*args, **kwargs)

    return generate
