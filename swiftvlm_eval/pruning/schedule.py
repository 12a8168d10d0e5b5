"""Where a method acts and how many visual rows stay: declared as data, turned into counts by a budget."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar, Literal, Self

from swiftvlm_eval.models.adapter import FamilyAdapter
from swiftvlm_eval.pruning.budget import (
    BudgetError,
    Curve,
    MergedRule,
    StageRows,
    check_boundaries,
    rows_alive,
    scale_boundaries,
    through_presets,
)
from swiftvlm_eval.pruning.selected_layers import Layers, SelectedLayers
from swiftvlm_eval.pruning.solver import Schedule, solve_counts
from swiftvlm_eval.pruning.words import ScoreLayer


@dataclass(frozen=True)
class Stage:
    """One edit of the sequence: where, whose layer scores, and how many visual rows remain.

    `kept` counts original tokens, `merged` rows that stand for several. For a method whose count depends on the input
    (`Plan.adaptive`) they are expectations. `budget` is the share of N that was asked for. `part` numbers methods that
    act one after the other: the visual rows that enter a later part are a prompt of their own.
    """

    boundary: int
    kept: int
    merged: int = 0
    scored_by: ScoreLayer | None = None
    last: bool = False
    budget: float | None = None
    part: int = 0


@dataclass(frozen=True)
class Plan:
    """What a method will do to one sample of `num_visual` tokens, in a decoder of `num_layers` layers."""

    num_visual: int
    num_layers: int
    stages: tuple[Stage, ...] = ()
    adaptive: bool = False

    @property
    def rows_per_layer(self) -> tuple[int, ...]:
        """Visual rows that each decoder layer sees, merged rows included."""
        rows, current = [], self.num_visual
        stages = {stage.boundary: stage.kept + stage.merged for stage in self.stages}
        for layer in range(self.num_layers):
            current = stages.get(layer, current)
            rows.append(current)
        return tuple(rows)

    @property
    def mean_visual_tokens(self) -> float:
        """Mean of `rows_per_layer`: the planned budget as a number of rows."""
        return sum(self.rows_per_layer) / self.num_layers


@dataclass(frozen=True, kw_only=True)
class Scheduled:
    """What a method declares of its schedule, and the plan that follows from a budget.

    Attributes:
        name: of the method, for messages.
        scored_by: whose projections score: the layer just run, the next one, or one of these for every stage.
        default_layers: the paper's boundaries in a 32-layer decoder.
        counts_merged: for every stage, whether the option `counts` names merged rows, too.
        presets: budget share -> (kept, merged) shares of N per stage, met exactly and passed through by others.
        paper_presets: the same for `schedule=paper` alone.
        fewest: rows that every stage keeps at least, all if there are fewer.
        looks_back: whether a stage reads the layer that has just run, so that none acts before the first one; so it
            does where `scored_by` says `previous`.
        layers: pruning boundaries; None takes the checkpoint's own (config key `pruning_layers`), else the paper's,
            scaled to the decoder's depth. `auto:FILE` takes those that `select-layers` chose for this model.
        counts: visual rows kept per stage, overriding the budget: whole numbers are rows, numbers below one are
            shares of N.
        schedule: `exact` meets the budget within half a token; `paper` takes the published counts of the named
            budgets (192, 128, 64 of 576), whatever their mean.
    """

    name: ClassVar[str]
    scored_by: ClassVar[ScoreLayer | tuple[ScoreLayer | None, ...] | None] = None
    default_layers: ClassVar[tuple[int, ...]] = ()
    counts_merged: ClassVar[tuple[bool, ...]] = ()
    presets: ClassVar[Mapping[float, Sequence[StageRows]]] = {}
    paper_presets: ClassVar[Mapping[float, Sequence[StageRows]]] = {}
    fewest: ClassVar[int] = 1
    looks_back: ClassVar[bool] = False

    layers: Layers = field(default=None)
    counts: tuple[float, ...] | None = field(default=None)
    schedule: Literal["exact", "paper"] = field(default="exact")

    def plan(self, num_visual: int, num_layers: int, budget: float | None = None) -> Plan:
        """Turns a budget into stages.

        Args:
            num_visual: N of the sample.
            num_layers: decoder layers.
            budget: share of N; None or 1 keeps everything unless `counts` say otherwise.

        Raises:
            BudgetError: no schedule meets the budget; the message gives the feasible range.
            ValueError: options that do not fit the model.
        """
        boundaries = self.boundaries(num_layers, budget)
        counts = self.stage_counts(num_visual, num_layers, budget, boundaries)
        if not self.adaptive:
            self.check_rows(counts, num_visual)
        scored_by = self.scorers(len(boundaries))
        stages = [
            Stage(boundary, kept, merged, scorer, position == len(boundaries) - 1, budget)
            for position, (boundary, (kept, merged), scorer) in enumerate(
                zip(boundaries, counts, scored_by, strict=True)
            )
        ]
        return Plan(num_visual, num_layers, tuple(stages), adaptive=self.adaptive)

    def scorers(self, num_stages: int) -> tuple[ScoreLayer | None, ...]:
        """Whose layer scores each stage."""
        return self.scored_by if isinstance(self.scored_by, tuple) else (self.scored_by,) * num_stages

    @property
    def rows_return(self) -> bool:
        """Whether a token that has left the sequence may come back at a later stage.

        If so, every stage chooses among all N tokens; else among the rows that the stage before it left, and counts
        above these are refused.
        """
        return False

    def check_rows(self, counts: Sequence[tuple[int, int]], num_visual: int) -> None:
        """Refuses a plan that cannot be executed.

        Raises:
            ValueError: a stage would keep more rows than are alive there.
        """
        for stage, ((kept, _), alive) in enumerate(
            zip(counts, rows_alive(counts, num_visual, self.rows_return), strict=True), 1
        ):
            if kept > alive:
                given = [k for k, _ in counts] if self.counts is None else list(self.counts)
                raise ValueError(
                    f"counts={given}: stage {stage} keeps {kept} rows out of {alive}; allowed are counts that do not "
                    f"exceed the rows left by the stage before, because {self.name} brings none back"
                )

    @property
    def options(self) -> dict[str, Any]:
        """Every option and its value, as records hold them."""
        return {option.name: getattr(self, option.name) for option in fields(self)}

    @property
    def merges_rows(self) -> bool:
        """Whether merged rows enter the sequence; an option may switch them off."""
        return True

    @property
    def adaptive(self) -> bool:
        """Whether the executed count depends on the input."""
        return False

    def boundaries(self, num_layers: int, budget: float | None = None) -> tuple[int, ...]:
        """The pruning boundaries for a decoder of that depth."""
        expected, given = len(self.layers_for(budget)), self.layers
        if isinstance(given, SelectedLayers):
            given = given.boundaries(expected, num_layers, self.name)
        chosen = given or scale_boundaries(self.layers_for(budget), num_layers)
        if len(chosen) != expected:
            raise ValueError(f"layers={list(chosen)}: {self.name} has {expected} stages")
        if self.default_layers[:1] == (0,) and chosen[0] != 0:
            first = "allowed is 0" if expected == 1 else "the first boundary is 0"
            raise ValueError(f"layers={list(chosen)}: {self.name} acts before the decoder; {first}")
        if chosen[0] == 0 and (self.looks_back or self.scorers(expected)[0] == "previous"):
            raise ValueError(
                f"layers={list(chosen)}: {self.name} scores by the layer that has just run; allowed are boundaries "
                f"from 1 to {num_layers - 1}"
            )
        return check_boundaries(chosen, num_layers)

    def layers_for(self, budget: float | None) -> tuple[int, ...]:
        """The paper's boundaries for a 32-layer decoder; some methods choose them by budget."""
        return self.default_layers

    def stage_counts(
        self, num_visual: int, num_layers: int, budget: float | None, boundaries: tuple[int, ...]
    ) -> tuple[tuple[int, int], ...]:
        """(kept, merged) rows per stage."""
        if self.counts is not None:
            return self.explicit_counts(num_visual, len(boundaries))
        if budget is not None and budget >= 1:
            return ((num_visual, 0),) * len(boundaries)
        if self.schedule == "paper":
            return self.paper_counts(num_visual, budget)
        if budget is None:
            return ((num_visual, 0),) * len(boundaries)
        schedule = Schedule(boundaries, num_visual, num_layers, self.rows_return, self.merged_rule(), self.fewest)
        return solve_counts(self.schedule_curve(budget), schedule, budget, self.preset_counts(num_visual, budget))

    def schedule_curve(self, budget: float) -> Curve:
        """The curve of schedules that the budget solver searches: the line through the presets, or equal stages."""
        if self.presets:
            curve = through_presets(self.presets)
            return curve if self.merges_rows else lambda x: [(kept, 0.0) for kept, _ in curve(x)]
        stages = len(self.layers_for(budget))
        return lambda x: ((x, 0.0),) * stages

    def with_recommended(self, layers: Mapping[str, Sequence[int]]) -> Self:
        """This method with the boundaries that a checkpoint recommends, by method name, unless it has its own."""
        own = layers.get(self.name)
        return self if own is None or self.layers is not None else replace(self, layers=tuple(own))

    def for_model(self, adapter: FamilyAdapter) -> Self:
        """This method with the boundaries that were chosen for the model, in place of `auto:FILE`.

        Raises:
            ValueError: they were chosen for another model, or for fewer stages.
        """
        if not isinstance(self.layers, SelectedLayers):
            return self
        self.layers.check(adapter)
        return replace(self, layers=self.boundaries(adapter.decoder.shape.num_layers))

    def as_published(self) -> Self:
        """This method with the schedule of its published numbers."""
        return replace(self, schedule="paper")

    def explicit_counts(self, num_visual: int, num_stages: int) -> tuple[tuple[int, int], ...]:
        """Reads the option `counts`: what each stage keeps, followed by its merged rows where `counts_merged` says so.

        Raises:
            ValueError: too few or too many counts, one outside 0..N, or merged rows where none are made.
            BudgetError: fewer rows than `fewest`, where the method says that it keeps more than one.
        """
        counts, merges = self.counts or (), self.counts_merged or (False,) * num_stages
        if len(counts) != num_stages + sum(merges):
            names = [name for stage, both in enumerate(merges, 1) for name in (f"k{stage}", f"z{stage}")[: 1 + both]]
            raise ValueError(f"counts={list(counts)}: {self.name} takes {len(names)}, {':'.join(names)}")
        whole = iter([self.whole_count(count, num_visual, "counts") for count in counts])
        kept_and_merged = [(next(whole), next(whole) if both else 0) for both in merges]
        if self.fewest > 1 and any(kept < min(self.fewest, num_visual) for kept, _ in kept_and_merged):
            raise BudgetError(f"counts={list(counts)}: {self.name} keeps from {self.fewest} to {num_visual} rows")
        if not self.merges_rows and any(merged for _, merged in kept_and_merged):
            raise ValueError(f"counts={list(counts)}: {self.name} merges nothing here; allowed are 0 merged rows")
        if not any(merges):
            return self.with_merged(num_visual, [kept for kept, _ in kept_and_merged], [(0.0, 0.0)] * num_stages)
        found: list[tuple[int, int]] = []
        for kept, merged in kept_and_merged:  # more groups than rows to merge: every row is a group of its own
            alive = rows_alive([*found, (0, 0)], num_visual, self.rows_return)[-1]
            found.append((kept, min(merged, max(alive - kept, 0))))
        return tuple(found)

    def whole_count(self, value: float, num_visual: int, option: str) -> int:
        """A count from an option: a share of N if below one, else rows.

        Raises:
            ValueError: outside 0..N, or not a whole number.
        """
        count = self.to_rows(value * num_visual) if 0 < value < 1 else value
        if not 0 <= count <= num_visual or count != int(count):
            raise ValueError(
                f"{option}={value:g}: allowed are whole numbers from 0 to {num_visual}, or shares below 1"
            )
        return int(count)

    def paper_counts(self, num_visual: int, budget: float | None) -> tuple[tuple[int, int], ...]:
        """The published counts of a named budget, as shares of N rounded to whole rows, at least one kept.

        Raises:
            BudgetError: no budget, or one that the paper has not; the message names those it has.
        """
        presets = {**self.presets, **self.paper_presets}
        counts = None if budget is None else self.preset_counts(num_visual, budget, presets)
        if counts is None:
            known = ", ".join(f"{share:.4g}" for share in sorted(presets))
            reason = f"has paper schedules for the shares {known}" if known else "has no schedule=paper"
            named = budget if budget is None else f"{budget:.4g}"
            raise BudgetError(f"budget={named}: {self.name} {reason}")
        return counts

    def preset_counts(
        self, num_visual: int, budget: float, presets: Mapping[float, Sequence[StageRows]] | None = None
    ) -> tuple[tuple[int, int], ...] | None:
        """The counts of the preset at this budget, None if there is none."""
        for share, rows in (self.presets if presets is None else presets).items():
            if abs(share - budget) < 1e-3:
                kept = [max(self.fewest, self.to_rows(k * num_visual)) if k else 0 for k, _ in rows]
                return self.with_merged(num_visual, kept, rows)
        return None

    def merged_rule(self) -> MergedRule | None:
        """Gives the merged rows of every stage, for a method where they follow from the kept ones."""
        return None

    def with_merged(
        self, num_visual: int, kept: Sequence[int], rows: Sequence[StageRows]
    ) -> tuple[tuple[int, int], ...]:
        """(kept, merged) rows per stage; merged rows are shares of N unless they follow from the kept ones."""
        if not self.merges_rows:
            return tuple((count, 0) for count in kept)
        if (rule := self.merged_rule()) is not None:
            return tuple(zip(kept, rule(num_visual, kept), strict=True))
        return tuple((k, self.to_rows(m * num_visual)) for k, (_, m) in zip(kept, rows, strict=True))

    @staticmethod
    def to_rows(amount: float) -> int:
        """The method's own rounding of a number of rows."""
        return round(amount)
