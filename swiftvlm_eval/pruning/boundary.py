"""A batch as it stands at one boundary, and one sample of it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from swiftvlm_eval.models.tower import TowerView
from swiftvlm_eval.pruning.rotations import BatchRotation, RowRotation, SampleRotation
from swiftvlm_eval.pruning.rows import SampleRows


@dataclass(frozen=True)
class Sample:
    """What is known of one sample: its n rows, or with the padding before them W.

    Attributes:
        rows: which rows these are.
        sequence: [n, hidden_size].
        before: likewise, one layer earlier; None at boundary 0, or where no stage reads them.
        cached: rotated keys and values of the layer that has just run, [kv_heads, n, head_dim] each; None if none has.
        normed: [n, hidden_size], what that layer's attention took; None where nobody asked for it.
        rotation: tables of the rows.
        carry: what the method's previous stage left.
        modules: what that layer's modules took and gave, [n, hidden_size], by name; empty unless they are watched.
        tower: the vision tower's view; None where it is read when it is asked for.
    """

    rows: SampleRows
    sequence: Tensor
    before: Tensor | None
    cached: tuple[Tensor, Tensor] | None
    normed: Tensor | None
    rotation: RowRotation
    carry: Any
    modules: Mapping[str, Tensor]
    tower: TowerView | None


@dataclass(frozen=True)
class Boundary:
    """A batch at one boundary, padded on the left to W rows.

    Attributes:
        hidden: [B, W, hidden_size], what enters the next layer.
        previous: likewise, one layer earlier; None where nobody reads it.
        rows: of every sample.
        carries: what the method's previous stage left of every sample.
        cached: rotated keys and values of the layer that has just run, [B, kv_heads, W, head_dim] each; None if none
            has.
        normed: [B, W, hidden_size], what its attention took; None where nobody asked for it.
        modules: what its modules took and gave, likewise, by name.
        rotation: the tables of these rows.
        prompt_rotation: those of the prompts.
        tower: the vision tower's view of a sample; None where nobody needs it.
    """

    hidden: Tensor
    previous: Tensor | None
    rows: list[SampleRows]
    carries: Sequence[Any]
    cached: tuple[Tensor, Tensor] | None
    normed: Tensor | None
    modules: Mapping[str, Tensor]
    rotation: BatchRotation
    prompt_rotation: BatchRotation
    tower: Callable[[int], TowerView] | None

    def sample(self, number: int) -> Sample:
        """One sample, without its padding."""
        return self.part(number, self.rows[number], SampleRotation(self.rotation, self.prompt_rotation, number))

    def part(self, number: int, rows: SampleRows, rotation: RowRotation) -> Sample:
        """The last rows of one sample, as many as `rows` says."""
        count = len(rows)

        def last(whole: Tensor | None) -> Tensor | None:
            return None if whole is None else whole[number, whole.shape[1] - count :]

        return Sample(
            rows=rows,
            sequence=self.hidden[number, self.hidden.shape[1] - count :],
            before=last(self.previous),
            cached=None
            if self.cached is None
            else (self.cached[0][number, :, -count:], self.cached[1][number, :, -count:]),
            normed=last(self.normed),
            rotation=rotation,
            carry=self.carries[number],
            modules={name: whole[number, whole.shape[1] - count :] for name, whole in self.modules.items()},
            tower=None,
        )
