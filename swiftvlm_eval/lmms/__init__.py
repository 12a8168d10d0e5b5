"""The lmms-eval model classes, one for every family and method: requests in, answers out.

What is pruned is decided by the method, and how by the engine.
"""

from swiftvlm_eval.lmms.model import PrunedModel, model_class
from swiftvlm_eval.models.families import FAMILIES
from swiftvlm_eval.pruning.registry import known_names


def __getattr__(name: str) -> type[PrunedModel]:
    """A family's class, `SwiftvlmLlava`, or the same with a method preset, `SwiftvlmLlava__fastv`."""
    stem, _, method = name.partition("__")
    families = {family.model_class: family.name for family in FAMILIES.values()}
    if stem not in families or method not in ("", *known_names()):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return model_class(families[stem], method or None)
