"""Whether a serving engine can run a method today: whether all it does is to hand other visual rows to the decoder.

An engine such as vLLM or SGLang takes the rows of an image ready made, any number of them. It numbers the sequence
0..n-1, and its cache has one length for all layers. So a method can be served if it acts before the decoder alone and
renumbers the sequence; rows that stand for several tokens are then rows like any other.
"""

from collections.abc import Iterable

from swiftvlm_eval.pruning.contract import PruningMethod
from swiftvlm_eval.pruning.schedule import Plan
from swiftvlm_eval.pruning.words import PositionRule


def why_not_servable(boundaries: Iterable[int], rules: Iterable[PositionRule | str]) -> str:
    """What keeps a method from being served; empty where nothing does.

    Args:
        boundaries: of all its stages; none where it drops nothing.
        rules: the position rules of its stages.
    """
    acts = sorted(set(boundaries))
    if inside := [boundary for boundary in acts if boundary > 0]:
        layers = ", ".join(map(str, inside))
        return f"acts inside the decoder (after layer {layers}), and engines keep one cache length for all layers"
    if acts and set(rules) != {"compact"}:
        return "keeps the position ids of its rows, and engines number a sequence one by one"
    return ""


def why_plan_not_servable(method: PruningMethod, plan: Plan) -> str:
    """The same for one plan of a method: for one budget, one decoder and one image's number of visual tokens."""
    return why_not_servable(
        (stage.boundary for stage in plan.stages), [method.rule_at(stage) for stage in plan.stages]
    )
