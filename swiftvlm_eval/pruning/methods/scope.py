"""SCOPE (arXiv 2510.24214): patches that stand for many others, weighed by the class token's attention.

A set of patches covers a patch as well as its most similar member does, by cosine similarity of the features that feed
the projector; nothing is covered at the beginning, and negative similarity covers nothing. Again and again the patch
stays that adds most to the coverage of all patches, this gain multiplied by its attention to the power `alpha`. The
attention is the class token's in the layer that feeds the projector, softmax over the class token and all patches,
summed over heads. Kept patches stand in raster order, positions are compact, nothing is merged.

Decisions: `alpha` is 1 as in all of the authors' scripts, though a reading of the paper has 0.5 as best; `combine=add`
(also in the code) adds the two, and there the size of the attention matters. Similarities and gains are float32:
bfloat16 changes about a tenth of the picks. LLaVA-NeXT as in the authors' code: counts per encoder input, no
unpadding, no newline rows; here the first ones take what an even share leaves over.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import Field
from torch import Tensor

from swiftvlm_eval.pruning.budget import kept_shares
from swiftvlm_eval.pruning.contract import Signals
from swiftvlm_eval.pruning.selection import cosines, greedy_coverage
from swiftvlm_eval.pruning.tiles import PatchSelector
from swiftvlm_eval.pruning.work import PromptWork, Work


@dataclass(frozen=True, kw_only=True)
class SCOPE(PatchSelector):
    """SCOPE; `counts` is the number of patches of the whole sample.

    Attributes:
        alpha: power of the attention.
        combine: whether gain and attention are multiplied (`multi`) or added (`add`).
    """

    name: ClassVar[str] = "scope"
    title: ClassVar[str] = "SCOPE"
    source: ClassVar[str] = "arXiv 2510.24214"
    code: ClassVar[str] = "kinredon/SCOPE, no licence file (its metadata says Apache-2.0)"
    summary: ClassVar[str] = "before the decoder: patches that cover the others, by class-token attention"
    vectorized: ClassVar[bool] = True
    presets: ClassVar = {count / 576: kept_shares(count) for count in (64, 128, 192)}

    alpha: Annotated[float, Field(ge=0)] = 1.0
    combine: Literal["multi", "add"] = "multi"

    def choose(self, signals: Signals, tile: int, count: int) -> Tensor:
        """The patches that together cover most."""
        weight = signals.vision.cls_attention[tile].sum(dim=0).pow(self.alpha)

        def score(gain: Tensor) -> Tensor:
            return gain * weight if self.combine == "multi" else gain + weight

        similarity = cosines(signals.vision.features[tile, 1:])
        return greedy_coverage(similarity, count, score).sort().values

    def compared(self, prompt: PromptWork, kept: int) -> Work:
        """Every patch of a tile with every patch."""
        return prompt.feature_pairs
