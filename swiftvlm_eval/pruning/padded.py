"""Samples of unequal length as samples of one length: with their padding, and with their text out of reach."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from swiftvlm_eval.pruning.arrangement import Apart, OneRun, Run
from swiftvlm_eval.pruning.boundary import Boundary, Sample
from swiftvlm_eval.pruning.masks import left_padded
from swiftvlm_eval.pruning.rotations import HeldRotation
from swiftvlm_eval.pruning.rows import PromptTable, SampleRows


@dataclass(frozen=True, eq=False)
class RunAt(Run):
    """One run of visual rows that begins where only the device knows; see `Arrangement`.

    Attributes:
        first: int64, [], row at which they begin.
        num_visual: V.
        numbers: int64, 0, 1, 2, ... at least up to V.
    """

    first: Tensor
    num_visual: int
    numbers: Tensor

    @property
    def num_text(self) -> int:  # type: ignore[override]
        """Differs from sample to sample."""
        raise Apart("text rows")

    @property
    def text(self) -> Tensor:  # type: ignore[override]
        """Differ in number from sample to sample."""
        raise Apart("text rows")

    @cached_property
    def visual(self) -> Tensor:  # type: ignore[override]
        """int64, [V]."""
        return self.numbers[: self.num_visual] + self.first

    def text_of(self, rows: Tensor, dim: int = 0) -> Tensor:
        """Differ in number from sample to sample."""
        raise Apart("text rows")

    def visual_of(self, rows: Tensor, dim: int = 0) -> Tensor:
        """See `Arrangement`."""
        return rows.index_select(dim, self.visual)


class OutOfReach:
    """Stands for what differs in shape from sample to sample."""

    def __getattr__(self, name: str) -> Any:
        """Whatever is asked of it."""
        raise Apart("position ids")

    def __getitem__(self, key: Any) -> Any:
        """Likewise."""
        raise Apart("position ids")


OUT_OF_REACH: Any = OutOfReach()


@dataclass(frozen=True)
class PaddedRows(SampleRows):
    """The W rows of a sample with its padding in front; its position ids are out of reach."""

    @property
    def position_ids(self) -> Tensor:  # type: ignore[override]
        """Differ in number from sample to sample."""
        raise Apart("position ids")


def padded(numbers: Sequence[int], at: Boundary) -> list[Sample]:
    """Samples of one run of visual rows each, which are live as they entered the decoder or were edited since.

    Args:
        numbers: which samples.
        at: the boundary.

    Raises:
        Apart: the samples must be shown one by one.
    """
    width, wide = at.hidden.shape[1], at.prompt_rotation.tables[0].shape[1]
    begins, begun, missing = [], [], []
    for rows in (at.rows[number] for number in numbers):
        now, first = rows.arrangement, rows.prompt.arrangement
        if not (isinstance(now, OneRun) and isinstance(first, OneRun)) or rows.prompt.part:
            raise Apart("more than one run of visual rows, or more than one method")
        missing.append(width - len(rows))
        begins.append(missing[-1] + now.first)
        begun.append(wide - rows.prompt.position_ids.shape[1] + first.first)
    known = torch.tensor([begins, begun, missing]).to(at.hidden.device, non_blocking=True)
    places = left_padded([[at.rows[number].places[:, None]] for number in numbers], width)[..., 0]
    absent = at.rows[numbers[0]].prompt.numbers[:width] < known[2][:, None]
    found = []
    for place, number in enumerate(numbers):
        sample = at.rows[number]
        rows = PaddedRows(
            prompt=_prompt(sample.prompt, known[1, place]),
            places=places[place],
            arrangement=RunAt(known[0, place], sample.arrangement.num_visual, sample.prompt.numbers),
            index=sample.index,
            num_question=-1,
            absent=absent[place],
        )
        tables = _whole(at.rotation.tables, number), _whole(at.prompt_rotation.tables, number)
        found.append(at.part(number, rows, HeldRotation(at.rotation.source, *tables)))
    return found


def _prompt(prompt: PromptTable, first: Tensor) -> PromptTable:
    run = RunAt(first, prompt.arrangement.num_visual, prompt.numbers)
    return replace(prompt, position_ids=OUT_OF_REACH, arrangement=run, start=None)


def _whole(tables: tuple[Tensor, Tensor], number: int) -> tuple[Tensor, Tensor]:
    """Tables of one sample with its padding."""
    cos, sin = tables
    row = number if len(cos) > 1 else 0
    return cos[row], sin[row]
