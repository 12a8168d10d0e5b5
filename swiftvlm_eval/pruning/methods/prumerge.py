"""LLaVA-PruMerge (arXiv 2403.15388): keep the patches that CLS attends to most and add to them what is like them.

Before the projector, in every encoder input: CLS attention in the layer behind the one that feeds the projector, as
one head of the tower's whole width, ranks the patches. Each of the k best takes up its 32 nearest neighbours by key,
weighted by their attention; one extra row, the last of all, is the weighted sum of everything that was not kept.

Mode `fixed` keeps the k of a budget, one less than its rows. Mode `adaptive`, the authors' default, keeps the share of
patches whose attention is an outlier, above the third quartile by 1.5 interquartile ranges; it takes no budget, and a
plan expects one in 18, the mean that the authors report.

Decisions where paper and code differ: as in the code the weights are not normalised, the base view's rows stand in
order of score, and the outlier share is one for all encoder inputs, here those of the sample. LLaVA-NeXT: per tile,
kept patches of the further tiles in raster order of the stitched image, no unpadding and no newline rows. The authors
fine-tune the model for the rows that they make; here nothing is trained.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor

from swiftvlm_eval.pruning.budget import BudgetError, MergedRule, kept_shares
from swiftvlm_eval.pruning.contract import PruningMethod, RowEdit, Signals
from swiftvlm_eval.pruning.merging import add_nearest
from swiftvlm_eval.pruning.scores import outlier_share, ranking
from swiftvlm_eval.pruning.tiles import TileRows, assemble, tile_counts
from swiftvlm_eval.pruning.words import Need, PositionRule
from swiftvlm_eval.pruning.work import PromptWork, StageWork, Work


@dataclass(frozen=True, kw_only=True)
class PruMerge(PruningMethod):
    """PruMerge; `counts` are the patches kept of the whole sample, to which the extra row is added.

    Attributes:
        mode: `fixed` keeps what the budget says, `adaptive` the outliers.
    """

    name: ClassVar[str] = "prumerge"
    title: ClassVar[str] = "PruMerge"
    source: ClassVar[str] = "arXiv 2403.15388"
    code: ClassVar[str] = "42Shawn/LLaVA-PruMerge"
    summary: ClassVar[str] = "before the decoder: CLS attention, and every kept patch takes up its neighbours"
    vectorized: ClassVar[bool] = True
    position_rule: ClassVar[PositionRule] = "compact"
    needs: ClassVar[frozenset[Need]] = frozenset({"cls_attention", "patch_features", "patch_keys"})
    default_layers: ClassVar[tuple[int, ...]] = (0,)
    presets: ClassVar = {64 / 576: kept_shares(63), 128 / 576: kept_shares(127), 192 / 576: kept_shares(191)}
    expected_share: ClassVar[float] = 1 / 18

    mode: Literal["fixed", "adaptive"] = "fixed"

    @property
    def adaptive(self) -> bool:
        """Whether the image decides how many rows there are."""
        return self.mode == "adaptive"

    def merged_rule(self) -> MergedRule:
        """The extra row, unless everything is kept."""
        return lambda num_visual, kept: [int(count < num_visual) for count in kept]

    def stage_counts(
        self, num_visual: int, num_layers: int, budget: float | None, boundaries: tuple[int, ...]
    ) -> tuple[tuple[int, int], ...]:
        """Those of the budget; in mode `adaptive` what is expected."""
        if not self.adaptive or (budget is not None and budget >= 1):
            return super().stage_counts(num_visual, num_layers, budget, boundaries)
        if self.counts is not None:
            raise ValueError(f"counts={list(self.counts)}: mode=adaptive takes none; counts need mode=fixed")
        if budget is not None:
            raise BudgetError(f"budget={budget:.4g}: mode=adaptive takes no budget but 1, the image decides")
        return self.with_merged(num_visual, [max(1, round(num_visual * self.expected_share))], [(0.0, 0.0)])

    def select(self, signals: Signals) -> RowEdit:
        """Centres and their sums of every tile, and one row of all the rest."""
        if signals.stage.kept >= signals.num_visual:
            return signals.keep_all()
        vision = signals.vision
        layer = min(vision.feature_layer + 1, vision.num_layers - 1)
        query = vision.queries(layer, slice(1)).transpose(1, 2).flatten(2).float()
        keys = vision.keys_of(layer).transpose(1, 2).flatten(2).float()
        attention = (query @ keys.mT * keys.shape[-1] ** -0.5).softmax(dim=-1)[:, 0, 1:]
        tiles, rest = [], torch.zeros_like(vision.features[0, 0], dtype=torch.float32)
        for tile, centres in enumerate(self.centres(signals, attention)):
            features = vision.features[tile, 1:]
            states, left = add_nearest(features, keys[tile, 1:], attention[tile], centres)
            repeated = (centres[:, None] == centres).tril(-1).any(dim=1)
            tiles.append(TileRows(centres.masked_fill(repeated, -1), states.to(features.dtype)))
            rest = rest + left
        tiles[-1] = replace(tiles[-1], after=rest[None].to(tiles[-1].states.dtype))
        return replace(assemble(signals, tiles), made=1).sure("ascending", whole=True)

    def centres(self, signals: Signals, attention: Tensor) -> Sequence[Tensor]:
        """int64, [m] of each tile: the patches that stay, by falling attention, [T, P]."""
        if not self.adaptive:
            return [ranking(own)[:count] for own, count in zip(attention, tile_counts(signals), strict=True)]
        count = max(1, int(attention.shape[1] * outlier_share(attention)))
        return [ranking(own)[:count] for own in attention]

    def work(self, prompt: PromptWork) -> Work:
        """CLS attention with keys projected anew, every centre against every patch, the sums, the projector."""

        def of_stage(at: StageWork) -> Work:
            if at.stage.kept >= prompt.num_visual:
                return Work()
            pairs, rest = at.kept * prompt.patches, prompt.encoder_inputs * prompt.patches
            sums = Work(feature_similarity=pairs, tower_averaging=pairs + rest, projection=at.kept + at.made)
            return prompt.cls_attention + sums

        return prompt.over_stages(of_stage)
