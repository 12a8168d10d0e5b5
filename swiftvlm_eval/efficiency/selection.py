"""FLOPs of a method's selection, item by item: what its code executes, one per multiply-accumulate.

A method declares amounts of work (`PruningMethod.work`); the prices are here and nowhere else. What a method's own
paper counts instead is `PruningMethod.overhead_flops`, and a column of its own.
"""

from swiftvlm_eval.models.shape import DecoderShape, TowerShape
from swiftvlm_eval.pruning.contract import PruningMethod
from swiftvlm_eval.pruning.schedule import Plan
from swiftvlm_eval.pruning.trace import SampleTrace
from swiftvlm_eval.pruning.work import COMPARED_CHANNELS, PromptWork, StageWork


def prices(shape: DecoderShape, tower: TowerShape) -> dict[str, int]:
    """FLOPs of one unit of every kind of `Work`."""
    d, width = shape.hidden_size, tower.hidden_size
    head = shape.query_width // shape.num_heads
    return {
        "queries": d * shape.query_width,
        "keys": d * head * shape.num_kv_heads,
        "attention": shape.query_width,
        "position_similarity": head,
        "rating": 1,
        "similarity": d,
        "value_similarity": head * shape.num_kv_heads,
        "channel_similarity": min(d, COMPARED_CHANNELS),
        "distance": d,
        "averaging": d,
        "volume": 1,
        "projection": width * d + d * d,
        "tower_queries": width * width,
        "tower_keys": width * width,
        "tower_attention": width,
        "tower_similarity": width // tower.num_heads,
        "feature_similarity": width,
        "tower_averaging": width,
    }


def planned_work(plan: Plan, text_tokens: int, question_tokens: int, tower: TowerShape) -> PromptWork:
    """What a plan expects; as many encoder inputs as N tokens need."""
    rows = [plan.num_visual, *(stage.kept + stage.merged for stage in plan.stages)]
    return PromptWork(
        num_visual=plan.num_visual,
        text=text_tokens,
        num_question=question_tokens,
        encoder_inputs=-(-plan.num_visual // tower.patches),
        patches=tower.patches,
        stages=tuple(
            StageWork(stage, live, stage.kept, stage.merged) for stage, live in zip(plan.stages, rows, strict=False)
        ),
    )


def executed_work(trace: SampleTrace, tower: TowerShape) -> PromptWork:
    """What was executed, by the rows that were really there."""
    return PromptWork(
        num_visual=trace.num_visual,
        text=trace.num_text,
        num_question=trace.num_question,
        encoder_inputs=trace.encoder_inputs,
        patches=tower.patches,
        stages=tuple(
            StageWork(stage, edit.live, len(edit.index) - edit.made, edit.made)
            for stage, edit in zip(trace.plan.stages, trace.stages, strict=True)
        ),
        layout=trace.layout,
    )


def selection_flops(
    method: PruningMethod, prompt: PromptWork, shape: DecoderShape, tower: TowerShape
) -> dict[str, float]:
    """FLOPs of the selection for one sample, by kind of work; what a method does not do is left out."""
    price = prices(shape, tower)
    work = vars(method.work(prompt))
    return {item: float(amount * price[item]) for item, amount in work.items() if amount}
