"""A board with a script in every text that a record may hold."""

from dataclasses import fields, is_dataclass, replace
from typing import Any

from pydantic import BaseModel

EVIL = '"><img src=x onerror="document.title=1"></script><script>document.title=2</script><!--<script>${1}\u2028\u202e'
KEPT = {"mark", "protocol", "group", "reduction", "groups", "figures", "means", "clusters", "literature"}
"""Fields whose words are our own, never a record's."""


def poisoned(value: Any) -> Any:
    """The same with a script in every text, keys included, that a record may hold."""
    if isinstance(value, str):
        return value + EVIL
    if isinstance(value, dict):
        return {poisoned(key): poisoned(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(poisoned(each) for each in value)
    if isinstance(value, BaseModel):
        changes = {name: each if name in KEPT else poisoned(each) for name, each in value}
        return type(value).model_construct(**changes)
    if is_dataclass(value) and not isinstance(value, type):
        own = {each.name: getattr(value, each.name) for each in fields(value)}
        return replace(value, **{name: poisoned(each) for name, each in own.items() if name not in KEPT})
    return value
