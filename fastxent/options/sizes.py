"""Amounts of memory, written as numbers or as text such as "512MB"."""

from __future__ import annotations

import re
from typing import Any

from fastxent.errors import ConfigError
from fastxent.options.checks import shown

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}


def parse_size(value: int | str, name: str = "memory") -> int:
    """Return the bytes of a number or of a text such as "512MB" or "2 GiB"; at least 1 MB.

    >>> parse_size("512MB"), parse_size("1.5 GiB")
    (512000000, 1610612736)
    """
    if isinstance(value, int) and not isinstance(value, bool):
        nbytes = value
    else:
        match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*([kmgt]i?)?b?\s*", str(value), re.IGNORECASE)
        if match is None:
            raise ConfigError(f"invalid {name} size {shown(value)}; expected a value such as '512MB' or '2GiB'")
        nbytes = int(float(match[1]) * _UNITS[(match[2] or "").lower()])
    if nbytes < 10**6:
        raise ConfigError(f"{name} must be at least 1MB, got {shown(value)}")
    return nbytes


def size(name: str, value: Any) -> int:
    """Check an amount of memory: the bytes of `parse_size`."""
    return parse_size(value, name)
