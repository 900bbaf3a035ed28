"""Options that are numbers: checked for their type and their range, with one line that names the option."""

from __future__ import annotations

import math
import numbers
from typing import Any

from fastxent.errors import ConfigError


def shown(value: Any) -> str:
    """The value as an error shows it: one line, not too long."""
    text = " ".join(repr(_plain(value)).split())  # 2.0, not np.float64(2.0)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _plain(value: Any) -> Any:
    """The number in an array without dimensions; anything else as it is."""
    is_scalar = getattr(value, "shape", None) == () and hasattr(value, "item")
    return value.item() if is_scalar else value


def real_number(
    name: str,
    value: Any,
    rule: str = "be a finite number",
    *,
    above: float = -math.inf,
    low: float = -math.inf,
    high: float = math.inf,
    below: float = math.inf,
) -> float:
    """The option as a float. ConfigError "<name> must <rule>, got <value>" unless it is a finite number with
    ``above`` < number < ``below`` and ``low`` <= number <= ``high``. True and False are not numbers."""
    number = _plain(value)
    if isinstance(number, numbers.Real) and not isinstance(number, bool):
        try:
            result = float(number)
        except OverflowError:
            result = math.inf
        if math.isfinite(result) and above < result < below and low <= result <= high:
            return result
    raise ConfigError(f"{name} must {rule}, got {shown(value)}")


def whole_number(
    name: str, value: Any, rule: str = "be an integer", *, low: float = -math.inf, high: float = math.inf
) -> int:
    """The option as an int. ConfigError "<name> must <rule>, got <value>" unless it is an integer within ``low`` ..
    ``high``. Neither 2.0 nor True is an integer."""
    number = _plain(value)
    if isinstance(number, numbers.Integral) and not isinstance(number, bool) and low <= int(number) <= high:
        return int(number)
    raise ConfigError(f"{name} must {rule}, got {shown(value)}")
