"""ApET (arXiv 2602.19870): keep what a few sample rows cannot stand for; no attention, no text.

Before the projector, in every encoder input, and after layer 16, on all visual rows: m rows are sampled, each farthest
from those before; every row is fitted by them (least squares, ridge 1e-5), and the rows with the largest residual
stay. What is dropped is averaged into the most alike row that stays.

Mode `official` is the released code: the sampled rows themselves, whose residual is next to nothing, are dropped and
averaged like others, and also overwrite the m lowest of the T rows that stay, in the order of sampling; before the
decoder these places are taken in raster order, later in that of falling residual. It needs m < T <= n - m. Mode
`clean` (ours) lets the sampled rows stay where they are and count; nothing is averaged into them.

Decisions: the first sampled row is drawn from the sample's own generator, or is the one farthest from the mean
(`start=far`); the code draws without a seed. A rewritten row keeps its index. On LLaVA-NeXT the rows are assembled as
VisionZip's, and the second cut sees them all; the released script cuts the base view alone.
"""

from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from swiftvlm_eval.pruning.budget import BudgetError, kept_shares
from swiftvlm_eval.pruning.contract import PruningMethod, RowEdit, Signals
from swiftvlm_eval.pruning.merging import nearest, sums_and_sizes
from swiftvlm_eval.pruning.scores import ranking
from swiftvlm_eval.pruning.selection import farthest_from_mean, farthest_points, residuals
from swiftvlm_eval.pruning.tiles import TileRows, assemble, spread, tile_counts
from swiftvlm_eval.pruning.words import Need, PositionRule
from swiftvlm_eval.pruning.work import PromptWork, StageWork, Work


@dataclass(frozen=True, kw_only=True)
class ApET(PruningMethod):
    """ApET; `counts` are the rows after each cut, `counts=288:96`.

    Attributes:
        basis: m, rows sampled at each cut.
        mode: `official` or `clean`.
        start: the first sampled row, `random` or the one `far` from the mean.
    """

    name: ClassVar[str] = "apet"
    title: ClassVar[str] = "ApET"
    source: ClassVar[str] = "arXiv 2602.19870"
    summary: ClassVar[str] = "what ten sample rows approximate worst stays, before the decoder and after layer 16"
    code: ClassVar[str] = "MaQianKun0/ApET, MIT"
    position_rule: ClassVar[PositionRule] = "compact"
    needs: ClassVar[frozenset[Need]] = frozenset({"patch_features"})
    draws: ClassVar[bool] = True
    default_layers: ClassVar[tuple[int, ...]] = (0, 16)
    presets: ClassVar = {tokens / 576: kept_shares(3 * tokens // 2, tokens // 2) for tokens in (64, 128, 192)}

    basis: Annotated[int, Field(ge=1)] = 10
    mode: Literal["official", "clean"] = "official"
    start: Literal["random", "far"] = "random"

    def select(self, signals: Signals) -> RowEdit:
        """Before the decoder in every encoder input, later among all rows."""
        generator = None
        if self.start == "random":  # one stream of draws for both cuts
            generator = signals.generator if signals.carry is None else signals.carry
        if signals.stage.boundary > 0:
            kept, states = self._reduced(signals.states, signals.stage.kept, generator, raster=False)
            return RowEdit(states, signals.index[kept], signals.places[kept]).sure("ascending", whole=True)
        if signals.stage.kept >= signals.num_visual:
            return signals.keep_all(generator)
        inputs = zip(signals.vision.features[:, 1:], tile_counts(signals), strict=True)
        tiles = [TileRows(*self._reduced(rows, count, generator, raster=True)) for rows, count in inputs]
        return replace(assemble(signals, tiles), carry=generator).sure("ascending", whole=True)

    def _reduced(self, states: Tensor, count: int, generator: Any, raster: bool) -> tuple[Tensor, Tensor]:
        """Numbers of the `count` rows that stay, ascending, and what they have become."""
        total, size = len(states), min(self.basis, count)
        if self.mode == "official" and count != total and not self.basis < count <= total - self.basis:
            raise BudgetError(
                f"{count} of {total} rows: mode=official with basis={self.basis} keeps {self.basis + 1} to "
                f"{total - self.basis}, or all; mode=clean any number"
            )
        if not 0 < count < total:
            return torch.arange(count, device=states.device), states[:count]
        points = states.float()
        first = farthest_from_mean(points) if generator is None else torch.randint(total, (), generator=generator)
        sampled = farthest_points(points, first.to(points.device), size)
        error = residuals(points, sampled).nan_to_num(nan=-1.0)
        if self.mode == "official":
            order = ranking(error)
            receiving, filled, gone = order.split([count - size, size, total - count])
            filled = filled.sort().values if raster else filled
        else:
            order = ranking(error.index_fill(0, sampled, -torch.inf))
            (receiving, gone), filled = order[:-size].split([count - size, total - count]), sampled
        rows = states.clone()
        if count > size:
            sums, members = sums_and_sizes(points[gone], nearest(points[gone], points[receiving]), count - size)
            rows[receiving] = ((points[receiving] + sums) / (1 + members)).to(states.dtype)
        rows[filled] = states[sampled]
        kept = torch.cat([receiving, filled]).sort().values
        return kept, rows[kept]

    def work(self, prompt: PromptWork) -> Work:
        """Fitting all rows and merging those that go, per encoder input and later at once; the projector between."""

        def pairs(rows: int, count: int) -> int:
            size = min(self.basis, count)
            return rows * size + (count - size) * (rows - count) if count < rows else 0

        def of_stage(at: StageWork) -> Work:
            if at.stage.boundary > 0:
                both = pairs(at.live, at.stage.kept)
                return Work(similarity=both, averaging=both)
            if at.stage.kept >= prompt.num_visual:
                return Work()
            both = sum(pairs(prompt.patches, count) for count in spread(at.stage.kept, prompt.encoder_inputs))
            return Work(feature_similarity=both, tower_averaging=both, projection=at.stage.kept)

        return prompt.over_stages(of_stage)
