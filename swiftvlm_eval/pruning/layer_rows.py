"""What the decoder layer that has just run took, made and gave, for the methods that look inside it."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class ModuleIO:
    """Inputs and outputs of a layer's modules on n rows, [n, hidden_size].

    Inputs are taken after the module's norm, outputs before the residual is added.
    """

    attention_in: Tensor
    attention_out: Tensor
    mlp_in: Tensor
    mlp_out: Tensor


@dataclass(frozen=True)
class LayerRows:
    """Some of one sample's rows in the layer that has just run.

    Attributes:
        rows: int64, [n], which rows of the sequence.
        sequence: [S, hidden_size], the whole sequence as it entered that layer.
        cached: rotated keys and values of the whole sequence, [kv_heads, S, head_dim] each.
        watched: reads the modules' rows; None unless the method needs `module_io`.
    """

    rows: Tensor
    sequence: Tensor
    cached: tuple[Tensor, Tensor]
    watched: Callable[[Tensor], ModuleIO] | None

    @property
    def states(self) -> Tensor:
        """[n, hidden_size], as they entered the layer."""
        return self.sequence[self.rows]

    @property
    def keys(self) -> Tensor:
        """[kv_heads, n, head_dim], rotated. Need: `layer_keys`."""
        return self.cached[0][:, self.rows]

    @property
    def values(self) -> Tensor:
        """[kv_heads, n, head_dim]. Need: `layer_values`."""
        return self.cached[1][:, self.rows]

    @property
    def modules(self) -> ModuleIO:
        """What the layer's modules took and gave. Need: `module_io`."""
        if self.watched is None:
            raise RuntimeError("no modules were watched: declare the need module_io")
        return self.watched(self.rows)


class ModuleWatch:
    """Keeps what the modules of one layer took and gave; only while `active` names that layer.

    Attributes:
        active: the layer to be watched when it runs next, None for none.
        normed: [B, width, hidden_size], what the attention of the layer that ran last took, if it was asked for.
    """

    def __init__(self) -> None:
        self.active: int | None = None
        self.normed: Tensor | None = None
        self._seen: dict[str, Tensor] = {}

    def install(self, layers: Any) -> list[Any]:
        """Puts hooks on every layer's modules; returns their handles."""
        handles = []
        for number, layer in enumerate(layers):
            for name, module in (("attention", layer.self_attn), ("mlp", layer.mlp)):
                handles.append(module.register_forward_hook(self._watch(number, name), with_kwargs=True))
        return handles

    @contextmanager
    def input_of(self, attention: Any, wanted: bool) -> Iterator[None]:
        """Notes what an attention module takes while the block runs, if that is wanted; else nothing is kept."""
        self.normed = None

        def note(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            self.normed = args[0] if args else kwargs["hidden_states"]

        handle = attention.register_forward_pre_hook(note, with_kwargs=True) if wanted else None
        try:
            yield
        finally:
            if handle is not None:
                handle.remove()

    def _watch(self, layer: int, name: str) -> Callable[..., None]:
        def hook(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            if self.active == layer:
                self._seen[f"{name}_in"] = args[0] if args else kwargs["hidden_states"]
                self._seen[f"{name}_out"] = output[0] if isinstance(output, tuple) else output

        return hook

    @property
    def seen(self) -> Mapping[str, Tensor]:
        """[B, width, hidden_size], what the modules of the active layer took and gave, by the names of `ModuleIO`."""
        return self._seen

    def forget(self) -> None:
        """Drops the kept tensors."""
        self.active, self.normed, self._seen = None, None, {}
