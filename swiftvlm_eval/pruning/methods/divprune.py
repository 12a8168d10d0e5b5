"""DivPrune (arXiv 2503.02175): keep the rows that are least alike, whatever the model attends to.

Every visual row of the decoder's input is compared with every other one, by one minus their cosine similarity. The
first row to stay is the one whose nearest neighbour is farthest away; then, again and again, the row farthest from all
those that stay already. Neither attention nor the question has a say. Kept rows stand in their old order, positions
are compact. On LLaVA-NeXT the rows are those of the packed image, newline rows among them, as in the authors' code.

Decisions: float32 throughout, since half precision changes the picks; a row that was taken is never taken again, which
in the authors' code can happen once only duplicates are left; ties go to the earlier row.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch

from swiftvlm_eval.pruning.budget import kept_shares
from swiftvlm_eval.pruning.contract import PruningMethod, RowEdit, Signals
from swiftvlm_eval.pruning.selection import cosines, greedy_maxmin, row_of
from swiftvlm_eval.pruning.words import PositionRule
from swiftvlm_eval.pruning.work import PromptWork, StageWork, Work


@dataclass(frozen=True, kw_only=True)
class DivPrune(PruningMethod):
    """DivPrune; `counts` is the number of rows that stay."""

    name: ClassVar[str] = "divprune"
    title: ClassVar[str] = "DivPrune"
    source: ClassVar[str] = "arXiv 2503.02175"
    code: ClassVar[str] = "vbdi/divprune"
    summary: ClassVar[str] = "before the decoder: the rows farthest from each other, without attention"
    vectorized: ClassVar[bool] = True
    position_rule: ClassVar[PositionRule] = "compact"
    default_layers: ClassVar[tuple[int, ...]] = (0,)
    presets: ClassVar = {count / 576: kept_shares(count) for count in (64, 128, 192)}

    def select(self, signals: Signals) -> RowEdit:
        """Starts at the most secluded row and goes on with the farthest."""
        count = signals.stage.kept
        if count >= len(signals.index):
            return signals.keep_all()
        distance = 1 - cosines(signals.states)
        to_others = distance.clone()
        to_others.diagonal().fill_(torch.inf)
        first = to_others.amin(dim=1).nan_to_num(nan=-torch.inf).argmax()
        picks = greedy_maxmin(lambda pick: row_of(distance, pick), first, count)
        return signals.keep(picks.sort().values)

    def work(self, prompt: PromptWork) -> Work:
        """Every row with every row."""

        def of_stage(at: StageWork) -> Work:
            return Work(similarity=at.live**2 if at.stage.kept < at.live else 0)

        return prompt.over_stages(of_stage)
