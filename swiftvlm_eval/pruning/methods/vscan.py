"""VScan (arXiv 2505.22654): a scan of windows and one of the whole image, merging, then a cut inside the decoder.

Before the decoder, in every encoder input: half of the kept patches, in whole sixteenths, are the best of each of
4 x 4 windows by the CLS attention of an early tower layer; the others are the best of the whole tile by that of the
layer which feeds the projector. Every dropped patch joins the kept one that it is most alike after the projector, and
a kept row becomes the mean of what it stands for. Half-way through the decoder the next layer's attention from the
last prompt token, mean over heads, chooses a third of the rows. Positions are renumbered after both.

Decisions: patches that the window scan cannot hand out in equal numbers go to the global scan, so that all counts are
met (the authors' code keeps fewer, and fails below 32 a tile); a window's spans are edges of the grid in four, rounded
down. The early layer, 5 of a 24-layer tower whose 22nd feeds the projector, is scaled to other depths. LLaVA-NeXT: per
tile, assembled without unpadding and newline rows, and the decoder chooses among all visual rows (the released code
cuts the base view alone, by a row that is not the last). Published counts are 96 and 32; the others have their ratio.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from swiftvlm_eval.pruning.budget import kept_shares
from swiftvlm_eval.pruning.contract import PruningMethod, RowEdit, Signals
from swiftvlm_eval.pruning.merging import means_with_joined
from swiftvlm_eval.pruning.scores import ranking, top_k
from swiftvlm_eval.pruning.tiles import TileRows, assemble, spread, tile_counts, tile_states
from swiftvlm_eval.pruning.words import Need, PositionRule, ScoreLayer
from swiftvlm_eval.pruning.work import PromptWork, StageWork, Work

WINDOWS = 4  # along one side of an encoder input


@dataclass(frozen=True, kw_only=True)
class VScan(PruningMethod):
    """VScan.

    Attributes:
        local_layer: 0-based tower layer that scores the windows; None takes the authors' 5, scaled to the tower.
    """

    name: ClassVar[str] = "vscan"
    title: ClassVar[str] = "VScan"
    source: ClassVar[str] = "arXiv 2505.22654"
    code: ClassVar[str] = "Tencent/SelfEvolvingAgent, MIT"
    summary: ClassVar[str] = "windows and whole image by CLS attention, merging, then a cut inside the decoder"
    vectorized: ClassVar[bool] = True
    position_rule: ClassVar[PositionRule] = "compact"
    needs: ClassVar[frozenset[Need]] = frozenset({"cls_attention", "patch_features", "tower_states"})
    scored_by: ClassVar[tuple[ScoreLayer | None, ...]] = (None, "next")
    default_layers: ClassVar[tuple[int, ...]] = (0, 16)
    presets: ClassVar = {
        64 / 576: kept_shares(96, 32),
        128 / 576: kept_shares(192, 64),
        192 / 576: kept_shares(288, 96),
    }

    local_layer: Annotated[int, Field(ge=0)] | None = None

    def select(self, signals: Signals) -> RowEdit:
        """The two scans, or the decoder's choice."""
        if signals.stage.kept >= len(signals.index):
            return signals.keep_all()
        if signals.stage.last:
            return signals.keep(top_k(signals.attention(scope="all").mean(dim=0)[0], signals.stage.kept))
        counts, vision = tile_counts(signals), signals.vision
        layer = round(5 / 22 * vision.feature_layer) if self.local_layer is None else self.local_layer
        if layer >= vision.num_layers:
            raise ValueError(f"local_layer={layer}: the vision tower has layers 0 to {vision.num_layers - 1}")
        local, overall = vision.cls_attention_of(layer).mean(dim=1), vision.cls_attention.mean(dim=1)
        rows, tiles = tile_states(signals), []
        for tile, count in enumerate(counts):
            kept = scan(local[tile], overall[tile], count, signals.layout.side)
            tiles.append(TileRows(kept, means_with_joined(rows[tile], kept)))
        return assemble(signals, tiles, projected=True)

    def work(self, prompt: PromptWork) -> Work:
        """Two CLS attentions, the merging after the projector; then one query and the keys of all rows."""

        def of_stage(at: StageWork) -> Work:
            if at.stage.kept >= at.live:
                return Work()
            if at.stage.last:
                return prompt.attention(at)
            shares = spread(at.stage.kept, prompt.encoder_inputs)
            pairs = sum(count * (prompt.patches - count) for count in shares)
            projected = prompt.projected_anew(prompt.encoder_inputs * prompt.patches)
            return prompt.cls_attention + prompt.cls_attention + projected + Work(similarity=pairs, averaging=pairs)

        return prompt.over_stages(of_stage)


def scan(local: Tensor, overall: Tensor, count: int, side: int) -> Tensor:
    """The patches of one tile that stay: int64, [count], ascending, by their scores within windows and the tile.

    No window has fewer patches than it gives, which are a 32nd of the tile's at most.
    """
    edges = [number * side // WINDOWS for number in range(WINDOWS + 1)]
    spans, quota = torch.tensor(edges).diff(), count // 2 // WINDOWS**2
    sizes = (spans[:, None] * spans).flatten()
    span = torch.arange(WINDOWS).repeat_interleave(spans)
    window = (span[:, None] * WINDOWS + span).flatten().to(local.device)
    order = ranking(local)
    by_window = order[window[order].argsort(dim=0, stable=True)]
    first = (sizes.cumsum(dim=0) - sizes)[:, None] + torch.arange(quota)
    best = by_window[first.flatten().to(local.device)]
    scores = overall.nan_to_num(nan=torch.finfo(overall.dtype).min).index_fill(0, best, -torch.inf)
    return torch.cat([best, ranking(scores)[: count - len(best)]]).sort().values
