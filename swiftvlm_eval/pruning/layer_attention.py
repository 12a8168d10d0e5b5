"""Attention of one decoder layer as methods ask for it; only the needed rows are computed."""

from collections.abc import Sequence

import torch
from torch import Tensor

from swiftvlm_eval.models.adapter import DecoderPart
from swiftvlm_eval.models.attention import attention_rows, rotate
from swiftvlm_eval.pruning.arrangement import OneRun, Run
from swiftvlm_eval.pruning.rotations import RowRotation
from swiftvlm_eval.pruning.rows import SampleRows
from swiftvlm_eval.pruning.words import Scope


class LayerAttention:
    """Attention to visual rows in one layer, for one sample.

    Args:
        decoder: the decoder.
        layer: the scoring layer, 0-based.
        rows: the sample's rows, as they are at that layer's input.
        states: [n, hidden_size], that layer's input.
        rotation: tables of the sample's rows.
    """

    def __init__(
        self,
        decoder: DecoderPart,
        layer: int,
        rows: SampleRows,
        states: Tensor | None,
        rotation: RowRotation,
    ) -> None:
        if states is None:
            raise RuntimeError(f"no layer has run before layer {layer + 1}; boundary 0 has no previous layer")
        self.decoder = decoder
        self.layer = layer
        self.rows = rows
        self.states = states
        self.rotation = rotation
        self._cached: Tensor | None = None
        self._normed: Tensor | None = None

    def ran(self, keys: Tensor, normed: Tensor) -> None:
        """Notes what a layer that has run holds already: rotated keys, [kv_heads, n, head_dim], and normed states."""
        self._cached, self._normed = keys, normed

    def to_visual(self, asking: Tensor | int, rope: bool, scope: Scope) -> Tensor:
        """[heads, q, V]: attention of rows to the live visual rows.

        Args:
            asking: int64, [q], rows of the sequence; a number is that many rows at its end.
            rope: rotate queries and keys.
            scope: keys under the softmax.
        """
        visual_alone, part = scope == "visual", self.rows.arrangement.visual_of
        cached = self._cached if rope else None
        normed = self._normed
        if normed is None and cached is None and not visual_alone:
            normed = self.decoder.normed(self.layer, self.states)
        query = self._queries(asking, rope, normed)
        if cached is not None:
            keys = part(cached, 1) if visual_alone else cached
        else:
            states = self.states if normed is None else normed
            table = self.rotation.live if rope else None
            if visual_alone:
                states, table = part(states), None if table is None else (part(table[0]), part(table[1]))
            keys = self._keys(states, table, normed is not None)
        rows = attention_rows(query, keys, self._hidden(asking, visual_alone))
        return rows if visual_alone else part(rows, 2)

    def to_candidates(self, candidates: Tensor, index: Tensor | None, rope: bool, scope: Scope) -> Tensor:
        """[heads, 1, C]: attention of the last row to rows that need not be live.

        Args:
            candidates: [C, hidden_size]; with scope `all` they stand beside the live text rows.
            index: int64, [C], their visual indices; None for all of the prompt in order.
            rope: rotate queries and keys.
            scope: keys under the softmax.
        """
        parts, last, states = self.rows.arrangement, self._last, candidates
        table = self.rotation.of_index(self.rows.prompt, index) if rope else None
        if scope == "all":
            states = torch.cat([candidates, parts.text_of(self.states)])
            if table is not None:
                live = self.rotation.live
                table = torch.cat([table[0], parts.text_of(live[0])]), torch.cat([table[1], parts.text_of(live[1])])
        else:
            states = torch.cat([candidates, _chosen(self.states, last)])
        normed = self.decoder.normed(self.layer, states)  # the last row is the one that asks
        query = self._queries(last, rope, normed, at=1)
        keys = self._keys(normed if scope == "all" else normed[: len(candidates)], table, normed=True)
        return attention_rows(query, keys)[..., : len(candidates)]

    def rope_similarity(self, asking: Tensor | int) -> Tensor:
        """[q, V]: what rotary attention gives to queries and keys of ones; `asking` as in `to_visual`."""
        head_dim = self.decoder.layers[self.layer].self_attn.head_dim
        if self.states.dtype == torch.float32:
            cos, sin = self.rotation.live
        else:
            like = torch.empty(0, device=self.states.device)
            cos, sin = (table[0] for table in self.decoder.rotary(like, self.rows.position_ids[:, None]))
        rotated = rotate(torch.ones_like(cos), cos, sin)
        return _chosen(rotated, asking) @ self.rows.arrangement.visual_of(rotated).T * head_dim**-0.5

    @property
    def _last(self) -> Tensor | int:
        return 1 if isinstance(self.rows.arrangement, Run) else self.rows.text[-1:]

    def _hidden(self, asking: Tensor | int, visual_alone: bool) -> Tensor | None:
        """bool, [q, keys], True where a row does not see a key; None where every row sees every key."""
        parts, absent = self.rows.arrangement, self.rows.absent
        if absent is not None and isinstance(asking, int):  # it is the last row, behind all others
            return None if visual_alone else absent[None]
        prompt, count = self.rows.prompt, len(self.rows)
        if isinstance(asking, int) and isinstance(parts, OneRun) and count <= prompt.position_ids.shape[1]:
            if asking == 1 or visual_alone:
                return None  # those who ask stand behind all visual rows
            return prompt.end_mask[-asking:, -count:]
        number = torch.arange(count, device=self.states.device)
        later = (parts.visual_of(number) if visual_alone else number) > _chosen(number, asking)[:, None]
        return later if absent is None or visual_alone else later | absent

    def _queries(self, asking: Tensor | int, rope: bool, normed: Tensor | None, at: int | None = None) -> Tensor:
        """[heads, q, head_dim] of rows that ask; in `normed`, if that is another sequence, they are the last `at`."""
        states = _chosen(self.states if normed is None else normed, asking if at is None else at)
        query = self.decoder.queries(self.layer, states, normed is not None)
        if not rope:
            return query
        cos, sin = self.rotation.live
        return rotate(query, _chosen(cos, asking), _chosen(sin, asking))

    def _keys(self, states: Tensor, table: Sequence[Tensor] | None, normed: bool = False) -> Tensor:
        """[kv_heads, n, head_dim]."""
        keys = self.decoder.keys(self.layer, states, normed)
        return keys if table is None else rotate(keys, *table)


def _chosen(rows: Tensor, asking: Tensor | int) -> Tensor:
    return rows[len(rows) - asking :] if isinstance(asking, int) else rows[asking]
