"""Entry point of lmms-eval: our models, and the folder of our tasks.

lmms-eval runs this while it builds its model registry, and an exception here would hide every other plugin. Hence
strings only: no torch, no transformers, nothing that can fail.
"""

import logging
from pathlib import Path
from typing import Any

from swiftvlm_eval.pruning.methods import method_names

TASK_FOLDER = Path(__file__).parent / "tasks"
FAMILIES = {"llava": "SwiftvlmLlava", "llava_next": "SwiftvlmLlavaNext"}

_logger = logging.getLogger(__name__)


def model_classes() -> dict[str, str]:
    """lmms-eval model name -> class name in `swiftvlm_eval.lmms`; `swiftvlm_llava` and friends, one per method."""
    return {
        f"{method}_{family}": cls if method == "swiftvlm" else f"{cls}__{method}"
        for family, cls in FAMILIES.items()
        for method in method_names()
    }


def manifests() -> list[Any]:
    """The models of this plugin; also makes the task folder known."""
    try:
        from lmms_eval.models.registry_v2 import ModelManifest
    except ImportError as error:
        _logger.warning("swiftvlm-eval: models not registered (%s); this lmms-eval is not supported", error)
        return []
    try:
        _add_task_folder()
    except Exception as error:  # lmms-eval has changed under us: say so, and keep its other plugins alive
        _logger.warning("swiftvlm-eval: tasks not registered (%s); use --include_path %s", error, TASK_FOLDER)
    return [
        ModelManifest(model_id=name, simple_class_path=f"swiftvlm_eval.lmms.{cls}")
        for name, cls in model_classes().items()
    ]


def _is_ours(model: Any) -> bool:
    """Whether a TaskManager works for one of our models, given by name or as an object."""
    if isinstance(model, str):
        return model in model_classes()
    return bool(getattr(model, "prefers_swiftvlm_tasks", False))


def _add_task_folder() -> None:
    """Lets TaskManager index our folder; our group names win for our models, the stock ones for all others."""
    from lmms_eval.tasks import TaskManager

    stock = TaskManager.initialize_tasks
    if getattr(stock, "includes_swiftvlm_tasks", False):
        return
    if not hasattr(TaskManager, "_get_task_and_group"):
        raise AttributeError("TaskManager._get_task_and_group is gone")

    def initialize_tasks(self: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
        theirs: dict[str, Any] = stock(self, *args, **kwargs)
        try:
            ours = self._get_task_and_group(f"{TASK_FOLDER}/")
            return {**theirs, **ours} if _is_ours(getattr(self, "model_name", None)) else {**ours, **theirs}
        except Exception as error:
            _logger.warning("swiftvlm-eval: tasks not registered (%s); use --include_path %s", error, TASK_FOLDER)
            return theirs

    initialize_tasks.includes_swiftvlm_tasks = True  # type: ignore[attr-defined]
    TaskManager.initialize_tasks = initialize_tasks
