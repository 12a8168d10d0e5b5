"""The tasks of a sweep and their documents, loaded before any weights: what cannot be had is known at once."""

import ssl
from collections.abc import Sequence
from typing import Any


class Documents:
    """lmms-eval tasks whose data can be had.

    Args:
        tasks: lmms-eval task or group names.

    Attributes:
        names: the tasks asked for, sorted.
        manager: lmms-eval's index of tasks, in which our groups win.
        counts: documents of each leaf task.

    Raises:
        ValueError: a task that lmms-eval does not know, or one whose data cannot be loaded; the message names it.
    """

    def __init__(self, tasks: Sequence[str]) -> None:
        from lmms_eval import models  # noqa: F401  (builds the registry, which makes our tasks known)
        from lmms_eval.tasks import TaskManager

        self.names = sorted(set(tasks))
        self.manager: Any = TaskManager(verbosity="WARNING", model_name="swiftvlm_llava")
        unknown = [task for task in self.names if task not in self.manager.all_tasks]
        if unknown:
            raise ValueError(f"tasks={','.join(unknown)}: unknown to lmms-eval; see `lmms_eval --tasks list`")
        self.counts: dict[str, int] = {}
        for name in self.names:
            self.counts |= self._load(name)

    def expected(self, limit: int | None) -> dict[str, int]:
        """Documents that a run answers, by leaf task."""
        return {task: count if limit is None else min(limit, count) for task, count in self.counts.items()}

    def _load(self, name: str) -> dict[str, int]:
        from lmms_eval import evaluator
        from lmms_eval.evaluator_utils import get_task_list
        from lmms_eval.tasks import get_task_dict
        from tenacity import RetryError

        # What lmms-eval's evaluator does before it loads tasks: nested loads share locks, and `datasets` may pickle
        # what holds a connection to the hub.
        evaluator._enable_reentrant_filelocks()
        if not hasattr(ssl.SSLContext, "_orig_reduce"):
            ssl.SSLContext._orig_reduce = True  # type: ignore[attr-defined]
            ssl.SSLContext.__reduce__ = _context_alone  # type: ignore[method-assign, assignment]
        try:
            tasks = get_task_list(get_task_dict([name], self.manager, "simple"))
            return {task.task_name: len(task.task.eval_docs) for task in tasks}
        except Exception as error:  # whatever a task's own code or the hub client raises ends in one line
            cause = error.last_attempt.exception() if isinstance(error, RetryError) else error
            reason = " ".join(str(cause).split()) or type(cause).__name__
            raise ValueError(f"tasks={name}: its documents cannot be loaded: {reason}") from cause


def _context_alone(context: ssl.SSLContext) -> tuple[type[ssl.SSLContext], tuple[int]]:
    """Pickles a connection's settings as an empty set of the same protocol."""
    return ssl.SSLContext, (context.protocol,)
