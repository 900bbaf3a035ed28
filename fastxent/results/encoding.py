"""Numbers and texts in JSON: an undefined number (NaN) is ``null``, an infinite one ``"inf"`` or ``"-inf"``.

All other numbers are the shortest decimals that read back as the same double.
"""

from __future__ import annotations

import json
import math
from typing import Any

from fastxent.errors import StateError


def number_out(value: Any) -> Any:
    """Return a JSON-ready number; other values are returned unchanged."""
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    return value


def plain(value: Any) -> Any:
    """Return JSON-ready values of any depth, without NaN and infinity."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list | tuple) else number_out(value)


def number_in(value: Any) -> Any:
    """Invert `number_out`. Values that are not numbers are returned unchanged, for the type check that follows."""
    return math.nan if value is None else float(value) if value in ("inf", "-inf") else value


def float_in(value: Any) -> Any:
    """Invert `number_out` for a number that is never a count: whole numbers become floats."""
    return float(value) if type(value) is int else number_in(value)


def written(values: Any, indent: int | None = 1) -> str:
    """Return JSON text of JSON-ready values."""
    return json.dumps(values, indent=indent, ensure_ascii=False, allow_nan=False)


def read(text: str, what: str) -> Any:
    """Return the values of JSON text.

    Args:
        text: str. The text.
        what: str. The name of what it holds, for errors.

    Raises:
        StateError: if the text is not JSON, is nested too deeply, or holds an integer of more than 20 digits.
    """
    try:
        return json.loads(text, parse_int=_whole)
    except (ValueError, RecursionError) as error:
        raise StateError(f"cannot read the {what}: {error}") from None


def _whole(text: str) -> int:
    if len(text.lstrip("-")) > 20:  # every integer of a result is 64 bits wide, with a sign or without
        raise ValueError(f"the number {text[:19]}… is too large")
    return int(text)
