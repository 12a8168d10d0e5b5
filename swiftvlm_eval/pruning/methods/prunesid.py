"""PruneSID (arXiv 2603.09480): groups by principal directions, suppression inside each group, quotas for the groups.

Before the projector, in every encoder input, T rows of it counting CLS, which stays: T / 4 principal directions of the
patches (their features under a sigmoid, each centred over its features) make groups; a patch belongs to the direction
along which it lies farthest. In each group patches go by CLS attention, and one that is too much like a better one
stands behind all that are not; how much is too much depends on T and on how alike patches are on average. A group may
keep about as many patches as stood the comparison, and at least one.

The sequence is not in raster order: CLS, then group after group. On LLaVA-NeXT the further tiles' patches are in
raster order of the stitched image and their CLS rows follow; no unpadding, no newline rows.

Decisions: the authors' decomposition is random and without a seed, so that two runs share little more than half of 64
tokens; here it is exact, in float64, from the patches' products with one another. Centred rows have one direction less
than features, so there are no more groups than that. Quotas are worked out on the host: which ones are rounded up
must not depend on the device.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from swiftvlm_eval.pruning.budget import kept_shares
from swiftvlm_eval.pruning.contract import PruningMethod, RowEdit, Signals
from swiftvlm_eval.pruning.scores import ranking
from swiftvlm_eval.pruning.selection import cosines, unlike_better_ones
from swiftvlm_eval.pruning.tiles import TileRows, assemble, tile_counts
from swiftvlm_eval.pruning.words import Need, PositionRule
from swiftvlm_eval.pruning.work import PromptWork, StageWork, Work


@dataclass(frozen=True, kw_only=True)
class PruneSID(PruningMethod):
    """PruneSID; `counts` are the rows of the whole sample, CLS of every encoder input among them."""

    name: ClassVar[str] = "prunesid"
    title: ClassVar[str] = "PruneSID"
    source: ClassVar[str] = "arXiv 2603.09480"
    code: ClassVar[str] = "ZhengyaoFang/PruneSID, no licence"
    summary: ClassVar[str] = "before the decoder: principal groups, and the best unlike patches of each"
    position_rule: ClassVar[PositionRule] = "compact"
    needs: ClassVar[frozenset[Need]] = frozenset({"cls_attention", "patch_features"})
    default_layers: ClassVar[tuple[int, ...]] = (0,)
    presets: ClassVar = {count / 576: kept_shares(count) for count in (64, 128, 192)}

    def select(self, signals: Signals) -> RowEdit:
        """CLS and the patches within the quotas, of every tile."""
        if signals.stage.kept >= signals.num_visual:
            return signals.keep_all()
        counts, features = tile_counts(signals, fewest=2), signals.vision.features
        scores = signals.vision.cls_attention.sum(dim=1)
        seen = [_compared(features[tile, 1:], scores[tile], count) for tile, count in enumerate(counts)]
        orders, groups, conflicts = (torch.stack(parts).cpu() for parts in zip(*seen, strict=True))
        taken = unlike_better_ones(conflicts)
        tiles = []
        for tile, count in enumerate(counts):
            own = orders[tile, within_quotas(groups[tile], taken[tile], count)].to(features.device)
            tiles.append(TileRows(own, features[tile, 1:][own], before=features[tile, :1]))
        return assemble(signals, tiles)

    def work(self, prompt: PromptWork) -> Work:
        """CLS attention, the patches' products for directions and for likeness, and the projector on what is left."""

        def of_stage(at: StageWork) -> Work:
            if at.stage.kept >= prompt.num_visual:
                return Work()
            return prompt.cls_attention + prompt.feature_pairs + prompt.feature_pairs + Work(projection=at.stage.kept)

        return prompt.over_stages(of_stage)


def principal_groups(features: Tensor, count: int) -> Tensor:
    """int64, [P]: along which of the `count` strongest directions each patch of [P, D] lies farthest."""
    points = features.double().sigmoid().nan_to_num(nan=0.5)
    points = points - points.mean(dim=1, keepdim=True)
    directions = torch.linalg.eigh(points @ points.T).eigenvectors.flip(1)
    return directions[:, : min(count, features.shape[1] - 1)].abs().argmax(dim=1)


def _compared(features: Tensor, scores: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Patches by falling score; in this order their groups, [P], and which ones of a group are too alike, [P, P]."""
    order, patches = ranking(scores), len(features)
    groups, alike = principal_groups(features, max(1, count // 4))[order], cosines(features)
    mean = alike.triu(1).sum(dtype=torch.float64) / (patches * (patches - 1) / 2)
    too_alike = alike[order][:, order] > (mean * count / 32).float()
    return order, groups, too_alike & (groups[:, None] == groups)


def within_quotas(groups: Tensor, taken: Tensor, count: int) -> Tensor:
    """Which patches stay of one tile, patches being given by falling score.

    Args:
        groups: int64, [P], on the CPU.
        taken: bool, [P], whether a patch is unlike the better ones of its group.
        count: rows of the tile, CLS among them.

    Returns:
        int64, [count - 1], group after group; in each those that were taken, then the others.
    """
    sizes = torch.bincount(groups)
    unlike = torch.bincount(groups, weights=taken.double(), minlength=len(sizes)).long()
    upper = unlike.clamp(max=5 * -(-count // 64))
    while upper.sum() < count and not torch.equal(upper, sizes):
        upper = torch.minimum(upper + 1, sizes)
    lower = sizes.clamp(max=1)
    rest = max(0, count - 1 - int(lower.sum()))
    shares = ((unlike.float() / unlike.sum()).cumsum(dim=0) * rest).round().long()
    quota = torch.minimum(lower + shares.diff(prepend=shares.new_zeros(1)), upper)
    for group in unlike.argsort(descending=True, stable=True):
        quota[group] += min(upper[group] - quota[group], count - 1 - quota.sum())
    in_turn = (2 * groups + ~taken).argsort(stable=True)
    place = torch.arange(len(groups)) - (sizes.cumsum(dim=0) - sizes)[groups[in_turn]]
    return in_turn[place < quota[groups[in_turn]]]
