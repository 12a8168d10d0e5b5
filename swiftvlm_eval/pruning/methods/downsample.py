"""Image downsampling: the trivial baseline that any selection of tokens has to beat.

Form `low_res` encodes a smaller image (bicubic with antialiasing, position embeddings interpolated), g x g tokens;
`pool` encodes the full image and averages its features to g x g before the projector; `blur` shrinks the image and
enlarges it again, which keeps all tokens and shows what the lost detail alone costs. Positions are compact. The grid
is the square next to the budget (14, 11, 8 for 192, 128, 64 of 24 x 24), so that the mean is that of the square and
not exactly the budget's. On LLaVA-NeXT every tile is reduced, then stitched and unpadded by the model's own rule at
the new size, with a newline row after each line; the count depends on the image.

Source: common practice (for example VTC-Bench); there is no single paper.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import Field
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, interpolate

from swiftvlm_eval.pruning.contract import PruningMethod, RowEdit, Signals
from swiftvlm_eval.pruning.schedule import Plan, Stage
from swiftvlm_eval.pruning.tiles import instead
from swiftvlm_eval.pruning.words import PositionRule
from swiftvlm_eval.pruning.work import PromptWork, StageWork, Work


@dataclass(frozen=True, kw_only=True)
class Downsample(PruningMethod):
    """Fewer pixels or pooled features.

    Attributes:
        form: `low_res`, `pool` or `blur`.
        grid: tokens along one side of a tile; None takes the square next to the budget.
    """

    name: ClassVar[str] = "downsample"
    title: ClassVar[str] = "Downsampling"
    source: ClassVar[str] = "baseline"
    summary: ClassVar[str] = "a smaller image, or pooled features; no selection"
    position_rule: ClassVar[PositionRule] = "compact"
    needs: ClassVar = frozenset({"patch_features", "image_resizing"})
    default_layers: ClassVar[tuple[int, ...]] = (0,)

    form: Literal["low_res", "pool", "blur"] = "low_res"
    grid: Annotated[int, Field(ge=1)] | None = None

    @property
    def adaptive(self) -> bool:
        """On LLaVA-NeXT unpadding decides."""
        return True

    def side_for(self, side: int, budget: float | None) -> int:
        """Grid size for a budget, in 1..side."""
        if self.grid is not None and self.grid > side:
            raise ValueError(f"grid={self.grid}: allowed are whole numbers from 1 to {side}")
        return self.grid or max(1, round(side * min(budget or 1.0, 1.0) ** 0.5))

    def plan(self, num_visual: int, num_layers: int, budget: float | None = None) -> Plan:
        """One stage before the decoder; exact for one square grid, an expectation otherwise."""
        for option in ("layers", "counts"):
            if getattr(self, option) is not None:
                raise ValueError(f"{option}={list(getattr(self, option))}: {self.name} takes form and grid instead")
        if self.form == "blur" or ((budget is None or budget >= 1) and self.grid is None):
            return Plan(num_visual, num_layers)
        side = int(num_visual**0.5)
        rows = self.side_for(side, budget) ** 2 if side * side == num_visual else round((budget or 1) * num_visual)
        return Plan(num_visual, num_layers, (Stage(0, 0, rows, last=True, budget=budget),), adaptive=True)

    def resize_images(self, pixels: Tensor, side: int, budget: float | None) -> Tensor:
        """A smaller image, or one that was smaller once."""
        grid = self.side_for(side, budget)
        if self.form == "pool" or grid == side:
            return pixels
        small = self._resized(pixels, pixels.shape[-1] // side * grid)
        return small if self.form == "low_res" else self._resized(small, pixels.shape[-1])

    @staticmethod
    def _resized(pixels: Tensor, size: int) -> Tensor:
        return interpolate(pixels.float(), size=(size, size), mode="bicubic", align_corners=False, antialias=True).to(
            pixels.dtype
        )

    def select(self, signals: Signals) -> RowEdit:
        """Replaces the visual rows by those of the smaller grid."""
        features = signals.vision.features[:, 1:]
        if self.form == "pool":
            side = signals.layout.side
            grid = self.side_for(side, signals.stage.budget)
            square = features.unflatten(1, (side, side)).permute(0, 3, 1, 2).float()
            features = adaptive_avg_pool2d(square, grid).flatten(2).transpose(1, 2).to(features.dtype)
        return instead(signals, signals.vision.pack(signals.vision.project(features)))

    def work(self, prompt: PromptWork) -> Work:
        """The projector on the smaller grids; what a smaller image saves in the tower is not counted."""

        def of_stage(stage: StageWork) -> Work:
            side = self.side_for(round(prompt.patches**0.5), stage.stage.budget)
            return Work(projection=prompt.encoder_inputs * side**2)

        return prompt.over_stages(of_stage)
