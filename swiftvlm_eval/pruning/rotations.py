"""Rotary tables of a prefill: computed once for each set of positions, and shared by layers and scores."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from swiftvlm_eval.models.adapter import DecoderPart
from swiftvlm_eval.pruning.masks import left_padded
from swiftvlm_eval.pruning.rows import PromptTable, SampleRows

Table = tuple[Tensor, Tensor]
"""Cosine and sine."""


class Rotations:
    """The tables of one prefill.

    Args:
        decoder: computes them.
        like: gives device and dtype.
    """

    def __init__(self, decoder: DecoderPart, like: Tensor) -> None:
        self.decoder = decoder
        self.like = like.new_empty(0)
        self.held: Table | None = None  # of positions 0, 1, 2, ...

    def of_batch(self, rows: Sequence[SampleRows]) -> "BatchRotation":
        """The tables of a padded batch, computed when they are first asked for."""
        return BatchRotation(self, rows)

    def at(self, position_ids: Tensor) -> Table:
        """Tables of position ids [A, B, n], [B, n, head_dim] each."""
        return self.decoder.rotary(self.like, position_ids)

    def counted(self, count: int, device: torch.device) -> Table:
        """Tables of positions 0..count-1 on one axis, [count, head_dim] each."""
        if self.held is None or len(self.held[0]) < count:
            cos, sin = self.at(torch.arange(count, device=device, dtype=torch.float32)[None, None])
            self.held = cos[0], sin[0]
        return self.held[0][:count], self.held[1][:count]


@dataclass(frozen=True)
class BatchRotation:
    """The tables of one set of sequences.

    Attributes:
        source: of the whole prefill.
        rows: the sequences; the batch is padded on the left.
    """

    source: Rotations
    rows: Sequence[SampleRows]

    @cached_property
    def tables(self) -> Table:
        """[B, width, head_dim] each; [1, width, head_dim] where all sequences are numbered alike."""
        lengths, starts = [len(sample) for sample in self.rows], [sample.start for sample in self.rows]
        known = [start for start in starts if start is not None and start >= 0]
        if len(known) < len(starts) or self.source.decoder.rotary_depends_on_length:
            return self._gathered()
        device = self.rows[0].places.device
        cos, sin = self.source.counted(max(map(sum, zip(lengths, known, strict=True))), device)
        if len(set(zip(lengths, known, strict=True))) == 1:
            part = slice(known[0], known[0] + lengths[0])
            return cos[None, part], sin[None, part]
        spans = [slice(start, start + length) for start, length in zip(known, lengths, strict=True)]
        return left_padded([[cos[span]] for span in spans]), left_padded([[sin[span]] for span in spans])

    def _gathered(self) -> Table:
        """Of any position ids: taken from those of 0, 1, 2, ..., where these are known to hold them."""
        ids = left_padded([[sample.position_ids.T] for sample in self.rows])
        held = self.source.held
        bounds = [sample.id_bound for sample in self.rows]
        known = [bound for bound in bounds if bound is not None]
        if held is None or len(known) < len(bounds) or max(known) > len(held[0]):
            return self.source.at(ids.permute(2, 0, 1))
        numbers = ids[..., 0].long()
        return held[0][numbers], held[1][numbers]

    def of_sample(self, number: int) -> Table:
        """Tables of one sequence, [n, head_dim] each."""
        cos, sin = self.tables
        row, first = (number if len(cos) > 1 else 0), cos.shape[1] - len(self.rows[number])
        return cos[row, first:], sin[row, first:]


class RowRotation:
    """The tables of one sample, for scores.

    Attributes:
        source: of the whole prefill.
        live: of the live rows, [n, head_dim] each.
        of_prompt: of the prompt as it entered the decoder, likewise.
    """

    source: Rotations
    live: Table
    of_prompt: Table

    def of_index(self, prompt: PromptTable, index: Tensor | None) -> Table:
        """Of visual tokens of a prompt, given by their indices [k], None for all; [k, head_dim] each."""
        if index is None and not prompt.part:
            cos, sin = self.of_prompt
            return prompt.arrangement.visual_of(cos), prompt.arrangement.visual_of(sin)
        if index is None:
            index = prompt.numbers[: prompt.arrangement.num_visual]
        if prompt.part:
            cos, sin = self.source.at(prompt.of_index(index)[:, None])
            return cos[0], sin[0]
        rows = prompt.rows_of(index)
        cos, sin = self.of_prompt
        return cos[rows], sin[rows]


@dataclass(frozen=True)
class SampleRotation(RowRotation):
    """Read from a batch when they are asked for.

    Attributes:
        batch: as it is now.
        prompts: that batch as it entered the decoder.
        number: of the sample.
    """

    batch: BatchRotation
    prompts: BatchRotation
    number: int

    @property
    def source(self) -> Rotations:  # type: ignore[override]
        """See `RowRotation`."""
        return self.batch.source

    @property
    def live(self) -> Table:  # type: ignore[override]
        """See `RowRotation`."""
        return self.batch.of_sample(self.number)

    @property
    def of_prompt(self) -> Table:  # type: ignore[override]
        """See `RowRotation`."""
        return self.prompts.of_sample(self.number)

    @property
    def held(self) -> "HeldRotation":
        """The tables themselves."""
        return HeldRotation(self.source, self.live, self.of_prompt)


@dataclass(frozen=True)
class HeldRotation(RowRotation):
    """Known already; see `RowRotation`."""

    source: Rotations
    live: Table
    of_prompt: Table
