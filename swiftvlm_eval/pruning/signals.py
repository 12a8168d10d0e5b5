"""The signals that the engine binds for a method: attention of one decoder layer, and the vision tower's view."""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from swiftvlm_eval.pruning.method import Scope, VisualLayout
from swiftvlm_eval.pruning.rows import SampleRows
from swiftvlm_eval.pruning.scores import attention_rows, rotate

if TYPE_CHECKING:
    from swiftvlm_eval.models.adapter import LlavaAdapter


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
        self.asked = 0

    def __call__(
        self, queries: Tensor | None, candidates: Tensor | None, positions: Tensor | None, rope: bool, scope: Scope
    ) -> Tensor:
        """See `Signals.attention`."""
        asking = self.rows.text[-1:] if queries is None else self.rows.text[queries]
        self.asked += len(asking)
        query = self._rotated(self.adapter.queries(self.layer, self.states[asking]), self.rows.positions[asking], rope)
        if candidates is not None and positions is not None:
            return self._to_candidates(query, candidates, positions, rope, scope)
        looked_at: Tensor | slice = self.rows.visual if scope == "visual" else slice(None)
        if rope and self.cached_keys is not None:
            keys = self.cached_keys[:, looked_at]
        else:
            keys = self.adapter.keys(self.layer, self.states[looked_at])
            keys = self._rotated(keys, self.rows.positions[looked_at], rope)
        visible = None
        if queries is not None:
            visible = torch.arange(len(self.rows), device=query.device)[looked_at] <= asking[:, None]
        rows = attention_rows(query, keys, visible)
        return rows if scope == "visual" else rows[..., self.rows.visual]

    def rope_similarity(self, queries: Tensor) -> Tensor:
        """See `Signals.rope_similarity`."""
        asking = self.rows.positions[self.rows.text[queries]]
        looked_at = self.rows.positions[self.rows.visual]
        head_dim = self.adapter.layers[self.layer].self_attn.head_dim
        ones = torch.ones((1, len(asking) + len(looked_at), head_dim), device=asking.device)
        rotated = self._rotated(ones, torch.cat([asking, looked_at]), True)[0]
        return rotated[: len(asking)] @ rotated[len(asking) :].T * head_dim**-0.5

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

    def __init__(
        self,
        adapter: "LlavaAdapter",
        layer_input: Tensor,
        features: Tensor,
        layout: VisualLayout,
        image_sizes: Tensor | None,
    ) -> None:
        self.adapter = adapter
        self.layer: Any = adapter.feature_layer
        self.layer_input = layer_input
        self.features = features
        self.layout = layout
        self.image_sizes = image_sizes

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

    def pack(self, tiles: Tensor) -> list[Tensor]:
        """[T, g * g, hidden_size] -> rows per image."""
        images = tiles.split(list(self.layout.tiles_per_image))
        sizes = [None] * len(images) if self.image_sizes is None else self.image_sizes.tolist()
        return [
            self.adapter.pack(image, tiling, size)
            for image, tiling, size in zip(images, self.layout.tilings, sizes, strict=True)
        ]


class TowerCapture:
    """Keeps what the vision tower showed in the pass that fed the current prefill."""

    def __init__(self, adapter: "LlavaAdapter") -> None:
        self.adapter = adapter
        self.image_inputs: Mapping[str, Any] = {}
        self._seen: tuple[Tensor, Tensor] | None = None
        self._layouts: list[VisualLayout] | None = None

    def install(self, resize: Callable[[Tensor], Tensor] | None = None) -> list[Any]:
        """Watches the encoder layer that feeds the projector; returns the hooks' handles.

        Args:
            resize: changes the encoder's input. What comes out of a smaller input is stretched to the usual grid, so
                that the model finds as many features as placeholders; `signals` show it as it was.
        """

        def watch(module: Any, args: tuple[Any, ...], output: Any) -> None:
            self._seen = args[0], output[0] if isinstance(output, tuple) else output

        def shrink(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], Any]:
            pixels = kwargs.pop("pixel_values", None)
            pixels, rest = (args[0], args[1:]) if pixels is None else (pixels, args)
            resized = resize(pixels) if resize else pixels
            if resized.shape != pixels.shape:
                kwargs["interpolate_pos_encoding"] = True
            return (resized, *rest), kwargs

        def stretch(module: Any, args: Any, output: Any) -> Any:
            side = self.adapter.patches_per_side
            if output.hidden_states is not None:
                output.hidden_states = tuple(
                    states if states is None else _stretched(states, side) for states in output.hidden_states
                )
            return output

        handles = [self.adapter.feature_layer.register_forward_hook(watch)]
        if resize is not None:
            tower = self.adapter.vision_tower
            handles.append(tower.register_forward_pre_hook(shrink, with_kwargs=True))
            handles.append(tower.register_forward_hook(stretch))
        return handles

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
        images = [len(self.layout(counts, sample).tilings) for sample in range(len(counts))]
        first = sum(images[: number - number % copies : copies])
        sizes = self.image_inputs.get("image_sizes")
        own = None if sizes is None else torch.as_tensor(sizes)[first : first + images[number]]
        return TowerSignals(self.adapter, self._seen[0][part], self._seen[1][part], self.layout(counts, number), own)


def _stretched(states: Tensor, side: int) -> Tensor:
    """[T, 1 + g * g, D] -> [T, 1 + side * side, D], every patch taken from the nearest one."""
    grid = math.isqrt(states.shape[1] - 1)
    if grid == side:
        return states
    nearest = torch.arange(side) * grid // side
    index = (nearest[:, None] * grid + nearest).flatten() + 1
    return states[:, torch.cat([torch.zeros(1, dtype=torch.int64), index]).to(states.device)]
