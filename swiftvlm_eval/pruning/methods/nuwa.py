"""Nüwa (arXiv 2602.02951): anchors spread over the image gather what lies around them; a second cut after layer 16.

Before the projector every view is cut into cells of 2 x 2 patches. The t patches of each cell that CLS attends to most
are candidates; the K best of all candidates, the anchors, stay at their own position ids. Those whose score reaches
the 0.55 quantile stay as they are. To each other one all patches of its view are added, weighed by how alike they are
(states of the tower's upper third) and how near; the weights sum to one before that of the anchor itself is set to 1,
so such a row grows and is no mean. After decoder layer 16 the rows stay that the last token attends to most.

The released code is followed, not the paper's text (key norms, the question's mean embedding). Decisions: t is the
least that leaves enough candidates, which gives the published 1, 2, 3 for 64, 128, 192 of 576. Ours for LLaVA-NeXT,
whose released path fails: base view and unpadded fine view are each treated as an image of LLaVA-1.5, every newline
row stays and counts, and the rest of K is spread over the encoder inputs. Several images share K as they share N.
"""

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import normalize

from swiftvlm_eval.models.layout import VisualLayout
from swiftvlm_eval.pruning.budget import kept_shares
from swiftvlm_eval.pruning.contract import PruningMethod, RowEdit, Signals
from swiftvlm_eval.pruning.scores import top_k
from swiftvlm_eval.pruning.tiles import patches_per_view
from swiftvlm_eval.pruning.uniform import best_of_cells
from swiftvlm_eval.pruning.words import PositionRule, ScoreLayer
from swiftvlm_eval.pruning.work import PromptWork, StageWork, Work


@dataclass(frozen=True, kw_only=True)
class Nuwa(PruningMethod):
    """Nüwa; `counts` are the rows after each stage, newline rows included, `counts=336:48`.

    Attributes:
        radius: how far anchors gather: the square of the distance, as a share of an encoder input's squared diagonal.
        quantile: of the anchors' scores; an anchor that reaches it stays as it is.
    """

    name: ClassVar[str] = "nuwa"
    title: ClassVar[str] = "Nüwa"
    source: ClassVar[str] = "arXiv 2602.02951"
    summary: ClassVar[str] = "anchors of 2 x 2 cells gather their surroundings; last token's attention after layer 16"
    vectorized: ClassVar[bool] = True
    code: ClassVar[str] = "Man-PaperRejected/Nuwa, Apache-2.0"
    position_rule: ClassVar[PositionRule] = "keep"
    needs: ClassVar = frozenset({"cls_attention", "patch_features", "tower_states"})
    scored_by: ClassVar[tuple[ScoreLayer | None, ...]] = (None, "previous")
    default_layers: ClassVar[tuple[int, ...]] = (0, 16)
    presets: ClassVar = {tokens / 576: kept_shares(7 * tokens // 4, tokens // 4) for tokens in (64, 128, 192)}

    radius: Annotated[float, Field(gt=0)] = 280 / 1058
    quantile: Annotated[float, Field(ge=0, le=1)] = 0.55

    def select(self, signals: Signals) -> RowEdit:
        """Anchors and newline rows before the decoder; later the most attended rows."""
        kept = signals.stage.kept
        if signals.stage.boundary > 0:
            return signals.keep(top_k(signals.attention().mean(dim=0)[0], kept))
        if kept >= signals.num_visual:
            return signals.keep_all()
        layout, device = signals.layout, signals.states.device
        states, chosen = signals.states.clone(), [layout.newline.nonzero()[:, 0].to(device)]
        unit = self._unit_states(signals)
        for view, count in enumerate(patches_per_view(layout, kept)):
            tokens = ((layout.view == view) & ~layout.newline).nonzero()[:, 0]
            if count:
                at = layout.tile[tokens].to(device), layout.patch[tokens].to(device)
                scores = signals.vision.cls_attention.sum(dim=1)[at]
                anchors = best_of_cells(scores, layout.grids[view], count)
                own = tokens.to(device)[anchors]
                weights = self._weights(unit[at], layout, tokens, anchors)
                features = signals.vision.features[:, 1:][at]
                rows = signals.vision.project((weights @ features.float()).to(features.dtype))
                # the scores from the interpolated quantile on are those from the next anchor's on
                limit = scores[anchors].sort().values[math.ceil(round(self.quantile * (count - 1), 9))]
                states[own] = torch.where(scores[anchors, None] >= limit, states[own], rows)
                chosen.append(own)
        order = torch.cat(chosen).sort().values
        return RowEdit(states[order], signals.index[order], signals.places[order]).sure("among", whole=True)

    @staticmethod
    def _unit_states(signals: Signals) -> Tensor:
        """float32, [T, P, D]: mean hidden states of the tower's upper third, unit length."""
        upper = range(round(2 * signals.vision.num_layers / 3), signals.vision.num_layers + 1)
        total = torch.zeros_like(signals.vision.features[:, 1:], dtype=torch.float32)
        for index in upper:
            total += signals.vision.states(index)[:, 1:]
        return normalize(total / len(upper), dim=-1)

    def _weights(self, unit: Tensor, layout: VisualLayout, tokens: Tensor, anchors: Tensor) -> Tensor:
        """float32, [count, n]: what each anchor takes of each patch of its view; 1 of itself."""
        places = torch.stack([layout.row[tokens], layout.column[tokens]], dim=1).float().to(unit.device)
        distance = (places[anchors][:, None] - places).norm(dim=-1)
        reach = max((2 * self.radius) ** 0.5 * (layout.side - 1), 1e-9)
        affinity = (unit[anchors] @ unit.T).clamp(min=0) * (1 - distance / reach).clamp(min=0)
        return (affinity / (affinity.sum(dim=1, keepdim=True) + 1e-8)).scatter(1, anchors[:, None], 1.0)

    def work(self, prompt: PromptWork) -> Work:
        """CLS attention, each anchor against the patches of its view, the projector; later one query."""

        def of_stage(at: StageWork) -> Work:
            if at.stage.boundary > 0:
                return prompt.attention(at)
            if at.stage.kept >= prompt.num_visual:
                return Work()
            sizes, counts = [prompt.patches], [at.stage.kept]
            if prompt.layout is not None:
                sizes = [math.prod(grid) for grid in prompt.layout.grids]
                counts = patches_per_view(prompt.layout, at.stage.kept)
            pairs = sum(size * count for size, count in zip(sizes, counts, strict=True))
            return prompt.cls_attention + Work(feature_similarity=pairs, tower_averaging=pairs, projection=sum(counts))

        return prompt.over_stages(of_stage)
