"""DUET-VLM (arXiv 2602.18846): a cut in the vision tower that merges in score order, then two cuts in the decoder.

Per encoder input, before the projector: CLS and the D - 1 patches that it attends to most stay. Of the next 4C patches
in falling order of that score every fourth is an anchor, the others join the anchor with the most alike key (mean over
heads); an anchor becomes the sum of itself and the mean of what joined it, and all further patches are dropped. After
layer 16 half of these D + C rows stay, after layer 24 none: the last layers see text alone. There the next layer's
attention scores, mean over heads and then over all text rows after the image; positions are renumbered every time.

Decisions: what the released model does by default, not the paper's window of neighbours, which in code is the number
four above, and not its salient words, which public checkpoints never switch on. D counts CLS, as in VisionZip. C = 0
makes no contextual row (the code makes one). On LLaVA-NeXT the rows are assembled as VisionZip's, and the later cuts
see them all. Other budgets interpolate the number of contextual rows (7 of 307, 35 of 205, and our 17 of 102) and
keep the halving and the empty end; where even D + C = N is too little, the later cuts keep more.
"""

from bisect import bisect_left
from dataclasses import dataclass
from typing import ClassVar, Literal

from swiftvlm_eval.pruning.budget import BudgetError
from swiftvlm_eval.pruning.contract import PruningMethod, RowEdit, Signals
from swiftvlm_eval.pruning.merging import merge_into_targets
from swiftvlm_eval.pruning.scores import ranking, top_k
from swiftvlm_eval.pruning.solver import Schedule, solve_whole
from swiftvlm_eval.pruning.tiles import TileRows, assemble, spread
from swiftvlm_eval.pruning.words import PositionRule, ScoreLayer
from swiftvlm_eval.pruning.work import PromptWork, StageWork, Work

WIDTH = 4
"""Patches for each contextual row, the anchor among them."""
MERGED = ((0.0, 0.0), (102 / 576, 17 / 576), (205 / 576, 35 / 576), (307 / 576, 7 / 576), (1.0, 0.0))
"""Shares of N: rows that leave the tower, and the contextual ones among them."""


@dataclass(frozen=True, kw_only=True)
class Duet(PruningMethod):
    """DUET-VLM; `counts` are D, C and the rows after each later cut, `counts=300:7:153:0`.

    Attributes:
        queries: the text rows whose attention scores in the decoder, `all` after the image or the `last` one.
    """

    name: ClassVar[str] = "duet"
    title: ClassVar[str] = "DUET-VLM"
    source: ClassVar[str] = "arXiv 2602.18846"
    summary: ClassVar[str] = "CLS attention and merging in score order, then halved and emptied inside the decoder"
    vectorized: ClassVar[bool] = True
    code: ClassVar[str] = "AMD-AGI/DUET-VLM, Apache-2.0"
    position_rule: ClassVar[PositionRule] = "compact"
    needs: ClassVar = frozenset({"cls_attention", "patch_features", "patch_keys"})
    scored_by: ClassVar[tuple[ScoreLayer | None, ...]] = (None, "next", "next")
    default_layers: ClassVar[tuple[int, ...]] = (0, 16, 24)
    counts_merged: ClassVar[tuple[bool, ...]] = (True, False, False)
    presets: ClassVar = {
        64 / 576: ((85 / 576, 17 / 576), (51 / 576, 0.0), (0.0, 0.0)),
        128 / 576: ((170 / 576, 35 / 576), (102 / 576, 0.0), (0.0, 0.0)),
        192 / 576: ((300 / 576, 7 / 576), (153 / 576, 0.0), (0.0, 0.0)),
    }

    queries: Literal["all", "last"] = "all"

    def stage_counts(
        self, num_visual: int, num_layers: int, budget: float | None, boundaries: tuple[int, ...]
    ) -> tuple[tuple[int, int], ...]:
        """From one number: the rows that leave the tower, and above N what the later cuts keep beside their halves."""
        if self.counts is not None or self.schedule == "paper" or budget is None or budget >= 1:
            return super().stage_counts(num_visual, num_layers, budget, boundaries)

        def counts_at(number: int) -> tuple[tuple[int, int], ...]:
            rows, more = min(number, num_visual), max(number - num_visual, 0)
            merged = min(round(num_visual * self._merged(rows / num_visual)), rows - 1)
            return (rows - merged, merged), ((rows + more) // 2, 0), (more, 0)

        schedule = Schedule(boundaries, num_visual, num_layers)
        return solve_whole(counts_at, schedule, budget, largest=2 * num_visual)

    @staticmethod
    def _merged(share: float) -> float:
        """Contextual rows for a share of N that leaves the tower."""
        above = max(bisect_left(MERGED, share, key=lambda knot: knot[0]), 1)
        (start, low), (end, high) = MERGED[above - 1 : above + 1]
        return low + (high - low) * (share - start) / (end - start)

    def select(self, signals: Signals) -> RowEdit:
        """Before the decoder every tile's rows; later the most attended ones."""
        stage, live = signals.stage, len(signals.index)
        if stage.boundary > 0:
            if not 0 < stage.kept < live:
                return signals.keep(signals.index.new_zeros(0)) if stage.kept == 0 else signals.keep_all()
            queries = signals.question_rows if self.queries == "all" else None
            return signals.keep(top_k(signals.attention(queries=queries).mean(dim=(0, 1)), stage.kept))
        if stage.kept >= signals.num_visual:
            return signals.keep_all()
        if stage.kept < (tiles := signals.layout.num_tiles):
            raise BudgetError(f"{stage.kept} dominant rows: CLS of {tiles} encoder inputs needs one each")
        shares = zip(spread(stage.kept, tiles), spread(stage.merged, tiles), strict=True)
        return assemble(signals, [self._tile(signals, tile, *share) for tile, share in enumerate(shares)])

    @staticmethod
    def _tile(signals: Signals, tile: int, dominant: int, contextual: int) -> TileRows:
        features, keys = signals.vision.features[tile], signals.vision.keys[tile]
        if dominant + contextual > len(features):
            raise BudgetError(f"{dominant} + {contextual} rows of an encoder input: it has {len(features)}")
        order = ranking(signals.vision.cls_attention[tile].sum(dim=0))
        best, pool = order[: dominant - 1].sort().values, order[dominant - 1 :][: WIDTH * contextual]
        metric = keys[:, 1:][:, pool].mean(dim=0)
        context = merge_into_targets(features[1:][pool], metric, contextual)
        return TileRows(best, features[1:][best], before=features[:1], after=context)

    def work(self, prompt: PromptWork) -> Work:
        """CLS attention, merging and projector; later the attention of the text rows, the keys projected anew."""
        queries = prompt.num_question if self.queries == "all" else 1

        def of_stage(at: StageWork) -> Work:
            if at.stage.boundary > 0:
                return prompt.attention(at, queries=queries) if 0 < at.stage.kept < at.live else Work()
            return prompt.tower_merging(at.stage.kept, at.stage.merged, width=WIDTH)

        return prompt.over_stages(of_stage)
