"""Row filters: a small, safe language for ``where=``, such as ``kind == 'code' and n_bytes > 1``.

Comparisons (== != < <= > >=, in, not in, is None, is not None) of columns with literals, joined by and, or, not. It is
Python's own grammar, parsed by `ast` and applied to columns by Arrow's functions; nothing is ever executed. A column
whose name is not an identifier is written ``col('task-name')``. Literals are compared exactly, as numbers: none is
rounded to the type of a column. Dates and times are compared with text, such as ``day >= '2024-01-31'``.
"""

from __future__ import annotations

import ast
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from fastxent.errors import ColumnError, ConfigError
from fastxent.io.bounds import Lookup
from fastxent.scoring.comparison import COMPARE, LARGEST, among, comparable, compare_columns, compare_literal
from fastxent.scoring.outcomes import Outcomes, empty, outcomes

if TYPE_CHECKING:
    import pyarrow as pa

_SWAPPED = {ast.Lt: ast.Gt, ast.LtE: ast.GtE, ast.Gt: ast.Lt, ast.GtE: ast.LtE}
_DEEPEST = 100
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
                f"invalid where {_shown(text)}: it does not name a column; expected a condition such as {_EXAMPLE}"
            )

    # ---- once: is it a condition? ------------------------------------------------------------------------------------

    def _refuse(self, node: ast.AST) -> ConfigError:
        return ConfigError(
            f"invalid where {_shown(self.text)}: {_shown(ast.unparse(node))} is not a comparison of a column with a "
            f"literal; expected a condition such as {_EXAMPLE}; {_OTHER_NAMES}"
        )

    def _check(self, node: ast.AST, depth: int) -> None:
        """Raise an error for an expression that is not a condition, and collect its columns."""
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
                f"invalid where {_shown(self.text)}: None cannot be compared; write 'is None' or 'is not None'"
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
                values[name] = comparable(columns[name], name)
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
            held = pa.scalar(_literal(left) in items) if a is None else among(values[a], items)
            return held if isinstance(op, ast.In) else pc.invert(held)
        if a is not None and b is not None:
            return compare_columns(type(op), values[a], values[b])
        if a is not None:
            return compare_literal(type(op), values[a], _literal(right))
        if b is not None:
            return compare_literal(_SWAPPED.get(type(op), type(op)), values[b], _literal(left))
        return pa.scalar(bool(COMPARE[type(op)][1](_literal(left), _literal(right))))

    # ---- for many rows at once ---------------------------------------------------------------------------------------

    def may_hold(self, bounds: Lookup) -> bool:
        """Whether the condition may hold for some of the rows whose columns have these bounds.

        A comparison that Arrow refuses may hold: `rows` then raises its error.
        """
        import pyarrow as pa

        try:
            return self._outcomes(self._tree, bounds).true
        except (pa.ArrowException, ColumnError, TypeError, ValueError, OverflowError):
            return True

    def _outcomes(self, node: ast.expr, bounds: Lookup) -> Outcomes:
        match node:
            case ast.BoolOp(op=op, values=parts):
                found = [self._outcomes(part, bounds) for part in parts]
                true, false = [part.true for part in found], [part.false for part in found]
                return Outcomes(all(true), any(false)) if isinstance(op, ast.And) else Outcomes(any(true), all(false))
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                return self._outcomes(operand, bounds).inverted()
            case ast.Compare(left=left, ops=ops, comparators=right):
                pairs = zip([left, *right], ops, right, strict=False)
                found = [self._compared(a, compare, b, bounds) for a, compare, b in pairs]
                return Outcomes(all(part.true for part in found), any(part.false for part in found))
        column = bounds(str(self._name(node)))
        if str(column.kind) != "bool":
            raise TypeError("not a condition")
        if column.low is None or column.high is None:
            return Outcomes(True, True)
        return Outcomes(column.high[0].as_py() is True, column.low[0].as_py() is False)

    def _compared(self, left: ast.expr, op: ast.cmpop, right: ast.expr, bounds: Lookup) -> Outcomes:
        a, b = self._name(left), self._name(right)
        if isinstance(op, ast.Is | ast.IsNot):
            null = Outcomes(_is_none(left), not _is_none(left))
            if a is not None:
                null = Outcomes(bounds(a).nulls, bounds(a).values)
            return null if isinstance(op, ast.Is) else null.inverted()
        if isinstance(op, ast.In | ast.NotIn):
            items = _items(right)
            if a is None:
                held = Outcomes(_literal(left) in items, _literal(left) not in items)
            else:
                among(empty(bounds(a)), items)
                each = [outcomes(ast.Eq, bounds(a), item).true for item in items if item is not None]
                held = Outcomes(any(each) or (None in items and bounds(a).nulls), True)
            return held if isinstance(op, ast.In) else held.inverted()
        if a is not None and b is not None:
            compare_columns(type(op), empty(bounds(a)), empty(bounds(b)))
            return Outcomes(True, True)
        if a is not None:
            return outcomes(type(op), bounds(a), _literal(right))
        if b is not None:
            return outcomes(_SWAPPED.get(type(op), type(op)), bounds(b), _literal(left))
        holds = bool(COMPARE[type(op)][1](_literal(left), _literal(right)))
        return Outcomes(holds, not holds)


def _literal(node: ast.AST) -> Any:
    """A number, text, bytes or bool as it is written; ValueError or TypeError of anything else."""
    if not isinstance(node, ast.Constant | ast.UnaryOp):
        raise ValueError("not a literal")
    value = ast.literal_eval(node)
    if not (value is None or isinstance(value, bool | int | float | str | bytes)):
        raise ValueError("not a literal of a column")
    if isinstance(value, int) and abs(value) > LARGEST:
        raise ValueError("larger than any number of a column")
    return value


def _items(node: ast.AST) -> list[Any]:
    return [_literal(item) for item in getattr(node, "elts", ())]
