"""Values that hold tensors, taken apart and put together again: dataclasses, tuples, lists and mappings of them."""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import Tensor

from swiftvlm_eval.models.layout import VisualLayout
from swiftvlm_eval.models.tower import TowerView

WHOLE = (VisualLayout,)
"""What is never taken apart: samples share it, or differ."""


def tensors_of(value: Any) -> list[Tensor]:
    """All tensors of a value, in the order of its parts."""
    if isinstance(value, Tensor):
        return [value]
    return [tensor for part in _parts(value).values() for tensor in tensors_of(part)]


def with_tensors(value: Any, tensors: Iterator[Tensor]) -> Any:
    """The value with other tensors, in the order of `tensors_of`; what it has cached is forgotten."""
    if isinstance(value, Tensor):
        return next(tensors)
    parts = {name: with_tensors(part, tensors) for name, part in _parts(value).items()}
    if not parts:
        return value
    if isinstance(value, Mapping):
        return parts
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*parts.values())
    if isinstance(value, tuple | list):
        return type(value)(parts.values())
    if isinstance(value, TowerView):
        return TowerView(**parts)
    made = object.__new__(type(value))
    vars(made).update(parts)
    return made


def form(value: Any) -> Hashable:
    """What values have in common that differ only in the numbers inside their tensors."""
    if isinstance(value, Tensor):
        return value.shape, value.dtype, value.device
    parts = _parts(value)
    if parts or isinstance(value, Mapping | tuple | list):
        return type(value), tuple((name, form(part)) for name, part in parts.items())
    if isinstance(value, WHOLE):
        return id(value)
    try:
        hash(value)
    except TypeError:
        return id(value)
    return type(value), value


def side_by_side(tensors: Sequence[Tensor]) -> tuple[Tensor, int | None]:
    """Tensors of one shape as one tensor, and the dimension along which they stand in it.

    That is a new first dimension, or None where all of them are the same memory. Nothing is copied where they are
    parts of one tensor at equal distances.
    """
    first, second = tensors[0], tensors[1]
    layouts = {(tensor.untyped_storage().data_ptr(), tensor.stride()) for tensor in tensors}
    step = second.storage_offset() - first.storage_offset()
    steady = all(
        tensor.storage_offset() == first.storage_offset() + number * step for number, tensor in enumerate(tensors)
    )
    if len(layouts) > 1 or not steady or step < 0:
        return torch.stack([*tensors]), 0
    if step == 0:
        return first, None
    return first.as_strided((len(tensors), *first.shape), (step, *first.stride())), 0


def _parts(value: Any) -> dict[Any, Any]:
    """What a value consists of, by name or number; nothing where it is one whole."""
    if isinstance(value, WHOLE) or isinstance(value, type):
        return {}
    if is_dataclass(value):
        return {part.name: getattr(value, part.name) for part in fields(value)}
    if isinstance(value, TowerView):
        return value.parts
    if isinstance(value, Mapping):
        return dict(value)
    return dict(enumerate(value)) if isinstance(value, tuple | list) else {}
