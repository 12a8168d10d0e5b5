"""Random pruning: the floor of what a selection is worth and of what it may cost."""

from dataclasses import dataclass
from typing import ClassVar

import torch

from swiftvlm_eval.pruning.contract import PruningMethod, RowEdit, Signals
from swiftvlm_eval.pruning.work import PromptWork, Work


@dataclass(frozen=True, kw_only=True)
class Random(PruningMethod):
    """A uniform sample without replacement, in original order, positions kept.

    Each sample draws from its own generator, seeded by the run's seed and the sample, so that the draw does not depend
    on batch, rank or device. `layers=0` drops before the decoder. For statistics use at least three seeds.
    """

    name: ClassVar[str] = "random"
    title: ClassVar[str] = "Random"
    source: ClassVar[str] = "baseline"
    summary: ClassVar[str] = "a uniform random subset after layer 2"
    draws: ClassVar[bool] = True
    default_layers: ClassVar[tuple[int, ...]] = (2,)

    def select(self, signals: Signals) -> RowEdit:
        """Keeps `stage.kept` random rows."""
        order = torch.randperm(len(signals.index), generator=signals.generator)
        return signals.keep(order[: signals.stage.kept].sort().values.to(signals.index.device))

    def work(self, prompt: PromptWork) -> Work:
        """None: nothing is scored."""
        return Work()
