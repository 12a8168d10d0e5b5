"""FastV (arXiv 2403.06764): keep the tokens that the last prompt token attends to after layer K.

Scores are the attention probabilities of the last executed layer (0-based K - 1), softmax over the whole sequence,
mean over heads, from the last prompt token to the visual tokens. Positions are kept; nothing is merged.

Decisions where public versions differ: tokens are dropped for real, once, in prefill (the original's mask mode keeps
them in memory; its in-place mode selects anew at every generated token); kept tokens stay in original order; counts
are rounded to the nearest token; the visual span comes from the prompt, never from a constant. Schedule `paper` is
fitted to the FLOPs that arXiv 2602.03134 reports (1.71 and 1.29 T): 166 and 97 tokens; 98 would be 1.295.
"""

from dataclasses import dataclass
from typing import ClassVar

from swiftvlm_eval.pruning.contract import PruningMethod, RowEdit, Signals
from swiftvlm_eval.pruning.scores import top_k
from swiftvlm_eval.pruning.words import Scope, ScoreLayer
from swiftvlm_eval.pruning.work import PromptWork, Work


@dataclass(frozen=True, kw_only=True)
class FastV(PruningMethod):
    """FastV with K = 2 unless `layers` says otherwise (some peers use 3).

    Attributes:
        scope: `all` as in the original; `visual` normalises over visual keys only (FEATHER's FastV baseline).
    """

    name: ClassVar[str] = "fastv"
    title: ClassVar[str] = "FastV"
    source: ClassVar[str] = "arXiv 2403.06764"
    summary: ClassVar[str] = "one cut after layer 2 by the last token's attention"
    vectorized: ClassVar[bool] = True
    scored_by: ClassVar[ScoreLayer] = "previous"
    default_layers: ClassVar[tuple[int, ...]] = (2,)
    paper_presets: ClassVar = {128 / 576: ((97 / 576, 0.0),), 192 / 576: ((166 / 576, 0.0),)}

    scope: Scope = "all"

    def select(self, signals: Signals) -> RowEdit:
        """Keeps the `stage.kept` most attended rows."""
        scores = signals.attention(scope=self.scope).mean(dim=0)[0]
        return signals.keep(top_k(scores, signals.stage.kept))

    def work(self, prompt: PromptWork) -> Work:
        """One query over keys that the layer has in its cache."""
        return prompt.over_stages(lambda stage: prompt.attention(stage, scope=self.scope))
