"""Attention of one decoder layer as methods ask for it; only the needed rows are computed."""

import torch
from torch import Tensor

from swiftvlm_eval.models.adapter import DecoderPart
from swiftvlm_eval.models.attention import attention_rows, rotate
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
    """

    def __init__(
        self, decoder: DecoderPart, layer: int, rows: SampleRows, states: Tensor | None, cached_keys: Tensor | None
    ) -> None:
        if states is None:
            raise RuntimeError(f"no layer has run before layer {layer + 1}; boundary 0 has no previous layer")
        self.decoder = decoder
        self.layer = layer
        self.rows = rows
        self.states = states
        self.cached_keys = cached_keys
        self.asked = 0

    def to_visual(self, asking: Tensor | None, rope: bool, scope: Scope) -> Tensor:
        """[heads, q, V]: attention of rows to the live visual rows.

        Args:
            asking: int64, [q], rows of the sequence; None is the last one, which sees everything.
            rope: rotate queries and keys.
            scope: keys under the softmax.
        """
        queries = self.rows.text[-1:] if asking is None else asking
        query = self._queries(queries, rope)
        looked_at: Tensor | slice = self.rows.visual if scope == "visual" else slice(None)
        if rope and self.cached_keys is not None:
            keys = self.cached_keys[:, looked_at]
        else:
            keys = self.decoder.keys(self.layer, self.states[looked_at])
            keys = self._rotated(keys, self.rows.position_ids[:, looked_at], rope)
        visible = None
        if asking is not None:
            visible = torch.arange(len(self.rows), device=query.device)[looked_at] <= asking[:, None]
        rows = attention_rows(query, keys, visible)
        return rows if scope == "visual" else rows[..., self.rows.visual]

    def to_candidates(self, candidates: Tensor, index: Tensor, rope: bool, scope: Scope) -> Tensor:
        """[heads, 1, C]: attention of the last row to rows that need not be live.

        Args:
            candidates: [C, hidden_size]; with scope `all` they stand beside the live text rows.
            index: int64, [C], their visual indices.
            rope: rotate queries and keys.
            scope: keys under the softmax.
        """
        query = self._queries(self.rows.text[-1:], rope)
        states, ids = candidates, self.rows.prompt.of_index(index)
        if scope == "all":
            states = torch.cat([candidates, self.states[self.rows.text]])
            ids = torch.cat([ids, self.rows.position_ids[:, self.rows.text]], dim=1)
        keys = self._rotated(self.decoder.keys(self.layer, states), ids, rope)
        return attention_rows(query, keys)[..., : len(candidates)]

    def rope_similarity(self, asking: Tensor) -> Tensor:
        """[q, V]: what rotary attention gives to queries and keys of ones; `asking` are rows of the sequence."""
        queries, looked_at = self.rows.position_ids[:, asking], self.rows.position_ids[:, self.rows.visual]
        head_dim = self.decoder.layers[self.layer].self_attn.head_dim
        ones = torch.ones((1, len(asking) + looked_at.shape[1], head_dim), device=asking.device)
        rotated = self._rotated(ones, torch.cat([queries, looked_at], dim=1), True)[0]
        return rotated[: len(asking)] @ rotated[len(asking) :].T * head_dim**-0.5

    def _queries(self, asking: Tensor, rope: bool) -> Tensor:
        self.asked += len(asking)
        query = self.decoder.queries(self.layer, self.states[asking])
        return self._rotated(query, self.rows.position_ids[:, asking], rope)

    def _rotated(self, states: Tensor, position_ids: Tensor, rope: bool) -> Tensor:
        """[heads, n, head_dim] at position ids [A, n]."""
        if not rope:
            return states
        cos, sin = self.decoder.rotary(states, position_ids[:, None])
        return rotate(states, cos[0], sin[0])
