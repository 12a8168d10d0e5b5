"""How figures and names are written: digits, missing values, and what may not reach Markdown unescaped."""

import re

MISSING = "-"
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


def markdown(text: str) -> str:
    """Escapes text from records for a Markdown table cell: no formatting, no HTML, no line breaks, no pipes."""
    single = " ".join(text.split())
    return _MARKDOWN_SPECIAL.sub(r"\\\1", single).replace(r"\<", "&lt;").replace(r"\>", "&gt;")


def spreadsheet(text: str) -> str:
    """Keeps a spreadsheet from running text that starts like a formula."""
    return f"'{text}" if text.startswith(_FORMULA) else text
