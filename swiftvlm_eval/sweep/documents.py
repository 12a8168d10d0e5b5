"""The tasks of a sweep, with their documents at hand."""

from collections.abc import Sequence
from typing import Any

from swiftvlm_eval.plugin import load_tasks


class Documents:
    """lmms-eval tasks whose data can be had.

    Args:
        tasks: lmms-eval task or group names.

    Attributes:
        names: the tasks asked for, sorted.
        manager: lmms-eval's index of tasks, in which our groups win.
        counts: documents of each leaf task.
        tasks: the leaf tasks themselves.

    Raises:
        ValueError: a task that lmms-eval does not know, or one whose data cannot be loaded; the message names it.
    """

    def __init__(self, tasks: Sequence[str]) -> None:
        from lmms_eval import models  # noqa: F401  (builds the registry, which makes our tasks known)
        from lmms_eval.evaluator_utils import get_task_list
        from lmms_eval.tasks import TaskManager

        self.names = sorted(set(tasks))
        self.manager: Any = TaskManager(verbosity="WARNING", model_name="swiftvlm_llava")
        unknown = [task for task in self.names if task not in self.manager.all_tasks]
        if unknown:
            raise ValueError(f"tasks={','.join(unknown)}: unknown to lmms-eval; see `lmms_eval --tasks list`")
        self.tasks: dict[str, Any] = {}
        self._loaded: dict[Any, Any] = {}
        for name in self.names:
            loaded = load_tasks([name], self.manager)
            self._loaded = loaded | self._loaded  # the order in which lmms-eval would have them
            self.tasks |= {leaf.task_name: leaf.task for leaf in get_task_list(loaded)}
        self.counts = {name: len(task.eval_docs) for name, task in self.tasks.items()}

    def ready(self) -> Any:
        """The index of tasks, which gives the evaluator the loaded ones when it next asks for `names`.

        An evaluation leaves nothing in a task that the next one reads: it makes its requests anew, and what it sets is
        the same each time.
        """
        self.manager.loaded_tasks = list(self.names), self._loaded
        return self.manager

    def expected(self, limit: int | None) -> dict[str, int]:
        """Documents that a run answers, by leaf task."""
        return {task: count if limit is None else min(limit, count) for task, count in self.counts.items()}
