"""What a long run says: one bar for the whole; what libraries print is kept in a file."""

import io
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from swiftvlm_eval.cli.terminal import console, errors, quieten, without_controls

WHOLE_RUN = 24 * 3600.0
"""Seconds over which the bar takes the pace: all of them, because configurations are unequally fast."""


class LineLog(io.TextIOBase):
    """A stream for a log: of a line that a bar writes over again and again, the last state is kept.

    Args:
        file: where finished lines go.
    """

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._begun = ""

    def write(self, text: str) -> int:
        """Takes any text; a line is written when it has ended."""
        *whole, begun = (self._begun + text).split("\n")
        for line in whole:
            self._file.write(_last_state(line) + "\n")
        if whole:
            self._file.flush()
        self._begun = _last_state(begun)
        return len(text)

    def flush(self) -> None:
        """Passes on what has ended."""
        self._file.flush()

    def close(self) -> None:
        """Writes what has begun; the file stays open."""
        if self._begun:
            self.write("\n")

    def fileno(self) -> int:
        """The file's, for processes that are started."""
        return self._file.fileno()


def _last_state(line: str) -> str:
    return line.rstrip("\r").rpartition("\r")[2]


def log_file(out: Path) -> Path:
    """A new name for the log of a run: `logs/<time>-<process>.log` below its folder."""
    return out / "logs" / f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{os.getpid()}.log"


@contextmanager
def logged(path: Path) -> Iterator[None]:
    """Keeps everything that is printed in a file, but for our own words and warnings, which the terminal gets.

    Args:
        path: the file; a line is added to what is there.

    Raises:
        OSError: it cannot be written.
    """
    from loguru import logger

    path.parent.mkdir(parents=True, exist_ok=True)
    stdout, stderr = sys.stdout, sys.stderr
    with path.open("a", encoding="utf-8", errors="backslashreplace") as file:
        stream = LineLog(file)
        try:
            with redirect_stdout(stream), redirect_stderr(stream):
                console.file, errors.file = stdout, stderr
                import lmms_eval.models  # noqa: F401  (sets up the logger when it is first imported)

                logger.remove()
                logger.add(_to(stream), level="INFO", format="{time:HH:mm:ss} {level}: {message}")
                logger.add(_to_terminal, level="WARNING", format="{level}: {message}")
                yield
        finally:
            console.file = errors.file = None  # type: ignore[assignment]  # again whatever sys has
            stream.close()
            quieten()


def _to(stream: LineLog) -> Callable[[str], None]:
    def write(message: str) -> None:
        stream.write(message)

    return write


def _to_terminal(message: str) -> None:
    # beside the bar only its own console writes tidily
    target = console if console.is_terminal and not console.quiet else errors
    target.print(escape(without_controls(message.strip())), soft_wrap=True)


class RunBar:
    """A bar over the documents of all configurations, and the time that is left.

    Args:
        configurations: how many there are.
        documents: that this process answers in each.
    """

    def __init__(self, configurations: int, documents: int) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._progress = Progress(
            *columns,
            console=console,
            transient=True,
            speed_estimate_period=WHOLE_RUN,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._configurations, self._documents = configurations, documents
        self._finished, self._answered, self._skipped = 0, 0, 0
        self._begun = self._last = time.monotonic()
        self._task = self._progress.add_task("documents", total=configurations * documents)

    def __enter__(self) -> "RunBar":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def answered(self, count: int) -> None:
        """More documents have their answers."""
        self._answered += count
        self._progress.update(self._task, completed=min(self._answered, self._total))

    def finished(self, *, ran: bool) -> str:
        """Another configuration has its outcome.

        Returns:
            How long it took and how long the others will take, for people; of one that was not run nothing, and its
            documents are no longer part of the whole.
        """
        now = time.monotonic()
        took, self._last = now - self._last, now
        self._finished += 1
        self._skipped += not ran
        self._answered = (self._finished - self._skipped) * self._documents
        self._progress.update(self._task, total=self._total, completed=self._answered)
        if not ran:
            return ""
        left = (self._total - self._answered) / max(self._answered, 1) * (now - self._begun)
        return f" in {duration(took)}" + (f", about {duration(left)} left" if self._total > self._answered else "")

    @property
    def _total(self) -> int:
        return (self._configurations - self._skipped) * self._documents


def duration(seconds: float) -> str:
    """For people: `42 s`, `3 min`, `2 h 05 min`.

    Args:
        seconds: from 0.
    """
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02} min"
