"""Budgets: the mean number of visual tokens per decoder layer, and the schedules that have one.

One meaning for all methods: `budget` is the mean, over decoder layers, of the visual rows a layer sees (merged rows
included), as a share of the N visual tokens that enter the decoder.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction

REFERENCE_VISUAL_TOKENS = 576
"""Visual tokens of LLaVA-1.5 at 336 pixels; a budget given as a count refers to this number."""

LEAST_COUNT = 8
"""The smallest count that is read as one; a smaller number above 1 is a mistyped share."""
LONGEST = 64
"""Characters of a budget; nothing longer is one."""
_RATIO = re.compile(r"([0-9]+)\s*/\s*([0-9]+)")
_NUMBER = re.compile(r"(?P<number>(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?)\s*(?P<percent>%?)")

StageRows = tuple[float, float]
"""Kept and merged rows after a stage, as shares of N."""
MergedRule = Callable[[int, Sequence[int]], Sequence[int]]
"""(N, rows kept at each stage) -> merged rows at each stage; a stage keeps no more rows than are alive there."""
Curve = Callable[[float], Sequence[StageRows]]
"""A one-parameter schedule: 0 keeps as little as possible, 1 keeps every token; the mean rises with the parameter."""


def kept_shares(*counts: int) -> tuple[StageRows, ...]:
    """Kept counts per stage for 576 tokens, as shares; merged rows are none, or follow from the kept ones."""
    return tuple((count / REFERENCE_VISUAL_TOKENS, 0.0) for count in counts)


class BudgetError(ValueError):
    """A budget that is malformed, or that a method cannot meet."""


def parse_budget(value: str | int | float | Fraction, visual_tokens: int | None = None) -> float:
    """Reads a budget, as people type it, as a share of N.

    Args:
        value: a share in (0, 1] (`1/3`, `0.333`, `33%`), a count of a stated whole (`640/2880`), or a count from 8 to
            576 alone (`192`), which is one of 576 tokens.
        visual_tokens: visual tokens of every image of the model; None where they depend on the image, or are not
            known. A count alone is read only if these are the 576 of LLaVA-1.5, since of other images it would be
            another share.

    Returns:
        The share, in (0, 1].

    Raises:
        BudgetError: malformed, outside (0, 1], a number above 1 and below 8 (a slip), or a count of an unknown whole.
    """
    text = _text(value)
    if found := _RATIO.fullmatch(text):
        count, whole = (int(part) for part in found.groups())
        if 0 < whole < count:
            raise _refused(text, value, f"{count} is more than the whole, {whole}")
        number = count / whole if whole else 0.0
    elif found := _NUMBER.fullmatch(text):
        number = float(found["number"]) / (100 if found["percent"] else 1)
        if number > 1 and found["percent"]:
            raise _refused(text, value, "that is more than all")
        if number > 1:
            number = _share_of_count(number, visual_tokens, text, value)
    else:
        number = 0.0
    if not 0 < number <= 1:
        raise _refused(text, value, "")
    return number


def _text(value: object) -> str:
    """What was typed; nothing if it is no number, or far longer than a budget."""
    if isinstance(value, bool) or not isinstance(value, str | int | float | Fraction):
        return ""
    if isinstance(value, int | Fraction) and max(value.numerator.bit_length(), value.denominator.bit_length()) > 64:
        return ""
    text = str(value).strip()
    return text if len(text) <= LONGEST else ""


def _share_of_count(count: float, visual_tokens: int | None, text: str, value: object) -> float:
    """A count alone, as a share of 576."""
    if count < LEAST_COUNT:
        raise _refused(text, value, f"a number above 1 and below {LEAST_COUNT} is a slip")
    if visual_tokens != REFERENCE_VISUAL_TOKENS:
        own = "depend on the image" if visual_tokens is None else f"are {visual_tokens}"
        raise _refused(text, value, f"the visual tokens of this model's images {own}")
    if count > REFERENCE_VISUAL_TOKENS:
        raise _refused(text, value, f"{count:g} is more than {REFERENCE_VISUAL_TOKENS}")
    if count != int(count):
        raise _refused(text, value, "that is not a whole number")
    return count / REFERENCE_VISUAL_TOKENS


def _refused(text: str, value: object, reason: str) -> BudgetError:
    shown = repr(value) if text or value in ("", None) or isinstance(value, bool | float) else type(value).__name__
    return BudgetError(
        f"budget={shown}: allowed is a share of the visual tokens, such as 1/3, 0.333 or 33%, a count of a stated "
        f"whole, such as 640/2880, or, where every image has {REFERENCE_VISUAL_TOKENS} visual tokens (LLaVA-1.5), a "
        f"count from {LEAST_COUNT} to {REFERENCE_VISUAL_TOKENS}, such as 192" + (f"; {reason}" if reason else "")
    )


def budget_in_words(share: float, visual_tokens: int | None) -> str:
    """A share of N for people, with the tokens that it stands for where every image has the same number."""
    if visual_tokens is None:
        return f"{share:.4g} (of each image's own visual tokens, a layer on average)"
    return f"{share:.4g} ({share * visual_tokens:.1f} of {visual_tokens} visual tokens a layer on average)"


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


def through_presets(presets: Mapping[float, Sequence[StageRows]]) -> Curve:
    """A schedule curve that passes through published presets, linear in between.

    Args:
        presets: budget share -> (kept, merged) shares per stage. The ends are added: nothing at 0, all kept at 1.
    """
    stages = len(next(iter(presets.values())))
    knots: dict[float, Sequence[StageRows]] = {0.0: [(0.0, 0.0)] * stages, **presets, 1.0: [(1.0, 0.0)] * stages}
    shares = sorted(knots)

    def curve(x: float) -> list[StageRows]:
        upper = next(share for share in shares if share >= min(max(x, 0.0), 1.0))
        lower = max((share for share in shares if share < upper), default=upper)
        weight = 1.0 if upper == lower else (x - lower) / (upper - lower)
        return [
            (low[0] + weight * (high[0] - low[0]), low[1] + weight * (high[1] - low[1]))
            for low, high in zip(knots[lower], knots[upper], strict=True)
        ]

    return curve


def rows_alive(counts: Sequence[tuple[int, int]], num_visual: int, rows_return: bool) -> list[int]:
    """The rows among which each stage chooses.

    Args:
        counts: (kept, merged) rows after each stage.
        num_visual: rows before the first stage.
        rows_return: whether tokens that left the sequence may come back: then every stage chooses among all N.
    """
    if rows_return:
        return [num_visual] * len(counts)
    return [num_visual, *(kept + merged for kept, merged in counts[:-1])]
