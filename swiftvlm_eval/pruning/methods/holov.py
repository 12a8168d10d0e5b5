"""HoloV (arXiv 2510.02912): the class token's best patches, with a quota for every band of the image.

The patches of all encoder inputs and images, in the prompt's order and without newline rows, are one list, cut into 16
runs ("crops"). The count is shared out by the crops' scores: the mean of their patches' attention from the class token
and of how unevenly their rows, after the projector, resemble each other, scaled to the attention. The scaling cancels
the second term almost exactly; it is computed nevertheless, as in the authors' code. Inside a crop attention decides:
that of the layer that feeds the projector, over class token and patches, mean over heads. Positions are compact.

Decisions: the code loses what a crop's quota has above its size and fills the prompt with rows of zeros; the default
`overflow=redistribute` gives it to the best crops that have room, and keeps raster order. `overflow=official` does as
the code does: crop after crop, inside a crop by falling attention, zeros at the end, even where all rows would fit;
among several images each row stays with its own. The paper also describes an exponent of the quotas, a selection by
the whole score and a return of dropped rows; the released code has none of them.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from swiftvlm_eval.pruning.budget import BudgetError, kept_shares
from swiftvlm_eval.pruning.contract import PruningMethod, RowEdit, Signals
from swiftvlm_eval.pruning.scores import quotas, rows_where
from swiftvlm_eval.pruning.words import PositionRule
from swiftvlm_eval.pruning.work import PromptWork, StageWork, Work

CROPS = 16


@dataclass(frozen=True, kw_only=True)
class HoloV(PruningMethod):
    """HoloV; `counts` is the number of rows that stay.

    Attributes:
        overflow: what becomes of a quota above the crop's size: `redistribute`, or `official`.
    """

    name: ClassVar[str] = "holov"
    title: ClassVar[str] = "HoloV"
    source: ClassVar[str] = "arXiv 2510.02912"
    code: ClassVar[str] = "obananas/HoloV, Apache-2.0"
    summary: ClassVar[str] = "before the decoder: class-token attention, with a quota for each of 16 bands"
    vectorized: ClassVar[bool] = True
    position_rule: ClassVar[PositionRule] = "compact"
    needs: ClassVar = frozenset({"cls_attention"})
    default_layers: ClassVar[tuple[int, ...]] = (0,)
    presets: ClassVar = {count / 576: kept_shares(count) for count in (64, 128, 192)}

    overflow: Literal["redistribute", "official"] = "redistribute"

    def select(self, signals: Signals) -> RowEdit:
        """Cuts the list, shares the count out, and takes the best of every crop.

        Raises:
            BudgetError: more rows than tokens that show a patch.
        """
        count, layout, device = signals.stage.kept, signals.layout, signals.states.device
        if count >= signals.num_visual and self.overflow == "redistribute":
            return signals.keep_all()
        listed = (~layout.newline).nonzero()[:, 0]
        if count > len(listed):
            raise BudgetError(f"{count} rows: allowed are 1 to {len(listed)}, the visual tokens that show a patch")
        number = torch.arange(-(-signals.num_visual // CROPS))
        sizes = (len(listed) // CROPS + (torch.arange(CROPS) < len(listed) % CROPS))[:, None]
        token = listed[(sizes.cumsum(dim=0) - sizes + number).clamp(max=len(listed) - 1)]
        start = torch.searchsorted(layout.image, layout.image[token])
        parts = torch.broadcast_tensors(token, layout.tile[token], layout.patch[token], start, number, sizes)
        token, tile, patch, start, number, sizes = torch.stack(parts).to(device).unbind()
        real = number < sizes
        attention = signals.vision.cls_attention.mean(dim=1)[tile, patch].nan_to_num(nan=0.0).double()
        scores = crop_scores(signals.states[token].double(), attention, real)
        quota = quotas(scores, sizes[:, 0], count, self.overflow == "redistribute")[:, None]
        best = attention.masked_fill(~real, -1.0).argsort(dim=1, descending=True, stable=True)
        if self.overflow == "redistribute":
            return signals.keep(token.flatten()[rows_where((best.argsort(dim=1) < quota).flatten(), count)])
        order = torch.where(quota < sizes, best, number)
        filled = (real & (number < quota)).flatten()
        first = rows_where(filled, count)  # then as many others as rows are lost
        filled = filled[first]
        rows, start = (one.gather(1, order).flatten()[first] for one in (token, start))
        return RowEdit(
            signals.states[rows].masked_fill(~filled[:, None], 0),
            torch.where(filled, signals.index[rows], -1),
            signals.places[torch.where(filled, start, signals.num_visual - 1)],
        )

    def work(self, prompt: PromptWork) -> Work:
        """CLS attention, and the rows of every crop compared with each other."""

        def of_stage(at: StageWork) -> Work:
            if at.stage.kept >= prompt.num_visual and self.overflow == "redistribute":
                return Work()
            return prompt.cls_attention + Work(similarity=CROPS * (-(-prompt.num_visual // CROPS)) ** 2)

        return prompt.over_stages(of_stage)


def crop_scores(states: Tensor, attention: Tensor, real: Tensor) -> Tensor:
    """[crops]: mean over a crop's patches of attention and unevenness; of a single patch its attention alone.

    Args:
        states: [crops, m, D].
        attention: [crops, m].
        real: bool, [crops, m], False for what fills a shorter crop up.
    """
    unit = states / (states.norm(dim=-1, keepdim=True) + 1e-6) * real[..., None]
    alike = (unit @ unit.transpose(1, 2)) * (1 - torch.eye(real.shape[1], dtype=unit.dtype, device=unit.device))
    size = real.sum(dim=1, keepdim=True).clamp(min=1)
    others = (size - 1).clamp(min=1)
    gap = (alike - alike.sum(dim=2, keepdim=True) / others[..., None]) * real[:, None]
    uneven = gap.square().sum(dim=2) / others * real
    per_mille = 1000 * attention * real
    scale = (per_mille.abs().sum(dim=1) / size[:, 0]) / (uneven.sum(dim=1) / size[:, 0] + 1e-6)
    mixed = (per_mille + 0.09 * uneven * scale[:, None]).sum(dim=1) / size[:, 0]
    return torch.where(size[:, 0] > 1, mixed, (attention * real)[:, 0])
