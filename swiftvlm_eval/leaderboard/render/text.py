"""How figures and names are written: digits, missing values, and what may not reach Markdown unescaped."""

import hashlib
import re

MISSING = "-"
LONGEST_NAME = 100
# Spreadsheets drop white space in front of a formula.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
_MARKDOWN_SPECIAL = re.compile(r"([\\`*_\[\]|~<>])")


def number(value: float | None, digits: int) -> str:
    """Returns a figure with fixed decimals, `-` where it is missing; minus zero is written as zero."""
    if value is None:
        return MISSING
    text = f"{value:.{digits}f}"
    return text.lstrip("-") if not text.strip("-0.") else text


def interval(low: float | None, high: float | None, digits: int) -> str:
    """Returns `[low, high]`, nothing where there is no interval."""
    return "" if low is None or high is None else f"[{number(low, digits)}, {number(high, digits)}]"


def plain(text: str) -> str:
    """Returns text in one line without control characters: no escape sequences, no reversed writing, no surrogates."""
    return " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())


def shown_name(text: str, limit: int = LONGEST_NAME) -> str:
    """Returns a name fit to be shown; one that was changed or cut ends in a hash, so that none passes for another.

    Args:
        text: A name from a record.
        limit: Most characters.
    """
    clean = plain(text)
    if clean == text and len(text) <= limit:
        return text
    return f"{clean[: limit - 9].rstrip()}~{digest(text)}"


def digest(text: str) -> str:
    """Returns eight hex digits of the SHA-256 of a text."""
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:8]


def markdown(text: str) -> str:
    """Escapes text from records for a Markdown table cell: no formatting, no HTML, no line breaks, no pipes."""
    return _MARKDOWN_SPECIAL.sub(r"\\\1", plain(text)).replace(r"\<", "&lt;").replace(r"\>", "&gt;")


def spreadsheet(text: str) -> str:
    """Returns text in one line that no spreadsheet runs, even if it starts like a formula."""
    clean = plain(text)
    return f"'{clean}" if text.startswith(_FORMULA) or clean.startswith(_FORMULA) else clean
