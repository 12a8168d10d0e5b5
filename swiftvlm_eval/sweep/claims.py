"""Who runs which configuration, where several processes or machines share one output folder."""

import json
import os
import socket
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout


@dataclass(frozen=True)
class Holder:
    """The process that has claimed a configuration.

    Attributes:
        host: its machine.
        pid: its process id there.
        started: when it claimed, ISO 8601 in UTC.
    """

    host: str
    pid: int
    started: str

    def described(self, now: datetime) -> str:
        """For people: `process 4711 on node7, since 3 h 12 min`."""
        minutes = max(0, int((now - datetime.fromisoformat(self.started)).total_seconds()) // 60)
        hours, minutes = divmod(minutes, 60)
        return f"process {self.pid} on {self.host}, since {f'{hours} h ' if hours else ''}{minutes} min"


class _Lock(FileLock):
    """A lock of its own per instance, although lmms-eval makes one instance per path out of all plain file locks."""


class Claim:
    """The right to run one configuration, held from `take` to `release`.

    The operating system frees the lock of a process that ends, so what a dead process of this host left is taken over.
    Not every shared file system hands locks on to other hosts, though: where the lock is free but the note beside it
    names another host, that process may be alive, and the claim counts as its own until a person deletes the note.

    Args:
        folder: holds the claims; made if needed.
        identity: names the configuration.
    """

    def __init__(self, folder: Path, identity: str) -> None:
        self.folder = folder
        self.note = folder / f"{identity}.json"
        self._lock = _Lock(folder / f"{identity}.lock", timeout=0)

    def take(self) -> str | None:
        """Takes the claim; None if that worked, else who has it.

        Raises:
            OSError: the folder cannot be written.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire()
        except Timeout:
            return self._held_by(self._noted())
        holder = self._noted()
        if holder is not None and holder.host != socket.gethostname():
            self._lock.release()
            return f"{self._held_by(holder)}; if that process is gone, delete {self.folder.name}/{self.note.name}"
        own = Holder(socket.gethostname(), os.getpid(), datetime.now(UTC).isoformat(timespec="seconds"))
        self.note.write_text(json.dumps(asdict(own)), encoding="utf-8")
        return None

    def release(self, *, done: bool) -> None:
        """Gives the claim back; with `done` its files go, because the record that is there now tells everyone."""
        self.note.unlink(missing_ok=True)
        if done:
            Path(self._lock.lock_file).unlink(missing_ok=True)
        self._lock.release()

    def forget(self) -> None:
        """Deletes what a process left that was killed when its record was written already; one that is held stays."""
        left = self.note.exists() or Path(self._lock.lock_file).exists()
        if left and self.take() is None:
            self.release(done=True)

    def _noted(self) -> Holder | None:
        """The process named in the note; None if there is no sound note (a kill may leave half of one)."""
        try:
            note = json.loads(self.note.read_text(encoding="utf-8"))
            holder = Holder(str(note["host"]), int(note["pid"]), str(note["started"]))
            return holder if datetime.fromisoformat(holder.started).tzinfo else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _held_by(self, holder: Holder | None) -> str:
        return f"run by {holder.described(datetime.now(UTC)) if holder else 'another process, just started'}"
