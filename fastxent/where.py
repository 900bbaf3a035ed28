"""Row filters: a small, safe language for ``where=``, such as ``kind == 'code' and n_bytes > 1``.

Comparisons (== != < <= > >=, in, not in, is None, is not None) of columns with literals, joined by and, or, not. It is
Python's own grammar, parsed by `ast` and applied to columns by Arrow's functions; nothing is ever executed. A column
whose name is not an identifier is written ``col('task-name')``. Literals are compared exactly, as numbers: none is
rounded to the type of a column. Dates and times are compared with text, such as ``day >= '2024-01-31'``.
"""

from __future__ import annotations

import ast
import datetime
import math
import operator
import warnings
from collections.abc import Callable
from decimal import ROUND_FLOOR, Context, Decimal
from typing import TYPE_CHECKING, Any

import numpy as np

from fastxent.errors import ConfigError

if TYPE_CHECKING:
    import pyarrow as pa

_COMPARE: dict[type[ast.cmpop], tuple[str, Callable[[Any, Any], bool]]] = {
    ast.Eq: ("equal", operator.eq), ast.NotEq: ("not_equal", operator.ne), ast.Lt: ("less", operator.lt),
    ast.LtE: ("less_equal", operator.le), ast.Gt: ("greater", operator.gt), ast.GtE: ("greater_equal", operator.ge),
}  # fmt: skip
_SWAPPED = {ast.Lt: ast.Gt, ast.LtE: ast.GtE, ast.Gt: ast.Lt, ast.GtE: ast.LtE}
_LARGEST = 10**76 - 1  # of decimals, the widest numbers of a column
_DEEPEST = 100
_EXACT = Context(prec=400)
_SHOWN = 200  # characters of a condition in an error
_EXAMPLE = "\"kind == 'code' and n_bytes > 1\""
_OTHER_NAMES = "write a column whose name is not an identifier as col('task-name')"


def _is_none(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def _shown(text: str) -> str:
    return repr(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}...")


class Filter:
    """A parsed ``where``: the columns it reads, and the rows it keeps."""

    def __init__(self, text: str) -> None:
        if not isinstance(text, str):
            raise ConfigError(f"where must be text such as {_EXAMPLE}, got {text!r}")
        self.text = text
        self.columns: list[str] = []
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of '\\d', which is taken as it is written
                self._tree = ast.parse(text.strip(), mode="eval").body
            self._check(self._tree, 0)
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            if isinstance(error, ConfigError):
                raise
            detail = error.args[0] if error.args else "nested too deeply"
            raise ConfigError(
                f"invalid where {_shown(text)} ({detail}); expected a condition such as {_EXAMPLE}; {_OTHER_NAMES}"
            ) from None
        if not self.columns:
            raise ConfigError(
                f"invalid where {_shown(text)}: it names no column; expected a condition such as {_EXAMPLE}"
            )

    # ---- once: is it a condition? ------------------------------------------------------------------------------------

    def _refuse(self, node: ast.AST) -> ConfigError:
        return ConfigError(
            f"invalid where {_shown(self.text)}: {_shown(ast.unparse(node))} is not a comparison of a column with a "
            f"literal; expected a condition such as {_EXAMPLE}; {_OTHER_NAMES}"
        )

    def _check(self, node: ast.AST, depth: int) -> None:
        """Refuse what is not a condition, and note the columns of what is."""
        if depth > _DEEPEST:
            raise ConfigError(
                f"invalid where {_shown(self.text)}: it is nested more than {_DEEPEST} levels deep; "
                "use fewer parentheses, or a list: n in [1, 2, 3]"
            )
        match node:
            case ast.BoolOp(values=values):
                for value in values:
                    self._check(value, depth + 1)
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                self._check(operand, depth + 1)
            case ast.Compare(left=left, ops=ops, comparators=right):
                for a, op, b in zip([left, *right], ops, right, strict=False):
                    self._check_comparison(a, op, b, node)
            case _ if (name := self._name(node)) is not None:
                self.columns.append(name)
            case _:
                raise self._refuse(node)

    def _check_comparison(self, left: ast.expr, op: ast.cmpop, right: ast.expr, node: ast.AST) -> None:
        self._check_operand(left)
        if isinstance(op, ast.Is | ast.IsNot):
            if not _is_none(right):
                raise self._refuse(node)
        elif isinstance(op, ast.In | ast.NotIn):
            if not isinstance(right, ast.List | ast.Tuple | ast.Set):
                raise self._refuse(node)
            try:
                kinds = {type(value) for value in _items(right)} - {type(None)}
            except (ValueError, TypeError):
                raise self._refuse(node) from None
            if len(kinds) > 1 and kinds != {int, float}:
                raise self._refuse(node)
        elif _is_none(left) or _is_none(right):
            raise ConfigError(
                f"invalid where {_shown(self.text)}: nothing equals None; write 'is None' or 'is not None'"
            )
        else:
            self._check_operand(right)

    def _check_operand(self, node: ast.expr) -> None:
        name = self._name(node)
        if name is not None:
            self.columns.append(name)
            return
        try:
            _literal(node)
        except (ValueError, TypeError):
            raise self._refuse(node) from None

    @staticmethod
    def _name(node: ast.AST) -> str | None:
        """The column that an operand names: ``n``, ``item.size`` or ``col('any name')``."""
        match node:
            case ast.Name(id=name):
                return name
            case ast.Attribute(value=ast.Name() | ast.Attribute()):
                return ast.unparse(node)
            case ast.Call(func=ast.Name(id="col"), args=[ast.Constant(value=str() as name)], keywords=[]):
                return name
        return None

    # ---- for every batch ---------------------------------------------------------------------------------------------

    def rows(self, columns: dict[str, pa.Array]) -> np.ndarray:
        """Indices of the rows kept. A comparison with null keeps nothing."""
        import pyarrow as pa

        values: dict[str, pa.Array] = {}
        try:
            for name in dict.fromkeys(self.columns):
                values[name] = _comparable(columns[name], name)
            kept = self._condition(self._tree, values)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError, TypeError) as error:
            kinds = ", ".join(f"{name}: {columns[name].type}" for name in list(values)[:5])
            raise ConfigError(
                f"cannot apply where {_shown(self.text)} to the columns {kinds}: {str(error).splitlines()[0]}"
            ) from None
        if isinstance(kept, pa.Scalar):
            kept = pa.repeat(kept, len(next(iter(values.values()))))
        return np.flatnonzero(np.asarray(kept.fill_null(False)))

    def _condition(self, node: ast.AST, values: dict[str, pa.Array]) -> pa.Array | pa.Scalar:
        import pyarrow as pa
        import pyarrow.compute as pc

        match node:
            case ast.BoolOp(op=op, values=parts):
                join = pc.and_kleene if isinstance(op, ast.And) else pc.or_kleene
                kept = self._condition(parts[0], values)
                for part in parts[1:]:
                    kept = join(kept, self._condition(part, values))
                return kept
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                return pc.invert(self._condition(operand, values))
            case ast.Compare(left=left, ops=ops, comparators=right):
                kept = pa.scalar(True)
                for a, compare, b in zip([left, *right], ops, right, strict=False):
                    kept = pc.and_kleene(kept, self._comparison(a, compare, b, values))
                return kept
        column = values[str(self._name(node))]
        if column.type == pa.null():
            return pa.nulls(len(column), pa.bool_())
        if column.type != pa.bool_():
            raise TypeError(f"a column of {column.type} is not a condition; compare it with a literal")
        return column

    def _comparison(
        self, left: ast.expr, op: ast.cmpop, right: ast.expr, values: dict[str, pa.Array]
    ) -> pa.Array | pa.Scalar:
        import pyarrow as pa
        import pyarrow.compute as pc

        a, b = self._name(left), self._name(right)
        if isinstance(op, ast.Is | ast.IsNot):
            null = pa.scalar(_is_none(left)) if a is None else pc.is_null(values[a])
            return null if isinstance(op, ast.Is) else pc.invert(null)
        if isinstance(op, ast.In | ast.NotIn):
            items = _items(right)
            held = pa.scalar(_literal(left) in items) if a is None else _among(values[a], items)
            return held if isinstance(op, ast.In) else pc.invert(held)
        if a is not None and b is not None:
            return _columns(type(op), values[a], values[b])
        if a is not None:
            return _with_literal(type(op), values[a], _literal(right))
        if b is not None:
            return _with_literal(_SWAPPED.get(type(op), type(op)), values[b], _literal(left))
        return pa.scalar(bool(_COMPARE[type(op)][1](_literal(left), _literal(right))))


def _literal(node: ast.AST) -> Any:
    """A number, text, bytes or bool as it is written; ValueError or TypeError of anything else."""
    if not isinstance(node, ast.Constant | ast.UnaryOp):
        raise ValueError("not a literal")
    value = ast.literal_eval(node)
    if not (value is None or isinstance(value, bool | int | float | str | bytes)):
        raise ValueError("not a literal of a column")
    if isinstance(value, int) and abs(value) > _LARGEST:
        raise ValueError("larger than any number of a column")
    return value


def _items(node: ast.AST) -> list[Any]:
    return [_literal(item) for item in getattr(node, "elts", ())]


# ---- columns and literals --------------------------------------------------------------------------------------------


def _comparable(column: pa.Array, name: str) -> pa.Array:
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


def _columns(op: type[ast.cmpop], a: pa.Array, b: pa.Array) -> pa.Array:
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
    return pc.call_function(_COMPARE[op][0], [a, b])


def _with_literal(op: type[ast.cmpop], column: pa.Array, literal: Any) -> pa.Array:
    """The comparison of a column with a literal, exact where the column's type cannot hold the literal."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.types as pt

    kind = column.type
    if pt.is_null(kind):
        return pa.nulls(len(column), pa.bool_())
    if not _is_number(kind):
        return pc.call_function(_COMPARE[op][0], [column, _scalar(kind, literal)])
    below, exact = _largest_below(kind, literal)
    if exact:
        return pc.call_function(_COMPARE[op][0], [column, pa.scalar(below, kind)])
    if op in (ast.Eq, ast.NotEq) or below is None:  # the same for every value
        return pc.if_else(pc.is_valid(column), op in (ast.NotEq, ast.Gt, ast.GtE), pa.scalar(None, pa.bool_()))
    return pc.call_function("less_equal" if op in (ast.Lt, ast.LtE) else "greater", [column, pa.scalar(below, kind)])


def _among(column: pa.Array, items: list[Any]) -> pa.Array:
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
        most = _EXACT.multiply(Decimal(_LARGEST), step)
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
            raise TypeError(f"invalid time {literal!r}; expected such as '12:30:00'") from None
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
    raise TypeError(f"invalid time {literal!r}; expected such as '2024-01-31' or '2024-01-31 12:30:00'{offset}")
