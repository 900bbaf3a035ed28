"""Values from a file, checked against the annotations of a dataclass."""

from __future__ import annotations

import functools
from dataclasses import fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

_PLAIN: dict[Any, tuple[Any, str]] = {
    int: (int, "a whole number"),
    float: ((int, float), "a number"),
    str: (str, "a text"),
    bool: (bool, "true or false"),
    NoneType: (NoneType, "null"),
}


def check(value: Any, kind: Any, where: str, **unknown: Any) -> None:
    """Raise ValueError if a value is not of an annotated type.

    where: str. The place that the error names.
    unknown: name=type. Names in annotations that the dataclass's module imports for type checkers only.

    >>> check({"a": (1, 2.5)}, dict[str, tuple[float, ...]], "metrics")
    >>> check({"a": (1, None)}, dict[str, tuple[float, ...]], "metrics")
    Traceback (most recent call last):
    ValueError: metrics.a.1 must be a number, got None
    """
    origin, inner = get_origin(kind), get_args(kind)
    if kind in _PLAIN:
        types, name = _PLAIN[kind]
        if not isinstance(value, types) or (isinstance(value, bool) and kind is not bool):
            raise _wrong(where, name, value)
    elif origin in (Union, UnionType):
        _check_any(value, inner, where)
    elif origin is tuple:
        kinds = inner[:1] * len(value) if isinstance(value, tuple) and inner[1:] == (...,) else inner
        if not isinstance(value, tuple) or len(value) != len(kinds):
            raise _wrong(where, "a list" if inner[1:] == (...,) else f"a list of {len(inner)} values", value)
        for i, (item, item_kind) in enumerate(zip(value, kinds, strict=True)):
            check(item, item_kind, f"{where}.{i}")
    elif origin is dict:
        if not isinstance(value, dict):
            raise _wrong(where, "an object", value)
        for key, item in value.items():
            check(key, inner[0], f"{where}.{key}")
            check(item, inner[1], f"{where}.{key}")
    elif is_dataclass(kind):
        hints = _hints(kind, tuple(unknown.items()))  # type: ignore[arg-type]  # dataclasses are hashable
        for field in fields(kind):
            check(getattr(value, field.name), hints[field.name], f"{where}.{field.name}".lstrip("."))


def _check_any(value: Any, kinds: tuple[Any, ...], where: str) -> None:
    if value is None and NoneType in kinds:
        return
    first: ValueError | None = None
    for kind in kinds:
        try:
            check(value, kind, where)
        except ValueError as error:
            first = first or error
        else:
            return
    assert first is not None  # a union has members
    raise first


@functools.cache
def _hints(kind: Any, unknown: tuple[tuple[str, Any], ...]) -> dict[str, Any]:
    return get_type_hints(kind, localns=dict(unknown))


def _wrong(where: str, name: str, value: Any) -> ValueError:
    shown = repr(value)
    return ValueError(f"{where} must be {name}, got {shown if len(shown) <= 60 else shown[:59] + '…'}")
