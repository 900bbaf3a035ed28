"""Row filters: a small, safe language for ``where=``, such as ``kind == 'code' and n_bytes > 1``.

Comparisons (== != < <= > >=, in, not in, is None, is not None) of columns with literals, joined by and, or, not. It is
Python's own grammar, parsed by `ast` and turned into a pyarrow expression; nothing is ever executed.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from fastxent.errors import ConfigError

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.compute as pc

_COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq, ast.NotEq: operator.ne, ast.Lt: operator.lt, ast.LtE: operator.le,
    ast.Gt: operator.gt, ast.GtE: operator.ge,
}  # fmt: skip


def _is_none(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


class Filter:
    """A parsed ``where``: the columns it reads, and the rows it keeps."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.columns: list[str] = []
        try:
            tree = ast.parse(text.strip(), mode="eval").body
            self._expression = self._condition(tree)
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            if isinstance(error, ConfigError):
                raise
            detail = error.args[0] if error.args else "nested too deeply"
            raise ConfigError(f"where={text!r} is no condition ({detail}); such as \"kind == 'code'\"") from None
        if not self.columns:
            raise ConfigError(f"where={text!r} names no column; such as \"kind == 'code'\"")

    def _refuse(self, node: ast.AST) -> ConfigError:
        return ConfigError(
            f"where={self.text!r}: {ast.unparse(node)!r} is not a comparison of a column with a literal; "
            "such as \"kind == 'code' and n_bytes > 1\""
        )

    def _condition(self, node: ast.AST) -> pc.Expression:
        match node:
            case ast.BoolOp(op=op, values=values):
                join = operator.and_ if isinstance(op, ast.And) else operator.or_
                parts = [self._condition(value) for value in values]
                result = parts[0]
                for part in parts[1:]:
                    result = join(result, part)
                return result
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                return ~self._condition(operand)
            case ast.Compare(left=left, ops=ops, comparators=right):
                sides = [left, *right]
                parts = [self._comparison(a, op, b, node) for a, op, b in zip(sides, ops, right, strict=False)]
                result = parts[0]
                for part in parts[1:]:
                    result = result & part
                return result
            case ast.Name():
                return self._operand(node)
        raise self._refuse(node)

    def _comparison(self, left: ast.expr, op: ast.cmpop, right: ast.expr, node: ast.AST) -> pc.Expression:
        import pyarrow as pa
        import pyarrow.compute as pc

        a = self._operand(left)
        if isinstance(op, ast.Is | ast.IsNot):
            if not _is_none(right):
                raise self._refuse(node)
            return a.is_null() if isinstance(op, ast.Is) else a.is_valid()
        if isinstance(op, ast.In | ast.NotIn):
            if not isinstance(right, ast.List | ast.Tuple | ast.Set):
                raise self._refuse(node)
            try:
                values = pa.array([ast.literal_eval(item) for item in right.elts])
            except (ValueError, TypeError, OverflowError, pa.ArrowException):  # of several types, say
                raise self._refuse(node) from None
            held = a.isin(values) if len(values) else a.is_null() & a.is_valid()
            if not values.null_count:
                held = pc.if_else(a.is_valid(), held, pa.scalar(None, pa.bool_()))
            return held if isinstance(op, ast.In) else ~held
        if _is_none(left) or _is_none(right):
            raise ConfigError(f"where={self.text!r}: nothing equals None; write 'is None' or 'is not None'")
        return _COMPARE[type(op)](a, self._operand(right))

    def _operand(self, node: ast.expr) -> pc.Expression:
        import pyarrow as pa
        import pyarrow.compute as pc

        match node:
            case ast.Name(id=name):
                self.columns.append(name)
                return pc.field(name)
            case ast.Attribute():
                self.columns.append(ast.unparse(node))
                return pc.field(ast.unparse(node))
            case ast.Constant() | ast.UnaryOp(op=ast.USub(), operand=ast.Constant()):
                try:
                    return pc.scalar(ast.literal_eval(node))
                except (ValueError, TypeError, OverflowError, pa.ArrowException):  # 1j, -'a', 10**99
                    raise self._refuse(node) from None
        raise self._refuse(node)

    def rows(self, columns: dict[str, pa.Array]) -> np.ndarray:
        """Indices of the rows kept. A comparison with null keeps nothing."""
        import pyarrow as pa

        names = list(dict.fromkeys(self.columns))
        n = len(columns[names[0]])
        table = pa.table({"": pa.array(np.arange(n)), **{name: columns[name] for name in names}})
        try:
            kept = table.filter(self._expression).column("")
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError) as error:
            raise ConfigError(f"where={self.text!r} does not fit the columns: {str(error).splitlines()[0]}") from None
        return np.asarray(kept)
