"""Work that is done ahead of the model in threads: documents are read, images are decoded and preprocessed.

One thread reads, so that documents are read one at a time and in order: neither the data sets nor a task's
`doc_to_visual` promise to bear more. Several threads encode what it read. Results come in the order of the jobs, and
an error comes at the place of its job, when everything before it has been handed out.
"""

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

Job = TypeVar("Job")
Read = TypeVar("Read")
Ready = TypeVar("Ready")

LOOK_AHEAD = 2
"""Batches that are prepared ahead where nobody said how many and no times are recorded."""


def encoders(look_ahead: int) -> int:
    """Threads that encode: one for each batch ahead, but not more than there are processors, and at least one."""
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(look_ahead, processors))


@contextmanager
def ahead(
    jobs: Sequence[Job], read: Callable[[Job], Read], encode: Callable[[Read], Ready], look_ahead: int
) -> Iterator[Iterator[Ready]]:
    """`encode(read(job))` of every job, in order, up to `look_ahead` jobs ahead of the one that was handed out last.

    When the block is left, whatever the reason, what has not begun is given up, what has is waited for, and no thread
    stays behind.

    Args:
        jobs: what is to be done.
        read: called in one thread, job by job.
        encode: called in several threads.
        look_ahead: 0 does everything in the caller's thread, each job when it is asked for.
    """
    if look_ahead == 0:
        yield (encode(read(job)) for job in jobs)
        return
    reader = ThreadPoolExecutor(1, "reading")
    workers = ThreadPoolExecutor(encoders(look_ahead), "encoding")

    def both(found: Future[Read]) -> Ready:
        return encode(found.result())

    def in_order() -> Iterator[Ready]:
        waiting: deque[Future[Ready]] = deque()
        for job in jobs:
            waiting.append(workers.submit(both, reader.submit(read, job)))
            if len(waiting) > look_ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()

    try:
        yield in_order()
    finally:
        for pool in (reader, workers):  # an encoder may be waiting for what the reader will not read any more
            pool.shutdown(wait=False, cancel_futures=True)
        for pool in (reader, workers):
            pool.shutdown(wait=True)
