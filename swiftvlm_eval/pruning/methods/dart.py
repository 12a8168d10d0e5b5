"""DART (arXiv 2502.11494): keep a few loud rows, and what is least like them.

After layer 2 the four visual rows and the four text rows after the image whose keys are loudest become pivots (L1 norm
of the rotated keys of the layer just run, all heads). Rows are compared as the language model's head would see them,
under the final norm. Each pivot in turn takes, from what is still there, the visual rows whose cosine to it is
smallest; rows that are taken do not become pivots. Positions are kept; nothing is merged.

Decisions. A count that is not 4 + 8c gives one row more to the first pivots, so that budgets are met exactly; the
authors' scripts keep 196, 132 and 68 rows under the names 192, 128 and 64 (`schedule=paper`). Pivots come by falling
norm, the visual ones first: the authors iterate a Python set of the pivots' places in the sequence, an order that
hangs on the length of the prompt (`order=official`; it waits for the device, once). Grouped keys are not repeated:
that changes every norm by the same factor. With fewer than four text rows after the image the authors' code fails
without saying why.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn.functional import normalize

from swiftvlm_eval.pruning.budget import kept_shares
from swiftvlm_eval.pruning.contract import PruningMethod, RowEdit, Signals
from swiftvlm_eval.pruning.scores import key_norms, ranking
from swiftvlm_eval.pruning.tiles import spread
from swiftvlm_eval.pruning.work import PromptWork, StageWork, Work

PIVOTS = 4
"""Of each kind."""


@dataclass(frozen=True, kw_only=True)
class DART(PruningMethod):
    """DART.

    Attributes:
        order: in which the pivots take: `norm`, or that of the authors' set (`official`).
    """

    name: ClassVar[str] = "dart"
    title: ClassVar[str] = "DART"
    source: ClassVar[str] = "arXiv 2502.11494"
    summary: ClassVar[str] = "after layer 2: eight pivots by key norm, and the rows least like them"
    vectorized: ClassVar[bool] = True
    code: ClassVar[str] = "copy in Chenfei-Liao/VTC-Bench, Apache-2.0"
    needs: ClassVar = frozenset({"layer_keys"})
    looks_back: ClassVar[bool] = True
    default_layers: ClassVar[tuple[int, ...]] = (2,)
    fewest: ClassVar[int] = PIVOTS
    paper_presets: ClassVar = {
        64 / 576: kept_shares(68),
        128 / 576: kept_shares(132),
        192 / 576: kept_shares(196),
    }

    order: Literal["norm", "official"] = "norm"

    def select(self, signals: Signals) -> RowEdit:
        """Keeps the visual pivots and what the eight pivots take.

        Raises:
            ValueError: fewer than four text rows after the image.
        """
        kept = signals.stage.kept
        if kept >= len(signals.states):
            return signals.keep_all()
        if signals.num_question < PIVOTS:
            raise ValueError(
                f"{signals.num_question} text rows after the image: {self.name} takes {PIVOTS} of them as pivots; "
                f"allowed are prompts with at least {PIVOTS}"
            )
        image, text = signals.layer_run(), signals.layer_run("text")
        own = ranking(key_norms(image.keys))[:PIVOTS]
        asking = signals.question_rows
        asking = asking[ranking(key_norms(text.keys)[asking])[:PIVOTS]]
        rows = signals.final_norm(signals.states.float())
        pivots = torch.cat([rows[own], signals.final_norm(signals.text_states[asking].float())])
        if self.order == "official":
            pivots = pivots[_set_order(torch.cat([image.rows[own], text.rows[asking]]))]
        likeness = normalize(pivots, dim=-1) @ normalize(rows, dim=-1).T
        unlike = (-likeness).nan_to_num(nan=torch.finfo(torch.float32).min)
        gone = torch.zeros(len(rows), dtype=torch.bool, device=rows.device).index_fill(0, own, True)
        taken = [own]
        for scores, count in zip(unlike, spread(kept - PIVOTS, 2 * PIVOTS), strict=True):
            taken.append(ranking(scores.masked_fill(gone, -torch.inf))[:count])
            gone = gone.index_fill(0, taken[-1], True)
        return signals.keep(torch.cat(taken).sort().values)

    def work(self, prompt: PromptWork) -> Work:
        """Every visual row compared with every pivot."""

        def of_stage(at: StageWork) -> Work:
            return Work(similarity=0 if at.kept >= at.live else 2 * PIVOTS * at.live)

        return prompt.over_stages(of_stage)


def _set_order(places: Tensor) -> Tensor:
    """int64: the order in which Python goes through a set of these places, put into it one after the other."""
    listed = places.tolist()
    return torch.tensor([listed.index(place) for place in set(listed)], device=places.device)
