"""What a comparison with a literal can be for rows of which only bounds of a column are known."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, Any, NamedTuple

from fastxent.io.bounds import Bounds
from fastxent.scoring.comparison import comparable, compare_literal

if TYPE_CHECKING:
    import pyarrow as pa

_OPPOSITE = {ast.Lt: ast.GtE, ast.LtE: ast.Gt, ast.Gt: ast.LtE, ast.GtE: ast.Lt}


class Outcomes(NamedTuple):
    """Whether a condition may be true for some row, and whether it may be false. For other rows it is null."""

    true: bool
    false: bool

    def inverted(self) -> Outcomes:
        """Those of the condition's opposite."""
        return Outcomes(self.false, self.true)


def outcomes(op: type[ast.cmpop], column: Bounds, literal: Any) -> Outcomes:
    """Those of ``column op literal``. Every comparison but != is false for NaN, which bounds leave out.

    Errors are those of `compare_literal`.
    """
    compare_literal(op, empty(column), literal)
    if column.low is None or column.high is None:
        return Outcomes(True, True)
    low, high = comparable(column.low, ""), comparable(column.high, "")
    nan = column.values and str(low.type) == "double"
    if op in (ast.Eq, ast.NotEq):
        within = _holds(ast.LtE, low, literal) and _holds(ast.GtE, high, literal)
        alone = _holds(ast.Eq, low, literal) and _holds(ast.Eq, high, literal)
        equal = Outcomes(within, column.values and (nan or not alone))
        return equal if op is ast.Eq else equal.inverted()
    first, last = (low, high) if op in (ast.Lt, ast.LtE) else (high, low)  # the value for which it holds most easily
    return Outcomes(_holds(op, first, literal), nan or _holds(_OPPOSITE[op], last, literal))


def empty(column: Bounds) -> pa.Array:
    """No values of the type of a column, to find out whether it can be compared; TypeError if it is not known."""
    import pyarrow as pa

    if column.kind is None:
        raise TypeError("a column of an unknown type")
    return comparable(pa.array([], column.kind), "")


def _holds(op: type[ast.cmpop], value: pa.Array, literal: Any) -> bool:
    return compare_literal(op, value, literal)[0].as_py() is True
