"""Two methods on one prompt: a cut by the first, then a second one that sees what the first left.

The second method takes the rows that the first one left as its prompt: their number is its N, they are numbered from
0, rows that stood for several included, and "keep" means the position ids they have by then. So a compact vision-side
cut followed by a method that keeps positions is that method on the short prompt, and each method keeps its own rule.
What a method reads off the decoder's input it reads before any edit.

A budget is the mean of the whole. Without `counts` both methods cut alike: each keeps the same mean share of the rows
it finds, over the layers from its first boundary on; the second then takes exactly what is left of the budget. A
method with `counts` keeps those, and the other one meets the budget; if both have counts, these decide.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from hashlib import sha256
from typing import Any, NamedTuple, Self

from torch import Tensor

from swiftvlm_eval.models.adapter import FamilyAdapter
from swiftvlm_eval.models.tower_rows import TowerPoint, TowerRows
from swiftvlm_eval.pruning.budget import BudgetError
from swiftvlm_eval.pruning.contract import PruningMethod, RowEdit, Signals
from swiftvlm_eval.pruning.schedule import Plan, Stage
from swiftvlm_eval.pruning.words import PositionRule
from swiftvlm_eval.pruning.work import PromptWork, Work

OF_THE_IMAGE = frozenset(
    {"cls_attention", "patch_features", "patch_keys", "tower_states", "pixels", "image_resizing", "tower_rows"}
)
"""Needs that tell of the image's own tokens, which a second method no longer sees."""
_STEPS = 40


class _Carried(NamedTuple):
    """What both methods left for their next stages."""

    first: Any = None
    then: Any = None


@dataclass(frozen=True, kw_only=True)
class Composed(PruningMethod):
    """`first`, then `then`; as text `visionzip+random[layers=16]`. A third method follows a composition of two.

    Attributes:
        first: acts first; its last boundary lies before the first one of `then`.
        then: acts on the rows that `first` left.

    Raises:
        ValueError: the two cannot follow one another; the message says why.
    """

    first: PruningMethod
    then: PruningMethod

    def __post_init__(self) -> None:
        for part in (self.first, self.then):
            if part.adaptive:
                raise self._refused(f"{part.name} keeps as many rows as the image asks for: no budget can be shared")
            if not isinstance(part, Composed) and not part.layers_for(1 / 3):
                raise self._refused(f"{part.name} has no stage; write the other method alone")
            if part.schedule != "exact":
                raise self._refused(f"schedule={part.schedule} of {part.name}: published for the method alone")
        if isinstance(self.then, Composed):
            raise self._refused("the second method is a composition; write them in the order in which they act")
        if self.then.default_layers[:1] == (0,):
            raise self._refused(f"{self.then.name} acts before the decoder; allowed is to name it first")
        if words := sorted(self.then.needs & OF_THE_IMAGE):
            raise self._refused(f"{self.then.name} needs {', '.join(words)}, which tells of tokens that may be gone")
        if self.layers is not None or self.counts is not None or self.schedule != "exact":
            raise self._refused("layers, counts and schedule belong to one of the methods")

    def _refused(self, reason: str) -> ValueError:
        return ValueError(f"method={self.name!r}: {reason}")

    # what the methods declare, together

    @property
    def name(self) -> str:  # type: ignore[override]
        """Both names."""
        return f"{self.first.name}+{self.then.name}"

    @property
    def caveat(self) -> str:  # type: ignore[override]
        """Those of both."""
        return "; ".join(filter(None, (self.first.caveat, self.then.caveat)))

    @property
    def needs(self) -> Any:  # type: ignore[override]
        """The union."""
        return self.first.needs | self.then.needs

    @property
    def draws(self) -> bool:  # type: ignore[override]
        """Whether one of them does."""
        return self.first.draws or self.then.draws

    @property
    def parts(self) -> int:
        """How many methods there are."""
        return 1 + (self.first.parts if isinstance(self.first, Composed) else 1)

    @property
    def options(self) -> dict[str, Any]:
        """`first.layers`, ..., `then.layers`, ..."""
        return {
            f"{which}.{option}": value
            for which, part in (("first", self.first), ("then", self.then))
            for option, value in part.options.items()
        }

    @property
    def source_sha256(self) -> str | None:
        """Of the method from outside; of both hashes, one a line, if both are."""
        own = [part.source_sha256 for part in (self.first, self.then) if part.source_sha256 is not None]
        return own[0] if len(own) == 1 else sha256("\n".join(own).encode()).hexdigest() if own else None

    def rule_at(self, stage: Stage) -> PositionRule:
        """Each method's own."""
        return self._part(stage).rule_at(stage)

    def with_recommended(self, layers: Mapping[str, Sequence[int]]) -> Self:
        """See `Scheduled.with_recommended`."""
        return replace(self, first=self.first.with_recommended(layers), then=self.then.with_recommended(layers))

    def for_model(self, adapter: FamilyAdapter) -> Self:
        """See `Scheduled.for_model`."""
        return replace(self, first=self.first.for_model(adapter), then=self.then.for_model(adapter))

    def as_published(self) -> Self:
        """As it is: no paper publishes counts of two methods."""
        return self

    @property
    def counted(self) -> bool:
        """Whether the counts of both are given."""
        return _counted(self.first) and _counted(self.then)

    def boundaries(self, num_layers: int, budget: float | None = None) -> tuple[int, ...]:
        """Those of both.

        Raises:
            ValueError: they do not ascend.
        """
        first, then = (part.boundaries(num_layers, budget) for part in (self.first, self.then))
        if then[0] <= first[-1]:
            raise self._refused(
                f"{self.then.name} begins at boundary {then[0]}, and {self.first.name} ends at {first[-1]}; allowed "
                f"are layers of {self.then.name} from {first[-1] + 1} to {num_layers - 1}"
            )
        return first + then

    # budgets

    def plan(self, num_visual: int, num_layers: int, budget: float | None = None) -> Plan:
        """See `Scheduled.plan`; how the budget is shared is said at the top of this file."""
        self.boundaries(num_layers, budget)
        if budget is None or budget >= 1 or self.counted:
            return self._joined(num_visual, num_layers, budget, budget)
        search = self._nearest if _counted(self.then) else self._with_the_rest
        try:
            found = search(num_visual, num_layers, budget)
        except BudgetError as error:
            raise BudgetError(f"budget={budget:.4g}: {self.name}: for one of the two {error}") from error
        if abs(found.mean_visual_tokens - budget * num_visual) > 0.5 + 1e-9:
            raise BudgetError(
                f"budget={budget:.4g} of {num_visual} visual tokens: the nearest that {self.name} has is "
                f"{found.mean_visual_tokens:.1f} per layer on average ({found.mean_visual_tokens / num_visual:.4g})"
            )
        return found

    def _joined(self, num_visual: int, num_layers: int, first: float | None, then: float | None) -> Plan:
        """The plan with a budget for each: shares of what it finds, over all layers."""
        before = self.first.plan(num_visual, num_layers, first)
        after = self.then.plan(before.rows_per_layer[-1], num_layers, then)
        own = tuple(replace(stage, part=self.parts - 1) for stage in after.stages)
        return Plan(num_visual, num_layers, before.stages + own)

    def _with_the_rest(self, num_visual: int, num_layers: int, budget: float) -> Plan:
        """The second method takes what the first leaves of the budget."""
        share: float | None = None
        start = self.then.boundaries(num_layers, budget)[0]
        if not _counted(self.first):
            own = self.first.boundaries(num_layers, budget)[0]

            def alike(x: float) -> tuple[float, float]:
                return (own + x * (num_layers - own)) / num_layers, (start + x * (num_layers - start)) / num_layers

            share = alike(self._search(num_visual, num_layers, budget, alike))[0]
        first = self.first.plan(num_visual, num_layers, share)
        found = first.rows_per_layer[-1]
        left = budget * num_visual * num_layers - sum(first.rows_per_layer[:start]) + start * found
        return self._joined(num_visual, num_layers, share, min(max(left / (found * num_layers), 1e-6), 1.0))

    def _nearest(self, num_visual: int, num_layers: int, budget: float) -> Plan:
        """The first method's share is searched for; the second one keeps its counts."""
        x = self._search(num_visual, num_layers, budget, lambda x: (x, 1.0))
        plans = [self._joined(num_visual, num_layers, x, 1.0)]
        for lower in (x - 1 / num_visual, x - 0.5 / num_visual):
            try:
                plans.append(self._joined(num_visual, num_layers, lower, 1.0))
            except ValueError:  # too few rows for the second method
                continue
        return min(plans, key=lambda plan: abs(plan.mean_visual_tokens - budget * num_visual))

    def _search(self, num_visual: int, num_layers: int, budget: float, shares: Any) -> float:
        """The least parameter whose plan has the mean that is wanted, by bisection; what has no plan is too little."""
        low, high = 0.0, 1.0
        for _ in range(_STEPS):
            middle = (low + high) / 2
            try:
                mean = self._joined(num_visual, num_layers, *shares(middle)).mean_visual_tokens
            except ValueError:
                mean = 0.0
            low, high = (middle, high) if mean < budget * num_visual else (low, middle)
        return high

    # at work

    def _part(self, stage: Stage) -> PruningMethod:
        return self.then if stage.part == self.parts - 1 else self.first

    def prepare(self, signals: Signals) -> Any:
        """What each of them reads off the decoder's input."""
        return _Carried(
            *(part.prepare(signals) if "decoder_input" in part.needs else None for part in (self.first, self.then))
        )

    def resize_images(self, pixels: Tensor, side: int, budget: float | None) -> Tensor:
        """By the first method."""
        return self.first.resize_images(pixels, side, budget)

    def edit_tower(self, rows: TowerRows, point: TowerPoint, stage: Stage) -> TowerRows:
        """By the first method."""
        return self.first.edit_tower(rows, point, stage)

    def select(self, signals: Signals) -> RowEdit:
        """By the method whose stage is due, with what it left itself."""
        carried = signals.carry or _Carried()
        if self._part(signals.stage) is self.first:
            edit = self.first.select(replace(signals, carry=carried.first))
            return replace(edit, carry=_Carried(edit.carry, carried.then)).sure(edit.order, edit.whole)
        edit = self.then.select(replace(signals, carry=carried.then))
        if edit.evict_from is not None:
            raise self._refused(f"{self.then.name} empties caches of layers (evict_from) that ran before it")
        return replace(edit, carry=_Carried(None, edit.carry)).sure(edit.order, edit.whole)

    def work(self, prompt: PromptWork) -> Work:
        """Of both, each on the rows it found."""
        last = self.parts - 1
        own = tuple(at for at in prompt.stages if at.stage.part == last)
        first = replace(prompt, stages=tuple(at for at in prompt.stages if at.stage.part < last))
        entered = prompt.num_visual if prompt.entered is None else prompt.entered
        found = own[0].live if own else prompt.num_visual
        return self.first.work(first) + self.then.work(replace(prompt, num_visual=found, stages=own, entered=entered))

    def overhead_flops(self, plan: Plan, hidden_size: int) -> dict[str, float]:
        """The sums of both, item by item."""
        first, then = self._split(plan)
        items = (self.first.overhead_flops(first, hidden_size), self.then.overhead_flops(then, hidden_size))
        return reduce(lambda mine, theirs: mine | {k: mine.get(k, 0.0) + v for k, v in theirs.items()}, items)

    def attributed_plan(self, plan: Plan) -> Plan | None:
        """Both as their own code counts them."""
        first, then = self._split(plan)
        theirs = self.first.attributed_plan(first), self.then.attributed_plan(then)
        if theirs == (None, None):
            return None
        return replace(plan, stages=(theirs[0] or first).stages + (theirs[1] or then).stages)

    def _split(self, plan: Plan) -> tuple[Plan, Plan]:
        """The plans of both, as each would make them alone."""
        last = self.parts - 1
        first = replace(plan, stages=tuple(stage for stage in plan.stages if stage.part < last))
        own = tuple(stage for stage in plan.stages if stage.part == last)
        return first, Plan(first.rows_per_layer[-1], plan.num_layers, own)


def _counted(method: PruningMethod) -> bool:
    """Whether a method's counts are given, so that no budget moves them."""
    return method.counted if isinstance(method, Composed) else method.counts is not None
