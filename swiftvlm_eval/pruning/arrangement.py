"""Which rows of a sequence are text and which are visual, and how to take them apart.

Most prompts hold their visual tokens in one run; then slices do, and nothing has to be gathered on the device.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from swiftvlm_eval.pruning.scores import rows_where


class Apart(Exception):
    """Something was asked that samples shown in one go do not have in common; they are shown one by one instead."""


class Arrangement(ABC):
    """Rows of one sequence by kind.

    Attributes:
        text: int64, [n_t], which rows are text, ascending.
        visual: int64, [V], which rows are visual, ascending.
        num_text: n_t.
        num_visual: V.
    """

    text: Tensor
    visual: Tensor
    num_text: int
    num_visual: int

    @abstractmethod
    def text_of(self, rows: Tensor, dim: int = 0) -> Tensor:
        """The text rows of a tensor that holds the sequence along a dimension."""

    @abstractmethod
    def visual_of(self, rows: Tensor, dim: int = 0) -> Tensor:
        """The visual rows of a tensor that holds the sequence along a dimension."""


@dataclass(frozen=True, eq=False)
class Scattered(Arrangement):
    """Visual rows anywhere; see `Arrangement`."""

    text: Tensor
    visual: Tensor

    @property
    def num_text(self) -> int:  # type: ignore[override]
        """n_t."""
        return len(self.text)

    @property
    def num_visual(self) -> int:  # type: ignore[override]
        """V."""
        return len(self.visual)

    def text_of(self, rows: Tensor, dim: int = 0) -> Tensor:
        """See `Arrangement`."""
        return rows.index_select(dim, self.text)

    def visual_of(self, rows: Tensor, dim: int = 0) -> Tensor:
        """See `Arrangement`."""
        return rows.index_select(dim, self.visual)


class Run(Arrangement):
    """Visual rows that stand one after the other, so that the sequence ends with the question.

    Attributes:
        first: row at which they begin.
    """

    first: int | Tensor


@dataclass(frozen=True, eq=False)
class OneRun(Run):
    """Visual rows that stand one after the other; see `Arrangement`.

    Attributes:
        first: row at which they begin.
        num_visual: V.
        num_text: n_t.
        numbers: int64, 0, 1, 2, ... at least up to the last row.
    """

    first: int
    num_visual: int
    num_text: int
    numbers: Tensor

    @cached_property
    def text(self) -> Tensor:  # type: ignore[override]
        """int64, [n_t]."""
        return self.text_of(self.numbers[: self.num_text + self.num_visual])

    @property
    def visual(self) -> Tensor:  # type: ignore[override]
        """int64, [V]."""
        return self.numbers[self.first : self.first + self.num_visual]

    def text_of(self, rows: Tensor, dim: int = 0) -> Tensor:
        """See `Arrangement`."""
        before, _, after = self.apart(rows, dim)
        return after if self.first == 0 else torch.cat([before, after], dim=dim)

    def visual_of(self, rows: Tensor, dim: int = 0) -> Tensor:
        """See `Arrangement`."""
        return rows.narrow(dim, self.first, self.num_visual)

    def apart(self, rows: Tensor, dim: int = 0) -> tuple[Tensor, Tensor, Tensor]:
        """What stands before the visual rows, these, and what stands after them."""
        before, visual, after = rows.split((self.first, self.num_visual, self.num_text - self.first), dim=dim)
        return before, visual, after

    def with_other(self, rows: Tensor, visual: Tensor, dim: int = 0) -> list[Tensor]:
        """The pieces of the sequence with other visual rows in place of these."""
        before, _, after = self.apart(rows, dim)
        return [before, visual, after]

    def with_visual(self, count: int) -> "OneRun":
        """The arrangement with another number of visual rows."""
        total = self.num_text + count
        numbers = self.numbers if total <= len(self.numbers) else torch.arange(total, device=self.numbers.device)
        return OneRun(self.first, count, self.num_text, numbers)


def arrangement_of(visual_mask: Sequence[bool], numbers: Tensor) -> Arrangement:
    """The arrangement of a prompt.

    Args:
        visual_mask: for each row of the prompt, whether it is a visual token.
        numbers: int64, 0, 1, 2, ... at least up to the last row, on the device of the rows.
    """
    count, total = sum(visual_mask), len(visual_mask)
    first = list(visual_mask).index(True) if count else total
    if all(visual_mask[first : first + count]):
        return OneRun(first, count, total - count, numbers)
    is_visual = torch.tensor(visual_mask, device=numbers.device)
    return Scattered(rows_where(~is_visual, total - count), rows_where(is_visual, count))
