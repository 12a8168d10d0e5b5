"""Budgets: the mean number of visual tokens per decoder layer, and the counts per stage that meet it.

One meaning for all methods: `budget` is the mean, over decoder layers, of the visual rows a layer sees (merged rows
included), as a share of the N visual tokens that enter the decoder.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction

REFERENCE_VISUAL_TOKENS = 576
"""Visual tokens of LLaVA-1.5 at 336 pixels; a budget given as a count refers to this number."""

StageRows = tuple[float, float]
"""Kept and merged rows after a stage, as shares of N."""
MergedRule = Callable[[int, Sequence[int]], Sequence[int]]
"""(N, rows kept at each stage) -> merged rows at each stage."""
Family = Callable[[float], Sequence[StageRows]]
"""A one-parameter schedule: 0 keeps as little as possible, 1 keeps every token; the mean rises with the parameter."""


def kept_shares(*counts: int) -> tuple[StageRows, ...]:
    """Kept counts per stage for 576 tokens, as shares; merged rows are none, or follow from the kept ones."""
    return tuple((count / REFERENCE_VISUAL_TOKENS, 0.0) for count in counts)


class BudgetError(ValueError):
    """A budget that is malformed, or that a method cannot meet."""


def parse_budget(value: str | int | float | Fraction) -> float:
    """Reads a budget as a share of N.

    Args:
        value: a share in (0, 1] (`0.333`, `"1/3"`), or a count in (1, 576] that refers to 576 tokens (`192`).

    Returns:
        The share, in (0, 1].

    Raises:
        BudgetError: the value is not a number, or lies outside the two ranges.
    """
    try:
        number = float(Fraction(str(value)))
    except (ValueError, ZeroDivisionError, OverflowError):
        number = math.nan
    if not 0 < number <= REFERENCE_VISUAL_TOKENS:
        raise BudgetError(
            f"budget={value!r}: allowed is a share of the visual tokens in (0, 1], such as 0.333 or 1/3, "
            f"or a count in (1, {REFERENCE_VISUAL_TOKENS}] for {REFERENCE_VISUAL_TOKENS} tokens, such as 192"
        )
    return number if number <= 1 else number / REFERENCE_VISUAL_TOKENS


def mean_rows(boundaries: Sequence[int], rows: Sequence[float], num_visual: int, num_layers: int) -> float:
    """Mean visual rows per layer of a schedule.

    Args:
        boundaries: ascending; boundary b means that b layers have run before the edit.
        rows: visual rows after each boundary (kept and merged together).
        num_visual: rows before the first boundary.
        num_layers: decoder layers in all.
    """
    edges = [*boundaries, num_layers]
    total = float(num_visual) * edges[0]
    for start, end, count in zip(edges, edges[1:], rows, strict=False):
        total += (end - start) * count
    return total / num_layers


def check_boundaries(layers: Sequence[int], num_layers: int) -> tuple[int, ...]:
    """Returns the boundaries as a tuple.

    Raises:
        ValueError: they are not strictly ascending integers in [0, num_layers).
    """
    boundaries = tuple(layers)
    ascending = all(a < b for a, b in zip(boundaries, boundaries[1:], strict=False))
    if not boundaries or not ascending or boundaries[0] < 0 or boundaries[-1] >= num_layers:
        raise ValueError(
            f"layers={list(boundaries)}: allowed are strictly ascending boundaries from 0 to {num_layers - 1} "
            f"for a decoder of {num_layers} layers (boundary b: the edit happens after b layers)"
        )
    return boundaries


def scale_boundaries(boundaries: Sequence[int], num_layers: int, reference_layers: int = 32) -> tuple[int, ...]:
    """Maps boundaries of a 32-layer decoder to another depth, proportionally, strictly ascending.

    Raises:
        ValueError: the decoder has fewer layers than there are stages.
    """
    if num_layers == reference_layers:
        return tuple(boundaries)
    if num_layers <= len(boundaries):
        raise ValueError(f"num_layers={num_layers}: {len(boundaries)} pruning stages need more decoder layers")
    scaled: list[int] = []
    for boundary in boundaries:
        wanted = max(1, round(boundary * num_layers / reference_layers)) if boundary else 0
        scaled.append(max(wanted, scaled[-1] + 1 if scaled else 0))
    for i in range(1, len(scaled) + 1):
        scaled[-i] = min(scaled[-i], num_layers - i)
    return tuple(scaled)


def through_presets(presets: Mapping[float, Sequence[StageRows]]) -> Family:
    """A schedule family that passes through published presets, linear in between.

    Args:
        presets: budget share -> (kept, merged) shares per stage. The ends are added: nothing at 0, all kept at 1.
    """
    stages = len(next(iter(presets.values())))
    knots: dict[float, Sequence[StageRows]] = {0.0: [(0.0, 0.0)] * stages, **presets, 1.0: [(1.0, 0.0)] * stages}
    shares = sorted(knots)

    def family(x: float) -> list[StageRows]:
        upper = next(share for share in shares if share >= min(max(x, 0.0), 1.0))
        lower = max((share for share in shares if share < upper), default=upper)
        weight = 1.0 if upper == lower else (x - lower) / (upper - lower)
        return [
            (low[0] + weight * (high[0] - low[0]), low[1] + weight * (high[1] - low[1]))
            for low, high in zip(knots[lower], knots[upper], strict=True)
        ]

    return family


def solve_counts(
    family: Family,
    boundaries: Sequence[int],
    num_visual: int,
    num_layers: int,
    budget: float,
    preset: Sequence[tuple[int, int]] | None = None,
    minimum: int = 1,
    merged_for: MergedRule | None = None,
) -> tuple[tuple[int, int], ...]:
    """Counts per stage whose mean is within half a token of `budget * num_visual`.

    The family's parameter is found by bisection; counts are rounded; what the rounding leaves over goes to the last
    stage first, then to the ones before it.

    Args:
        family: the method's schedule as shares of N.
        boundaries: where the stages act.
        num_visual: N of this sample.
        num_layers: decoder layers.
        budget: share of N, in (0, 1].
        preset: counts to take if their mean fits the budget.
        minimum: fewest rows that a stage may keep.
        merged_for: gives the merged rows of every stage where they follow from the kept ones; None takes the family's.

    Returns:
        (kept, merged) rows per stage.

    Raises:
        BudgetError: no schedule of the family has that mean; the message gives the feasible range.
    """
    if num_visual < minimum:
        raise BudgetError(f"{num_visual} visual tokens: a stage keeps at least {minimum}")
    target = budget * num_visual

    def mean(counts: Sequence[StageRows]) -> float:
        return mean_rows(boundaries, [kept + merged for kept, merged in counts], num_visual, num_layers)

    if preset is not None and abs(mean(preset) - target) <= 0.5:
        return tuple(preset)

    def counts_at(x: float) -> list[tuple[float, float]]:
        shares = [(kept * num_visual, merged * num_visual) for kept, merged in family(x)]
        if merged_for is None:
            return shares
        whole = [min(max(round(kept), minimum), num_visual) for kept, _ in shares]
        return [(kept, merged) for (kept, _), merged in zip(shares, merged_for(num_visual, whole), strict=True)]

    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if mean(counts_at(middle)) < target else (low, middle)
    counts: list[tuple[int, int]] = []
    for kept_share, merged_share in counts_at(high):
        kept = min(max(round(kept_share), minimum), num_visual)
        counts.append((kept, min(max(round(merged_share), 0), num_visual - kept)))
    _settle(counts, boundaries, num_visual, num_layers, target, minimum, merged_for)
    if abs(mean(counts) - target) > 0.5:
        least = [minimum] * len(boundaries)
        merged = [0] * len(least) if merged_for is None else merged_for(num_visual, least)
        floor = mean(list(zip(least, merged, strict=True)))
        raise BudgetError(
            f"budget={budget:.4g} of {num_visual} visual tokens ({target:.1f} per layer on average): feasible with "
            f"edits after layers {list(boundaries)} of {num_layers} is {floor:.1f} to {num_visual} tokens "
            f"(budget {floor / num_visual:.4g} to 1)"
        )
    return tuple(counts)


def _settle(
    counts: list[tuple[int, int]],
    boundaries: Sequence[int],
    num_visual: int,
    num_layers: int,
    target: float,
    minimum: int,
    merged_for: MergedRule | None,
) -> None:
    """Moves kept counts, last stage first, until the mean is as near to the target as whole tokens allow."""
    edges = [*boundaries, num_layers]
    for stage in [*reversed(range(len(counts))), len(counts) - 1]:
        rows = [kept + merged for kept, merged in counts]
        missing = (target - mean_rows(boundaries, rows, num_visual, num_layers)) * num_layers
        kept, merged = counts[stage]
        wanted = kept + round(missing / (edges[stage + 1] - edges[stage]))
        counts[stage] = (min(max(wanted, minimum), num_visual - merged), merged)
        if merged_for is not None:
            whole = [kept for kept, _ in counts]
            counts[:] = list(zip(whole, merged_for(num_visual, whole), strict=True))
