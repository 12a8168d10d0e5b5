"""FEATHER (arXiv 2412.13180): scores without rotary embedding, and a uniform grid in the first stage.

Scores come from the layer just run, but with queries and keys not rotated, from the last prompt token to the visual
tokens, softmax over these only, mean over heads. Without the rotation the score does not favour late image rows. The
first stage also keeps every stride-th row and column of the image; the second one goes by scores alone.

Mode `fill` (ours) meets a budget exactly: the uniform tokens, filled up with the best others. Mode `union` is the
published one: the best `keep_ratio` of N, united with the uniform tokens, then keep_ratio^2 of what that gave; its
count depends on the image; a plan expects that of independent choices (217 of 576). Mode `paperfit` (schedule `paper`
implies it) is `union` with the layers that reproduce the FLOPs reported in arXiv 2602.03134 (1.82 and 1.44 T at its
192 and 128, with 212 of 576: `attributed_plan`). On LLaVA-NeXT the grid lies on the base view and on the unpadded fine
view, newline tokens left out. The stride grows until the grid fits.
"""

from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field

from swiftvlm_eval.pruning.budget import BudgetError, Curve
from swiftvlm_eval.pruning.contract import PruningMethod, RowEdit, Signals
from swiftvlm_eval.pruning.schedule import Plan
from swiftvlm_eval.pruning.scores import top_k
from swiftvlm_eval.pruning.uniform import expected_union, uniform_grid
from swiftvlm_eval.pruning.words import ScoreLayer
from swiftvlm_eval.pruning.work import PromptWork, Work

# share kept by the published union (ratio 0.3, stride 3) with which the reported FLOPs are reproduced
FITTED_FIRST_STAGE = 212 / 576


@dataclass(frozen=True, kw_only=True)
class Feather(PruningMethod):
    """FEATHER.

    Attributes:
        mode: `fill`, `union` or `paperfit`.
        stride: of the uniform grid; None takes 3, or 4 if the first stage keeps less than a seventh of N.
        keep_ratio: share of N kept by score in the first stage of `union` and `paperfit`.
    """

    name: ClassVar[str] = "feather"
    title: ClassVar[str] = "FEATHER"
    source: ClassVar[str] = "arXiv 2412.13180"
    summary: ClassVar[str] = "two stages by rotation-free attention, with a uniform grid in the first"
    vectorized: ClassVar[bool] = True
    scored_by: ClassVar[ScoreLayer] = "previous"
    presets: ClassVar = {
        64 / 576: ((48 / 576, 0.0), (14 / 576, 0.0)),
        128 / 576: ((144 / 576, 0.0), (31 / 576, 0.0)),
        192 / 576: ((144 / 576, 0.0), (24 / 576, 0.0)),
    }

    mode: Literal["fill", "union", "paperfit"] = "fill"
    stride: Annotated[int, Field(ge=1)] | None = None
    keep_ratio: Annotated[float, Field(gt=0, le=1)] = 0.3

    @property
    def adaptive(self) -> bool:
        """Whether the first stage is the published union, whose size depends on the image."""
        return self.mode != "fill" or self.schedule == "paper"

    def layers_for(self, budget: float | None) -> tuple[int, ...]:
        """Layers 8 and 16 where the budget allows, else an earlier first one; `union` always has 8 and 16."""
        if budget is None or budget >= 0.3:
            return (8, 16)
        return (3, 16) if budget >= 0.17 else (2, 16)

    def schedule_curve(self, budget: float) -> Curve:
        """A second stage of a sixth of the first, as in the preset for 192, rising to all."""
        return lambda x: ((x, 0.0), (x / 6 + max(0.0, x - 0.5) * 5 / 3, 0.0))

    def stage_counts(
        self, num_visual: int, num_layers: int, budget: float | None, boundaries: tuple[int, ...]
    ) -> tuple[tuple[int, int], ...]:
        """In `fill` as planned; expected for the published union, which `mode=union` also is without a budget."""
        if not self.adaptive or (budget is not None and budget >= 1):
            return super().stage_counts(num_visual, num_layers, budget, boundaries)
        if self.counts is not None:
            raise ValueError(f"counts={list(self.counts)}: the union follows keep_ratio; counts need mode=fill")
        fitted = (192 / 576,) if self.mode == "union" else (192 / 576, 128 / 576)
        if (budget or self.mode != "union") and min(abs(share - (budget or 0)) for share in fitted) > 1e-3:
            known, named = ", ".join(f"{share:.4g}" for share in fitted), budget and round(budget, 4)
            raise BudgetError(f"budget={named}: FEATHER's published union has no budget; it stands for {known}")
        first = expected_union(num_visual, max(1, int(num_visual * self.keep_ratio)), self.stride or 3)
        return (first, 0), (max(1, int(first * self.keep_ratio**2)), 0)

    def select(self, signals: Signals) -> RowEdit:
        """Scores without rotation; keeps grid and best in the first stage, the best in the second."""
        scores, count = signals.attention(rope=False, scope="visual").mean(dim=0)[0], len(signals.index)
        if signals.stage.last:
            adaptive = self.adaptive and signals.stage.kept < count
            second = max(1, int(count * self.keep_ratio**2)) if adaptive else signals.stage.kept
            return signals.keep(top_k(scores, second))
        if signals.stage.kept >= count:
            return signals.keep_all()
        if self.adaptive:
            best = top_k(scores, max(1, int(count * self.keep_ratio)))
            grid = uniform_grid(signals.layout, self.stride or 3, count).to(scores.device)
            return signals.keep(torch.cat([best, grid]).unique())
        stride = self.stride or (3 if signals.stage.kept >= count / 7 else 4)
        grid = uniform_grid(signals.layout, stride, signals.stage.kept).to(scores.device)
        return signals.keep(top_k(scores.index_fill(0, grid, torch.inf), signals.stage.kept))

    def work(self, prompt: PromptWork) -> Work:
        """One query; the keys are projected anew, since the cache holds rotated ones."""
        return prompt.over_stages(lambda stage: prompt.attention(stage, rope=False, scope="visual"))

    def attributed_plan(self, plan: Plan) -> Plan | None:
        """The union as the reported FLOPs have it; None for `fill`, and for a ratio or stride that nobody reported."""
        if not self.adaptive or not plan.stages or plan.stages[0].kept >= plan.num_visual:
            return None
        if (self.keep_ratio, self.stride or 3) != (0.3, 3):
            return None
        first, second = plan.stages
        kept = round(FITTED_FIRST_STAGE * plan.num_visual)
        second = replace(second, kept=max(1, int(kept * self.keep_ratio**2)))
        return replace(plan, stages=(replace(first, kept=kept), second))
