"""What is known of each document so far, on disk: an interrupted analysis goes on, and two never mix."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from swiftvlm_eval.results.bounds import strict_json
from swiftvlm_eval.results.files import require_regular


class SampleLog:
    """A file of JSON lines: the settings, then one line a document. A last line that a kill cut off is done again.

    Args:
        path: made with the first document.
        settings: everything that makes the numbers what they are.

    Attributes:
        found: by document.

    Raises:
        ValueError: the file holds an analysis with other settings, or a broken line.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        self.path = path
        self.settings = json.loads(json.dumps(settings, allow_nan=False))
        self.found: dict[str, Any] = {}
        if path.exists():
            self._read()

    def add(self, key: str, values: Mapping[str, Any]) -> None:
        """Stores one document at once.

        Raises:
            ValueError: a number in it is not finite.
        """
        line = json.dumps({"document": key, "values": values}, allow_nan=False)
        start = not self.path.exists()
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write((json.dumps({"settings": self.settings}) + "\n" if start else "") + line + "\n")
        self.found[key] = json.loads(line)["values"]

    def _read(self) -> None:
        content = require_regular(self.path).read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        for number, line in enumerate(whole.decode("utf-8", errors="replace").splitlines(), 1):
            try:
                entry = strict_json(line)
                if number == 1:
                    settings = dict(entry["settings"])
                else:
                    self.found[str(entry["document"])] = dict(entry["values"])
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(f"{self.path}, line {number}: broken; allowed is to delete the file") from error
            if number == 1:
                self._compare(settings)
        if len(whole) < len(content):
            self.path.write_bytes(whole)
        if not whole:
            self.path.unlink()

    def _compare(self, there: Mapping[str, Any]) -> None:
        for field in sorted({*there, *self.settings}):
            if there.get(field) != self.settings.get(field):
                old, new = (str(values.get(field))[:80] for values in (there, self.settings))
                raise ValueError(
                    f"{self.path.name}: {field} is {old} there and {new} here; allowed is another --out folder, or "
                    "the same settings"
                )
