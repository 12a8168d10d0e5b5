"""TransPrune (arXiv 2507.20630): rows that the layers transform most, and that the question looks at.

From six layers in a row (7 to 12 of 32) each row collects how attention and MLP transform it: the norm of the module's
output by that of its input, times exp(1 - cosine of both), which is divided by its sum over all rows that the layer
saw, text too. At the first, third and sixth of these boundaries that sum over the layers so far and the next layer's
attention (softmax over the whole sequence, mean over heads and over the text after the image) are each divided by
their own sum over the visual rows and added; the best rows stay and keep what they have collected. Positions are
renumbered.

Decisions, where paper and code differ, are the code's: 1 - cosine without its absolute value, all rows under the sum,
both signals normalised. A denominator stays that of its own layer after a drop. The six boundaries are all in
`layers`, `counts` are those of the three that drop. Schedule `paper` has the authors' 504/360/72 of 576 (mean 236.25;
share 0.4102) beside 432/288/19, which is ours for 192. Seven whole layers cost 126 rows: 128 leaves next to nothing of
the image and 64 is out of reach. The layers are not moved for that, since collecting earlier is reported to be worse.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from swiftvlm_eval.pruning.budget import kept_shares
from swiftvlm_eval.pruning.contract import PruningMethod, RowEdit, Signals
from swiftvlm_eval.pruning.scores import top_k
from swiftvlm_eval.pruning.words import PositionRule, ScoreLayer
from swiftvlm_eval.pruning.work import PromptWork, StageWork, Work

DROPPING = (0, 2, 5)
"""Which of the six boundaries drop rows."""


def transition(inputs: Tensor, outputs: Tensor, text_inputs: Tensor, text_outputs: Tensor) -> Tensor:
    """How much one module transforms the visual rows.

    Args:
        inputs: [V, hidden_size], visual rows as the module took them, after its norm.
        outputs: [V, hidden_size], as it gave them, before the residual.
        text_inputs: [n_t, hidden_size], the same of the text rows.
        text_outputs: [n_t, hidden_size].

    Returns:
        float32, [V].
    """
    taken, given = torch.cat([inputs, text_inputs]).float(), torch.cat([outputs, text_outputs]).float()
    turned = (1 - cosine_similarity(given, taken, dim=1)).exp()
    scores = given.norm(dim=1) / taken.norm(dim=1) * turned / turned.nansum()
    return scores[: len(inputs)]


@dataclass(frozen=True, kw_only=True)
class TransPrune(PruningMethod):
    """TransPrune; `layers` are six boundaries, `counts` three numbers, `layers=7:8:9:10:11:12` `counts=432:288:19`."""

    name: ClassVar[str] = "transprune"
    title: ClassVar[str] = "TransPrune"
    source: ClassVar[str] = "arXiv 2507.20630"
    summary: ClassVar[str] = "three stages by what six layers do to each row, and by the question's attention"
    vectorized: ClassVar[bool] = True
    code: ClassVar[str] = "liaolea/TransPrune, MIT"
    position_rule: ClassVar[PositionRule] = "compact"
    needs: ClassVar = frozenset({"module_io"})
    looks_back: ClassVar[bool] = True
    scored_by: ClassVar[tuple[ScoreLayer | None, ...]] = ("next", None, "next", None, None, "next")
    default_layers: ClassVar[tuple[int, ...]] = (7, 8, 9, 10, 11, 12)
    presets: ClassVar = {192 / 576: kept_shares(432, 288, 19)}
    paper_presets: ClassVar = {236.25 / 576: kept_shares(504, 360, 72)}

    def stage_counts(
        self, num_visual: int, num_layers: int, budget: float | None, boundaries: tuple[int, ...]
    ) -> tuple[tuple[int, int], ...]:
        """Those of the three boundaries that drop; the others keep what is there."""
        dropping = tuple(boundaries[stage] for stage in DROPPING)
        first, second, third = super().stage_counts(num_visual, num_layers, budget, dropping)
        return first, first, second, second, second, third

    def select(self, signals: Signals) -> RowEdit:
        """Collects what the layer just run did; drops rows where it is time to."""
        image, text = signals.layer_run().modules, signals.layer_run("text").modules
        attention = transition(image.attention_in, image.attention_out, text.attention_in, text.attention_out)
        mlp = transition(image.mlp_in, image.mlp_out, text.mlp_in, text.mlp_out)
        collected = attention + mlp + (0 if signals.carry is None else signals.carry)
        if signals.stage.kept >= len(collected):
            return signals.keep_all(collected)
        asked = signals.attention(queries=signals.question_rows).mean(dim=(0, 1))
        scores = sum(part / (part.nansum() + 1e-8) for part in (collected, asked))
        kept = top_k(torch.as_tensor(scores), signals.stage.kept)
        return signals.keep(kept, collected[kept])

    def work(self, prompt: PromptWork) -> Work:
        """The question's attention where rows are dropped."""

        def of_stage(at: StageWork) -> Work:
            return Work() if at.kept >= at.live else prompt.attention(at, queries=prompt.num_question)

        return prompt.over_stages(of_stage)

    @staticmethod
    def to_rows(amount: float) -> int:
        """Truncated as in the authors' code."""
        return int(amount)
