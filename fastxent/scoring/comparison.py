"""Columns compared with literals and with one another, exactly: no literal is rounded to the type of a column."""

from __future__ import annotations

import ast
import datetime
import math
import operator
from collections.abc import Callable
from decimal import ROUND_FLOOR, Context, Decimal
from typing import TYPE_CHECKING, Any

from fastxent.names import is_unicode

if TYPE_CHECKING:
    import pyarrow as pa

COMPARE: dict[type[ast.cmpop], tuple[str, Callable[[Any, Any], bool]]] = {
    ast.Eq: ("equal", operator.eq), ast.NotEq: ("not_equal", operator.ne), ast.Lt: ("less", operator.lt),
    ast.LtE: ("less_equal", operator.le), ast.Gt: ("greater", operator.gt), ast.GtE: ("greater_equal", operator.ge),
}  # fmt: skip
LARGEST = 10**76 - 1  # of decimals, the widest numbers of a column
_EXACT = Context(prec=400)


def comparable(column: pa.Array, name: str) -> pa.Array:
    """A column as a type that Arrow compares: no dictionaries, no extension types, one time zone, wide decimals."""
    import pyarrow as pa
    import pyarrow.types as pt

    from fastxent.io.values import numbers

    column = numbers(column, name)
    if pt.is_dictionary(column.type):
        column = numbers(column.dictionary_decode(), name)
    kind = column.type
    if pt.is_floating(kind):
        return column.cast(pa.float64())
    if pt.is_decimal(kind):
        return column.cast(pa.decimal256(76, kind.scale))
    if pt.is_fixed_size_binary(kind):
        return column.cast(pa.binary())
    if pt.is_date64(kind):
        return column.cast(pa.date32(), safe=False)
    return column


def compare_columns(op: type[ast.cmpop], a: pa.Array, b: pa.Array) -> pa.Array:
    """The comparison of two columns."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.types as pt

    from fastxent.io.values import decimal_floats

    def cast(fits: Callable[[pa.DataType], bool], kind: pa.DataType) -> None:
        nonlocal a, b
        a, b = (c.cast(kind) if fits(c.type) else c for c in (a, b))

    if pt.is_floating(a.type) or pt.is_floating(b.type):
        a, b = (decimal_floats(c) if pt.is_decimal(c.type) else c for c in (a, b))
    kinds = (a.type, b.type)
    decimals = [kind.scale for kind in kinds if pt.is_decimal(kind)]
    if decimals:
        exact = pa.decimal256(76, max(decimals))
        cast(lambda kind: pt.is_integer(kind) or pt.is_decimal(kind), exact)
    elif pa.uint64() in kinds:
        cast(pt.is_integer, pa.decimal128(20, 0))
    elif all(pt.is_timestamp(kind) and kind.tz is not None for kind in kinds):
        a, b = (c.cast(pa.timestamp(c.type.unit, "UTC")) for c in (a, b))
    return pc.call_function(COMPARE[op][0], [a, b])


def compare_literal(op: type[ast.cmpop], column: pa.Array, literal: Any) -> pa.Array:
    """The comparison of a column with a literal, exact where the column's type cannot hold the literal."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.types as pt

    kind = column.type
    if pt.is_null(kind):
        return pa.nulls(len(column), pa.bool_())
    if not _is_number(kind):
        return pc.call_function(COMPARE[op][0], [column, _scalar(kind, literal)])
    below, exact = _largest_below(kind, literal)
    if exact:
        return pc.call_function(COMPARE[op][0], [column, pa.scalar(below, kind)])
    if op in (ast.Eq, ast.NotEq) or below is None:  # the same for every value
        return pc.if_else(pc.is_valid(column), op in (ast.NotEq, ast.Gt, ast.GtE), pa.scalar(None, pa.bool_()))
    return pc.call_function("less_equal" if op in (ast.Lt, ast.LtE) else "greater", [column, pa.scalar(below, kind)])


def among(column: pa.Array, items: list[Any]) -> pa.Array:
    """Whether each value of a column is one of the literals; null where the value is, unless None is among them."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.types as pt

    kind = column.type
    given = [item for item in items if item is not None]
    if pt.is_null(kind):
        held = pa.repeat(pa.scalar(False), len(column))
    elif _is_number(kind):
        found = [_largest_below(kind, item) for item in given]
        held = pc.is_in(column, value_set=pa.array([below for below, exact in found if exact], kind))
    else:
        values = []
        for item in given:
            scalar = _scalar(kind, item)
            try:
                value = scalar.cast(kind)
            except pa.ArrowInvalid:
                continue  # finer than the column's unit: equals none of its values
            if pc.equal(value, scalar).as_py():
                values.append(value)
        held = pc.is_in(column, value_set=pa.array(values, kind))
    if len(given) < len(items):
        return pc.or_kleene(held, pc.is_null(column))
    return pc.if_else(pc.is_valid(column), held, pa.scalar(None, pa.bool_()))


def _is_number(kind: pa.DataType) -> bool:
    import pyarrow.types as pt

    return bool(pt.is_integer(kind) or pt.is_floating(kind) or pt.is_decimal(kind))


def _largest_below(kind: pa.DataType, literal: Any) -> tuple[Any, bool]:
    """The largest number of a type that is at most ``literal`` (None: there is none), and whether it is ``literal``."""
    import pyarrow.types as pt

    if isinstance(literal, bool | str | bytes):
        raise TypeError(f"cannot compare {kind} with {literal!r}")
    if pt.is_floating(kind):
        near = float(literal)
        return (near, True) if near == literal else (math.nextafter(near, -math.inf) if near > literal else near, False)
    number, step = Decimal(literal), Decimal(1)
    if pt.is_decimal(kind):
        number, step = Decimal(repr(literal)), Decimal((0, (1,), -kind.scale))  # 0.1 as it is written
        most = _EXACT.multiply(Decimal(LARGEST), step)
        least = -most
    else:
        signed = pt.is_signed_integer(kind)
        bits = kind.bit_width - signed
        least, most = Decimal(-(1 << bits) if signed else 0), Decimal((1 << bits) - 1)
    if number < least:
        return None, False
    below = most if number > most else number.quantize(step, ROUND_FLOOR, _EXACT)
    return below if pt.is_decimal(kind) else int(below), below == number


def _scalar(kind: pa.DataType, literal: Any) -> pa.Scalar:
    """A literal to compare a column of text, binary, bools, dates or times with; TypeError if it is not one."""
    import pyarrow as pa
    import pyarrow.types as pt

    text = isinstance(literal, str)
    if text and not is_unicode(literal):
        raise TypeError(f"invalid text {literal!r}; expected valid Unicode")
    if (text and (pt.is_string(kind) or pt.is_large_string(kind))) or (
        isinstance(literal, bool) and pt.is_boolean(kind)
    ):
        return pa.scalar(literal, kind)
    if isinstance(literal, str | bytes) and (pt.is_binary(kind) or pt.is_large_binary(kind)):
        return pa.scalar(literal.encode() if isinstance(literal, str) else literal, kind)
    if text and pt.is_time(kind):
        try:
            return pa.scalar(datetime.time.fromisoformat(literal), pa.time64("us"))
        except ValueError:
            raise TypeError(f"invalid time {literal!r}; expected a value such as '12:30:00'") from None
    if text and pt.is_date(kind):
        try:
            return pa.scalar(literal).cast(kind)
        except pa.ArrowInvalid:  # a date with a time of day
            return _timestamp(pa.timestamp("us"), literal)
    if text and pt.is_timestamp(kind):
        return _timestamp(kind, literal)
    raise TypeError(f"cannot compare {kind} with {literal!r}")


def _timestamp(kind: pa.DataType, literal: str) -> pa.Scalar:
    """A date, or a date and a time of day; without an offset it is in the time zone of the column."""
    import pyarrow as pa
    import pyarrow.compute as pc

    for unit in ("us", "ns"):
        for zone in dict.fromkeys([kind.tz, None]):
            try:
                found = pa.scalar(literal).cast(pa.timestamp(unit, zone))
            except pa.ArrowInvalid:
                continue
            return found if zone == kind.tz else pc.assume_timezone(found, kind.tz)
    offset = "" if kind.tz is not None else " without a time zone"
    raise TypeError(f"invalid time {literal!r}; expected a value such as '2024-01-31' or '2024-01-31 12:30:00'{offset}")
