"""PruMerge+ (arXiv 2403.15388): PruMerge with a uniform sample of patches beside those that CLS attends to.

Half of the kept rows are the patches of largest attention, as in PruMerge, half are patches at equal steps; all take
up their neighbours, and one extra row stands for the rest. In mode `fixed`, as in the authors' code, a sampled
patch that is among the best already is a row again: an index of -1, a neighbour of its own double, and for each one
the first patch that is not kept takes no part at all. Their sampling fails where the steps give another number of
patches than planned: here they are cut to it, and where they are too few patches are spread evenly. In mode
`adaptive` the step follows from the outlier share, patches that were chosen are not sampled again, and a plan expects
one patch in four, as the authors report; without any outlier the share is that of one patch.

Schedule `paper` are the authors' ratios 1/6, 1/9, 1/18, twice and with the extra row: 193, 129, 65 of 576 tokens. On
LLaVA-NeXT the repeated rows of further tiles follow all of their patches.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from swiftvlm_eval.pruning.budget import BudgetError, kept_shares
from swiftvlm_eval.pruning.contract import Signals
from swiftvlm_eval.pruning.methods.prumerge import PruMerge
from swiftvlm_eval.pruning.scores import outlier_share, ranking
from swiftvlm_eval.pruning.tiles import spread


def sampled(patches: int, count: int) -> list[int]:
    """`count` patch numbers at equal steps; the authors' range leaves the last patch out."""
    step = patches // count if count else 1
    steps = list(range(step // 2, patches - 1, step))[:count]
    return steps if len(steps) == count else [(2 * number + 1) * patches // (2 * count) for number in range(count)]


@dataclass(frozen=True, kw_only=True)
class PruMergePlus(PruMerge):
    """PruMerge+; `counts=96:95` are the scored and the sampled patches of the whole sample."""

    name: ClassVar[str] = "prumerge_plus"
    title: ClassVar[str] = "PruMerge+"
    summary: ClassVar[str] = "PruMerge with a uniform sample of patches beside the best ones"
    vectorized: ClassVar[bool] = True
    presets: ClassVar = {}
    paper_presets: ClassVar = {64 / 576: kept_shares(64), 128 / 576: kept_shares(128), 192 / 576: kept_shares(192)}
    expected_share: ClassVar[float] = 1 / 4

    def explicit_counts(self, num_visual: int, num_stages: int) -> tuple[tuple[int, int], ...]:
        """Scored and sampled patches are kept alike."""
        if self.counts is None or len(self.counts) != 2:
            raise ValueError(f"counts={list(self.counts or ())}: {self.name} takes 2, scored:sampled")
        return self.with_merged(num_visual, [sum(self._parts(num_visual, 0))], [(0.0, 0.0)])

    def _parts(self, num_visual: int, kept: int) -> tuple[int, int]:
        """Scored and sampled patches of the whole sample."""
        if self.counts is None:
            return kept - kept // 2, kept // 2
        scored, spatial = (self.whole_count(count, num_visual, "counts") for count in self.counts)
        return scored, spatial

    def centres(self, signals: Signals, attention: Tensor) -> Sequence[Tensor]:
        """The best patches by falling attention, and behind them the sampled ones, ascending."""
        tiles, patches = attention.shape
        if self.adaptive:
            return _beside_outliers(attention)
        scored, spatial = self._parts(signals.num_visual, signals.stage.kept)
        shares = list(zip(spread(scored, tiles), spread(spatial, tiles), strict=True))
        if scored < tiles or sum(shares[0]) > patches:
            raise BudgetError(
                f"{scored} scored and {spatial} sampled rows of {tiles} encoder inputs: allowed are 1 scored row of "
                f"each at least, and {patches} of both together"
            )
        places = [torch.tensor(sampled(patches, count), dtype=torch.int64) for _, count in shares]
        return [
            torch.cat([ranking(own)[:count], steps.to(own.device)])
            for own, (count, _), steps in zip(attention, shares, places, strict=True)
        ]


def _beside_outliers(attention: Tensor) -> list[Tensor]:
    """Mode `adaptive`, on the host: how many patches are sampled depends on those that were chosen."""
    scores, patches = attention.cpu(), attention.shape[1]
    share = outlier_share(scores) or 1 / patches
    count, step = max(1, int(patches * share)), max(1, int(int(1 / share) / 3))
    found = []
    for own in scores:
        best = ranking(own)[:count]
        steps = torch.arange(0, patches - 1, step)
        found.append(torch.cat([best, steps[~torch.isin(steps, best)]]).to(attention.device))
    return found
