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
        leaves: lmms-eval's task object of each leaf task.
        counts: documents of each leaf task.

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
        self.leaves: dict[str, Any] = {}
        for name in self.names:
            leaves = get_task_list(load_tasks([name], self.manager))
            self.leaves |= {leaf.task_name: leaf.task for leaf in leaves}
        self.counts = {name: len(task.eval_docs) for name, task in self.leaves.items()}

    def expected(self, limit: int | None) -> dict[str, int]:
        """Documents that a run answers, by leaf task."""
        return {task: count if limit is None else min(limit, count) for task, count in self.counts.items()}
