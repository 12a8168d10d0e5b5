"""Which layers to prune at, given how good each layer's own choice of tokens is (arXiv 2602.03134).

Layers are numbered as in the paper, from 1; x of a layer is the relative score of the model when the layers from the
third on see only the tokens that this layer attends to most. The objective P(S) of equation 7 is the area under the
staircase that holds x_2 up to the first chosen layer, each chosen x up to the next one, and the last up to layer L.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

BASE = 2
"""The layer whose x stands before the first stage: no stage acts earlier."""


@dataclass(frozen=True)
class Choice:
    """A set of layers and what it is worth.

    Attributes:
        layers: as in the paper, ascending; empty if no layer rises above the base.
        objective: P(S) of equation 7.
    """

    layers: tuple[int, ...]
    objective: float

    @property
    def boundaries(self) -> tuple[int, ...]:
        """Where the stages act, as layers that have run: the first one after its layer, later ones before theirs."""
        return tuple(layer if stage == 0 else layer - 1 for stage, layer in enumerate(self.layers))


@dataclass(frozen=True)
class _Path:
    """A staircase up to its last layer; exact, so that ties are ties."""

    value: Fraction
    layers: tuple[int, ...]

    @property
    def order(self) -> tuple[Fraction, int, tuple[int, ...]]:
        """The better path first: more area, then fewer layers, then earlier ones."""
        return -self.value, len(self.layers), self.layers


def best_choices(
    x: Mapping[int, float], num_layers: int, stages: int, *, count: int = 1, gap: int = 2
) -> list[Choice]:
    """The best sets of at most `stages` layers whose x rise strictly, from x_2 on (equations 4, 5 and 7).

    Dynamic programming over the number of layers chosen and the last of them, O(stages * L^2 * count). Values are
    added exactly. Equal objectives: fewer layers first, then the lexicographically smaller set. A layer whose x is
    not finite is never chosen. Layer L itself is not: a stage there would change nothing in the objective.

    Args:
        x: layer -> x, for every layer from 2 to L - 1.
        num_layers: L.
        stages: most layers of a set.
        count: how many sets; fewer if there are no more.
        gap: least distance of the first two layers. The first stage acts after its layer and the second before its
            own, so with 1 the two could meet at one boundary; equations 4 to 7 alone mean 1.

    Returns:
        The best set first. With a profile that never rises it is the empty set.

    Raises:
        ValueError: fewer than three layers, no stage, a layer without x, or an x_2 that is not finite.
    """
    if num_layers < BASE + 1 or stages < 1 or count < 1 or gap < 1:
        raise ValueError(
            f"num_layers={num_layers}, stages={stages}, count={count}, gap={gap}: allowed are at least "
            f"{BASE + 1} layers and whole numbers from 1"
        )
    if missing := [layer for layer in range(BASE, num_layers) if layer not in x]:
        raise ValueError(f"profile: no x for layers {', '.join(map(str, missing))}")
    if not math.isfinite(x[BASE]):
        raise ValueError(f"profile: x of layer {BASE} is {x[BASE]}; it is the base, and allowed are finite numbers")
    exact = {layer: Fraction(x[layer]) for layer in range(BASE, num_layers) if math.isfinite(x[layer])}
    ends = {BASE: [_Path(Fraction(0), ())]}
    finished = _finished(ends, exact, num_layers)
    for stage in range(stages):
        ends = _extended(ends, exact, count, gap if stage == 1 else 1)
        finished += _finished(ends, exact, num_layers)
    finished.sort(key=lambda path: path.order)
    return [Choice(path.layers, float(path.value)) for path in finished[:count]]


def _extended(
    ends: Mapping[int, list[_Path]], exact: Mapping[int, Fraction], count: int, gap: int
) -> dict[int, list[_Path]]:
    """By last layer, the best paths of one layer more."""
    found: dict[int, list[_Path]] = {}
    for layer, own in exact.items():
        paths = [
            _Path(path.value + exact[last] * (layer - last), (*path.layers, layer))
            for last, before in ends.items()
            if last + gap <= layer and exact[last] < own
            for path in before
        ]
        if paths:
            found[layer] = sorted(paths, key=lambda path: path.order)[:count]
    return found


def _finished(ends: Mapping[int, list[_Path]], exact: Mapping[int, Fraction], num_layers: int) -> list[_Path]:
    """Every path with its last step, up to layer L."""
    return [
        _Path(path.value + exact[last] * (num_layers - last), path.layers)
        for last, paths in ends.items()
        for path in paths
    ]
