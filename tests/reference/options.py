"""What setting an option must do to an answer: the forms in which an oracle states a case for each option."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

N, LAYERS = 144, 16
"""Visual tokens and decoder layers of the model on which options are tried."""


@dataclass(frozen=True)
class Answer:
    """What a prefill of 144 visual tokens in 16 layers showed.

    Attributes:
        rows: visual rows of each layer.
        kept: per stage the visual indices in the sequence.
        boundaries: of the stages.
        logits: of the first generated token.
        end: position id of the first generated token in the last layers.
    """

    rows: list[int]
    kept: list[list[int]]
    boundaries: list[int]
    logits: torch.Tensor
    end: int


Judge = Callable[[Answer, Answer], bool]


@dataclass(frozen=True)
class Changes:
    """The option set to `value` gives another answer than without it, and `judge(without, with)` holds.

    `all_values` are those of an option that has few: every one gives an answer of its own.
    """

    value: Any
    judge: Judge
    base: tuple[tuple[str, Any], ...] = ()
    budget: float = 0.4
    all_values: tuple[str, ...] = ()


@dataclass(frozen=True)
class Refused:
    """The option set to `value` is refused; the message holds `says`."""

    value: Any
    says: str
    budget: float = 0.4


@dataclass(frozen=True)
class Unused:
    """The option exists because every method has it, and has nothing to change here."""

    value: Any
    because: str


OptionCase = Changes | Refused | Unused


def at(*boundaries: int) -> Judge:
    """Edits happen at these boundaries."""
    return lambda without, given: given.boundaries == list(boundaries) != without.boundaries


def keeps(*counts: int) -> Judge:
    """So many visual tokens stay after each stage, rows that were merged left out."""
    return lambda without, given: [len(kept) for kept in given.kept] == list(counts)


def same_counts(without: Answer, given: Answer) -> bool:
    """Other tokens, as many of them."""
    return without.rows == given.rows and without.kept != given.kept


def same_start(without: Answer, given: Answer) -> bool:
    """What changes comes after the choice of the first stage."""
    return without.kept[0] == given.kept[0] and without.rows == given.rows


THREE = (3, 6, 9)
STAGED = (("layers", THREE),)
PAPER = "has paper schedules for the shares"
NO_PAPER = "has no schedule=paper"
