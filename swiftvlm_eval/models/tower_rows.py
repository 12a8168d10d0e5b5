"""Rows that leave or merge between the layers of the vision tower.

The tower's own layers compute everything; only the order of their parts is written out here, because an edit may stand
between a layer's attention and its MLP, and because attention weighs each row's key by the row's size.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import pad, scaled_dot_product_attention
from torch.nn.utils.rnn import pad_sequence

from swiftvlm_eval.models.adapter import TowerPart


@dataclass(frozen=True)
class TowerRows:
    """The rows of one encoder input, the class token first. An edit may drop and merge rows, but never the first one.

    Attributes:
        states: [1 + n, D].
        sizes: float32, [1 + n]; log(size) is added to the logits of a row's key, for every query and head, in the
            layers that follow. All ones leave attention as it is.
        carry: what the edit before this one left.
    """

    states: Tensor
    sizes: Tensor
    carry: Any = None


@dataclass(frozen=True)
class TowerPoint:
    """Where in the tower an edit is due.

    Attributes:
        layer: 0-based.
        after: the layer's `attention`, residual added, or the whole `layer`.
        feature_layer: the layer whose output feeds the projector; what is edited later changes no answer.
        patches: P, patches of an unedited encoder input.
        tile: which encoder input, of this pass; for a method, of its sample.
        tiles: how many there are.
        queries: [heads, 1 + n, head_dim], of the layer's attention, with bias, unscaled; None after the whole layer.
        keys: likewise.
    """

    layer: int
    after: Literal["attention", "layer"]
    feature_layer: int
    patches: int
    tile: int = 0
    tiles: int = 1
    queries: Tensor | None = None
    keys: Tensor | None = None


EditRows = Callable[[TowerRows, TowerPoint], TowerRows]


class TowerRowsLoop:
    """Runs the tower's layers on rows that an edit may change after every attention and every layer.

    Encoder inputs may come to have different numbers of rows: shorter ones are padded with rows of size zero, which no
    query sees.

    Args:
        tower: the vision tower.
        edit: called for one encoder input at a time; returns the rows it was given where nothing changes.

    Attributes:
        features: the rows of every encoder input that came out of the feature layer; None before the tower has run.
        edited: whether any of them has changed.
    """

    def __init__(self, tower: TowerPart, edit: EditRows) -> None:
        self.tower = tower
        self.ask = edit
        self.features: list[TowerRows] | None = None
        self.edited = False
        self._feature_layer = tower.feature_number
        self._before: list[Any] = []
        self._patches = 0
        self._lengths: list[int] = []
        self._sizes = torch.empty(0)
        self._carries: list[Any] = []

    def install(self) -> list[Any]:
        """Puts the loop in place of every layer's forward; what is returned can be removed."""
        self._before = [layer.__dict__.get("forward") for layer in self.tower.layers]
        for number, layer in enumerate(self.tower.layers):
            layer.forward = partial(self._layer, number, layer)
        return [self, self.tower.module.register_forward_hook(self._as_many_as_patches)]

    def remove(self) -> None:
        """Makes the layers themselves again."""
        for layer, forward in zip(self.tower.layers, self._before, strict=True):
            if forward is None:
                layer.__dict__.pop("forward", None)
            else:
                layer.forward = forward

    def forget(self) -> None:
        """Drops what the last pass left."""
        self.features, self.edited, self._carries, self._sizes = None, False, [], torch.empty(0)

    def _layer(self, number: int, layer: Any, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """One layer: [T, 1 + n, D] -> [T, 1 + n', D]."""
        if number == 0:
            self._begin(hidden_states)
        attention, normed = layer.self_attn, layer.layer_norm1(hidden_states)
        queries, keys, values = (
            projection(normed).unflatten(-1, (attention.num_heads, attention.head_dim)).transpose(1, 2)
            for projection in (attention.q_proj, attention.k_proj, attention.v_proj)
        )
        if self.edited:
            bias = self._sizes.log()[:, None, None].to(hidden_states.dtype)
            mixed = scaled_dot_product_attention(queries, keys, values, attn_mask=bias, scale=attention.scale)
            hidden = hidden_states + attention.out_proj(mixed.transpose(1, 2).flatten(2))
        else:  # until then the layer's own kernel
            hidden = hidden_states + attention(hidden_states=normed, attention_mask=None)[0]
        point = TowerPoint(number, "attention", self._feature_layer, self._patches)
        hidden = self._edit(hidden, point, queries, keys)
        hidden = hidden + layer.mlp(layer.layer_norm2(hidden))
        hidden = self._edit(hidden, replace(point, after="layer"))
        if number == self._feature_layer:
            self.features = self._rows(hidden)
        return hidden

    def _begin(self, hidden: Tensor) -> None:
        self.forget()
        tiles, length = hidden.shape[:2]
        self._patches, self._lengths, self._carries = length - 1, [length] * tiles, [None] * tiles
        self._sizes = torch.ones((tiles, length), device=hidden.device)

    def _rows(self, hidden: Tensor) -> list[TowerRows]:
        """The rows of every encoder input, padding left out."""
        return [
            TowerRows(hidden[tile, :length], self._sizes[tile, :length], carry)
            for tile, (length, carry) in enumerate(zip(self._lengths, self._carries, strict=True))
        ]

    def _edit(
        self, hidden: Tensor, point: TowerPoint, queries: Tensor | None = None, keys: Tensor | None = None
    ) -> Tensor:
        """Asks for every encoder input's rows from here on; [T, 1 + n, D] -> [T, 1 + n', D]."""
        given, found = self._rows(hidden), []
        for tile, rows in enumerate(given):
            here = replace(point, tile=tile, tiles=len(given))
            if queries is not None and keys is not None:
                count = len(rows.sizes)
                here = replace(here, queries=queries[tile, :, :count], keys=keys[tile, :, :count])
            found.append(_checked(self.ask(rows, here), rows, point))
        if all(after is before for after, before in zip(found, given, strict=True)):
            return hidden
        self.edited = True
        self._lengths, self._carries = [len(rows.states) for rows in found], [rows.carry for rows in found]
        self._sizes = pad_sequence([rows.sizes for rows in found], batch_first=True)
        return pad_sequence([rows.states for rows in found], batch_first=True)

    def _as_many_as_patches(self, module: Any, args: Any, output: Any) -> Any:
        """Fills the features with zeros up to the unedited number, so that the model finds one for each placeholder.

        Before the first decoder layer the true rows take the place of all of them.
        """
        if self.edited and output.hidden_states is not None:
            output.hidden_states = tuple(
                states if states is None else pad(states, (0, 0, 0, 1 + self._patches - states.shape[1]))
                for states in output.hidden_states
            )
        return output


def _checked(rows: TowerRows, given: TowerRows, point: TowerPoint) -> TowerRows:
    """The rows that an edit returned.

    Raises:
        ValueError: of another form than those that it was given, more than these, or not even the class token.
    """
    count, allowed = len(rows.states), len(given.states)
    if rows.states.shape[1:] != given.states.shape[1:] or not 1 <= count <= allowed or rows.sizes.shape != (count,):
        raise ValueError(
            f"tower rows of shape {list(rows.states.shape)} with sizes {list(rows.sizes.shape)} after {point.after} "
            f"{point.layer}: allowed are 1 to {allowed} rows of width {given.states.shape[1]}, with a size each"
        )
    return replace(rows, states=rows.states.to(given.states.dtype)) if rows is not given else rows
