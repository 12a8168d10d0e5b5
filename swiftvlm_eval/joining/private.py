"""Finds what must not be published: folders of a machine, and secrets. A finding never repeats a secret."""

import re
from collections.abc import Iterator

# An absolute path of two or more parts, a home folder, a drive or a share; an address with // is none.
_PATH = re.compile(
    r"(?:(?<![\w./:%~-])/(?:[\w.+@-]+/)+[\w.+@-]*)|(?:file:///)|(?:(?<!\w)~\w*/\w)|(?:(?<!\w)[A-Za-z]:\\)|(?:\\\\\w+\\\w)"
)
# Every repetition is bounded: a text made for it must not take longer than its length asks for.
_SECRETS = {
    "a Hugging Face token": re.compile(r"\bhf_[A-Za-z0-9]{16,}"),
    "a GitHub token": re.compile(r"\b(?:gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,})"),
    "a GitLab token": re.compile(r"\bglpat-[\w-]{16,}"),
    "an API key": re.compile(r"\b(?:sk|pk|rk)-[A-Za-z0-9_-]{20,}"),
    "an AWS key": re.compile(r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"),
    "a Google key": re.compile(r"\bAIza[\w-]{30,}"),
    "a Slack token": re.compile(r"\bxox[abeprs]-[\w-]{10,}"),
    "a signed token": re.compile(r"\beyJ[\w-]{10,200}\.eyJ[\w-]{10}"),
    "a private key": re.compile(r"-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----"),
    "a password in an address": re.compile(r"\b[a-z][a-z0-9+.-]{0,15}://[^\s/:@]{1,80}:[^\s/@]{1,120}@"),
}
_SECRET_KEY = re.compile(
    r"(?:^|[._-])(?:api_?key|access_?key|token|secret|passwd|password|credentials?)$", re.IGNORECASE
)
# Places are for people; a hostile record may nest keys of any length.
_LONGEST_PLACE = 200
_HIDDEN = (None, "", "hidden", False, True)


def machine_path(text: str) -> str | None:
    """Returns a path of a machine that stands in a text, None if there is none."""
    found = _PATH.search(text)
    return found.group() if found else None


def secret_kind(text: str) -> str | None:
    """Returns what kind of secret stands in a text, None if there is none."""
    return next((kind for kind, form in _SECRETS.items() if form.search(text)), None)


def texts_in(content: object, place: str = "") -> Iterator[tuple[str, str]]:
    """Yields every key and text of JSON content with the place where it stands."""
    waiting: list[tuple[str, object]] = [(place, content)]
    while waiting:
        where, part = waiting.pop()
        if isinstance(part, str):
            yield where, part
        elif isinstance(part, dict):
            for key, value in part.items():
                yield where, str(key)
                waiting.append((_place(where, key), value))
        elif isinstance(part, list):
            waiting.extend((where, value) for value in part)


def named_secrets(content: object) -> Iterator[str]:
    """Yields the places whose key names a secret and whose value is not hidden."""
    waiting: list[tuple[str, object]] = [("", content)]
    while waiting:
        where, part = waiting.pop()
        if isinstance(part, dict):
            for key, value in part.items():
                place = _place(where, key)
                if _SECRET_KEY.search(str(key)) and isinstance(value, str) and value not in _HIDDEN:
                    yield place
                waiting.append((place, value))
        elif isinstance(part, list):
            waiting.extend((where, value) for value in part)


def _place(where: str, key: object) -> str:
    return (f"{where}.{key}" if where else str(key))[-_LONGEST_PLACE:]
