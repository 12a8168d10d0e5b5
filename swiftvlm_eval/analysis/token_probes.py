"""Two methods that only measure: one notes what every layer attends to, one shows the model given tokens alone."""

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from swiftvlm_eval.pruning.contract import PruningMethod, RowEdit, Signals
from swiftvlm_eval.pruning.schedule import Plan, Stage
from swiftvlm_eval.pruning.scores import top_k
from swiftvlm_eval.pruning.work import PromptWork, Work

SHARED_LAYERS = 2
"""Layers that see all tokens in every run of a profile."""


def kept_count(share: float, num_visual: int) -> int:
    """How many tokens a share of N stands for: rounded to the nearest, at least one."""
    return max(1, round(share * num_visual))


@dataclass(frozen=True, kw_only=True)
class AttentionWatch(PruningMethod):
    """Changes nothing, and notes the tokens that the last prompt token attends to most in every layer from the second.

    Probabilities over visual keys alone, mean over heads; ties go to the lower index.

    Attributes:
        share: of the visual tokens that is noted.
        seen: layer, from 1 -> int64, [k], visual indices, ascending; of the last prefill of one sample.
    """

    name: ClassVar[str] = "attention_watch"
    title: ClassVar[str] = "most attended tokens of every layer"
    source: ClassVar[str] = "arXiv 2602.03134"
    summary: ClassVar[str] = "notes what every layer attends to"

    share: float
    seen: dict[int, Tensor] = field(default_factory=dict, compare=False)

    def plan(self, num_visual: int, num_layers: int, budget: float | None = None) -> Plan:
        """Looks before every layer from the second on; the boundary before layer l is l - 1."""
        stages = tuple(Stage(boundary, num_visual, scored_by="next") for boundary in range(1, num_layers))
        return Plan(num_visual, num_layers, stages)

    def select(self, signals: Signals) -> RowEdit:
        """Notes, and keeps all."""
        scores = signals.attention(scope="visual").mean(dim=0)[0]
        if not bool(scores.isfinite().all()):
            raise ValueError(f"attention of layer {signals.stage.boundary + 1} is not finite")
        self.seen[signals.stage.boundary + 1] = top_k(scores, kept_count(self.share, signals.num_visual))
        return signals.keep_all()

    def work(self, prompt: PromptWork) -> Work:
        """One query a layer."""
        return prompt.over_stages(lambda stage: prompt.attention(stage, scope="visual"))


@dataclass(frozen=True, kw_only=True)
class GivenTokens(PruningMethod):
    """After layer 2 keeps the tokens it was made with, at their own positions.

    Attributes:
        tokens: visual indices, ascending.
    """

    name: ClassVar[str] = "given_tokens"
    title: ClassVar[str] = "given tokens"
    source: ClassVar[str] = "arXiv 2602.03134"
    summary: ClassVar[str] = "keeps given tokens from layer 3 on"

    tokens: tuple[int, ...]

    def plan(self, num_visual: int, num_layers: int, budget: float | None = None) -> Plan:
        """One stage after layer 2."""
        return Plan(num_visual, num_layers, (Stage(SHARED_LAYERS, len(self.tokens), last=True),))

    def select(self, signals: Signals) -> RowEdit:
        """Keeps them."""
        return signals.keep(torch.tensor(self.tokens, dtype=torch.int64, device=signals.states.device))

    def work(self, prompt: PromptWork) -> Work:
        """Nothing: the choice was made before."""
        return Work()
