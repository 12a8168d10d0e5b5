"""VisionZip (arXiv 2412.04467): dominant tokens by CLS attention in the vision tower, the rest merged into a few.

Per encoder input ("tile"): the D - 1 patches that CLS attends to most in the layer that feeds the projector, CLS
itself, and C contextual tokens merged from the rest by the similarity of their keys, all before the projector. The
decoder sees a shorter prompt with compact positions: CLS, patches in raster order, contextual tokens.

LLaVA-NeXT, as in the authors' code: the base view as above; then the kept patches of all tiles in the raster order of
the stitched image, the tiles' CLS tokens, their contextual tokens. No unpadding, no newline tokens. A budget is a
share of the image's own N, spread evenly over its tiles, the first ones taking what is left over.

Decisions: the number of dominant tokens counts CLS, as in the code; contextual tokens are 30 of 192, 20 of 128, 10 of
64. Kept tokens that have no place in the unpruned sequence (CLS, contextual, padding) are traced as -1.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch

from swiftvlm_eval.pruning.budget import BudgetError, Curve
from swiftvlm_eval.pruning.contract import PruningMethod, RowEdit, Signals
from swiftvlm_eval.pruning.merging import merge_into_targets
from swiftvlm_eval.pruning.scores import rows_where, top_k
from swiftvlm_eval.pruning.tiles import TileRows, assemble, spread
from swiftvlm_eval.pruning.words import PositionRule
from swiftvlm_eval.pruning.work import PromptWork, Work


@dataclass(frozen=True, kw_only=True)
class VisionZip(PruningMethod):
    """VisionZip; `counts` are the dominant and contextual tokens of the whole sample, `counts=162:30`."""

    name: ClassVar[str] = "visionzip"
    title: ClassVar[str] = "VisionZip"
    source: ClassVar[str] = "arXiv 2412.04467"
    summary: ClassVar[str] = "before the decoder: CLS attention, and key-similarity merging of the rest"
    vectorized: ClassVar[bool] = True
    position_rule: ClassVar[PositionRule] = "compact"
    needs: ClassVar = frozenset({"cls_attention", "patch_features", "patch_keys"})
    default_layers: ClassVar[tuple[int, ...]] = (0,)
    counts_merged: ClassVar[tuple[bool, ...]] = (True,)
    presets: ClassVar = {
        64 / 576: ((54 / 576, 10 / 576),),
        128 / 576: ((108 / 576, 20 / 576),),
        192 / 576: ((162 / 576, 30 / 576),),
    }

    def schedule_curve(self, budget: float) -> Curve:
        """30 contextual tokens in 192; none at the very top."""
        return lambda x: ((x - 30 / 192 * min(x, 1 - x), 30 / 192 * min(x, 1 - x)),)

    def select(self, signals: Signals) -> RowEdit:
        """The visual rows of all images, each from its own tiles."""
        stage, layout = signals.stage, signals.layout
        if stage.kept >= signals.num_visual:
            return signals.keep_all()
        if stage.kept < layout.num_tiles:
            raise BudgetError(f"{stage.kept} dominant tokens: CLS of {layout.num_tiles} encoder inputs needs one each")
        shares = zip(*(spread(count, layout.num_tiles) for count in (stage.kept, stage.merged)), strict=True)
        return assemble(signals, [self._zip(signals, tile, *share) for tile, share in enumerate(shares)])

    def work(self, prompt: PromptWork) -> Work:
        """CLS attention with keys projected anew, the merging, and the projector on what is left."""
        return prompt.over_stages(lambda at: prompt.tower_merging(at.stage.kept, at.stage.merged))

    def _zip(self, signals: Signals, tile: int, dominant: int, contextual: int) -> TileRows:
        features, keys = signals.vision.features[tile], signals.vision.keys[tile]
        if dominant + contextual > len(features):
            raise BudgetError(f"{dominant} + {contextual} tokens of an encoder input: it has {len(features)}")
        best = top_k(signals.vision.cls_attention[tile].sum(dim=0), max(dominant, 1) - 1)
        unchosen = torch.ones(len(features), dtype=torch.bool, device=features.device)
        unchosen[0] = False  # CLS
        rest = rows_where(unchosen.index_fill(0, best + 1, False), len(features) - 1 - len(best))
        merged = merge_into_targets(features[rest], keys[:, rest].mean(dim=0), contextual)
        return TileRows(best, features[1:][best], before=features[:1], after=merged)
