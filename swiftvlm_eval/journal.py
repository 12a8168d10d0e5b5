"""Answers of an unfinished run, so that a killed run goes on where it stopped."""

import hashlib
import json
from pathlib import Path
from typing import Any


class Journal:
    """An append-only file of answers, one JSON line each; a line that was cut off by a kill is ignored.

    An answer is found again only for the same task, document and prompt.

    Args:
        path: the file; it and its folder are made when the first answer comes.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._answers: dict[str, tuple[str, dict[str, Any]]] = {}
        if path.exists():
            self._read()

    def _read(self) -> None:
        content = self.path.read_bytes().decode(errors="replace")  # a crash may leave any bytes
        sound = []
        for line in content.split("\n"):
            try:
                entry = json.loads(line)
                key, text, counts = entry["key"], entry["text"], entry["counts"]
            except (json.JSONDecodeError, KeyError, TypeError):
                continue
            if isinstance(key, str) and isinstance(text, str) and isinstance(counts, dict):
                self._answers[key] = (text, counts)
                sound.append(line)
        kept = "".join(f"{line}\n" for line in sound)
        if kept != content:
            self.path.write_text(kept, encoding="utf-8")

    def __len__(self) -> int:
        """Answers at hand."""
        return len(self._answers)

    def find(self, request: Any) -> tuple[str, dict[str, Any]] | None:
        """The answer to a request and its token counts, or None."""
        return self._answers.get(self._key(request))

    def add(self, request: Any, text: str, counts: dict[str, Any]) -> None:
        """Stores an answer at once."""
        key = self._key(request)
        self._answers[key] = (text, counts)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps({"key": key, "text": text, "counts": counts}) + "\n")

    def close(self) -> None:
        """The run is complete: the file is not needed any more."""
        self.path.unlink(missing_ok=True)

    @staticmethod
    def _key(request: Any) -> str:
        prompt = hashlib.sha256(f"{request.args[0]}\0{sorted(request.args[1].items(), key=str)}".encode()).hexdigest()
        return f"{request.args[-2]}/{request.args[-3]}/{prompt[:16]}"
