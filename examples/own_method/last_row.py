"""A decoder method of your own: after one layer, the tokens that the prompt's last row attends to most.

lmms_eval --model swiftvlm_llava --model_args method=examples/own_method/last_row.py:LastRow,layers=4 --tasks refcoco
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

from swiftvlm_eval import PromptWork, PruningMethod, RowEdit, Signals, Work, top_k


@dataclass(frozen=True, kw_only=True)
class LastRow(PruningMethod):
    """Keeps the tokens with the highest attention in the layer that has just run; `heads` is an option."""

    name: ClassVar[str] = "last_row"
    title: ClassVar[str] = "Last row"
    source: ClassVar[str] = "example"
    summary: ClassVar[str] = "after layer 4: attention of the last prompt token"
    scored_by: ClassVar[Literal["previous"]] = "previous"
    default_layers: ClassVar[tuple[int, ...]] = (4,)

    heads: Literal["mean", "max"] = "mean"

    def select(self, signals: Signals) -> RowEdit:
        """Scores [V], then the best `stage.kept` in their order."""
        rows = signals.attention()[:, 0]  # [heads, V]
        scores = rows.mean(dim=0) if self.heads == "mean" else rows.max(dim=0).values
        return signals.keep(top_k(scores, signals.stage.kept))

    def work(self, prompt: PromptWork) -> Work:
        """One row of attention at every stage."""
        return prompt.over_stages(prompt.attention)
