"""Attention of one decoder layer as methods ask for it; only the needed rows are computed."""

from collections.abc import Sequence

import torch
from torch import Tensor

from swiftvlm_eval.models.adapter import DecoderPart
from swiftvlm_eval.models.attention import attention_rows, rotate
from swiftvlm_eval.pruning.arrangement import OneRun
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
        cached_keys: [kv_heads, n, head_dim], rotated keys of a layer that has run; None projects them.
        rotation: tables of the sample's rows.
    """

    def __init__(
        self,
        decoder: DecoderPart,
        layer: int,
        rows: SampleRows,
        states: Tensor | None,
        cached_keys: Tensor | None,
        rotation: RowRotation,
    ) -> None:
        if states is None:
            raise RuntimeError(f"no layer has run before layer {layer + 1}; boundary 0 has no previous layer")
        self.decoder = decoder
        self.layer = layer
        self.rows = rows
        self.states = states
        self.cached_keys = cached_keys
        self.rotation = rotation
        self.asked = 0

    def to_visual(self, asking: Tensor | int, rope: bool, scope: Scope) -> Tensor:
        """[heads, q, V]: attention of rows to the live visual rows.

        Args:
            asking: int64, [q], rows of the sequence; a number is that many rows at its end.
            rope: rotate queries and keys.
            scope: keys under the softmax.
        """
        visual_alone, cached = scope == "visual", rope and self.cached_keys is not None
        if cached or visual_alone:
            query = self._queries(asking, rope, self.states)
        else:
            states = self.decoder.normed(self.layer, self.states)
            query = self._queries(asking, rope, states, normed=True)
        part = self.rows.arrangement.visual_of
        if cached and self.cached_keys is not None:
            keys = part(self.cached_keys, 1) if visual_alone else self.cached_keys
        elif visual_alone:
            keys = self._keys(part(self.states), [part(table) for table in self.rotation.live] if rope else None)
        else:
            keys = self._keys(states, self.rotation.live if rope else None, normed=True)
        rows = attention_rows(query, keys, self._visible(asking, visual_alone))
        return rows if visual_alone else part(rows, 2)

    def to_candidates(self, candidates: Tensor, index: Tensor, rope: bool, scope: Scope) -> Tensor:
        """[heads, 1, C]: attention of the last row to rows that need not be live.

        Args:
            candidates: [C, hidden_size]; with scope `all` they stand beside the live text rows.
            index: int64, [C], their visual indices.
            rope: rotate queries and keys.
            scope: keys under the softmax.
        """
        query, states = self._queries(self._last, rope, self.states), candidates
        table = self.rotation.of_index(self.rows.prompt, index) if rope else None
        if scope == "all":
            text = self.rows.arrangement.text_of
            states = torch.cat([candidates, text(self.states)])
            if table is not None:
                cos, sin = (torch.cat([own, text(live)]) for own, live in zip(table, self.rotation.live, strict=True))
                table = cos, sin
        return attention_rows(query, self._keys(states, table))[..., : len(candidates)]

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
        return 1 if isinstance(self.rows.arrangement, OneRun) else self.rows.text[-1:]

    def _visible(self, asking: Tensor | int, visual_alone: bool) -> Tensor | None:
        """bool, [q, keys]; None where every row sees every key."""
        parts = self.rows.arrangement
        if isinstance(asking, int) and (asking == 1 or (visual_alone and isinstance(parts, OneRun))):
            return None  # those who ask stand behind all visual rows
        number = torch.arange(len(self.rows), device=self.states.device)
        keys = parts.visual_of(number) if visual_alone else number
        return keys <= _chosen(number, asking)[:, None]

    def _queries(self, asking: Tensor | int, rope: bool, states: Tensor, normed: bool = False) -> Tensor:
        """[heads, q, head_dim]."""
        self.asked += asking if isinstance(asking, int) else len(asking)
        query = self.decoder.queries(self.layer, _chosen(states, asking), normed)
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
