"""Runs tests on copies of the tree, each run in a fork of a process that has imported the heavy libraries."""

from __future__ import annotations

import hashlib
import importlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

_FAILED = re.compile(r"^(?:FAILED|ERROR) (\S+)", re.MULTILINE)
NOTHING_COLLECTED = 5


@dataclass(frozen=True)
class Job:
    """One run of tests.

    Attributes:
        name: of the run and its log.
        tests: paths below the root, in the order in which they run; the first failure ends the run.
        limit: seconds after which it is ended.
        file: the source that is replaced, below the root; empty for none.
        code: what it is replaced by.
    """

    name: str
    tests: tuple[str, ...]
    limit: float
    file: str = ""
    code: str = ""


@dataclass(frozen=True)
class Verdict:
    """What became of a job.

    Attributes:
        status: `passed`, `failed`, `timeout`, or `error` where no test ran.
        by: the test that failed first.
        seconds: wall clock.
    """

    status: str
    by: str
    seconds: float


def tracked(root: Path) -> list[str]:
    """The files of the tree, without what git ignores."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout
    return sorted(name for name in set(listed.split("\0")) if name and (root / name).is_file())


def fingerprint(root: Path, names: Iterable[str]) -> str:
    """Tells two states of the tree apart."""
    digest = hashlib.sha256()
    for name in names:
        digest.update(f"{name} {hashlib.sha256((root / name).read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()[:16]


def copy_tree(root: Path, names: Iterable[str], folder: Path) -> None:
    """A fresh copy of the tree's files."""
    shutil.rmtree(folder, ignore_errors=True)
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(root / name, folder / name)


def preload(modules: Iterable[str]) -> None:
    """Imports what every run needs, but nothing of ours.

    Raises:
        ValueError: one of them imports the package whose copies are to be tested.
    """
    for module in modules:
        importlib.import_module(module)
        if "swiftvlm_eval" in sys.modules:
            raise ValueError(f"preload={module}: imports swiftvlm_eval, which every mutant must import itself")


def run_all(
    jobs: Sequence[Job], root: Path, copies: Sequence[Path], logs: Path, done: Callable[[Job, Verdict], None]
) -> None:
    """Runs jobs, one in each copy at a time; a copy is as the tree again before its next job."""
    waiting, running = list(reversed(jobs)), dict[int, tuple[Job, Path, float]]()
    free = list(copies)
    logs.mkdir(parents=True, exist_ok=True)
    try:
        while waiting or running:
            while waiting and free:
                job, copy = waiting.pop(), free.pop()
                if job.file:
                    (copy / job.file).write_text(job.code, encoding="utf-8")
                running[_start(job, root, copy, logs / f"{job.name}.log")] = (job, copy, time.monotonic())
            for process, code in _ended(running):
                job, copy, start = running.pop(process)
                if job.file:
                    shutil.copy2(root / job.file, copy / job.file)
                free.append(copy)
                done(job, _verdict(code, logs / f"{job.name}.log", time.monotonic() - start))
            time.sleep(0.1)
    finally:
        for process in running:
            _kill(process)


def _start(job: Job, root: Path, copy: Path, log: Path) -> int:
    """Forks; the child runs the tests in its copy and never returns."""
    sys.stdout.flush()
    process = os.fork()
    if process:
        return process
    code = 3
    try:
        os.setsid()
        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(file, 1)
        os.dup2(file, 2)
        os.chdir(copy)
        ours = {str(root), str(root / "scripts")}
        sys.path[:] = [str(copy), *(path for path in sys.path if path not in ours)]
        sys.dont_write_bytecode = True
        os.environ |= {"PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
        code = int(pytest.main(["-q", "-x", "--tb=short", "-p", "no:cacheprovider", *job.tests]))
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _ended(running: dict[int, tuple[Job, Path, float]]) -> Iterator[tuple[int, int | None]]:
    """Processes that are over with their exit status; None for those that ran past their limit."""
    for process, (job, _, start) in list(running.items()):
        ended, status = os.waitpid(process, os.WNOHANG)
        if ended:
            _kill_group(process)  # what a test may have left behind
            yield process, os.waitstatus_to_exitcode(status)
        elif time.monotonic() - start > job.limit:
            _kill(process)
            yield process, None


def _kill(process: int) -> None:
    _kill_group(process)
    os.waitpid(process, 0)


def _kill_group(process: int) -> None:
    try:
        os.killpg(process, signal.SIGKILL)
    except ProcessLookupError:
        pass


def _verdict(code: int | None, log: Path, seconds: float) -> Verdict:
    said = _FAILED.search(log.read_text(encoding="utf-8", errors="replace"))
    if code is None:
        return Verdict("timeout", "", seconds)
    if code == 0:
        return Verdict("passed", "", seconds)
    if code == NOTHING_COLLECTED:
        return Verdict("error", "no test was collected", seconds)
    return Verdict("failed", said[1] if said else f"exit status {code}", seconds)
