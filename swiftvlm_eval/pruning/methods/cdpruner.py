"""CDPruner (arXiv 2506.10967) without its condition: the most diverse patches, by the volume that they span.

In every encoder input, on projected rows: a determinantal point process whose kernel is their cosine similarity gives
its greedy mode. Each pick is the patch that adds most to the determinant of those chosen; they go on in raster order,
with positions renumbered, as they are.

The paper's method weighs the kernel by each patch's relevance to the question, as CLIP's own text tower sees it. A
LLaVA checkpoint has no such tower. `relevance=none`, the default, is the paper's ablation without condition. The form
`relevance=embed` is ours: cosine of a row with the mean embedding of the text after the image, brought to 0..1 over
all encoder inputs together, as the paper does with its own; if all are equal, none is relevant above another.

Decisions: rows are equally long for the first pick, so that without relevance it is the first patch; what is left of a
row is never taken below 1e-12, since the sources' roots of negative rounding errors are not numbers.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn.functional import normalize

from swiftvlm_eval.pruning.budget import kept_shares
from swiftvlm_eval.pruning.contract import PruningMethod, RowEdit, Signals
from swiftvlm_eval.pruning.selection import cosines, greedy_volume
from swiftvlm_eval.pruning.tiles import TileRows, assemble, spread, tile_counts, tile_states
from swiftvlm_eval.pruning.words import Need, PositionRule
from swiftvlm_eval.pruning.work import PromptWork, StageWork, Work


@dataclass(frozen=True, kw_only=True)
class CDPruner(PruningMethod):
    """CDPruner's determinantal selection.

    Attributes:
        relevance: `none`, or `embed` by the embeddings of the text after the image.
    """

    name: ClassVar[str] = "cdpruner"
    title: ClassVar[str] = "CDPruner (no condition)"
    source: ClassVar[str] = "arXiv 2506.10967"
    code: ClassVar[str] = "Theia-4869/CDPruner, Apache-2.0"
    caveat: ClassVar[str] = "without its text condition: the paper's ablation, not its full method"
    summary: ClassVar[str] = "before the decoder: the patches that span the largest volume; the paper's ablation"
    vectorized: ClassVar[bool] = True
    position_rule: ClassVar[PositionRule] = "compact"
    needs: ClassVar[frozenset[Need]] = frozenset({"patch_features"})
    default_layers: ClassVar[tuple[int, ...]] = (0,)
    presets: ClassVar = {count / 576: kept_shares(count) for count in (64, 128, 192)}

    relevance: Literal["none", "embed"] = "none"

    def select(self, signals: Signals) -> RowEdit:
        """The greedy mode of every tile."""
        if signals.stage.kept >= signals.num_visual:
            return signals.keep_all()
        counts, rows = tile_counts(signals), tile_states(signals)
        weights = torch.ones_like(rows[..., 0], dtype=torch.float32)
        if self.relevance == "embed":
            weights = relevance(rows, signals.text_states[signals.question_rows])
        tiles = []
        for own, weight, count in zip(rows, weights, counts, strict=True):
            alike = cosines(own)
            alike.diagonal().fill_(1)
            kernel = weight[:, None] * alike * weight
            kept = greedy_volume(kernel, count).sort().values
            tiles.append(TileRows(kept, own[kept]))
        return assemble(signals, tiles, projected=True)

    def work(self, prompt: PromptWork) -> Work:
        """Every patch of a tile against every other one, and the products of the greedy steps."""

        def of_stage(at: StageWork) -> Work:
            if at.stage.kept >= prompt.num_visual:
                return Work()
            patches, tiles = prompt.patches, prompt.encoder_inputs
            pairs = tiles * patches * (patches + (self.relevance == "embed"))
            steps = sum(count * (count - 1) // 2 for count in spread(at.stage.kept, tiles))
            return prompt.projected_anew(tiles * patches) + Work(similarity=pairs, volume=steps * patches)

        return prompt.over_stages(of_stage)


def relevance(rows: Tensor, text: Tensor) -> Tensor:
    """How much each row is like a text, just above 0 to just above 1, the least and the most alike of all rows.

    Args:
        rows: [..., D].
        text: [Q, D], its embeddings, Q >= 1.

    Returns:
        float32, [...]; all ones if all are equally like it.
    """
    mean = normalize(text.float().mean(dim=0), dim=-1)
    alike = (normalize(rows.float(), dim=-1) @ mean[:, None])[..., 0].nan_to_num(nan=-1.0)
    low, high = alike.min(), alike.max()
    return torch.where(high > low, (alike - low + 1e-6) / (high - low), 1.0)
