"""The counts per stage whose mean over decoder layers meets a budget within half a token."""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from swiftvlm_eval.pruning.budget import BudgetError, Curve, MergedRule, StageRows, mean_rows, rows_alive


@dataclass(frozen=True)
class Schedule:
    """What a search for counts holds fixed: where the stages act, on how many rows, and by which rules.

    Attributes:
        boundaries: where the stages act.
        num_visual: N of the sample.
        num_layers: decoder layers.
        rows_return: see `rows_alive`.
        merged_for: gives the merged rows of every stage where they follow from the kept ones; None takes the curve's.
        minimum: fewest rows that a stage may keep.
    """

    boundaries: Sequence[int]
    num_visual: int
    num_layers: int
    rows_return: bool = False
    merged_for: MergedRule | None = None
    minimum: int = 1

    def mean(self, counts: Sequence[StageRows]) -> float:
        """Mean visual rows per layer of (kept, merged) rows per stage."""
        return mean_rows(self.boundaries, [sum(rows) for rows in counts], self.num_visual, self.num_layers)

    def span(self, stage: int) -> int:
        """Layers between a stage and the next one."""
        edges = [*self.boundaries, self.num_layers]
        return edges[stage + 1] - edges[stage]

    def within_rows(self, counts: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
        """The counts, cut to the rows that are alive at each stage."""
        if self.merged_for is not None:
            whole = [max(kept, self.minimum) for kept, _ in counts]
            counts = list(zip(whole, self.merged_for(self.num_visual, whole), strict=True))
        found: list[tuple[int, int]] = []
        for kept, merged_rows in counts:
            alive = rows_alive([*found, (0, 0)], self.num_visual, self.rows_return)[-1]
            room = alive if self.merged_for is not None else max(self.minimum, alive - merged_rows)
            kept = min(max(kept, self.minimum), room)
            found.append((kept, min(merged_rows, alive - kept)))
        return found

    def refused(self, budget: float, low: float, high: float) -> BudgetError:
        """The refusal of a budget, with the means that are feasible."""
        whole = self.num_visual
        return BudgetError(
            f"budget={budget:.4g} of {whole} visual tokens ({budget * whole:.1f} per layer on average): feasible with "
            f"edits after layers {list(self.boundaries)} of {self.num_layers} is {low:.1f} to {high:.4g} tokens "
            f"(budget {low / whole:.4g} to {high / whole:.4g})"
        )

    @property
    def least(self) -> list[tuple[int, int]]:
        """The fewest rows of every stage."""
        return self.within_rows([(self.minimum, 0)] * len(self.boundaries))


def solve_counts(
    curve: Curve, schedule: Schedule, budget: float, preset: Sequence[tuple[int, int]] | None = None
) -> tuple[tuple[int, int], ...]:
    """Counts per stage whose mean is within half a token of `budget * num_visual`.

    The curve's parameter is found by bisection; counts are rounded; what the rounding leaves over goes to the last
    stage first, then to the ones before it. No stage keeps more rows than are alive there.

    Args:
        curve: the method's schedule as shares of N.
        schedule: where the stages act and what they may keep.
        budget: share of N, in (0, 1].
        preset: counts to take if their mean fits the budget.

    Returns:
        (kept, merged) rows per stage.

    Raises:
        BudgetError: no schedule on the curve has that mean; the message gives the feasible range.
    """
    num_visual, minimum, merged_for = schedule.num_visual, schedule.minimum, schedule.merged_for
    if num_visual < minimum:
        raise BudgetError(f"{num_visual} visual tokens: a stage keeps at least {minimum}")
    target = budget * num_visual
    if preset is not None and abs(schedule.mean(preset) - target) <= 0.5:
        return tuple(preset)

    def counts_at(x: float) -> list[tuple[float, float]]:
        shares = [(kept * num_visual, merged * num_visual) for kept, merged in curve(x)]
        if merged_for is None:
            return shares
        whole = [min(max(round(kept), minimum), num_visual) for kept, _ in shares]
        return [(kept, merged) for (kept, _), merged in zip(shares, merged_for(num_visual, whole), strict=True)]

    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if schedule.mean(counts_at(middle)) < target else (low, middle)
    rounded = [(min(max(round(kept), minimum), num_visual), round(merged)) for kept, merged in counts_at(high)]
    rounded = [(kept, min(max(merged, 0), num_visual - kept)) for kept, merged in rounded]
    counts = _settled(schedule, schedule.within_rows(rounded), target)
    if abs(schedule.mean(counts) - target) > 0.5:
        raise schedule.refused(budget, schedule.mean(schedule.least), num_visual)
    return tuple(counts)


def solve_whole(
    counts_at: Callable[[int], Sequence[tuple[int, int]]],
    schedule: Schedule,
    budget: float,
    largest: int | None = None,
) -> tuple[tuple[int, int], ...]:
    """Counts per stage that all follow from one whole number, with the mean nearest to `budget * num_visual`.

    Args:
        counts_at: the number -> (kept, merged) rows per stage; their mean rises with the number.
        schedule: where the stages act; its `minimum` is the smallest number.
        budget: share of N, in (0, 1].
        largest: the largest number, by default N.

    Raises:
        BudgetError: the nearest mean is more than half a token off; the message gives the feasible range.
    """
    numbers = range(schedule.minimum, (schedule.num_visual if largest is None else largest) + 1)
    if not numbers:
        raise BudgetError(f"{schedule.num_visual} visual tokens: a stage keeps at least {schedule.minimum}")
    target = budget * schedule.num_visual

    def mean(number: int) -> float:
        return schedule.mean(counts_at(number))

    above = bisect_left(numbers, target, key=mean)
    found = min(numbers[max(above - 1, 0) : above + 1], key=lambda number: abs(mean(number) - target))
    if abs(mean(found) - target) > 0.5:
        raise schedule.refused(budget, mean(numbers[0]), mean(numbers[-1]))
    return tuple(counts_at(found))


def _settled(schedule: Schedule, counts: list[tuple[int, int]], target: float) -> list[tuple[int, int]]:
    """The counts, moved until the mean is as near to the target as whole tokens allow, last stage first.

    A stage that is full, or down to its least, leaves the rest to the ones before it, which may make room for it: so
    there are as many rounds as stages, and one more.
    """
    last = len(counts) - 1
    for attempt in range(len(counts) + 1):
        for stage in [*reversed(range(len(counts))), last]:
            if attempt and schedule.merged_for is not None:
                counts = _nearest(schedule, counts, stage, target)
                continue
            missing = (target - schedule.mean(counts)) * schedule.num_layers
            kept, merged = counts[stage]
            wanted = kept + round(missing / schedule.span(stage))
            spared = max(schedule.minimum - wanted, 0) if attempt else 0  # merged rows go last
            moved = (wanted, max(merged - spared, 0))
            counts = schedule.within_rows([*counts[:stage], moved, *counts[stage + 1 :]])
        if abs(schedule.mean(counts) - target) <= 0.5:
            break
    return counts


def _nearest(schedule: Schedule, counts: list[tuple[int, int]], stage: int, target: float) -> list[tuple[int, int]]:
    """The counts with another kept count at one stage, so that the mean is nearest to the target.

    For merged rows that follow from the kept ones: a row more that is kept may be a row less that is merged, and then
    a step by what is missing stands still. The mean never falls as more is kept.
    """

    def with_kept(kept: int) -> list[tuple[int, int]]:
        return schedule.within_rows([*counts[:stage], (kept, 0), *counts[stage + 1 :]])

    choices = range(schedule.minimum, rows_alive(counts, schedule.num_visual, schedule.rows_return)[stage] + 1)
    above = bisect_left(choices, target, key=lambda kept: schedule.mean(with_kept(kept)))
    around = [with_kept(choices[place]) for place in (above - 1, above) if 0 <= place < len(choices)]
    return min(around, key=lambda found: abs(schedule.mean(found) - target))
