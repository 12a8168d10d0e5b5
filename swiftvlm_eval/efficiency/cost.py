"""What the prefill of one prompt costs, planned or executed: layers, selection, and the count of the papers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from swiftvlm_eval.efficiency.flops import PAPER_TEXT_TOKENS, SYSTEM_TOKENS, prefill_flops
from swiftvlm_eval.efficiency.selection import executed_work, planned_work, selection_flops
from swiftvlm_eval.models.shape import DecoderShape, TowerShape
from swiftvlm_eval.pruning.contract import PruningMethod
from swiftvlm_eval.pruning.schedule import Plan
from swiftvlm_eval.pruning.trace import SampleTrace
from swiftvlm_eval.pruning.work import PromptWork


@dataclass(frozen=True)
class PrefillCost:
    """FLOPs of one prefill, one per multiply-accumulate.

    Attributes:
        layers: of the decoder layers.
        selection: of the selection, by kind of work.
        paper_layers: of the decoder layers with the papers' 70 text tokens.
        overhead: of the selection as the method's own paper counts it, by item.
        attributed_mean: mean visual rows per layer as that paper counts them; None where it counts what is executed.
    """

    layers: float
    selection: Mapping[str, float] = field(default_factory=dict)
    paper_layers: float = 0.0
    overhead: Mapping[str, float] = field(default_factory=dict)
    attributed_mean: float | None = None

    @property
    def executed(self) -> float:
        """All that is executed."""
        return self.layers + sum(self.selection.values())

    @property
    def paper(self) -> float:
        """The papers' count."""
        return self.paper_layers + sum(self.overhead.values())


def planned_cost(
    method: PruningMethod, plan: Plan, text_tokens: int, shape: DecoderShape, tower: TowerShape
) -> PrefillCost:
    """What a plan will cost; the papers' count takes the rows as the method's paper attributes them to the layers.

    Args:
        method: the method of the plan.
        plan: of one prompt.
        text_tokens: of the prompt; what the system part leaves of them is the question.
        shape: the decoder.
        tower: the vision tower.
    """
    work = planned_work(plan, text_tokens, max(1, text_tokens - SYSTEM_TOKENS), tower)
    paper_rows = (method.attributed_plan(plan) or plan).rows_per_layer
    return _cost(method, plan, work, plan.rows_per_layer, paper_rows, shape, tower)


def executed_cost(method: PruningMethod, trace: SampleTrace, shape: DecoderShape, tower: TowerShape) -> PrefillCost:
    """What a prefill did cost; the papers' count takes the executed rows, too.

    Args:
        method: the method that was at work.
        trace: of one sample.
        shape: the decoder.
        tower: the vision tower.
    """
    rows = trace.rows_per_layer
    return _cost(method, trace.plan, executed_work(trace, tower), rows, rows, shape, tower)


def _cost(
    method: PruningMethod,
    plan: Plan,
    work: PromptWork,
    rows: Sequence[float],
    paper_rows: Sequence[float],
    shape: DecoderShape,
    tower: TowerShape,
) -> PrefillCost:
    attributed = method.attributed_plan(plan) if plan.num_visual else None
    return PrefillCost(
        layers=prefill_flops(rows, work.text, shape),
        selection=selection_flops(method, work, shape, tower),
        paper_layers=prefill_flops(paper_rows, PAPER_TEXT_TOKENS, shape),
        overhead=method.overhead_flops(plan, shape.hidden_size) if plan.num_visual else {},
        attributed_mean=None if attributed is None else attributed.mean_visual_tokens,
    )
