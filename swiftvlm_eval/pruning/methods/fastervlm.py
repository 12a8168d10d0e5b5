"""FasterVLM (arXiv 2412.01818): keep the patches to which the vision tower's class token attends most.

The attention is that of the layer whose output feeds the projector, softmax over the class token and all patches, mean
over heads. The best patches of every encoder input stay, in raster order; nothing is merged. LLaVA-NeXT as in the
authors' code: the base view, then the kept patches of the stitched image; no unpadding, no newline rows.

Two position rules exist under this name. The authors shorten the prompt, so that positions are compact; a port cuts
rows out of the prompt and keeps each one's position id, as the option `positions` also does. It shows what compact
positions alone cost. It is refused for several encoder inputs, whose rows have another order than in the prompt.
VisPruner with `important_ratio=1` keeps the same patches.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from swiftvlm_eval.pruning.budget import kept_shares
from swiftvlm_eval.pruning.contract import RowEdit, Signals
from swiftvlm_eval.pruning.schedule import Stage
from swiftvlm_eval.pruning.scores import top_k
from swiftvlm_eval.pruning.tiles import PatchSelector
from swiftvlm_eval.pruning.words import PositionRule


@dataclass(frozen=True, kw_only=True)
class FasterVLM(PatchSelector):
    """FasterVLM; `counts` is the number of patches of the whole sample.

    Attributes:
        positions: `compact`, or `keep` for samples of one encoder input.
    """

    name: ClassVar[str] = "fastervlm"
    title: ClassVar[str] = "FasterVLM"
    source: ClassVar[str] = "arXiv 2412.01818"
    code: ClassVar[str] = "Theia-4869/FasterVLM, Apache-2.0"
    summary: ClassVar[str] = "before the decoder: the patches that the class token attends to most"
    vectorized: ClassVar[bool] = True
    presets: ClassVar = {count / 576: kept_shares(count) for count in (64, 128, 192)}

    positions: PositionRule = "compact"

    def rule_at(self, stage: Stage) -> PositionRule:
        """The option `positions`."""
        return self.positions

    def select(self, signals: Signals) -> RowEdit:
        """The best patches of every encoder input.

        Raises:
            ValueError: positions are kept, and there are several encoder inputs.
        """
        if self.positions == "keep" and signals.layout.num_tiles > 1:
            raise ValueError(
                f"positions=keep: allowed for one encoder input, this sample has {signals.layout.num_tiles}; "
                "positions=compact takes any number"
            )
        return super().select(signals)

    def choose(self, signals: Signals, tile: int, count: int) -> Tensor:
        """The most attended patches."""
        return top_k(signals.vision.cls_attention[tile].mean(dim=0), count)
