"""Loads lmms-eval tasks with their documents before any weights: what cannot be had is known at once, in one line."""

import ssl
from collections.abc import Sequence
from typing import Any


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
