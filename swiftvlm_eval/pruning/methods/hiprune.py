"""HiPrune (arXiv 2508.00553): objects and what is around them by a middle layer of the tower, the rest by a deep one.

A patch's score in a layer is the attention that it receives there, mean over heads and over all queries, the class
token's among them. A few patches with the best score in a middle layer are anchors, a fifth of `alpha` of the count;
the patches left, right, above and below them stay, too; the rest of the count goes to the best of the layer that feeds
the projector. Kept patches stand in raster order, positions are compact, nothing is merged, no question is read.

Taken over from the authors' code: neighbours are patch numbers plus and minus one and one row, so that they run over
the ends of rows, and numbers beyond the grid become the first or last patch. Decisions: where the neighbours of many
anchors are more than the count, on which the code fails, those of the weakest anchors are left out first; the middle
layer, number 8 (from 0) where layer 22 feeds the projector, moves in proportion in other towers; on LLaVA-NeXT a
budget is spread over the encoder inputs, whatever their number (the code gives more to each of fewer).
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from swiftvlm_eval.pruning.budget import kept_shares
from swiftvlm_eval.pruning.contract import PruningMethod, RowEdit, Signals
from swiftvlm_eval.pruning.scores import ranking, top_k
from swiftvlm_eval.pruning.tiles import keep_patches, tile_counts
from swiftvlm_eval.pruning.words import PositionRule
from swiftvlm_eval.pruning.work import PromptWork, StageWork, Work


@dataclass(frozen=True, kw_only=True)
class HiPrune(PruningMethod):
    """HiPrune; `counts` is the number of patches of the whole sample.

    Attributes:
        alpha: share of the count for anchors and their four neighbours.
        object_layer: the tower layer, from 0, that chooses the anchors; None takes layer 8 of 24, in proportion.
    """

    name: ClassVar[str] = "hiprune"
    title: ClassVar[str] = "HiPrune"
    source: ClassVar[str] = "arXiv 2508.00553"
    code: ClassVar[str] = "Danielement321/HiPrune, MIT"
    summary: ClassVar[str] = "before the decoder: a middle layer's best with neighbours, a deep layer's best"
    vectorized: ClassVar[bool] = True
    position_rule: ClassVar[PositionRule] = "compact"
    needs: ClassVar = frozenset({"patch_features", "patch_keys", "tower_states"})
    default_layers: ClassVar[tuple[int, ...]] = (0,)
    presets: ClassVar = {count / 576: kept_shares(count) for count in (64, 128, 192)}

    alpha: Annotated[float, Field(ge=0, le=1)] = 0.1
    object_layer: Annotated[int, Field(ge=0)] | None = None

    def select(self, signals: Signals) -> RowEdit:
        """Chooses in every tile.

        Raises:
            ValueError: the tower has no such `object_layer`.
        """
        if signals.stage.kept >= signals.num_visual:
            return signals.keep_all()
        vision, side, counts = signals.vision, signals.layout.side, tile_counts(signals)
        layer = round(8 * vision.feature_layer / 22) if self.object_layer is None else self.object_layer
        if layer >= vision.num_layers:
            raise ValueError(f"object_layer={layer}: allowed are tower layers from 0 to {vision.num_layers - 1}")
        scores = zip(vision.received_attention(layer), vision.received_attention(vision.feature_layer), strict=True)
        return keep_patches(
            signals,
            [self._chosen(*both, count, side) for both, count in zip(scores, counts, strict=True)],
        )

    def _chosen(self, middle: Tensor, deep: Tensor, count: int, side: int) -> Tensor:
        """int64, [count]: the patches of one tile that stay, ascending; `middle` and `deep` are scores, [P]."""
        anchors = ranking(middle)[: round(count * self.alpha / 5)]
        first = with_neighbours(anchors, len(middle), side, count)
        return top_k(deep.nan_to_num(nan=-torch.inf).masked_fill(first, torch.inf), count)

    def work(self, prompt: PromptWork) -> Work:
        """Every patch of a tile asks every patch, in two layers."""

        def of_stage(at: StageWork) -> Work:
            if at.stage.kept >= prompt.num_visual:
                return Work()
            return prompt.received_attention + prompt.received_attention + prompt.projected_anew(at.stage.kept)

        return prompt.over_stages(of_stage)


def with_neighbours(anchors: Tensor, patches: int, side: int, most: int) -> Tensor:
    """Anchors and the patches beside them, those of the last anchors left out where they would be more than `most`.

    Args:
        anchors: int64, [k], best first, k <= most.
        patches: P.
        side: patches along one side of the grid.
        most: how many may hold.

    Returns:
        bool, [P].
    """
    number = torch.arange(patches, device=anchors.device)
    shifts = [(anchors + step).clamp(0, patches - 1) for step in (-1, 1, -side, side)]
    beside = (torch.stack(shifts, dim=1)[:, :, None] == number).any(dim=1)
    so_far = torch.cat([beside.new_zeros(1, patches), beside]).cumsum(dim=0) > 0
    masks = so_far | (anchors[:, None] == number).any(dim=0)  # [k + 1, P], with the neighbours of the first 0..k
    fits = (masks.sum(dim=1) <= most).sum() - 1
    return masks.index_select(0, fits[None])[0]
