"""SparseVLM 1.5 (arXiv 2410.04417): text rows that look at the image rate its tokens; what is pruned is recycled.

Raters are chosen once, from the decoder's input: the text rows after the image whose softmax similarity to the visual
rows is above average. At each stage the last executed layer's attention (softmax over the whole sequence, mean over
heads and raters) ranks the visual rows. The best ones stay; the best 30 % of the others are clustered by density peaks
and one mean per cluster follows the kept rows, as an ordinary visual token from then on. Positions are renumbered.

Counts are fixed, as in the authors' current default. Their counter attributes a stage's result to the stage's own
layer too (`attributed_plan`: 192 where 206.5 tokens are executed). Here a budget means what is executed; schedule
`paper` takes the authors' counts. Decisions: if no text row is above average, all of them rate; a stage that would
keep everything does nothing; ties are broken by order instead of noise.
"""

from dataclasses import dataclass, replace
from typing import Any, ClassVar

from swiftvlm_eval.pruning.budget import MergedRule, kept_shares
from swiftvlm_eval.pruning.contract import PruningMethod, RowEdit, Signals
from swiftvlm_eval.pruning.merging import recycle, recycled_rows
from swiftvlm_eval.pruning.schedule import Plan
from swiftvlm_eval.pruning.scores import ranking, rater_weights
from swiftvlm_eval.pruning.words import Need, PositionRule, ScoreLayer
from swiftvlm_eval.pruning.work import PromptWork, StageWork, Work, recycling


class RatedByQuestion:
    """What every version of SparseVLM reads off the decoder's input; `carry` holds it from the first stage on."""

    needs: ClassVar[frozenset[Need]] = frozenset({"decoder_input"})

    def prepare(self, signals: Signals) -> Any:
        """The raters, as weights of the question's rows."""
        return rater_weights(signals.states, signals.text_states[len(signals.text_states) - signals.num_question :])


@dataclass(frozen=True, kw_only=True)
class SparseVLM(RatedByQuestion, PruningMethod):
    """SparseVLM with fixed counts and recycling."""

    name: ClassVar[str] = "sparsevlm"
    title: ClassVar[str] = "SparseVLM"
    source: ClassVar[str] = "arXiv 2410.04417"
    summary: ClassVar[str] = "three stages by the attention of relevant text rows, with recycling"
    vectorized: ClassVar[bool] = True
    position_rule: ClassVar[PositionRule] = "compact"
    scored_by: ClassVar[ScoreLayer] = "previous"
    default_layers: ClassVar[tuple[int, ...]] = (3, 7, 16)
    presets: ClassVar = {
        64 / 576: kept_shares(66, 30, 17),
        96 / 576: kept_shares(238, 48, 26),
        128 / 576: kept_shares(303, 110, 36),
        192 / 576: kept_shares(300, 200, 110),
    }

    def merged_rule(self) -> MergedRule:
        """Recycled rows follow from what is pruned."""
        return recycled_rows

    def select(self, signals: Signals) -> RowEdit:
        """Keeps the best-rated rows and appends one mean per cluster of the best others."""
        weights, count = signals.carry, signals.stage.kept
        if count >= len(signals.index):
            return signals.keep_all(weights)
        scores = signals.attention(queries=signals.question_rows).mean(dim=0).T.mv(weights)
        order = ranking(scores)
        return signals.keep(order[:count], weights, appended=recycle(signals.states, order[count:]))

    def work(self, prompt: PromptWork) -> Work:
        """The raters; then, at each stage that drops rows, the question's attention and the recycling."""

        def of_stage(stage: StageWork) -> Work:
            if stage.kept >= stage.live:
                return Work()
            rating = Work(rating=prompt.num_question * stage.live)
            return prompt.attention(stage, queries=prompt.num_question) + rating + recycling(stage.live - stage.kept)

        return prompt.raters + prompt.over_stages(of_stage)

    def attributed_plan(self, plan: Plan) -> Plan | None:
        """The authors' counter: every stage's result counts from the stage's own layer on."""
        return replace(plan, stages=tuple(replace(stage, boundary=stage.boundary - 1) for stage in plan.stages))
