"""What really happened to a sample: the ground truth of records, and of tests."""

from dataclasses import dataclass, field

from torch import Tensor

from swiftvlm_eval.models.layout import VisualLayout
from swiftvlm_eval.pruning.schedule import Plan


@dataclass(frozen=True)
class StageTrace:
    """One executed edit.

    Attributes:
        boundary: decoder layers that had run.
        index: int64, [V'], original visual index of each visual row after the edit, in sequence order; -1 is a merged
            row.
        live: visual rows before the edit.
        made: rows after it that it made of several.
    """

    boundary: int
    index: Tensor
    live: int
    made: int

    @property
    def kept_indices(self) -> list[int]:
        """Visual indices of the rows that are one token each, in sequence order."""
        return [index for index in self.index.tolist() if index >= 0]


@dataclass
class SampleTrace:
    """One sample's prefill.

    Attributes:
        num_visual: N, visual tokens of the prompt.
        num_text: text tokens of the prompt.
        num_question: of these, the ones after the last visual token.
        layout: where the visual tokens come from; None where the method does not look at the vision tower.
        plan: what was planned.
        rows_per_layer: visual rows that each layer really saw, merged rows included.
        stages: the edits, in order.
    """

    num_visual: int
    num_text: int
    num_question: int
    plan: Plan
    layout: VisualLayout | None = None
    rows_per_layer: list[int] = field(default_factory=list)
    stages: list[StageTrace] = field(default_factory=list)

    @property
    def encoder_inputs(self) -> int:
        """Tiles that the vision tower encoded for the sample; 0 where the method does not look at it."""
        return 0 if self.layout is None else self.layout.num_tiles

    @property
    def mean_visual_tokens(self) -> float:
        """Executed mean of visual rows over decoder layers."""
        return sum(self.rows_per_layer) / len(self.rows_per_layer)
