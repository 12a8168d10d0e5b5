"""SwiftVLM (arXiv 2602.03134): cross-layer token bypass.

After layer 3 the visual tokens that the last prompt token attends to least leave the sequence, but are not lost: they
are grouped, one merged row per group stays in the sequence, and the tokens themselves wait. Before layers 11 and 15
the waiting tokens are aligned by what happened to their group's row meanwhile, all N tokens are scored again, and any
of them may come back. After the last selection the rest is dropped.

There is no public code. Decisions where the paper is silent, each an option: the softmax of its equation 2 is over the
visual candidates (`scope`; its efficiency section counts these keys only); anchors are strided (`anchors`); a merged
row takes its anchor's position id (`merged_position`). Schedule `paper` is fitted to the reported 1.75 and 1.31 T.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from swiftvlm_eval.pruning.contract import PruningMethod, RowEdit, Signals
from swiftvlm_eval.pruning.merging import AnchorRule, Bypass, Groups, MergedPosition, choose_anchors, merge_by_anchors
from swiftvlm_eval.pruning.schedule import Plan
from swiftvlm_eval.pruning.scores import ranking
from swiftvlm_eval.pruning.words import Scope, ScoreLayer
from swiftvlm_eval.pruning.work import PromptWork, Work, grouping


@dataclass(frozen=True, kw_only=True)
class SwiftVLM(PruningMethod):
    """SwiftVLM; `counts=k1:z1:k2:z2:k3`, kept and merged rows.

    Attributes:
        scope: keys under the softmax: `visual` candidates, or `all` (candidates and text; merged rows excluded).
        anchors: how group representatives are chosen.
        merged_position: place of a merged row: its anchor's, the members' `mean` (fractional), or that rounded.
        merge: False drops for good, without merged rows or bypass (ablation S).
        bypass: False forgets the dropped tokens (ablation S+M); later stages rank active and merged rows alike.
    """

    name: ClassVar[str] = "swiftvlm"
    title: ClassVar[str] = "SwiftVLM"
    source: ClassVar[str] = "arXiv 2602.03134"
    summary: ClassVar[str] = "three stages; dropped tokens bypass the layers in between and may return"
    vectorized: ClassVar[bool] = True
    scored_by: ClassVar[tuple[ScoreLayer, ...]] = ("previous", "next", "next")
    default_layers: ClassVar[tuple[int, ...]] = (3, 10, 14)  # section 3.3: after layer 3, before layers 11 and 15
    counts_merged: ClassVar[tuple[bool, ...]] = (True, True, False)
    presets: ClassVar = {
        64 / 576: ((16 / 576, 8 / 576), (12 / 576, 8 / 576), (4 / 576, 0.0)),
        128 / 576: ((144 / 576, 32 / 576), (72 / 576, 32 / 576), (40 / 576, 0.0)),
        192 / 576: ((240 / 576, 32 / 576), (164 / 576, 32 / 576), (96 / 576, 0.0)),
    }
    paper_presets: ClassVar = {128 / 576: ((144 / 576, 32 / 576), (72 / 576, 32 / 576), (34 / 576, 0.0))}

    scope: Scope = "visual"
    anchors: AnchorRule = "strided"
    merged_position: MergedPosition = "anchor"
    merge: bool = True
    bypass: bool = True

    def select(self, signals: Signals) -> RowEdit:
        """Aligns what waits, scores, keeps the best, and sends the rest on the bypass."""
        sent: Bypass | None = signals.carry
        if sent is None:
            states, index, places = signals.states, signals.index, signals.places
        else:  # all N tokens, each in its own row
            states, index, places = sent.aligned(signals.states, signals.index), None, sent.places
        scores = signals.attention(candidates=None if sent is None else states, scope=self.scope)
        rated = scores.mean(dim=0)[0]  # eq. 2
        order, count = ranking(rated), min(signals.stage.kept, len(rated))
        kept = order[:count].sort().values
        edit = RowEdit(states[kept], kept if index is None else index[kept], places[kept])
        if signals.stage.last or not self.merge or count == len(rated):
            return edit.sure("ascending", whole=True)
        rest = order[count:].sort().values
        waiting = RowEdit(states[rest], rest if index is None else index[rest], places[rest])
        return self._bypass(signals, edit, waiting, rated[rest] if self.anchors == "top" else None, places)

    def _bypass(self, signals: Signals, edit: RowEdit, rest: RowEdit, rated: Tensor | None, places: Tensor) -> RowEdit:
        """Adds one merged row per group of the rest to the edit and lets the rest wait."""
        count = min(signals.stage.merged, len(rest.index))
        groups = Groups(rest.states[:0], rest.places[:0], rest.index)
        if count:
            anchors = choose_anchors(len(rest.index), count, self.anchors, rated, rest.index.device)
            groups = merge_by_anchors(rest.states, rest.places, anchors, self.merged_position)
        carry = Bypass(rest.states, rest.index, groups, places, edit.index) if self.bypass else None
        return edit.with_merged_rows(groups.merged, groups.places, carry).sure("among", self.merged_position != "mean")

    @property
    def merges_rows(self) -> bool:
        """The option `merge`."""
        return self.merge

    @property
    def rows_return(self) -> bool:
        """Tokens on the bypass may; without merged rows there is no bypass."""
        return self.merge and self.bypass

    def work(self, prompt: PromptWork) -> Work:
        """One query over the rows, or over all N once tokens wait; and the grouping of the rest."""
        total, waiting = Work(), False
        for stage in prompt.stages:
            rows = prompt.num_visual if waiting else stage.live
            total += prompt.attention(stage, candidates=rows if waiting else None, scope=self.scope)
            total += grouping(rows - stage.kept, stage.made)
            waiting = self.rows_return and rows > stage.kept
        return total

    def overhead_flops(self, plan: Plan, hidden_size: int) -> dict[str, float]:
        """The paper's F_o: merging at the first two stages, scoring at the two that look at all N tokens again."""
        n, d = plan.num_visual, hidden_size
        merging = sum((n - stage.kept) * d * (2 * stage.merged + 1) for stage in plan.stages[:-1] if stage.merged)
        scoring = sum(2 * n * d + 2 * d**2 + 2 * (n - stage.kept) * d**2 for stage in plan.stages[1:])
        return {"merging": float(merging), "scoring": float(scoring)}
