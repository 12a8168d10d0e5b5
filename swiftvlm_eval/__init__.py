"""swiftvlm-eval: visual-token pruning for LLaVA-1.5 and LLaVA-NeXT, compared.

The public names are loaded when they are first used, so that importing the package costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from swiftvlm_eval.pruning.budget import BudgetError
    from swiftvlm_eval.pruning.contract import PruningMethod
    from swiftvlm_eval.pruning.methods import make_method, method_names
    from swiftvlm_eval.pruning.prune import prune

__version__ = "0.1.0"

_HOMES = {
    "BudgetError": "swiftvlm_eval.pruning.budget",
    "PruningMethod": "swiftvlm_eval.pruning.contract",
    "make_method": "swiftvlm_eval.pruning.methods",
    "method_names": "swiftvlm_eval.pruning.methods",
    "prune": "swiftvlm_eval.pruning.prune",
}

__all__ = ["BudgetError", "PruningMethod", "__version__", "make_method", "method_names", "prune"]


def __getattr__(name: str) -> Any:
    """Loads a public name on first use."""
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
