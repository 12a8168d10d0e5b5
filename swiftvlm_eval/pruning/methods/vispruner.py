"""VisPruner (arXiv 2412.01818): important patches by the class token's attention, diverse ones from what is left.

A share of the count goes to the patches that the class token attends to most, as in FasterVLM, the same authors'
earlier form. The others are thinned out until they fit the rest of the count. They begin as a list by falling
attention; in every round those at even ranks are compared with those at odd ranks, by cosine similarity of their
features before the projector, and up to eight of the even ones that resemble an odd one most leave the list. What is
left of the even ones, most similar first, then stands before the odd ones. Both choices enter the decoder together in
raster order with compact positions. Nothing is merged, and the question is not read.

Decisions: the authors' code fails where the list is odd or its target below eight; here a round removes as many as it
can, at most what is too much, so that every budget is met. Sorting is stable and similarities are float64, because a
list's order decides who is compared with whom next. LLaVA-NeXT as in the authors' code: counts per encoder input, no
unpadding, no newline rows.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from swiftvlm_eval.pruning.budget import kept_shares
from swiftvlm_eval.pruning.contract import Signals
from swiftvlm_eval.pruning.scores import ranking
from swiftvlm_eval.pruning.selection import cosines
from swiftvlm_eval.pruning.tiles import PatchSelector
from swiftvlm_eval.pruning.work import PromptWork, Work

ROUND = 8
"""Patches that leave the list in one round."""


@dataclass(frozen=True, kw_only=True)
class VisPruner(PatchSelector):
    """VisPruner; `counts` is the number of patches of the whole sample.

    Attributes:
        important_ratio: share of the count that goes by attention; 1 is FasterVLM.
    """

    name: ClassVar[str] = "vispruner"
    title: ClassVar[str] = "VisPruner"
    source: ClassVar[str] = "arXiv 2412.01818"
    code: ClassVar[str] = "Theia-4869/VisPruner"
    summary: ClassVar[str] = "before the decoder: half by class-token attention, half by unlikeness"
    vectorized: ClassVar[bool] = True
    presets: ClassVar = {count / 576: kept_shares(count) for count in (64, 128, 192)}

    important_ratio: Annotated[float, Field(ge=0, le=1)] = 0.5

    def choose(self, signals: Signals, tile: int, count: int) -> Tensor:
        """The most attended patches, and those that survive the rounds."""
        order = ranking(signals.vision.cls_attention[tile].mean(dim=0))
        important = int(count * self.important_ratio)
        chosen, others = order[:important], order[important:]
        if self._compares:
            features = signals.vision.features[tile, 1:].double()
            chosen = torch.cat([chosen, thinned(others, cosines(features), count - important)])
        return chosen.sort().values

    @property
    def _compares(self) -> bool:
        return self.important_ratio < 1

    def compared(self, prompt: PromptWork, kept: int) -> Work:
        """Every patch of a tile with every patch, unless attention decides alone."""
        return prompt.feature_pairs if self._compares else Work()


def thinned(ranks: Tensor, similarity: Tensor, count: int) -> Tensor:
    """What is left of a list after rounds in which elements at even ranks leave that resemble one at an odd rank.

    Args:
        ranks: int64, [R], the list.
        similarity: [n, n], of all elements.
        count: how many stay, from 0 to R.

    Returns:
        int64, [count], in the order of the list after the last round.
    """
    if count == 0:
        return ranks[:0]
    while len(ranks) > count:
        even, odd = ranks[::2], ranks[1::2]
        likeness = similarity[even[:, None], odd].max(dim=1).values
        order = likeness.argsort(dim=0, descending=True, stable=True)
        ranks = torch.cat([even[order[min(ROUND, len(ranks) - count) :]], odd])
    return ranks
