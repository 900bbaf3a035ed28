"""What metadata prove of the values of a column in some rows, so that rows which a filter excludes are not read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class Bounds:
    """Values of one column. What is not known is possible.

    kind: their type; None if it is not known.
    low, high: array of one value, or None. Every value that is neither null nor NaN lies between them. Null if all are.
    nulls: bool. Whether some value may be null.
    values: bool. Whether some value may be other than null.
    """

    kind: pa.DataType | None = None
    low: pa.Array | None = None
    high: pa.Array | None = None
    nulls: bool = True
    values: bool = True


Lookup = Callable[[str], Bounds]  # of a column by its name
Keep = Callable[[Lookup], bool]  # whether rows with such columns may be wanted
