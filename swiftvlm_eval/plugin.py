"""Entry point of lmms-eval: our models, and the folder of our tasks.

lmms-eval runs this while it builds its model registry, and an exception here would hide every other plugin. Hence
strings only: no torch, no transformers, nothing that can fail.
"""

import logging
import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from swiftvlm_eval.models.families import FAMILIES
from swiftvlm_eval.pruning.registry import known_names

TASK_FOLDER = Path(__file__).parent / "tasks"

_logger = logging.getLogger(__name__)


def model_classes() -> dict[str, str]:
    """lmms-eval model name -> class name in `swiftvlm_eval.lmms`; `swiftvlm_llava` and friends, one per method."""
    return {
        f"{method}_{family.suffix}": family.model_class + ("" if method == "swiftvlm" else f"__{method}")
        for family in FAMILIES.values()
        for method in known_names()
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
    try:
        _load_documents_first()
    except Exception as error:
        _logger.warning("swiftvlm-eval: documents are loaded after the model (%s)", error)
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


def _load_documents_first() -> None:
    """Lets the command line of lmms-eval load a task's documents when it looks up its name, for our models.

    Its evaluator loads the model first, and what is wrong with the data is known minutes later. It is given the tasks
    that are loaded here, so that nothing is loaded twice.
    """
    from lmms_eval.tasks import TaskManager

    match, load = TaskManager.match_tasks, TaskManager.load_task_or_group
    if getattr(match, "loads_documents", False):
        return

    def match_tasks(self: Any, task_list: list[str]) -> list[str]:
        names: list[str] = match(self, task_list)
        known = all(task in names or "*" in task for task in task_list)
        if names and known and getattr(self, "model_name", None) in model_classes():
            self.loaded_tasks = names, _one_process_first(names, self)
        return names

    def load_task_or_group(self: Any, task_list: Any = None, *args: Any, **kwargs: Any) -> dict[str, Any]:
        names, tasks = self.__dict__.pop("loaded_tasks", (None, {}))
        return tasks if names is not None and task_list == names else load(self, task_list, *args, **kwargs)

    match_tasks.loads_documents = True  # type: ignore[attr-defined]
    TaskManager.match_tasks, TaskManager.load_task_or_group = match_tasks, load_task_or_group


def _one_process_first(names: list[str], manager: Any) -> dict[str, Any]:
    """Loads tasks; of several processes the first one fills the cache for the others."""
    import torch.distributed
    from accelerate import PartialState

    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return load_tasks(names, manager)
    with PartialState().main_process_first():
        return load_tasks(names, manager)


def load_tasks(names: Sequence[str], manager: Any) -> dict[str, Any]:
    """Tasks with their documents, as lmms-eval's evaluator loads them.

    Args:
        names: lmms-eval task or group names.
        manager: lmms-eval's index of tasks.

    Raises:
        ValueError: the documents of a task cannot be loaded; the message says of which, and why.
    """
    from lmms_eval import evaluator
    from lmms_eval.tasks import get_task_dict
    from tenacity import RetryError

    # What the evaluator does first: nested loads share locks, and `datasets` may pickle what holds a connection.
    evaluator._enable_reentrant_filelocks()
    if not hasattr(ssl.SSLContext, "_orig_reduce"):
        ssl.SSLContext._orig_reduce = True  # type: ignore[attr-defined]
        ssl.SSLContext.__reduce__ = _context_alone  # type: ignore[method-assign, assignment]
    try:
        tasks: dict[str, Any] = get_task_dict(list(names), manager, "simple")
    except Exception as error:  # whatever a task's own code or the hub client raises ends in one line
        cause = error.last_attempt.exception() if isinstance(error, RetryError) else error
        reason = " ".join(str(cause).split()) or type(cause).__name__
        raise ValueError(f"tasks={','.join(names)}: the documents cannot be loaded: {reason}") from cause
    return tasks


def _context_alone(context: ssl.SSLContext) -> tuple[type[ssl.SSLContext], tuple[int]]:
    """Pickles a connection's settings as an empty set of the same protocol."""
    return ssl.SSLContext, (context.protocol,)
