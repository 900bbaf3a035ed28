"""Whether values that were read from a file are of the types that a dataclass declares."""

from __future__ import annotations

import functools
import types
from dataclasses import fields
from typing import Any, get_args, get_origin, get_type_hints

_MOST = 1 << 63  # of an integer


def check_fields(value: Any) -> None:
    """ValueError if a field of this dataclass holds another type than it declares."""
    hints = _hints(value.__class__)
    for field in fields(value):
        if not fits(getattr(value, field.name), hints[field.name]):
            raise ValueError(f"{type(value).__name__}.{field.name} is of another type")


@functools.cache
def _hints(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind)


def fits(value: Any, hint: Any) -> bool:
    """Whether a value is of a type: a class, a union, a tuple or a dict of such. An int is a float, a bool neither."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin is types.UnionType:
        return any(fits(value, one) for one in inner)
    if origin is tuple:
        return isinstance(value, tuple) and all(fits(item, inner[0]) for item in value)
    if origin is dict:
        return isinstance(value, dict) and all(fits(k, inner[0]) and fits(v, inner[1]) for k, v in value.items())
    if hint is int:
        return type(value) is int and abs(value) < _MOST
    if hint is float:
        return type(value) is float or fits(value, int)
    return hint is Any or isinstance(value, hint)
