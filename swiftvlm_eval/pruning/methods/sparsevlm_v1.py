"""SparseVLM 1.0 (arXiv 2410.04417): as version 1.5, but the rank of the raters' attention decides how many stay.

At each of four stages int(scale * rank + bias) rows are kept, with the numerical rank of the raters-by-rows attention
matrix; a matrix of full rank prunes nothing. The rank makes every stage wait for the device. The count depends on the
input: a budget names the authors' scale and bias, whose mean over a data set is about that budget, and the record
holds the executed mean. (The paper's text prunes lambda * (L - rank) tokens; the code keeps scale * rank, and so do
we.)
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field

from swiftvlm_eval.pruning.budget import BudgetError, MergedRule
from swiftvlm_eval.pruning.contract import PruningMethod, RowEdit, Signals
from swiftvlm_eval.pruning.merging import recycle, recycled_rows
from swiftvlm_eval.pruning.methods.sparsevlm import RatedByQuestion
from swiftvlm_eval.pruning.scores import rank_of_rows, ranking
from swiftvlm_eval.pruning.words import PositionRule, ScoreLayer
from swiftvlm_eval.pruning.work import PromptWork, StageWork, Work, recycling

AUTHORS = {192 / 576: (13.5, 0.0), 128 / 576: (9.0, 6.0), 64 / 576: (0.8, 0.0)}
"""Budget -> (scale, bias)."""


@dataclass(frozen=True, kw_only=True)
class SparseVLMv1(RatedByQuestion, PruningMethod):
    """Rank-adaptive SparseVLM.

    Attributes:
        scale: kept rows per rank; None takes the authors' value for the budget (192, 128, 64).
        bias: rows kept in any case, with `scale`.
    """

    name: ClassVar[str] = "sparsevlm_v1"
    title: ClassVar[str] = "SparseVLM 1.0"
    source: ClassVar[str] = "arXiv 2410.04417"
    summary: ClassVar[str] = "SparseVLM with rank-adaptive counts"
    position_rule: ClassVar[PositionRule] = "compact"
    scored_by: ClassVar[ScoreLayer] = "previous"
    default_layers: ClassVar[tuple[int, ...]] = (3, 7, 16, 20)

    scale: Annotated[float, Field(ge=0)] | None = None
    bias: Annotated[float, Field(ge=0)] = 0.0

    @property
    def adaptive(self) -> bool:
        """The rank decides."""
        return True

    def stage_counts(
        self, num_visual: int, num_layers: int, budget: float | None, boundaries: tuple[int, ...]
    ) -> tuple[tuple[int, int], ...]:
        """What to expect on average; refuses a budget for which the authors give no scale."""
        if self.counts is not None:
            raise ValueError(f"counts={list(self.counts)}: {self.name} counts by scale and bias")
        self.scale_and_bias(budget)
        return super().stage_counts(num_visual, num_layers, budget, boundaries)

    def scale_and_bias(self, budget: float | None) -> tuple[float, float] | None:
        """(scale, bias) for a budget; None keeps everything."""
        if self.scale is not None:
            return self.scale, self.bias
        if budget is None or budget >= 1:
            return None
        for share, values in AUTHORS.items():
            if abs(share - budget) < 1e-3:
                return values
        known = ", ".join(f"{share:.4g}" for share in sorted(AUTHORS))
        raise BudgetError(
            f"budget={budget:.4g}: {self.name} knows a scale for {known}; for others set scale= and bias="
        )

    def merged_rule(self) -> MergedRule:
        """Recycled rows follow from what is pruned."""
        return recycled_rows

    def select(self, signals: Signals) -> RowEdit:
        """Keeps as many of the best-rated rows as the rank asks for, and recycles the best others."""
        weights, rows = signals.carry, len(signals.index)
        silent = weights == 0  # their rows are emptied, so that nothing waits for how many rate
        matrix = signals.attention(queries=signals.question_rows).mean(dim=0).masked_fill(silent[:, None], 0)
        rank = rank_of_rows(matrix, silent)
        rule = self.scale_and_bias(signals.stage.budget)
        if rule is None or rank >= rows:
            return signals.keep_all(weights)
        count = min(int(rank * rule[0] + rule[1]), rows - 1)
        order = ranking(matrix.T.mv(weights))
        return signals.keep(order[:count], weights, appended=recycle(signals.states, order[count:]))

    def work(self, prompt: PromptWork) -> Work:
        """The raters; then the question's attention, its rank, and, where rows go, its mean and the recycling."""

        def of_stage(stage: StageWork) -> Work:
            asked, pruned = prompt.num_question, stage.live - stage.kept
            seen = prompt.attention(stage, queries=asked) + Work(rating=asked**2 * stage.live)
            return seen + (Work(rating=asked * stage.live) + recycling(pruned) if pruned > 0 else Work())

        return prompt.raters + prompt.over_stages(of_stage)
