"""IVC-Prune (arXiv 2602.03060): rows at telling rotary coordinates, and rows whose values fit the question's.

Rows are compared by the values of the layer just run, head by head: softmax over the inner products by the root of the
head size, mean over heads, no mask. The visual rows that the question's rows fit best are seeds; the score of a row is
the mean over question and seeds together. Besides, the rows are kept whose rotary cosines, or sines, have the largest
mean over the head: that depends on where a row stands, never on the picture. Positions are kept, and what is dropped
also leaves the caches of earlier layers once the prompt is read, so that only the first generated token has seen it.

Rule `target` meets a count: seeds, cosines and sines, then the best scores up to it (softmax over the visual rows).
`llava` is the authors' for LLaVA, after layer 16: 1 % seeds, a fifth of N by score and a twentieth each by cosine and
sine, united, with a softmax over the whole sequence; layer 0 keeps all. Its count depends on the image, so that it
takes no budget but its own: independent choices give 164 of 576 rows, a mean share of 0.6426 (`budget=0.6426`).

Decisions. Budgets need an early boundary: `target` acts after layer 2, which the authors use for another model, with
LLaVA's shares (0.036 k seeds, 0.175 k cosines and sines each); this placing is ours. The image is where it stands in
the prompt: the authors' configuration names a fixed place that their own prompt has not. As with them the question
begins two rows after the image; where no row is left, it is the last row.
"""

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch

from swiftvlm_eval.pruning.budget import BudgetError
from swiftvlm_eval.pruning.contract import PruningMethod, RowEdit, Signals
from swiftvlm_eval.pruning.scores import top_k, value_attention
from swiftvlm_eval.pruning.work import PromptWork, StageWork, Work

SKIPPED = 2
"""Text rows between the image and the question."""
UNION = 1 - 0.99 * 0.8 * 0.95**2
"""Share of N that rule `llava` keeps if its four choices are independent."""


def question_count(after_image: int) -> int:
    """Rows at the prompt's end that are the question, of `after_image` text rows."""
    return max(after_image - SKIPPED, 1)


@dataclass(frozen=True, kw_only=True)
class IVCPrune(PruningMethod):
    """IVC-Prune.

    Attributes:
        rule: `target` meets a count after layer 2; `llava`, published for LLaVA after layer 16, keeps what it keeps.
    """

    name: ClassVar[str] = "ivcprune"
    title: ClassVar[str] = "IVC-Prune"
    source: ClassVar[str] = "arXiv 2602.03060"
    caveat: ClassVar[str] = "after layer 2, where its authors prune another model: their LLaVA setting meets no budget"
    summary: ClassVar[str] = "rotary coordinates and value similarity; earlier caches forget what is dropped"
    vectorized: ClassVar[bool] = True
    code: ClassVar[str] = "FireRedTeam/IVC-Prune, no licence file"
    needs: ClassVar = frozenset({"layer_values"})
    looks_back: ClassVar[bool] = True
    default_layers: ClassVar[tuple[int, ...]] = (2,)

    rule: Literal["target", "llava"] = "target"

    @property
    def adaptive(self) -> bool:
        """Whether the choices overlap as the image has it."""
        return self.rule == "llava"

    def layers_for(self, budget: float | None) -> tuple[int, ...]:
        """After layer 16 as published for LLaVA, else after layer 2."""
        return (16,) if self.adaptive else self.default_layers

    def stage_counts(
        self, num_visual: int, num_layers: int, budget: float | None, boundaries: tuple[int, ...]
    ) -> tuple[tuple[int, int], ...]:
        """As planned, or what rule `llava` is expected to keep."""
        if not self.adaptive or (budget is not None and budget >= 1):
            return super().stage_counts(num_visual, num_layers, budget, boundaries)
        own = (boundaries[0] + UNION * (num_layers - boundaries[0])) / num_layers
        if self.counts is not None:
            raise ValueError(f"counts={list(self.counts)}: rule=llava keeps what it keeps; counts need rule=target")
        if budget is not None and abs(budget - own) > 1e-3:
            raise BudgetError(f"budget={budget:.4g}: rule=llava has none and stands for {own:.4f}; see rule=target")
        return ((max(1, round(UNION * num_visual)), 0),)

    def _shares(self, count: int, num_visual: int) -> tuple[int, int]:
        """Seeds, and coordinates of each kind."""
        if self.adaptive:
            return max(1, round(0.01 * num_visual)), round(0.05 * num_visual)
        return max(1, round(0.036 * count)), round(0.175 * count)

    def select(self, signals: Signals) -> RowEdit:
        """Keeps coordinates, seeds and the best rows; caches of earlier layers keep no others either."""
        count, live = signals.stage.kept, len(signals.states)
        if count >= live:
            return signals.keep_all()
        seeds, coordinates = self._shares(count, live)
        values, text = signals.layer_run().values, signals.layer_run("text").values
        keys = torch.cat([values, text], dim=1) if self.adaptive else values
        asked = value_attention(text[:, -question_count(signals.num_question) :], keys, live)
        seeded = top_k(asked.mean(dim=0), seeds)
        scores = torch.cat([asked, value_attention(values[:, seeded], keys, live)]).mean(dim=0)
        first = torch.cat([seeded, *(top_k(part.mean(dim=1), coordinates) for part in signals.rotation)])
        if self.adaptive:
            kept = torch.cat([first, top_k(scores, round(0.2 * live))]).unique()
            return replace(signals.keep(kept), evict_from=1).sure("ascending", whole=True)
        kept = top_k(scores.index_fill(0, first, torch.inf), count)
        return replace(signals.keep(kept), evict_from=0).sure("ascending", whole=True)

    def work(self, prompt: PromptWork) -> Work:
        """Question and seeds compared with what is under the softmax."""

        def of_stage(at: StageWork) -> Work:
            if at.stage.kept >= at.live:
                return Work()
            rows = self._shares(at.stage.kept, at.live)[0] + question_count(prompt.num_question)
            return Work(value_similarity=rows * (at.live + (prompt.text if self.adaptive else 0)))

        return prompt.over_stages(of_stage)
