"""The signals that the engine binds for a method: attention of one decoder layer, and the vision tower's view."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from swiftvlm_eval.pruning.method import Scope, VisualLayout
from swiftvlm_eval.pruning.rows import SampleRows
from swiftvlm_eval.pruning.scores import attention_rows, rotate

if TYPE_CHECKING:
    from swiftvlm_eval.llava.adapter import LlavaAdapter


class BoundAttention:
    """Attention of text rows to visual rows in one layer, for one sample; only the needed rows are computed.

    Args:
        adapter: the model.
        layer: the scoring layer, 0-based.
        rows: the sample's rows, as they are at that layer's input.
        states: [n, hidden_size], that layer's input.
        cached_keys: [kv_heads, n, head_dim], rotated keys of a layer that has run; None projects them.
    """

    def __init__(
        self, adapter: "LlavaAdapter", layer: int, rows: SampleRows, states: Tensor | None, cached_keys: Tensor | None
    ) -> None:
        if states is None:
            raise RuntimeError(f"no layer has run before layer {layer + 1}; boundary 0 has no previous layer")
        self.adapter = adapter
        self.layer = layer
        self.rows = rows
        self.states = states
        self.cached_keys = cached_keys

    def __call__(
        self, queries: Tensor | None, candidates: Tensor | None, positions: Tensor | None, rope: bool, scope: Scope
    ) -> Tensor:
        """See `Signals.attention`."""
        asking = self.rows.text[-1:] if queries is None else self.rows.text[queries]
        query = self._rotated(self.adapter.queries(self.layer, self.states[asking]), self.rows.positions[asking], rope)
        if candidates is not None and positions is not None:
            return self._to_candidates(query, candidates, positions, rope, scope)
        looked_at = self.rows.visual if scope == "visual" else torch.arange(len(self.rows), device=query.device)
        if rope and self.cached_keys is not None:
            keys = self.cached_keys[:, looked_at]
        else:
            keys = self.adapter.keys(self.layer, self.states[looked_at])
            keys = self._rotated(keys, self.rows.positions[looked_at], rope)
        visible = None if queries is None else looked_at <= asking[:, None]
        rows = attention_rows(query, keys, visible)
        return rows if scope == "visual" else rows[..., self.rows.visual]

    def _to_candidates(self, query: Tensor, candidates: Tensor, positions: Tensor, rope: bool, scope: Scope) -> Tensor:
        """Last-token attention to rows that need not be live; with scope `all` beside the live text rows."""
        states = candidates
        if scope == "all":
            states = torch.cat([candidates, self.states[self.rows.text]])
            positions = torch.cat([positions, self.rows.positions[self.rows.text]])
        keys = self._rotated(self.adapter.keys(self.layer, states), positions, rope)
        return attention_rows(query, keys)[..., : len(candidates)]

    def _rotated(self, states: Tensor, positions: Tensor, rope: bool) -> Tensor:
        return rotate(states, *self.adapter.rotary(states, positions)) if rope else states


class TowerSignals:
    """The vision tower's view of one sample; see `VisionSignals`."""

    def __init__(self, adapter: "LlavaAdapter", layer: Any, layer_input: Tensor, features: Tensor) -> None:
        self.adapter = adapter
        self.layer = layer
        self.layer_input = layer_input
        self.features = features

    @cached_property
    def _normed(self) -> Tensor:
        normed: Tensor = self.layer.layer_norm1(self.layer_input)
        return normed

    @cached_property
    def keys(self) -> Tensor:
        """[T, heads, 1 + P, head_dim]."""
        attention = self.layer.self_attn
        keys: Tensor = attention.k_proj(self._normed)
        return keys.unflatten(-1, (attention.num_heads, attention.head_dim)).transpose(1, 2)

    @cached_property
    def cls_attention(self) -> Tensor:
        """[T, heads, P]; only the CLS row is computed, whatever the attention kernel."""
        attention = self.layer.self_attn
        query = attention.q_proj(self._normed[:, :1]).unflatten(-1, (attention.num_heads, attention.head_dim))
        rows = [attention_rows(q.transpose(0, 1), k)[:, 0, 1:] for q, k in zip(query, self.keys, strict=True)]
        return torch.stack(rows)

    def project(self, features: Tensor) -> Tensor:
        """[n, D] -> [n, hidden_size]."""
        return self.adapter.project(features)


class TowerCapture:
    """Keeps what the vision tower showed in the pass that fed the current prefill."""

    def __init__(self, adapter: "LlavaAdapter") -> None:
        self.adapter = adapter
        self.image_inputs: Mapping[str, Any] = {}
        self._seen: tuple[Tensor, Tensor] | None = None
        self._layouts: list[VisualLayout] | None = None

    def install(self) -> Any:
        """Watches the encoder layer that feeds the projector; returns the hook's handle."""

        def watch(module: Any, args: tuple[Any, ...], output: Any) -> None:
            self._seen = args[0], output[0] if isinstance(output, tuple) else output

        return self.adapter.feature_layer.register_forward_hook(watch)

    def forget(self) -> None:
        """Drops the captured tensors."""
        self._seen, self._layouts, self.image_inputs = None, None, {}

    def layout(self, counts: Sequence[int], number: int) -> VisualLayout:
        """The layout of one sample of a batch with those visual token counts."""
        if self._layouts is None:
            self._layouts = self.adapter.layouts(self.image_inputs, counts)
        return self._layouts[number]

    def signals(self, counts: Sequence[int], number: int) -> TowerSignals:
        """The tower's view of one sample."""
        if self._seen is None:
            raise RuntimeError("the vision tower has not run inside this prune() block")
        tiles = [self.layout(counts, sample).num_tiles for sample in range(len(counts))]
        copies = sum(tiles) // len(self._seen[0])  # beams repeat every sample after the tower has run
        start = sum(tiles[: number - number % copies : copies])
        part = slice(start, start + tiles[number])
        return TowerSignals(self.adapter, self.adapter.feature_layer, self._seen[0][part], self._seen[1][part])
