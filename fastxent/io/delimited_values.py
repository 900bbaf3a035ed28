"""The values of a column of CSV or TSV text: its type by its first records, and the values of a batch of it."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from fastxent.errors import ColumnError, Where

# Words, not Arrow arrays: pyarrow imports pandas for the first array that is made, which takes a third of a second.
_NULLS = "NA", "N/A", "<NA>", "null", "NULL", "None"  # in columns of numbers and booleans
_TRUE = "true", "True", "TRUE"
_BOOLEANS = *_TRUE, "false", "False", "FALSE"
_EXACT = 2.0**53  # whole numbers below are floats
_DIGITS, _PADDED = r"^[+-]?\d+$", r"^[+-]?0\d"  # "007" is a name


def column_type(text: pa.Array) -> pa.DataType:
    """The type of a column whose first values these are: int64, float64, bool or string. A column of nulls is
    float64."""
    numbers = _numbers(text)
    if numbers is None:
        values = _without_nulls(text).drop_null()
        return pa.bool_() if pc.all(pc.is_in(values, pa.array(_BOOLEANS))).as_py() else pa.string()
    found = numbers.drop_null().to_numpy()
    if not len(found) or not _whole(found):
        return pa.float64()
    digits = text.drop_null()
    if pc.any(pc.match_substring_regex(digits, _PADDED)).as_py():
        return pa.string()
    if not pc.all(pc.match_substring_regex(_without_nulls(digits).drop_null(), _DIGITS)).as_py():
        return pa.float64()  # 1.0, 1e5
    return pa.int64() if _cast(text, pa.int64()) is not None else pa.string()  # of too many digits


def values_of(text: pa.Array, kind: pa.DataType, name: str, where: Where) -> pa.Array:
    """The values of a column of that type. A column of numbers is int64 or uint64 if the values of the batch are whole
    and its type is int64 or float64 could not hold them.

    where: Where. The place of the first value.

    Raises:
        ColumnError: a value is not of the type.
    """
    if pt.is_string(kind):
        return text
    if pt.is_boolean(kind):
        clean = _without_nulls(text)
        wrong = pc.and_(pc.is_valid(clean), pc.invert(pc.is_in(clean, pa.array(_BOOLEANS))))
        _refuse(wrong, text, "true or false", name, where)
        return pc.if_else(pc.is_valid(clean), pc.is_in(clean, pa.array(_TRUE)), None)
    numbers = floats_of(text, name, where)
    found = numbers.drop_null().to_numpy()
    large = bool((np.abs(found) >= _EXACT).any())
    if not large and not (pt.is_integer(kind) and _whole(found)):
        return numbers
    _refuse(pc.match_substring_regex(text, _PADDED), text, "numbers without leading zeros", name, where)
    for whole in (pa.int64(), pa.uint64()):
        if (values := _cast(text, whole)) is not None:
            return values
    if large:
        beyond = pc.and_(pc.greater_equal(pc.abs(numbers), _EXACT), pc.match_substring_regex(_clean(text), _DIGITS))
        _refuse(beyond, text, "whole numbers of 64 bits, or fractions beside numbers below 2^53", name, where)
    return numbers


def floats_of(text: pa.Array, name: str, where: Where) -> pa.Array:
    """The values of a column of numbers as float64; `ColumnError` if one is not a number."""
    numbers = _numbers(text)
    if numbers is None:
        row = _first_refused(text)
        raise _error(text[row], "numbers, because its first rows hold no text", name, where.place(row))
    return numbers


def _whole(values: np.ndarray) -> bool:
    return bool((np.isfinite(values) & (values == np.rint(values))).all())


def _numbers(text: pa.Array) -> pa.Array | None:
    """The values as float64; None if one is not a number."""
    return _cast(text, pa.float64())


def _cast(text: pa.Array, kind: pa.DataType) -> pa.Array | None:
    """The values as numbers of that type; None if one is not such a number."""
    try:
        return text.cast(kind)
    except pa.ArrowInvalid:
        pass
    try:
        return _clean(text).cast(kind)
    except pa.ArrowInvalid:
        return None


def _clean(text: pa.Array) -> pa.Array:
    """The values without white space around them and plus signs before them, and without those that stand for null."""
    return pc.replace_substring_regex(_without_nulls(text), r"^\+(\d)", r"\1")


def _without_nulls(text: pa.Array) -> pa.Array:
    text = pc.utf8_trim_whitespace(text)
    return pc.if_else(pc.or_(pc.is_in(text, pa.array(_NULLS)), pc.equal(text, "")), None, text)


def _first_refused(text: pa.Array) -> int:
    """The place of the first value that is not a number."""
    begin, end = 0, len(text)  # it is in this range
    while end - begin > 1:
        middle = (begin + end) // 2
        begin, end = (begin, middle) if _numbers(text.slice(begin, middle - begin)) is None else (middle, end)
    return begin


def _refuse(wrong: pa.Array, text: pa.Array, rule: str, name: str, where: Where) -> None:
    """Raise ColumnError for the first value that is ``wrong``."""
    row = pc.index(wrong, True).as_py()
    if row >= 0:
        raise _error(text[row], rule, name, where.place(row))


def _error(value: pa.Scalar, rule: str, name: str, where: Where) -> ColumnError:
    return ColumnError(f"column {name!r} must hold {rule}, got {value.as_py()[:40]!r} in {where}")
