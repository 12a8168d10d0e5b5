"""The columns that are not benchmarks, as declared in `columns.yaml`."""

from functools import cache
from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict

from swiftvlm_eval.results.benchmarks import Group, Protocol

TableName = Literal["cost", "timing", "export"]


class Column(BaseModel):
    """One column; the fields are explained at the top of `columns.yaml`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    attribute: str
    title: str
    unit: str
    digits: int
    better: Literal["higher", "lower", "none"]
    table: TableName
    between: tuple[str, str] | None = None
    summary: str | None = None
    help: str = ""

    @property
    def heading(self) -> str:
        """Title with its unit."""
        return f"{self.title} ({self.unit})" if self.unit else self.title


class ColumnTable(BaseModel):
    """All columns, the titles of the group means, names of the protocols, and the order of rows."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    columns: tuple[Column, ...]
    groups: dict[Group, str]
    protocols: dict[Protocol, str]
    row_order: tuple[Group, ...]
    relative_digits: int

    @property
    def attributes(self) -> tuple[str, ...]:
        """Every attribute of `Row.figures`, ends of intervals included."""
        return tuple(name for column in self.columns for name in (column.attribute, *(column.between or ())))

    def of(self, *tables: TableName) -> tuple[Column, ...]:
        """Returns the columns of the named tables, in declared order."""
        return tuple(column for column in self.columns if column.table in tables)


@cache
def column_table() -> ColumnTable:
    """Reads `columns.yaml`."""
    path = Path(__file__).with_name("columns.yaml")
    return ColumnTable.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
