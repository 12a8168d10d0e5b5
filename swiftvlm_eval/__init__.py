"""swiftvlm-eval: visual-token pruning for LLaVA-1.5 and LLaVA-NeXT, compared.

The public names are loaded when they are first used, so that importing the package costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from swiftvlm_eval.analysis.pictures import picture
    from swiftvlm_eval.pruning.budget import BudgetError
    from swiftvlm_eval.pruning.composed import Composed
    from swiftvlm_eval.pruning.contract import PruningMethod, RowEdit, Signals
    from swiftvlm_eval.pruning.prune import prune
    from swiftvlm_eval.pruning.registry import make_method, method_names
    from swiftvlm_eval.pruning.schedule import Stage
    from swiftvlm_eval.pruning.scores import top_k
    from swiftvlm_eval.pruning.work import PromptWork, Work

__version__ = "0.2.0"

_HOMES = {
    "BudgetError": "swiftvlm_eval.pruning.budget",
    "Composed": "swiftvlm_eval.pruning.composed",
    "PromptWork": "swiftvlm_eval.pruning.work",
    "PruningMethod": "swiftvlm_eval.pruning.contract",
    "RowEdit": "swiftvlm_eval.pruning.contract",
    "Signals": "swiftvlm_eval.pruning.contract",
    "Stage": "swiftvlm_eval.pruning.schedule",
    "Work": "swiftvlm_eval.pruning.work",
    "make_method": "swiftvlm_eval.pruning.registry",
    "method_names": "swiftvlm_eval.pruning.registry",
    "picture": "swiftvlm_eval.analysis.pictures",
    "prune": "swiftvlm_eval.pruning.prune",
    "top_k": "swiftvlm_eval.pruning.scores",
}

__all__ = [
    "BudgetError",
    "Composed",
    "PromptWork",
    "PruningMethod",
    "RowEdit",
    "Signals",
    "Stage",
    "Work",
    "__version__",
    "make_method",
    "method_names",
    "picture",
    "prune",
    "top_k",
]


def __getattr__(name: str) -> Any:
    """Loads a public name on first use."""
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
