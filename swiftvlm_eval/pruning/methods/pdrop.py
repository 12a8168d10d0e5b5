"""PyramidDrop (arXiv 2410.17247): drop in stages, each scored by the layer that is about to run.

Scores are the attention probabilities of the next layer's own projections on the current rows, softmax over the whole
sequence, mean over heads, from the last prompt token. After every stage the sequence is renumbered 0..n-1, so text
moves closer to the image; in decoding each layer continues from its own length.

Decisions: attention probabilities as in the authors' code (the paper speaks of similarity); counts are taken from the
initial N and truncated; the mask is right in every kernel; nothing is clipped to the tokenizer's maximum length. The
authors' layers 8, 16, 24 cannot go below a quarter of N; for lower budgets the layers move forward, as they advise.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from swiftvlm_eval.pruning.budget import Curve
from swiftvlm_eval.pruning.contract import PruningMethod, RowEdit, Signals
from swiftvlm_eval.pruning.schedule import Stage
from swiftvlm_eval.pruning.scores import top_k
from swiftvlm_eval.pruning.words import PositionRule, ScoreLayer
from swiftvlm_eval.pruning.work import PromptWork, Work


def geometric(ratio: float) -> Sequence[tuple[float, float]]:
    """Kept shares ratio, ratio^2, ratio^3; nothing merged."""
    return tuple((ratio**power, 0.0) for power in (1, 2, 3))


@dataclass(frozen=True, kw_only=True)
class PDrop(PruningMethod):
    """PyramidDrop with a geometric schedule; `counts=0.5:0.25:0.125` with `layers=8:16:24` is the authors' default.

    Attributes:
        positions: `compact` as published, or `keep` ("PDrop with positional updates" in arXiv 2602.03134, table 3).
    """

    name: ClassVar[str] = "pdrop"
    title: ClassVar[str] = "PDrop"
    source: ClassVar[str] = "arXiv 2410.17247"
    summary: ClassVar[str] = "three stages by the next layer's attention, positions renumbered"
    vectorized: ClassVar[bool] = True
    scored_by: ClassVar[ScoreLayer] = "next"
    presets: ClassVar = {64 / 576: geometric(0.19), 128 / 576: geometric(0.5), 192 / 576: geometric(0.25)}

    positions: PositionRule = "compact"

    def rule_at(self, stage: Stage) -> PositionRule:
        """The option `positions`."""
        return self.positions

    def layers_for(self, budget: float | None) -> tuple[int, ...]:
        """Layers 8, 16, 24 where the budget allows, else earlier ones."""
        if budget is None or budget >= 0.3:
            return (8, 16, 24)
        return (2, 4, 8) if budget >= 0.17 else (2, 8, 16)

    def schedule_curve(self, budget: float) -> Curve:
        """Geometric schedules of every ratio."""
        return geometric

    @staticmethod
    def to_rows(amount: float) -> int:
        """Truncated as in the authors' code, binary fractions included: 0.29 of 100 tokens are 28."""
        return int(amount)

    def select(self, signals: Signals) -> RowEdit:
        """Keeps the `stage.kept` most attended of the surviving rows."""
        scores = signals.attention(scope="all").mean(dim=0)[0]
        return signals.keep(top_k(scores, signals.stage.kept))

    def work(self, prompt: PromptWork) -> Work:
        """One query and the keys of all rows by a layer that has not run yet."""
        return prompt.over_stages(prompt.attention)
