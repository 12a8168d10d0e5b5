"""Inputs and outputs of a decoder layer's attention and MLP modules, for methods that compare them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class ModuleIO:
    """Inputs and outputs of the modules of the layer that has just run, on the live visual rows, [V, hidden_size].

    Inputs are taken after the module's norm, outputs before the residual is added.
    """

    attention_in: Tensor
    attention_out: Tensor
    mlp_in: Tensor
    mlp_out: Tensor


class ModuleWatch:
    """Keeps what the modules of one layer took and gave; only while `active` names that layer.

    Attributes:
        active: the layer to be watched when it runs next, None for none.
    """

    def __init__(self) -> None:
        self.active: int | None = None
        self._seen: dict[str, Tensor] = {}

    def install(self, layers: Any) -> list[Any]:
        """Puts hooks on every layer's modules; returns their handles."""
        handles = []
        for number, layer in enumerate(layers):
            for name, module in (("attention", layer.self_attn), ("mlp", layer.mlp)):
                handles.append(module.register_forward_hook(self._watch(number, name), with_kwargs=True))
        return handles

    def _watch(self, layer: int, name: str) -> Callable[..., None]:
        def hook(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            if self.active == layer:
                self._seen[f"{name}_in"] = args[0] if args else kwargs["hidden_states"]
                self._seen[f"{name}_out"] = output[0] if isinstance(output, tuple) else output

        return hook

    def read(self, sample: int, length: int, visual: Tensor) -> ModuleIO:
        """What the visual rows of one sample of `length` rows were; `visual` says which rows they are, int64 [V]."""
        seen = {name: whole[sample, whole.shape[1] - length :][visual] for name, whole in self._seen.items()}
        return ModuleIO(**seen)

    def forget(self) -> None:
        """Drops the kept tensors."""
        self.active, self._seen = None, {}
