"""VLM-Pruner (arXiv 2512.02700): from four far pivots outwards, what is near first and not yet redundant.

After layer 2 the pivots are four visual rows far from each other by their rotated keys, the loudest one first. Rows
are compared by the cosine over the 256 channels that vary most over the image. A row's redundancy is its largest
cosine to a chosen row, times 1 + `buffer` times its distance on the image to the nearest chosen row. In passes with
thresholds 0.8, 0.9, ... the rows are walked in chunks of 16 by redundancy at the pass's start, and those whose
redundancy is by now below the threshold are taken. At last every dropped row goes to the kept row most like it, which
becomes 0.3 of itself and 0.7 of the mean of its dropped rows, weighted by cosine. Positions are kept.

Decisions. The authors stop when a pass takes nothing, even if rows are missing (`mode=official`, whose count is an
upper bound); `clean` raises the threshold until the count is met. Their grid is one of 24 x 24; here distances are in
steps of a row's own view by the diagonal of one tile's grid, those between views are 1, and a newline row stands at
the end of its line. A kept row whose weights do not sum to more than nothing stays as it is. What is no number counts
as redundant. How long the walk is depends on the image, so the choice is made on the host, after one copy.
"""

from dataclasses import dataclass
from functools import partial
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import one_hot

from swiftvlm_eval.models.layout import VisualLayout
from swiftvlm_eval.pruning.budget import kept_shares
from swiftvlm_eval.pruning.contract import PruningMethod, RowEdit, Signals
from swiftvlm_eval.pruning.scores import key_norms, ranking, rows_where, top_k
from swiftvlm_eval.pruning.selection import cosines, farthest_points, outwards
from swiftvlm_eval.pruning.work import COMPARED_CHANNELS, PromptWork, StageWork, Work

PIVOTS = 4


def distance_to(layout: VisualLayout, rows: Tensor) -> Tensor:
    """float32, [r, N]: distance on the image of some tokens to all, one between views; on the CPU."""
    down, across = layout.row - layout.row[rows, None], layout.column - layout.column[rows, None]
    steps = (down**2 + across**2).float().sqrt() / (layout.side * 2**0.5)
    return steps.masked_fill(layout.view != layout.view[rows, None], 1.0)


@dataclass(frozen=True, kw_only=True)
class VLMPruner(PruningMethod):
    """VLM-Pruner.

    Attributes:
        mode: `clean` keeps the planned count, `official` at most that.
        buffer: how much distance on the image adds to redundancy.
        threshold: of the first pass.
        blend: weight of the dropped rows in a kept one.
    """

    name: ClassVar[str] = "vlmpruner"
    title: ClassVar[str] = "VLM-Pruner"
    source: ClassVar[str] = "arXiv 2512.02700"
    summary: ClassVar[str] = "after layer 2: outwards from far pivots; kept rows take in the dropped ones"
    code: ClassVar[str] = "Casey-bit/VLMPruner, Apache-2.0"
    needs: ClassVar = frozenset({"layer_keys"})
    looks_back: ClassVar[bool] = True
    default_layers: ClassVar[tuple[int, ...]] = (2,)
    fewest: ClassVar[int] = PIVOTS
    paper_presets: ClassVar = {count / 576: kept_shares(count) for count in (64, 128, 192)}

    mode: Literal["clean", "official"] = "clean"
    buffer: Annotated[float, Field(ge=0, le=10)] = 0.5
    threshold: Annotated[float, Field(ge=-1, le=2)] = 0.8
    blend: Annotated[float, Field(ge=0, le=1)] = 0.7

    @property
    def adaptive(self) -> bool:
        """Whether the walk may stop early."""
        return self.mode == "official"

    def select(self, signals: Signals) -> RowEdit:
        """Keeps pivots and the least redundant rows, and blends the dropped ones into them."""
        states, count = signals.states.float(), len(signals.states)
        if signals.stage.kept >= count:
            return signals.keep_all()
        keys = signals.layer_run().keys
        pivots = farthest_points(keys.transpose(0, 1).flatten(1), ranking(key_norms(keys))[0], PIVOTS)
        likeness = cosines(states[:, top_k(states.var(dim=0), COMPARED_CHANNELS)]).nan_to_num(nan=1.0)
        distance = partial(distance_to, signals.layout)
        limits = signals.stage.kept, self.threshold, self.buffer, self.mode == "clean"
        on_host = outwards(likeness.cpu(), distance, pivots.cpu(), *limits)
        size, chosen = int(on_host.sum()), on_host.to(states.device)
        kept, dropped = rows_where(chosen, size), rows_where(~chosen, count - size)
        fitting = likeness[dropped][:, kept]
        weights = one_hot(fitting.argmax(dim=1), size) * fitting
        sums = weights.sum(dim=0)[:, None]
        own = states[kept]
        blended = (1 - self.blend) * own + self.blend * (weights.T / sums.clamp(min=1e-8)) @ states[dropped]
        rows = torch.where(sums > 0, blended, own).to(signals.states.dtype)
        return RowEdit(rows, signals.index[kept], signals.places[kept]).sure("ascending", whole=True)

    def work(self, prompt: PromptWork) -> Work:
        """All pairs of rows, and the means of what is dropped."""

        def of_stage(at: StageWork) -> Work:
            if at.kept >= at.live:
                return Work()
            return Work(channel_similarity=at.live**2, averaging=at.kept * (at.live - at.kept))

        return prompt.over_stages(of_stage)
