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

        self.names = sorted(set(tasks))
        self.manager: Any = task_index(self.names)
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


def task_index(names: Sequence[str]) -> Any:
    """lmms-eval's index of tasks: of our folder alone where the names need no other, for the stock one takes seconds.

    Our tasks and groups win in the whole index, so that a name in ours means the same in both.

    Args:
        names: lmms-eval task or group names; one that nobody knows leads to the whole index.
    """
    from lmms_eval.tasks import TaskManager

    ours = TaskManager(verbosity="WARNING", model_name="swiftvlm_llava", include_defaults=False)
    if all(_is_complete(name, ours) for name in names):
        return ours
    return TaskManager(verbosity="WARNING", model_name="swiftvlm_llava")


def _is_complete(name: Any, manager: Any) -> bool:
    """Whether an index has a task, or a group and all that it leads to."""
    entry = manager.task_index.get(name) if isinstance(name, str) else None
    if entry is None or "task" not in entry:
        return entry is not None
    members = manager._get_config(name)["task"] if entry["task"] == -1 else entry["task"]
    return all(_is_complete(member, manager) for member in members)
