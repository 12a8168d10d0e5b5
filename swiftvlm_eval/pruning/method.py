"""The contract between a pruning method and the engine.

A method is a frozen dataclass of its paper's hyper-parameters. It plans (`plan`: where it acts and how many visual
rows stay) and it selects (`select`: from what one sample shows at one boundary to the new visual rows). It never sees
the model, a cache, a mask or another sample. What must survive between two stages travels in `RowEdit.carry`.

Boundary b means: b decoder layers have run in full. Boundary 0 is the decoder's input.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

import torch
from torch import Tensor

from swiftvlm_eval.pruning.budget import (
    BudgetError,
    Family,
    MergedRule,
    Schedule,
    StageRows,
    check_boundaries,
    rows_alive,
    scale_boundaries,
    solve_counts,
    through_presets,
)

if TYPE_CHECKING:
    from swiftvlm_eval.pruning.work import PromptWork, Work

ScoreLayer = Literal["previous", "next"]
"""Whose projections score a stage: the layer that has just run, or the one about to run."""
PositionRule = Literal["keep", "compact"]
"""Rows keep their position ids, or the sequence is renumbered 0..n-1 after every edit."""
Scope = Literal["all", "visual"]
"""Keys under the softmax: every visible row, or the visual candidates only."""


@dataclass(frozen=True)
class Stage:
    """One edit of the sequence: where, whose layer scores, and how many visual rows remain.

    `kept` counts original tokens, `merged` rows that stand for several. For a method whose count depends on the input
    (`Plan.adaptive`) they are expectations. `budget` is the share of N that was asked for.
    """

    boundary: int
    kept: int
    merged: int = 0
    scored_by: ScoreLayer | None = None
    last: bool = False
    budget: float | None = None


@dataclass(frozen=True)
class Plan:
    """What a method will do to one sample of `num_visual` tokens in a decoder of `num_layers` layers."""

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
        """Mean of `rows_per_layer`: the planned budget in tokens."""
        return sum(self.rows_per_layer) / self.num_layers


@dataclass(frozen=True)
class VisualLayout:
    """Where each visual token comes from. All tensors are int64, [N].

    Attributes:
        view: which grid the token lies on; one number per grid of the sample, ascending.
        row: row on that grid.
        column: column on that grid; for a newline token the grid's width.
        tile: index among the sample's encoder inputs; -1 for a newline token.
        patch: patch index inside that tile, raster order; -1 for a newline token.
        grids: (height, width) of every view.
        image: which image of the sample.
        tilings: (rows, columns) of tiles of each image's high-resolution view; None where there is none.
        side: patches along one side of an encoder input.
    """

    view: Tensor
    row: Tensor
    column: Tensor
    tile: Tensor
    patch: Tensor
    grids: tuple[tuple[int, int], ...]
    image: Tensor
    tilings: tuple[tuple[int, int] | None, ...]
    side: int

    @property
    def tiles_per_image(self) -> tuple[int, ...]:
        """Encoder inputs of each image: the base view and, if there is one, the tiles of the high-resolution view."""
        return tuple(1 if tiling is None else 1 + tiling[0] * tiling[1] for tiling in self.tilings)

    @property
    def num_tiles(self) -> int:
        """Encoder inputs of the sample."""
        return sum(self.tiles_per_image)

    @property
    def newline(self) -> Tensor:
        """bool, [N]: tokens that mark the end of a grid row and show no patch."""
        return self.patch < 0


class VisionSignals(Protocol):
    """What the vision tower shows of one sample; T tiles, P patches a tile (CLS excluded), feature width D."""

    @property
    def features(self) -> Tensor:
        """[T, 1 + P, D]: the hidden states that feed the projector, CLS first."""

    @property
    def cls_attention(self) -> Tensor:
        """float32, [T, heads, P]: attention of CLS to the patches in that layer, softmax over all 1 + P keys."""

    @property
    def keys(self) -> Tensor:
        """[T, heads, 1 + P, head_dim]: key projections of that layer, with bias, unscaled."""

    def project(self, features: Tensor) -> Tensor:
        """[n, D] vision features -> [n, hidden_size] decoder rows."""

    def pack(self, tiles: Tensor) -> list[Tensor]:
        """[T, g * g, hidden_size] rows of square grids -> per image the rows as the decoder expects them, [n, ...].

        For LLaVA-NeXT: the base view, then the stitched and unpadded fine view with a newline row after each line.
        """


class LayerAttention(Protocol):
    """Attention of the scoring layer, bound by the engine to one sample at one boundary."""

    asked: int
    """Text rows whose attention was read so far."""

    def rope_similarity(self, queries: Tensor) -> Tensor:
        """See `Signals.rope_similarity`."""

    def __call__(
        self, queries: Tensor | None, candidates: Tensor | None, positions: Tensor | None, rope: bool, scope: Scope
    ) -> Tensor:
        """See `Signals.attention`."""


@dataclass
class Signals:
    """What one sample shows at one boundary. V visual rows are live, in sequence order; n_t text rows.

    Attributes:
        stage: the stage that is due.
        num_visual: N, visual tokens that entered the decoder.
        states: [V, hidden_size], visual rows.
        index: int64, [V], original visual index of each row; -1 for a merged row.
        positions: float32, [V], current position ids.
        text_states: [n_t, hidden_size], text rows in sequence order; the last one ends the prompt.
        question: number of text rows after the last visual token.
        carry: what the method's previous stage left in its RowEdit.
        read_previous: bound by the engine; read `previous_states`.
        layer_attention: bound by the engine; call `attention`.
        read_layout: bound by the engine; read `layout`.
        read_vision: bound by the engine; read `vision`.
        read_seed: bound by the engine; use `generator`.
    """

    stage: Stage
    num_visual: int
    states: Tensor
    index: Tensor
    positions: Tensor
    text_states: Tensor
    question: int
    carry: Any
    read_previous: Callable[[], Tensor]
    layer_attention: LayerAttention | None
    read_layout: Callable[[], VisualLayout]
    read_vision: Callable[[], VisionSignals]
    read_seed: Callable[[], int]

    @cached_property
    def layout(self) -> VisualLayout:
        """Where each of the N tokens comes from."""
        return self.read_layout()

    @cached_property
    def previous_states(self) -> Tensor:
        """[V, hidden_size], the live visual rows one layer earlier; not at boundary 0."""
        return self.read_previous()

    @cached_property
    def vision(self) -> VisionSignals:
        """Signals of the vision tower; the method declares `reads_vision`."""
        return self.read_vision()

    @cached_property
    def generator(self) -> torch.Generator:
        """A CPU generator, seeded by the run's seed and the sample: the same draw on every device, rank and batch."""
        return torch.Generator().manual_seed(self.read_seed())

    def attention(
        self,
        *,
        queries: Tensor | None = None,
        candidates: Tensor | None = None,
        positions: Tensor | None = None,
        rope: bool = True,
        scope: Scope = "all",
    ) -> Tensor:
        """Attention of text rows to visual rows in the scoring layer, softmax in float32.

        Args:
            queries: int64, indices of text rows; default the last prompt token.
            candidates: [C, hidden_size] rows to score instead of the live visual rows (next-layer stages only).
            positions: [C] their position ids.
            rope: rotate queries and keys.
            scope: keys under the softmax.

        Returns:
            float32, [heads, num_queries, V or C].
        """
        return self._scoring_layer(queries, candidates, positions, rope, scope)

    def rope_similarity(self, queries: Tensor) -> Tensor:
        """What rotary attention gives to queries and keys of ones: the pull of position alone.

        Args:
            queries: int64, indices of text rows.

        Returns:
            float32, [num_queries, V], scaled by 1 / sqrt(head_dim).
        """
        return self._scoring_layer.rope_similarity(queries)

    @property
    def _scoring_layer(self) -> LayerAttention:
        if self.layer_attention is None:
            raise RuntimeError(f"the stage at boundary {self.stage.boundary} declares no scoring layer")
        return self.layer_attention

    @property
    def question_rows(self) -> Tensor:
        """int64, [question]: which text rows stand after the last visual token."""
        return torch.arange(len(self.text_states) - self.question, len(self.text_states), device=self.states.device)

    def keep(self, kept: Tensor, carry: Any = None, appended: Tensor | None = None) -> "RowEdit":
        """The edit that keeps some of the live visual rows and drops the others.

        Args:
            kept: int64, row numbers among the V live rows, ascending.
            carry: see `RowEdit`.
            appended: [C, hidden_size], rows that stand for several tokens, to follow the last visual row.
        """
        edit = RowEdit(self.states[kept], self.index[kept], self.positions[kept], carry)
        if appended is None:
            return edit
        return edit.with_merged_rows(appended, self.positions[-1:].expand(len(appended)) + 0.5, carry)

    def keep_all(self, carry: Any = None) -> "RowEdit":
        """The edit that changes nothing."""
        return RowEdit(self.states, self.index, self.positions, carry)


@dataclass(frozen=True)
class RowEdit:
    """The visual rows from here on. Text rows are never edited.

    Rows are placed in the sequence by `positions` (stable among equals). Under the rule `keep` these are also the
    position ids; under `compact` the sequence is renumbered afterwards.

    Attributes:
        states: [V', hidden_size].
        index: int64, [V'], original visual index; -1 for a row that stands for several tokens.
        positions: float, [V'].
        carry: handed to the method's next stage, then forgotten.
        made: how many of the rows this edit made of several.
    """

    states: Tensor
    index: Tensor
    positions: Tensor
    carry: Any = None
    made: int = 0

    def with_merged_rows(self, states: Tensor, positions: Tensor, carry: Any) -> "RowEdit":
        """This edit with further rows, [C, hidden_size] at positions [C], that stand for several tokens each."""
        return RowEdit(
            torch.cat([self.states, states]),
            torch.cat([self.index, self.index.new_full((len(states),), -1)]),
            torch.cat([self.positions, positions]),
            carry,
            self.made + len(states),
        )


@dataclass(frozen=True, kw_only=True)
class PruningMethod(ABC):
    """Base of all methods: a frozen record of hyper-parameters that plans and selects.

    Attributes:
        layers: pruning boundaries; None takes the checkpoint's own (config key `pruning_layers`), else the paper's,
            scaled to the decoder's depth.
        counts: visual rows kept per stage, overriding the budget: whole numbers are tokens, numbers below one are
            shares of N.
        schedule: `exact` meets the budget within half a token; `paper` takes the published counts of the named
            budgets (192, 128, 64 of 576), whatever their mean.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    source: ClassVar[str]
    summary: ClassVar[str]
    position_rule: ClassVar[PositionRule] = "keep"
    scored_by: ClassVar[ScoreLayer | tuple[ScoreLayer | None, ...] | None] = None
    reads_vision: ClassVar[bool] = False
    prepares: ClassVar[bool] = False
    resizes_images: ClassVar[bool] = False
    draws: ClassVar[bool] = False
    default_layers: ClassVar[tuple[int, ...]] = ()
    counts_merged: ClassVar[tuple[bool, ...]] = ()
    presets: ClassVar[Mapping[float, Sequence[StageRows]]] = {}
    paper_presets: ClassVar[Mapping[float, Sequence[StageRows]]] = {}

    layers: tuple[int, ...] | None = field(default=None)
    counts: tuple[float, ...] | None = field(default=None)
    schedule: Literal["exact", "paper"] = field(default="exact")

    @abstractmethod
    def select(self, signals: Signals) -> RowEdit:
        """Chooses the visual rows of one sample at `signals.stage`."""

    @abstractmethod
    def work(self, prompt: "PromptWork") -> "Work":
        """What `prepare` and `select` compute for one sample, in rows and pairs of rows."""

    def prepare(self, signals: Signals) -> Any:
        """What the method reads off the decoder's input, if it declares `prepares`: the first stage's carry."""
        raise NotImplementedError(f"{self.name} declares no preparation")

    def resize_images(self, pixels: Tensor, side: int, budget: float | None) -> Tensor:
        """The encoder's input in place of the given one, if the method declares `resizes_images`.

        Args:
            pixels: [T, 3, S, S], normalised.
            side: patches along one side at size S.
            budget: share of N.

        Returns:
            [T, 3, s, s] with s a multiple of the patch size S / side.
        """
        raise NotImplementedError(f"{self.name} does not resize images")

    @property
    def rule(self) -> PositionRule:
        """The position rule in force; an option may override the class's."""
        return self.position_rule

    def plan(
        self, num_visual: int, num_layers: int, budget: float | None = None, layers: Sequence[int] | None = None
    ) -> Plan:
        """Turns a budget into stages.

        Args:
            num_visual: N of the sample.
            num_layers: decoder layers.
            budget: share of N; None or 1 keeps everything unless `counts` say otherwise.
            layers: the checkpoint's pruning boundaries, used where the method has no `layers` of its own.

        Raises:
            BudgetError: no schedule meets the budget; the message gives the feasible range.
            ValueError: options that do not fit the model.
        """
        boundaries = self.boundaries(num_layers, budget, layers)
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
    def merges_rows(self) -> bool:
        """Whether merged rows enter the sequence; an option may switch them off."""
        return True

    @property
    def adaptive(self) -> bool:
        """Whether the executed count depends on the input."""
        return False

    def boundaries(
        self, num_layers: int, budget: float | None = None, layers: Sequence[int] | None = None
    ) -> tuple[int, ...]:
        """The pruning boundaries for a decoder of that depth."""
        chosen = self.layers or layers or scale_boundaries(self.layers_for(budget), num_layers)
        expected = len(self.layers_for(budget))
        if len(chosen) != expected:
            raise ValueError(f"layers={list(chosen)}: {self.name} has {expected} stages")
        if self.default_layers == (0,) and tuple(chosen) != (0,):
            raise ValueError(f"layers={list(chosen)}: {self.name} acts before the decoder; allowed is 0")
        if chosen[0] == 0 and self.scorers(expected)[0] == "previous":
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
        schedule = Schedule(boundaries, num_visual, num_layers, self.rows_return, self.merged_rule())
        return solve_counts(self.family(budget), schedule, budget, self.preset_counts(num_visual, budget))

    def family(self, budget: float) -> Family:
        """The schedule family that the budget solver searches: the line through the presets, or equal stages."""
        if self.presets:
            family = through_presets(self.presets)
            return family if self.merges_rows else lambda x: [(kept, 0.0) for kept, _ in family(x)]
        stages = len(self.layers_for(budget))
        return lambda x: ((x, 0.0),) * stages

    def as_published(self) -> "PruningMethod":
        """This method with the schedule of its published numbers."""
        return replace(self, schedule="paper")

    def explicit_counts(self, num_visual: int, num_stages: int) -> tuple[tuple[int, int], ...]:
        """Reads the option `counts`: what each stage keeps, followed by its merged rows where `counts_merged` says so.

        Raises:
            ValueError: too few or too many counts, one outside 0..N, or merged rows where none are made.
        """
        counts, merges = self.counts or (), self.counts_merged or (False,) * num_stages
        if len(counts) != num_stages + sum(merges):
            names = [name for stage, both in enumerate(merges, 1) for name in (f"k{stage}", f"z{stage}")[: 1 + both]]
            raise ValueError(f"counts={list(counts)}: {self.name} takes {len(names)}, {':'.join(names)}")
        whole = iter([self.whole_count(count, num_visual, "counts") for count in counts])
        kept_and_merged = [(next(whole), next(whole) if both else 0) for both in merges]
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
        """A count from an option: a share of N if below one, else tokens.

        Raises:
            ValueError: outside 0..N, or not a whole number.
        """
        count = self.to_tokens(value * num_visual) if 0 < value < 1 else value
        if not 0 <= count <= num_visual or count != int(count):
            raise ValueError(
                f"{option}={value:g}: allowed are whole numbers from 0 to {num_visual}, or shares below 1"
            )
        return int(count)

    def paper_counts(self, num_visual: int, budget: float | None) -> tuple[tuple[int, int], ...]:
        """The published counts of a named budget, as shares of N rounded to whole tokens, at least one kept.

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
                return self.with_merged(num_visual, [max(1, self.to_tokens(k * num_visual)) for k, _ in rows], rows)
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
        return tuple((k, self.to_tokens(m * num_visual)) for k, (_, m) in zip(kept, rows, strict=True))

    @staticmethod
    def to_tokens(amount: float) -> int:
        """The method's own rounding of a number of tokens."""
        return round(amount)

    def overhead_flops(self, plan: Plan, hidden_size: int) -> dict[str, float]:
        """FLOPs of the selection as the method's paper counts them, item by item; empty if it counts none.

        What is executed is priced by `efficiency.selection` from `work`.
        """
        return {}

    def attributed_plan(self, plan: Plan) -> Plan | None:
        """The plan as the method's own code counts it, where that differs from what is executed."""
        return None


__all__ = [
    "BudgetError",
    "Plan",
    "PositionRule",
    "PruningMethod",
    "RowEdit",
    "Scope",
    "Signals",
    "Stage",
    "VisionSignals",
    "VisualLayout",
]
