"""What a stored number or value may be: finite, of a believable size, and JSON that every reader understands.

Python's `json` reads and writes `NaN` and `Infinity`, which are no JSON: one of them in a record would end the script
of the HTML page. Sizes are bounded far outside of anything measured, so that no sum or ratio of them overflows.
"""

import json
import math
from typing import Annotated, Any

from pydantic import AfterValidator, Field, JsonValue, ValidationError

LARGEST, SMALLEST = 1e9, 1e-12
_DEEPEST = 32
_LARGEST_INTEGER = 2**64


def _not_tiny(value: float) -> float:
    if 0 < abs(value) < SMALLEST:
        raise ValueError(f"allowed are 0 and numbers from {SMALLEST:g}")
    return value


def _plain_json(value: JsonValue) -> JsonValue:
    """Refuses what would not survive a browser: numbers that are not finite or huge, and deep nesting."""
    level: list[Any] = [value]
    for _ in range(_DEEPEST):
        for part in level:
            if isinstance(part, float) and not math.isfinite(part):
                raise ValueError(f"holds {part}; allowed are finite numbers")
            if isinstance(part, int) and abs(part) > _LARGEST_INTEGER:
                raise ValueError("holds a whole number beyond 64 bits")
        inner = [part.values() if isinstance(part, dict) else part for part in level if isinstance(part, dict | list)]
        level = [part for parts in inner for part in parts]
        if not level:
            return value
    raise ValueError(f"is nested deeper than {_DEEPEST} levels")


# Numbers of documents, tokens, layers.
Count = Annotated[int, Field(ge=0, le=LARGEST)]
# Times, token means, operations, shares.
Amount = Annotated[float, Field(ge=0, le=LARGEST), AfterValidator(_not_tiny)]
Score = Annotated[float, Field(ge=-LARGEST, le=LARGEST), AfterValidator(_not_tiny)]
# Rounding leaves standard errors of 1e-18 where all documents score alike.
Spread = Annotated[float, Field(ge=0, le=LARGEST)]
Seed = Annotated[int, Field(ge=-_LARGEST_INTEGER, le=_LARGEST_INTEGER)]
StrictJson = Annotated[JsonValue, AfterValidator(_plain_json)]


def strict_json(text: str) -> Any:
    """Reads JSON.

    Raises:
        ValueError: It is not JSON, holds a number that is not finite, or is nested too deeply to be read.
    """
    try:
        return json.loads(text, parse_constant=_refuse_constant, parse_float=_finite)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:20]} is not finite")
    return value


def one_line(error: Exception, most: int = 3) -> str:
    """Returns what an error says in one line, of a validation the first `most` fields with what they hold.

    Args:
        error: Any exception.
        most: Fields that are named; the others are counted.
    """
    if not isinstance(error, ValidationError):
        text = " ".join(str(error).split())
        return text if len(text) <= 400 else f"{text[:400]} ..."
    found = error.errors(include_url=False)
    parts = [_field(each["loc"], each["msg"], each["input"]) for each in found[:most]]
    more = [f"and {len(found) - most} more"] if len(found) > most else []
    return "; ".join([*parts, *more])


def _field(place: tuple[int | str, ...], message: str, value: object) -> str:
    name = ".".join(str(step)[:40] for step in place if not str(step).startswith("function-"))
    plain = message.removeprefix("Value error, ")
    shown = f" ({_shown(value)})" if isinstance(value, str | int | float | None) else ""
    return " ".join(f"{name}: {plain}{shown}".removeprefix(": ").split())


def _shown(value: object) -> str:
    if isinstance(value, int) and abs(value) > _LARGEST_INTEGER:
        return "a huge number"
    return repr(value)[:60]
