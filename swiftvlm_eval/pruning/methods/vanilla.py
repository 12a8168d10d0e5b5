"""The unpruned model: the reference of every relative figure."""

from dataclasses import dataclass
from typing import ClassVar

from swiftvlm_eval.pruning.contract import PruningMethod, RowEdit, Signals
from swiftvlm_eval.pruning.schedule import Plan
from swiftvlm_eval.pruning.work import PromptWork, Work


@dataclass(frozen=True, kw_only=True)
class Vanilla(PruningMethod):
    """Keeps every visual token; the budget is ignored."""

    name: ClassVar[str] = "vanilla"
    title: ClassVar[str] = "Vanilla"
    source: ClassVar[str] = "no reduction"
    summary: ClassVar[str] = "all visual tokens in all layers"

    def plan(self, num_visual: int, num_layers: int, budget: float | None = None) -> Plan:
        """A plan without stages.

        Raises:
            ValueError: `layers` or `counts` are given.
        """
        for option in ("layers", "counts"):
            if getattr(self, option) is not None:
                raise ValueError(f"{option}={list(getattr(self, option))}: vanilla keeps every token in every layer")
        return Plan(num_visual, num_layers)

    def select(self, signals: Signals) -> RowEdit:
        """Never called: there are no stages."""
        raise NotImplementedError("vanilla has no stages")

    def work(self, prompt: PromptWork) -> Work:
        """None."""
        return Work()
