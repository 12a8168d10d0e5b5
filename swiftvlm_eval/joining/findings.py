"""What a check has to say: refusals of one line each, and notes for the reviewer."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from swiftvlm_eval.leaderboard.render.text import plain

_LONGEST = 120
MOST = 1000


@dataclass(frozen=True)
class Refusal:
    """One reason against a file.

    Attributes:
        file: File name as given, without the folders of the machine.
        field: What is wrong in it.
        value: What was found there.
        allowed: What may stand there.
    """

    file: str
    field: str
    value: object
    allowed: str

    @property
    def line(self) -> str:
        """The reason in one line without control characters."""
        return f"{cut(self.file)}: {cut(self.field)}={cut(str(self.value))}: allowed is {cut(self.allowed, 400)}"


@dataclass(frozen=True)
class Note:
    """What a reviewer should look at although nothing forbids it."""

    file: str
    text: str


@dataclass
class Findings:
    """Collects what the checks find.

    Attributes:
        refusals: Reasons against files, in the order they were found; the first `MOST` of them.
        notes: What to look at, likewise.
    """

    refusals: list[Refusal] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)
    _files: set[str] = field(default_factory=set)

    def refuse(self, file: str, where: str, value: object, allowed: str) -> None:
        """Adds a refusal, once."""
        found = Refusal(file, where, value, allowed)
        self._files.add(file)
        if len(self.refusals) < MOST and found not in self.refusals:
            self.refusals.append(found)

    def note(self, file: str, text: str) -> None:
        """Adds a note, once."""
        found = Note(file, text)
        if len(self.notes) < MOST and found not in self.notes:
            self.notes.append(found)

    def refused(self, file: str) -> bool:
        """Whether something speaks against a file."""
        return file in self._files


def cut(text: str, longest: int = _LONGEST) -> str:
    """Returns text in one line of bounded length, without control characters."""
    clean = plain(text[: 4 * longest])
    return clean if len(clean) <= longest else f"{clean[:longest]}..."


def some(values: Iterable[object], most: int = 5) -> str:
    """Returns the first values with commas between them, the others counted."""
    texts = [str(value) for value in values]
    more = f" and {len(texts) - most} more" if len(texts) > most else ""
    return ", ".join(texts[:most]) + more
