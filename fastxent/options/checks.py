"""Checks of options: each takes a name and a value and returns the value in its plain form, or raises `ConfigError`.

An error is one line that names the option, the rule and the value.
"""

from __future__ import annotations

import contextlib
import math
import numbers
import os
from collections.abc import Callable, Iterable
from typing import Any, get_args

from fastxent.errors import ConfigError
from fastxent.names import is_unicode

Check = Callable[[str, Any], Any]  # (name, value) -> checked value


def shown(value: Any) -> str:
    """Return the value as an error shows it: one line of at most 60 characters."""
    text = " ".join(repr(_plain(value)).split())  # 2.0, not np.float64(2.0)
    return text if len(text) <= 60 else f"{text[:57]}..."


def given(name: str, value: Any) -> Any:
    """Return the value: a source is checked when it is opened."""
    return value


def _plain(value: Any) -> Any:
    """Return the number in an array without dimensions; any other value as it is."""
    is_scalar = getattr(value, "shape", None) == () and hasattr(value, "item")
    return value.item() if is_scalar else value


def listed(value: Any) -> tuple[Any, ...]:
    """Return the entries of a sequence or array; a single value is one entry."""
    value = value.tolist() if hasattr(value, "tolist") else value
    return tuple(value) if isinstance(value, Iterable) and not isinstance(value, str | bytes) else (value,)


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
    """Return the option as a float.

    The number is finite, ``above`` < number < ``below`` and ``low`` <= number <= ``high``; any other value is a
    ConfigError "<name> must <rule>, got <value>". True and False are not numbers.
    """
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
    """Return the option as an int from ``low`` to ``high``.

    Any other value is a ConfigError "<name> must <rule>, got <value>". Neither 2.0 nor True is an integer.
    """
    number = _plain(value)
    if isinstance(number, numbers.Integral) and not isinstance(number, bool) and low <= int(number) <= high:
        return int(number)
    raise ConfigError(f"{name} must {rule}, got {shown(value)}")


def one_of(name: str, value: Any, allowed: Iterable[str]) -> str:
    """Return the option if it is one of the ``allowed`` words."""
    allowed = tuple(allowed)
    if isinstance(value, str) and value in allowed:
        return value
    raise ConfigError(f"{name} must be one of {', '.join(map(repr, allowed))}, got {shown(value)}")


def boolean(name: str, value: Any) -> bool:
    """Check True or False."""
    if not isinstance(_plain(value), bool):
        raise ConfigError(f"{name} must be True or False, got {shown(value)}")
    return bool(value)


def temperature(name: str, value: Any) -> Any:
    """Check a number above 0; a fitted temperature is returned as it is."""
    fitted = hasattr(value, "temperature") and hasattr(value, "slices")
    return value if fitted else real_number(name, value, "be a finite number above 0", above=0.0)


def word(kind: Any) -> Check:
    """Return the check of a `Literal` type."""
    return lambda name, value: one_of(name, value, get_args(kind))


def real(rule: str = "be a finite number", **bounds: float) -> Check:
    """Return the check of a float with a rule and bounds as in `real_number`."""
    return lambda name, value: real_number(name, value, rule, **bounds)


def whole(rule: str = "be an integer", **bounds: float) -> Check:
    """Return the check of an int with a rule and bounds as in `whole_number`."""
    return lambda name, value: whole_number(name, value, rule, **bounds)


def bucket_count(name: str, value: Any) -> int:
    """Check the number of buckets of the jackknife."""
    rule = "be 0 or an integer from 2 to 100"
    number = whole_number(name, value, rule, low=0, high=100)
    return number if number != 1 else whole_number(name, value, rule, low=2)


def optional(check: Check) -> Check:
    """Return the check that also takes None."""
    return lambda name, value: None if value is None else check(name, value)


def several(check: Check) -> Check:
    """Return the check of one or more values, each of which passes ``check``: a tuple."""

    def checked(name: str, value: Any) -> tuple[Any, ...]:
        found = tuple(check(name, item) for item in listed(value))
        if not found:
            raise ConfigError(f"{name} must have at least one entry, got none")
        return found

    return checked


def text(what: str) -> Check:
    """Return the check of a string; ``what`` says what it is, as in "a column name"."""

    def checked(name: str, value: Any) -> str:
        if not isinstance(value, str):
            raise ConfigError(f"{name} must be {what}, got {shown(value)}")
        return value

    return checked


def texts(name: str, value: Any) -> tuple[str, ...]:
    """Check strings."""
    found = tuple(listed(value))
    if not found or not all(isinstance(item, str) and item for item in found):
        raise ConfigError(f"{name} must be strings, got {shown(value)}")
    return found


def two_names(name: str, value: Any) -> tuple[str, str]:
    """Check two different names."""
    found = listed(value)
    if len(found) != 2 or not all(isinstance(item, str) for item in found) or found[0] == found[1]:
        raise ConfigError(f"{name} must be two different strings, got {shown(value)}")
    return found[0], found[1]


def path(name: str, value: Any) -> str | os.PathLike[str]:
    """Check the path of a file or folder."""
    if not isinstance(value, str | os.PathLike):
        raise ConfigError(f"{name} must be a path, got {shown(value)}")
    return value


def tensor(name: str, value: Any) -> Any:
    """Check a tensor: a file, as text, or an array, which is returned as it is."""
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    array = isinstance(value, list | tuple) or hasattr(value, "__array__") or hasattr(value, "__dlpack__")
    if not array and not (isinstance(value, str) and value):
        raise ConfigError(f"{name} must be an array, or a file such as 'head.safetensors', got {shown(value)}")
    return value


def function(arguments: str) -> Check:
    """Return the check of a function; ``arguments`` says what it takes, as in "four numbers"."""

    def checked(name: str, value: Any) -> Any:
        if not callable(value):
            raise ConfigError(f"{name} must be a function of {arguments}, got {shown(value)}")
        return value

    return checked


def column_names(name: str, value: Any) -> tuple[str, ...]:
    """Check a column name or a list of them; None is an empty list."""
    check = text("a column name or a list of them")
    return () if value is None else tuple(check(name, item) for item in listed(value))


def logits_columns(name: str, value: Any) -> str | tuple[str, ...]:
    """Check the column of logits, or one column per class."""
    found = column_names(name, (None,) if value is None else value)
    return value if isinstance(value, str) else found


def class_weights(name: str, value: Any) -> tuple[float, ...]:
    """Check one weight per class: finite numbers of at least 0."""
    import numpy as np

    values = listed(value)
    with contextlib.suppress(ValueError):  # lists of differing lengths
        array = np.asarray(values)
        if array.ndim == 1 and array.dtype.kind in "iuf" and (np.isfinite(array) & (array >= 0)).all():
            return tuple(array.astype(np.float64).tolist())
    rule = "hold finite numbers of at least 0, one per class"
    for item in values:
        real_number(name, item, rule, low=0.0)
    raise ConfigError(f"{name} must {rule}, got {shown(values)}")


def class_flags(name: str, value: Any) -> tuple[bool, ...]:
    """Check one flag per class: True and False, or 1 and 0."""
    values = listed(value)
    for item in values:
        if not (isinstance(item, int | float) and item in (0, 1)):
            raise ConfigError(f"{name} must hold True or False, one per class, got {shown(item)}")
    return tuple(map(bool, values))


def class_names(name: str, value: Any) -> tuple[str, ...]:
    """Check one name per class, all different."""
    values, places = listed(value), dict[str, int]()
    for place, item in enumerate(values):
        if not isinstance(item, str):
            raise ConfigError(f"{name} must be a list of strings, got {shown(item)}")
        if not is_unicode(item):
            raise ConfigError(f"{name} must be valid Unicode, got {shown(item)}; save the names as UTF-8")
        if places.setdefault(item, place) != place:
            raise ConfigError(
                f"{name} must differ, got {shown(item)} for classes {places[item]} and {place}; rename one of them"
            )
    return values
