"""SparseVLM+ (version 2.0 switch of arXiv 2410.04417's code): attention freed from the pull of rotary position.

Raters as in version 1.5. Attention probabilities (softmax over the whole sequence) are divided, entry by entry, by
what rotary position alone would give to queries and keys of ones; then the heads with the largest sums are averaged.
Nothing is merged and positions are kept. The divisor can turn negative at long distances in small heads (beyond 1706
positions at head size 128); as in the authors' code it is not clamped.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field

from swiftvlm_eval.pruning.budget import kept_shares
from swiftvlm_eval.pruning.contract import PruningMethod, RowEdit, Signals
from swiftvlm_eval.pruning.methods.sparsevlm import RatedByQuestion
from swiftvlm_eval.pruning.scores import ranking, top_k
from swiftvlm_eval.pruning.words import ScoreLayer
from swiftvlm_eval.pruning.work import PromptWork, StageWork, Work


@dataclass(frozen=True, kw_only=True)
class SparseVLMPlus(RatedByQuestion, PruningMethod):
    """SparseVLM+.

    Attributes:
        heads: how many heads are averaged.
    """

    name: ClassVar[str] = "sparsevlm_plus"
    title: ClassVar[str] = "SparseVLM+"
    source: ClassVar[str] = "arXiv 2410.04417"
    summary: ClassVar[str] = "SparseVLM with position-free scores, no recycling, positions kept"
    vectorized: ClassVar[bool] = True
    scored_by: ClassVar[ScoreLayer] = "previous"
    default_layers: ClassVar[tuple[int, ...]] = (3, 7, 16)
    presets: ClassVar = {
        64 / 576: kept_shares(66, 34, 20),
        96 / 576: kept_shares(246, 54, 28),
        128 / 576: kept_shares(238, 108, 60),
        192 / 576: kept_shares(300, 200, 118),
    }

    heads: Annotated[int, Field(ge=1)] = 14

    def select(self, signals: Signals) -> RowEdit:
        """Keeps the best-rated rows."""
        weights, rows = signals.carry, signals.question_rows
        free = signals.attention(queries=rows) / signals.rope_similarity(rows)
        rated = (weights[:, None] * free).sum(dim=1)
        best = ranking(rated.sum(dim=1))[: self.heads]
        return signals.keep(top_k(rated[best].mean(dim=0), signals.stage.kept), weights)

    def work(self, prompt: PromptWork) -> Work:
        """The raters; then the question's attention, and what position alone would give."""

        def of_stage(stage: StageWork) -> Work:
            pairs = prompt.num_question * stage.live
            return prompt.attention(stage, queries=prompt.num_question) + Work(position_similarity=pairs)

        return prompt.raters + prompt.over_stages(of_stage)
