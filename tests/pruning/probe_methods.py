"""Methods that only tests use: one that runs a given function at one boundary, and signals made by hand."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from swiftvlm_eval.pruning.contract import PruningMethod, RowEdit, Signals
from swiftvlm_eval.pruning.rows import SampleRows, apply_edits
from swiftvlm_eval.pruning.schedule import Plan, Stage
from swiftvlm_eval.pruning.words import ScoreLayer
from swiftvlm_eval.pruning.work import PromptWork, Work


@dataclass(frozen=True, kw_only=True)
class Probe(PruningMethod):
    """Runs `act` at `boundary`; plans nothing but that stage."""

    name: ClassVar[str] = "probe"
    title: ClassVar[str] = "Probe"
    source: ClassVar[str] = "test"
    summary: ClassVar[str] = "test"

    act: Callable[[Signals], RowEdit]
    boundary: int = 3
    scorer: ScoreLayer | None = None
    kept: int = 0

    def plan(self, num_visual: int, num_layers: int, budget: float | None = None) -> Plan:
        return Plan(num_visual, num_layers, (Stage(self.boundary, self.kept, scored_by=self.scorer, last=True),))

    def select(self, signals: Signals) -> RowEdit:
        return self.act(signals)

    def work(self, prompt: PromptWork) -> Work:
        return Work()


def probe(act: Callable[[Signals], Any], *, needs: Sequence[str] = (), **options: Any) -> Probe:
    """A probe that keeps every row unless `act` returns an edit."""

    def run(signals: Signals) -> RowEdit:
        edit = act(signals)
        return edit if isinstance(edit, RowEdit) else signals.keep_all()

    cls = type("Probe", (Probe,), {"needs": frozenset(needs)})
    made: Probe = cls(act=run, **options)
    return made


def apply_edit(
    rows: SampleRows, states: torch.Tensor, edit: RowEdit, renumber: bool
) -> tuple[SampleRows, torch.Tensor]:
    """`apply_edits` for one sample."""
    (edited,), (pieces,) = apply_edits([rows], [states], [edit], [renumber])
    return edited, torch.cat([*pieces])


@dataclass
class HandSignals(Signals):
    """Signals whose scores are given; everything else is refused."""

    scores: torch.Tensor

    def attention(self, **options: Any) -> torch.Tensor:
        return self.scores[None, None]

    def rope_similarity(self, queries: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError

    def _refused(self) -> Any:
        raise NotImplementedError

    def layer_run(self, rows: Any = "visual") -> Any:
        raise NotImplementedError

    def final_norm(self, states: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError

    rotation = layout = vision = question_text = generator = property(_refused)
