"""SCoRe (CVPR 2026): patches far from each other, where distance counts for more at patches that matter.

The first patch is the one to which the vision tower's class token attends most. Then, again and again, the patch stays
whose distance to the nearest chosen one, times its attention to the power `alpha`, is largest; distance is one minus
the cosine similarity of features. Kept patches stand in raster order, positions are compact, nothing is merged and the
question is not read. `alpha=0` goes by distance alone, a large one by attention alone.

**The formula is known at second hand only**: no code is published, and the rule, its `alpha` and what it measures come
from two readings of the paper that agree. Not told there, hence decided: attention and features of the layer that
feeds the projector, softmax over the class token and all patches, mean over heads (a constant factor changes nothing);
raster order. `features=projector` compares rows after the projector instead. LLaVA-NeXT: counts per encoder input, no
unpadding, no newline rows.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import Field
from torch import Tensor

from swiftvlm_eval.pruning.budget import kept_shares
from swiftvlm_eval.pruning.contract import Signals
from swiftvlm_eval.pruning.scores import ranking
from swiftvlm_eval.pruning.selection import cosines, greedy_maxmin, row_of
from swiftvlm_eval.pruning.tiles import PatchSelector, states_of_tile
from swiftvlm_eval.pruning.work import PromptWork, Work


@dataclass(frozen=True, kw_only=True)
class SCoRe(PatchSelector):
    """SCoRe; `counts` is the number of patches of the whole sample.

    Attributes:
        alpha: power of the attention in the weight of a distance.
        features: compared as they leave the `encoder`, or the `projector`.
    """

    name: ClassVar[str] = "score"
    title: ClassVar[str] = "SCoRe"
    source: ClassVar[str] = "CVPR 2026"
    code: ClassVar[str] = "none published"
    caveat: ClassVar[str] = "formula known at second hand only, not from the paper or its authors' code"
    summary: ClassVar[str] = "before the decoder: distance weighted by class-token attention (at second hand)"
    vectorized: ClassVar[bool] = True
    presets: ClassVar = {count / 576: kept_shares(count) for count in (64, 128, 192)}

    alpha: Annotated[float, Field(ge=0)] = 0.8
    features: Literal["encoder", "projector"] = "encoder"

    def choose(self, signals: Signals, tile: int, count: int) -> Tensor:
        """The most attended patch, then the farthest by weighted distance."""
        weight = signals.vision.cls_attention[tile].mean(dim=0)
        encoder = self.features == "encoder"
        distance = 1 - cosines(signals.vision.features[tile, 1:] if encoder else states_of_tile(signals, tile))
        picks = greedy_maxmin(lambda pick: row_of(distance, pick), ranking(weight)[0], count, weight.pow(self.alpha))
        return picks.sort().values

    def compared(self, prompt: PromptWork, kept: int) -> Work:
        """Every patch of a tile with every patch, before the projector or after it."""
        if self.features == "encoder":
            return prompt.feature_pairs
        patches = prompt.encoder_inputs * prompt.patches
        return Work(similarity=patches * prompt.patches) + prompt.projected_anew(patches)
