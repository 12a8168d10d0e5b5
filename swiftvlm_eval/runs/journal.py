"""Answers of an unfinished run, so that a killed run goes on where it stopped."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from swiftvlm_eval.runs.report import REPORT_KEY, report_in


class Journal:
    """Append-only files of answers, one JSON line each, one file per process; a line cut off by a kill is ignored.

    An answer is found again only for the same task, document and prompt, whichever process gave it.

    Args:
        path: the file of the first process; process N writes `<stem>.<N>.jsonl` beside it. It and its folder are made
            when the first answer comes.
        process: number of this process.
        count: how many processes there are now; replaces what stored answers say of their run.
    """

    def __init__(self, path: Path, process: int = 0, count: int = 1) -> None:
        self._first = path
        self.path = path.with_name(f"{path.stem}.{process}{path.suffix}") if process else path
        self._count = count
        self._answers: dict[str, tuple[str, dict[str, Any]]] = {}
        self._settled: dict[str, Any] = {}
        for file in self._files():
            self._read(file)
        self._cut = self.path.exists() and not self.path.read_bytes().endswith(b"\n")

    def _files(self) -> list[Path]:
        """The files of all processes, also of an earlier run with more of them."""
        found = self._first.parent.glob(f"{self._first.stem}.*{self._first.suffix}")
        return [*([self._first] if self._first.exists() else []), *sorted(found)]

    def _read(self, file: Path) -> None:
        for line in file.read_bytes().decode(errors="replace").split("\n"):  # a crash may leave any bytes
            try:
                entry = json.loads(line)
                if isinstance(entry, dict) and isinstance(entry.get("settled"), dict):
                    self._settled |= entry["settled"]
                    continue
                key, text, counts = entry["key"], entry["text"], entry["counts"]
            except (ValueError, KeyError, TypeError):
                continue
            if isinstance(key, str) and isinstance(text, str) and isinstance(counts, dict):
                self._answers[key] = (text, counts)

    def __len__(self) -> int:
        """Answers at hand."""
        return len(self._answers)

    def find(self, request: Any) -> tuple[str, dict[str, Any]] | None:
        """The answer to a request and its token counts, or None."""
        stored = self._answers.get(self._key(request))
        return None if stored is None else (stored[0], self._of_this_run(stored[1]))

    def _of_this_run(self, counts: dict[str, Any]) -> dict[str, Any]:
        """Counts whose description of the run, if they hold one, names the present number of processes."""
        if not isinstance(counts.get(REPORT_KEY), Mapping):
            return counts
        return {**counts, REPORT_KEY: report_in(counts).on_processes(self._count).to_dict()}

    def add(self, request: Any, text: str, counts: dict[str, Any]) -> None:
        """Stores an answer at once."""
        key = self._key(request)
        self._answers[key] = (text, counts)
        self._write({"key": key, "text": text, "counts": counts})

    @property
    def settled(self) -> Mapping[str, Any]:
        """What the run found out about itself before its first answer, and keeps when it goes on."""
        return self._settled

    def settle(self, **found: Any) -> None:
        """Stores what a run found out about itself."""
        self._settled |= found
        self._write({"settled": found})

    def _write(self, content: Mapping[str, Any]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        line = json.dumps(content) + "\n"
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(f"\n{line}" if self._cut else line)
        self._cut = False

    def close(self) -> None:
        """The run is complete: the files of all processes are not needed any more."""
        for file in {self.path, *self._files()}:
            file.unlink(missing_ok=True)

    @staticmethod
    def _key(request: Any) -> str:
        prompt = hashlib.sha256(f"{request.args[0]}\0{sorted(request.args[1].items(), key=str)}".encode()).hexdigest()
        return f"{request.args[-2]}/{request.args[-3]}/{prompt[:16]}"
