"""Which rows of a sequence are what: bookkeeping of one sample between two edits, as pure functions.

A row has three coordinates that are never mixed: its visual *index* (0..N-1; -1 for a merged row), its *place* in the
sequence (one number, for order), and its *position ids* as the rotary embedding sees them (A numbers: 1 for Llama and
its like, 3 for multimodal rotary embeddings).
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from swiftvlm_eval.pruning.contract import RowEdit


@dataclass(frozen=True)
class PromptTable:
    """What was true of a prompt before any edit; rows that return are looked up here.

    Attributes:
        position_ids: float32, [A, n], of every row of the prompt.
        visual: int64, [N], which rows are the visual tokens.
        origin: int64, [N], their indices in the prompt as it entered the decoder, -1 for rows that stood for several;
            None where this is that prompt.
        part: which of several methods sees this prompt.
    """

    position_ids: Tensor
    visual: Tensor
    origin: Tensor | None = None
    part: int = 0

    def of_index(self, index: Tensor) -> Tensor:
        """[A, k] position ids of visual tokens, given by their indices [k]."""
        return self.position_ids[:, self.visual[index]]

    def at_place(self, places: Tensor) -> Tensor:
        """[A, k] position ids at places [k] of the prompt, in between by linear interpolation."""
        last = self.position_ids.shape[1] - 1
        before = places.floor().long().clamp(0, last)
        low, high = self.position_ids[:, before], self.position_ids[:, (before + 1).clamp(max=last)]
        return low + (high - low) * (places - before)


@dataclass(frozen=True)
class SampleRows:
    """The n live rows of one sample, in sequence order, padding excluded.

    Attributes:
        prompt: the prompt as it entered the decoder.
        places: float32, [n], ascending; a prompt's rows stand at 0..n-1.
        position_ids: float32, [A, n].
        text: int64, [n_t], which rows are text.
        visual: int64, [V], which rows are visual.
        index: int64, [V], original visual index of each visual row; -1 for a merged row.
        num_question: text rows after the last visual token.
    """

    prompt: PromptTable
    places: Tensor
    position_ids: Tensor
    text: Tensor
    visual: Tensor
    index: Tensor
    num_question: int

    def __len__(self) -> int:
        """Number of live rows."""
        return len(self.places)

    @property
    def original_index(self) -> Tensor:
        """int64, [V], `index` in the prompt as it entered the decoder."""
        origin = self.prompt.origin
        return self.index if origin is None else torch.where(self.index < 0, -1, origin[self.index.clamp(min=0)])

    def as_prompt(self, part: int) -> "SampleRows":
        """The live rows as a prompt of their own, for the next of several methods: places and indices from 0.

        Position ids stay as they are, and are what the next method's rows keep.
        """
        if part == self.prompt.part:
            return self
        return replace(
            self,
            prompt=PromptTable(self.position_ids, self.visual, self.original_index, part),
            places=torch.arange(len(self), device=self.places.device).float(),
            index=torch.arange(len(self.visual), device=self.index.device),
        )


def initial_rows(visual_mask: list[bool], position_ids: Tensor) -> SampleRows:
    """Rows of a prompt as it enters the decoder.

    Args:
        visual_mask: for each row of the prompt, whether it is a visual token.
        position_ids: [A, n].

    Raises:
        ValueError: the prompt ends with a visual token, so that no text token asks.
    """
    if visual_mask and visual_mask[-1]:
        raise ValueError("the prompt ends with an image: pruning needs a text token after it")
    visual = [row for row, is_visual in enumerate(visual_mask) if is_visual]
    text = [row for row, is_visual in enumerate(visual_mask) if not is_visual]
    device = position_ids.device
    visual_rows = torch.tensor(visual, dtype=torch.int64, device=device)
    return SampleRows(
        prompt=PromptTable(position_ids.float(), visual_rows),
        places=torch.arange(len(visual_mask), device=device).float(),
        position_ids=position_ids.float(),
        text=torch.tensor(text, dtype=torch.int64, device=device),
        visual=visual_rows,
        index=torch.arange(len(visual), device=device),
        num_question=len(visual_mask) - 1 - visual[-1] if visual else len(text),
    )


def apply_edit(rows: SampleRows, states: Tensor, edit: RowEdit, renumber: bool) -> tuple[SampleRows, Tensor]:
    """Replaces the visual rows of a sample; text rows stay as they are.

    Args:
        rows: the sample before the edit.
        states: [n, hidden_size], its rows.
        edit: the visual rows from here on.
        renumber: number the new sequence anew instead of keeping position ids.

    Returns:
        The new bookkeeping and rows [n', hidden_size]. No step waits for the device.
    """
    num_text = len(rows.text)
    places = torch.cat([rows.places[rows.text], edit.places.to(rows.places)])
    order = places.argsort(dim=0, stable=True)
    new_row = torch.empty_like(order)
    new_row[order] = torch.arange(len(order), device=order.device)
    visual, visual_order = new_row[num_text:].sort()
    ids = torch.cat([rows.position_ids[:, rows.text], _visual_ids(rows.prompt, edit)], dim=1)[:, order]
    edited = SampleRows(
        prompt=rows.prompt,
        places=torch.arange(len(order), device=order.device).float() if renumber else places[order],
        position_ids=_renumbered(ids) if renumber else ids,
        text=new_row[:num_text],
        visual=visual,
        index=edit.index[visual_order],
        num_question=rows.num_question,
    )
    return edited, torch.cat([states[rows.text], edit.states.to(states.dtype)])[order]


def _visual_ids(prompt: PromptTable, edit: RowEdit) -> Tensor:
    """Position ids of an edit's rows: those of their token in the prompt; for a merged row those of its place."""
    own = prompt.of_index(edit.index.clamp(min=0))
    return torch.where(edit.index < 0, prompt.at_place(edit.places.to(own)), own)


def _renumbered(ids: Tensor) -> Tensor:
    """0..n-1 on one axis; on several, every axis packed to consecutive values, order kept (SparseVILA's rule)."""
    if len(ids) == 1:
        return torch.arange(ids.shape[1], device=ids.device)[None].float()
    return torch.stack([torch.unique(axis, return_inverse=True)[1].float() for axis in ids])
