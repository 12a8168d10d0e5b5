"""Which rows of a sequence are what: bookkeeping of one sample between two edits, as pure functions."""

from dataclasses import dataclass

import torch
from torch import Tensor

from swiftvlm_eval.pruning.method import RowEdit


@dataclass(frozen=True)
class SampleRows:
    """The n live rows of one sample, in sequence order, padding excluded.

    Attributes:
        positions: float32, [n], position ids.
        text: int64, [n_t], which rows are text.
        visual: int64, [V], which rows are visual.
        index: int64, [V], original visual index of each visual row; -1 for a merged row.
        question: text rows after the last visual token.
    """

    positions: Tensor
    text: Tensor
    visual: Tensor
    index: Tensor
    question: int

    def __len__(self) -> int:
        """Number of live rows."""
        return len(self.positions)


def initial_rows(visual_mask: list[bool], positions: Tensor) -> SampleRows:
    """Rows of a prompt as it enters the decoder.

    Args:
        visual_mask: for each row of the prompt, whether it is a visual token.
        positions: [n], position ids.

    Raises:
        ValueError: the prompt ends with a visual token, so that no text token asks.
    """
    if visual_mask and visual_mask[-1]:
        raise ValueError("the prompt ends with an image: pruning needs a text token after it")
    visual = [row for row, is_visual in enumerate(visual_mask) if is_visual]
    text = [row for row, is_visual in enumerate(visual_mask) if not is_visual]
    device = positions.device
    return SampleRows(
        positions=positions.float(),
        text=torch.tensor(text, dtype=torch.int64, device=device),
        visual=torch.tensor(visual, dtype=torch.int64, device=device),
        index=torch.arange(len(visual), device=device),
        question=len(visual_mask) - 1 - visual[-1] if visual else len(text),
    )


def apply_edit(rows: SampleRows, states: Tensor, edit: RowEdit, renumber: bool) -> tuple[SampleRows, Tensor]:
    """Replaces the visual rows of a sample; text rows stay as they are.

    Args:
        rows: the sample before the edit.
        states: [n, hidden_size], its rows.
        edit: the visual rows from here on.
        renumber: number the new sequence 0..n'-1 instead of keeping position ids.

    Returns:
        The new bookkeeping and rows [n', hidden_size]. No step waits for the device.
    """
    num_text = len(rows.text)
    slots = torch.cat([rows.positions[rows.text], edit.positions.to(rows.positions)])
    order = slots.argsort(dim=0, stable=True)
    place = torch.empty_like(order)
    place[order] = torch.arange(len(order), device=order.device)
    visual, visual_order = place[num_text:].sort()
    edited = SampleRows(
        positions=torch.arange(len(order), device=order.device).float() if renumber else slots[order],
        text=place[:num_text],
        visual=visual,
        index=edit.index[visual_order],
        question=rows.question,
    )
    return edited, torch.cat([states[rows.text], edit.states.to(states.dtype)])[order]
