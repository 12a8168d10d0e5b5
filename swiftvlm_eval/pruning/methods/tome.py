"""ToMe (token merging, arXiv 2210.09461): in every layer of the vision tower the most alike rows become one.

Between a layer's attention and its MLP the rows fall into two sides by turns, the class token on the first. Every row
of the first side but that one looks for the row of the second side with the most alike key (mean over heads); the r
strongest links are merged, each into the mean of its rows weighed by how many patches they stand for, and these
numbers weigh attention in the layers that follow. Of the P patches of an encoder input T are left where the projector
reads them; the decoder sees them in ToMe's order, which is no longer that of the image, at compact positions.

Decisions: the layers up to the one that feeds the projector share the P - T merges evenly, the first ones taking what
is left over (for 192 of 576 16 layers merge 17 each and 7 merge 16). Of links of equal strength the earlier row's goes
first; the authors' sort leaves that to chance. On LLaVA-NeXT the grid is lost, so that nothing is unpadded and there
are no newline rows. Every row is traced as -1. Written from a description: the authors' code is non-commercial.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import normalize, one_hot

from swiftvlm_eval.models.tower_rows import TowerPoint, TowerRows
from swiftvlm_eval.pruning.budget import BudgetError, kept_shares
from swiftvlm_eval.pruning.contract import PruningMethod, RowEdit, Signals
from swiftvlm_eval.pruning.schedule import Plan, Stage
from swiftvlm_eval.pruning.scores import ranking
from swiftvlm_eval.pruning.tiles import instead, spread
from swiftvlm_eval.pruning.words import PositionRule
from swiftvlm_eval.pruning.work import PromptWork, Work


@lru_cache(maxsize=64)
def merges_per_layer(patches: int, left: int, layers: int) -> tuple[int, ...]:
    """How many rows each layer merges away, so that of `patches` beside the class token `left` remain.

    As even as can be, the first layers more; what a late layer cannot merge is spread over those before it.

    Raises:
        BudgetError: more are to remain than there are, or fewer than can.
    """
    merges: list[int] = []
    for each in range(patches + 1):
        merges, rows = [], 1 + patches
        for _ in range(layers):
            merges.append(min(each, (rows - 1) // 2))
            rows -= merges[-1]
        too_many = left + 1 - rows
        if too_many >= 0 and left <= patches:
            fewer = [layer for layer, count in enumerate(merges) if count][::-1][:too_many]
            return tuple(count - (layer in fewer) for layer, count in enumerate(merges))
    least = patches - sum(merges)
    raise BudgetError(f"{left} rows of an encoder input: {layers} merging layers allow {least} to {patches}")


def merged(rows: TowerRows, keys: Tensor, count: int) -> TowerRows:
    """The rows after `count` merges: what is left of the even rows, the class token first, then all odd ones.

    Args:
        rows: 1 + n of them.
        keys: [heads, 1 + n, head_dim].
        count: at most n // 2.
    """
    metric = normalize(keys.float().mean(dim=0), dim=-1)
    links = (metric[2::2] @ metric[1::2].T).nan_to_num(nan=-torch.inf)
    order = ranking(links.amax(dim=1))
    gone, partner = order[:count], links.argmax(dim=1)[order[:count]]
    stay = torch.cat([order.new_zeros(1), order[count:].sort().values + 1]) * 2
    states, sizes = rows.states.float() * rows.sizes[:, None], rows.sizes
    into = one_hot(partner, states[1::2].shape[0]).T.float()  # no scattered sums: their order is the device's
    total = sizes[1::2] + (into * sizes[2::2][gone]).sum(dim=1)
    odd = (states[1::2] + into @ states[2::2][gone]) / total[:, None]
    return TowerRows(torch.cat([rows.states[stay], odd.to(rows.states.dtype)]), torch.cat([sizes[stay], total]))


@dataclass(frozen=True, kw_only=True)
class ToMe(PruningMethod):
    """ToMe; `counts` is the number of rows of the whole sample, spread evenly over its encoder inputs."""

    name: ClassVar[str] = "tome"
    title: ClassVar[str] = "ToMe"
    source: ClassVar[str] = "arXiv 2210.09461"
    summary: ClassVar[str] = "merges the most alike rows in every layer of the vision tower"
    vectorized: ClassVar[bool] = True
    code: ClassVar[str] = "facebookresearch/ToMe, CC BY-NC 4.0"
    position_rule: ClassVar[PositionRule] = "compact"
    needs: ClassVar = frozenset({"patch_features", "tower_rows"})
    default_layers: ClassVar[tuple[int, ...]] = (0,)
    presets: ClassVar = {count / 576: kept_shares(count) for count in (64, 128, 192)}

    def plan(self, num_visual: int, num_layers: int, budget: float | None = None) -> Plan:
        """No stage, and so no edit of the tower, where every row stays."""
        found = super().plan(num_visual, num_layers, budget)
        return found if found.stages[0].kept < num_visual else Plan(num_visual, num_layers)

    def edit_tower(self, rows: TowerRows, point: TowerPoint, stage: Stage) -> TowerRows:
        """Merges this layer's share of the rows."""
        if point.after != "attention" or point.keys is None or point.layer > point.feature_layer:
            return rows
        left = spread(stage.kept, point.tiles)[point.tile]
        count = merges_per_layer(point.patches, left, point.feature_layer + 1)[point.layer]
        return merged(rows, point.keys, count) if count else rows

    def select(self, signals: Signals) -> RowEdit:
        """Puts what came out of the tower into the decoder, the class tokens left out."""
        vision = signals.vision
        inputs = list(vision.features) if vision.edited is None else [rows.states for rows in vision.edited]
        return instead(signals, vision.in_order([rows[1:] for rows in inputs]))

    def work(self, prompt: PromptWork) -> Work:
        """The projector on fewer rows; what merging costs and saves inside the tower is not counted."""
        return prompt.over_stages(lambda at: Work(projection=at.kept + at.made))
