"""Which rows of a sequence are what: bookkeeping of one sample between two edits, as pure functions.

A row has three coordinates that are never mixed: its visual *index* (0..N-1; -1 for a merged row), its *place* in the
sequence (one number, for order), and its *position ids* as the rotary embedding sees them (A numbers: 1 for Llama and
its like, 3 for multimodal rotary embeddings).

Where the host knows a prompt's position ids to be consecutive, a row's is its place and a constant, and is not stored.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from swiftvlm_eval.pruning.arrangement import Arrangement, OneRun, Run, Scattered, arrangement_of
from swiftvlm_eval.pruning.contract import RowEdit


@dataclass(frozen=True)
class PromptTable:
    """What was true of a prompt before any edit; rows that return are looked up here.

    Attributes:
        position_ids: float32, [A, n], of every row of the prompt.
        arrangement: which rows are the visual tokens.
        origin: int64, [N], their indices in the prompt as it entered the decoder, -1 for rows that stood for several;
            None where this is that prompt.
        part: which of several methods sees this prompt.
        start: the first row's position id, if it is known on the host that all are consecutive, on one axis.
        places: float32, [m], 0, 1, 2, ... for m >= n rows.
        numbers: int64, likewise.
    """

    position_ids: Tensor
    arrangement: Arrangement
    places: Tensor
    numbers: Tensor
    origin: Tensor | None = None
    part: int = 0
    start: int | None = None

    def counted_places(self, count: int) -> Tensor:
        """float32, [count], 0, 1, 2, ..."""
        known = self.places[:count]
        return known if len(known) == count else torch.arange(count, device=known.device).float()

    @cached_property
    def end_mask(self) -> Tensor:
        """bool, [n_t, n], of the last n_t rows of the prompt: which rows stand behind each.

        Its end is that of a shorter sequence with the same end as well.
        """
        total, count = self.position_ids.shape[1], self.arrangement.num_text
        return self.numbers[:total] > self.numbers[total - count : total, None]

    @property
    def visual(self) -> Tensor:
        """int64, [N], which rows are the visual tokens."""
        return self.arrangement.visual

    def rows_of(self, index: Tensor) -> Tensor:
        """int64, [k], rows of visual tokens, given by their indices."""
        if isinstance(self.arrangement, Run):
            return index + self.arrangement.first
        return self.visual[index]

    def of_index(self, index: Tensor) -> Tensor:
        """[A, k] position ids of visual tokens, given by their indices [k]."""
        return self.position_ids[:, self.rows_of(index)]

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
        arrangement: which rows are text and which visual.
        index: int64, [V], original visual index of each visual row; -1 for a merged row.
        num_question: text rows after the last visual token.
        ids: float32, [A, n], position ids; None where they are the places and the prompt's `start`.
        start: the first position id, if the host knows that all are consecutive, on one axis.
        whole: the host knows that no place is a fraction.
        absent: bool, [n], which of the rows are padding; None where none is.
    """

    prompt: PromptTable
    places: Tensor
    arrangement: Arrangement
    index: Tensor
    num_question: int
    ids: Tensor | None = None
    start: int | None = None
    whole: bool = True
    absent: Tensor | None = None

    def __len__(self) -> int:
        """Number of live rows."""
        return len(self.places)

    @property
    def text(self) -> Tensor:
        """int64, [n_t], which rows are text."""
        return self.arrangement.text

    @property
    def visual(self) -> Tensor:
        """int64, [V], which rows are visual."""
        return self.arrangement.visual

    @cached_property
    def position_ids(self) -> Tensor:
        """float32, [A, n]."""
        if self.ids is not None:
            return self.ids
        start = self.prompt.start
        return (self.places + start if start else self.places)[None]

    @property
    def next_id(self) -> Tensor | None:
        """float32, [1], the position id that follows, if the host knows it."""
        if self.start is None or self.start < 0:
            return None
        end = self.start + len(self)
        return self.prompt.counted_places(end + 1)[end:]

    @property
    def id_bound(self) -> int | None:
        """Position ids are whole numbers from 0 to below this one, on one axis; None where the host does not know."""
        start = self.prompt.start
        known = start is not None and start >= 0 and self.ids is None and self.whole
        return start + self.prompt.position_ids.shape[1] if known and start is not None else None

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
            prompt=replace(
                self.prompt,
                position_ids=self.position_ids,
                arrangement=self.arrangement,
                origin=self.original_index,
                part=part,
                start=self.start,
            ),
            places=self.prompt.counted_places(len(self)),
            index=self.prompt.numbers[: len(self.index)],
            ids=self.position_ids,
        )


def counted(count: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """0, 1, 2, ..., [count], as int64 and as float32."""
    numbers = torch.arange(count, device=device)
    return numbers, numbers.float()


def initial_rows(
    visual_mask: Sequence[bool],
    position_ids: Tensor,
    start: int | None = None,
    numbers: tuple[Tensor, Tensor] | None = None,
) -> SampleRows:
    """Rows of a prompt as it enters the decoder.

    Args:
        visual_mask: for each row of the prompt, whether it is a visual token.
        position_ids: [A, n].
        start: the first of them, if they are known to be consecutive, on one axis.
        numbers: 0, 1, 2, ... for as many rows or more, int64 and float32; None makes them.

    Raises:
        ValueError: the prompt ends with a visual token, so that no text token asks.
    """
    if visual_mask and visual_mask[-1]:
        raise ValueError("the prompt ends with an image: pruning needs a text token after it")
    total, count = len(visual_mask), sum(visual_mask)
    if numbers is None:
        numbers = counted(total, position_ids.device)
    whole, places = numbers
    arrangement = arrangement_of(visual_mask, whole)
    ids = position_ids.float()
    return SampleRows(
        prompt=PromptTable(ids, arrangement, places, whole, start=start),
        places=places[:total],
        arrangement=arrangement,
        index=whole[:count],
        num_question=list(reversed(visual_mask)).index(True) if count else total,
        ids=None if start is not None else ids,
        start=start,
    )


def apply_edits(
    rows: Sequence[SampleRows], states: Sequence[Tensor], edits: Sequence[RowEdit], renumber: Sequence[bool]
) -> tuple[list[SampleRows], list[Sequence[Tensor]]]:
    """Replaces the visual rows of samples; text rows stay as they are.

    Args:
        rows: the samples before the edits.
        states: [n, hidden_size], their rows.
        edits: the visual rows from here on.
        renumber: number the new sequence anew instead of keeping position ids.

    Returns:
        The new bookkeeping, and the pieces of which every sample's rows [n', hidden_size] consist. No step waits for
        the device.
    """
    found: list[SampleRows] = []
    pieces: list[Sequence[Tensor]] = []
    places: dict[int, Sequence[Tensor]] = {}
    for number, (sample, own, edit, anew) in enumerate(zip(rows, states, edits, renumber, strict=True)):
        if edit.order == "any" or not isinstance(run := sample.arrangement, OneRun):
            edited, moved = _sorted_anew(sample, own, edit, anew)
            parts: Sequence[Tensor] = [moved]
        else:
            edit = in_order(edit)
            edited, parts = _in_place(sample, run, edit, anew), run.with_other(own, edit.states.to(own.dtype))
            if not anew:
                places[number] = run.with_other(sample.places, edit.places.to(sample.places))
        found.append(edited)
        pieces.append(parts)
    lengths = [sum(map(len, parts)) for parts in places.values()]
    joined = torch.cat([part for parts in places.values() for part in parts]).split(lengths) if places else ()
    for number, whole in zip(places, joined, strict=True):
        found[number] = replace(found[number], places=whole)
    return found, pieces


def _in_place(rows: SampleRows, run: OneRun, edit: RowEdit, renumber: bool) -> SampleRows:
    """The bookkeeping after an edit in order; without its places, unless they are numbered anew."""
    now, ids, start = run.with_visual(len(edit.index)), None, None
    places = rows.prompt.counted_places(now.num_text + now.num_visual) if renumber else rows.places
    if renumber and len(rows.prompt.position_ids) == 1:
        ids, start = places[None], 0
    elif rows.ids is not None:
        own = _visual_ids(rows.prompt, edit.index, edit.places.to(rows.places))
        ids = torch.cat(run.with_other(rows.ids, own, dim=1), dim=1)
        ids = _renumbered(ids) if renumber else ids
    edited = replace(rows, places=places, arrangement=now, index=edit.index, ids=ids, start=start)
    return replace(edited, whole=renumber or (rows.whole and edit.whole))


def in_order(edit: RowEdit) -> RowEdit:
    """An edit whose rows lie among the visual rows of a prompt, sorted by their places; another one as it is."""
    if edit.order != "among":
        return edit
    places, by_place = edit.places.sort(stable=True)
    ordered = replace(edit, states=edit.states[by_place], index=edit.index[by_place], places=places)
    return ordered.sure("ascending", edit.whole)


def _sorted_anew(rows: SampleRows, states: Tensor, edit: RowEdit, renumber: bool) -> tuple[SampleRows, Tensor]:
    """`apply_edits` for one sample, whose rows may stand anywhere."""
    parts, num_text = rows.arrangement, rows.arrangement.num_text
    places = torch.cat([parts.text_of(rows.places), edit.places.to(rows.places)])
    order = places.argsort(dim=0, stable=True)
    numbers = torch.arange(len(order), device=order.device)
    new_row = torch.empty_like(order)
    new_row[order] = numbers
    visual, visual_order = new_row[num_text:].sort()
    own = _visual_ids(rows.prompt, edit.index, edit.places)
    ids = torch.cat([parts.text_of(rows.position_ids, dim=1), own], dim=1)[:, order]
    edited = replace(
        rows,
        places=numbers.float() if renumber else places[order],
        ids=_renumbered(ids) if renumber else ids,
        arrangement=Scattered(new_row[:num_text], visual),
        index=edit.index[visual_order],
        start=0 if renumber and len(ids) == 1 else None,
        whole=renumber,
    )
    return edited, torch.cat([parts.text_of(states), edit.states.to(states.dtype)])[order]


def _visual_ids(prompt: PromptTable, index: Tensor, places: Tensor) -> Tensor:
    """Position ids of visual rows: those of their token in the prompt; for a merged row those of its place."""
    own = prompt.of_index(index.clamp(min=0))
    return torch.where(index < 0, prompt.at_place(places.to(own)), own)


def _renumbered(ids: Tensor) -> Tensor:
    """0..n-1 on one axis; on several, every axis packed to consecutive values, order kept (SparseVILA's rule)."""
    if len(ids) == 1:
        return torch.arange(ids.shape[1], device=ids.device)[None].float()
    return torch.stack([torch.unique(axis, return_inverse=True)[1].float() for axis in ids])
