"""Batches of logits rounded to another float type, and what that changes in each row."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from fastxent.errors import BadRowError, Where
from fastxent.io.batch import Batch
from fastxent.io.columns import target_ids
from fastxent.kernels.floats import FLOAT_TYPES, widened
from fastxent.kernels.launch import RowOptions, RowPass
from fastxent.kernels.matrix import Matrix
from fastxent.kernels.rows import record as r
from fastxent.scoring.rounding import round_to

if TYPE_CHECKING:
    import pyarrow as pa

_WIDE = ("bfloat16", "float32", "float64")
_BLOCK = 1 << 18  # bytes rounded at a time: they stay in the L2 cache
_ADVICE = "fix the dump, or leave that row out"


@dataclass
class Rounded:
    """n rows in the new float type. ``before`` and ``after`` are of the rows whose losses can be compared."""

    values: np.ndarray  # (n, C) in memory of their own
    columns: dict[str, pa.Array]
    before: np.ndarray = field(default_factory=lambda: np.empty(0))  # nll
    after: np.ndarray = field(default_factory=lambda: np.empty(0))
    error: float = 0.0  # largest |error| of a logit
    overflowed: int = 0  # logits that became infinite
    broken: int = 0  # rows that have no loss any more
    moved: int = 0  # rows with another predicted class


@dataclass(frozen=True)
class Rounder:
    """Rounds the logits of batches.

    before, after: names of float types. Equal ones: the logits are copied bit for bit.
    overflows: bool. A finite logit may become infinite.
    target: str or None. The column of class ids for which losses are compared.
    ignore_index: int. The target of rows whose losses are not compared.
    """

    before: str
    after: str
    overflows: bool
    target: str | None
    ignore_index: int

    def __call__(self, batch: Batch) -> Rounded:
        """Round a batch whose logits are one block. `BadRowError` for logits that do not form a row or overflow."""
        block = batch.whole()
        if block.bad:
            row, reason = next(iter(block.bad.items()))
            raise BadRowError(batch.where, row, reason, _ADVICE)
        if self.before == self.after:
            return Rounded(block.values.copy(order="C"), batch.columns)  # the reader uses its memory again
        found = self._rounded(block.values, batch)
        self._compare(Matrix.of(block.values, block.dtype), Matrix.of(found.values, self.after), found)
        return found

    def _rounded(self, values: np.ndarray, batch: Batch) -> Rounded:
        n, c = values.shape
        found = Rounded(np.empty((n, c), FLOAT_TYPES[self.after].stored), batch.columns)
        step = max(1, _BLOCK // max(1, c * values.itemsize))
        for begin in range(0, n, step):
            wide = widened(values[begin : begin + step], self.before)
            new = found.values[begin : begin + step]
            new[...] = round_to(wide, self.after)
            back = widened(new, self.after)
            lost = np.isinf(back) & np.isfinite(wide)
            if lost.any() and not self.overflows:
                self._refuse(batch.where, begin, wide, lost)
            with np.errstate(invalid="ignore"):  # inf - inf; NaN
                distance = np.abs(back - wide)
            found.error = max(found.error, float(np.where(np.isfinite(distance), distance, 0.0).max(initial=0.0)))
            found.overflowed += int(lost.sum())
        return found

    def _refuse(self, where: Where, begin: int, wide: np.ndarray, lost: np.ndarray) -> None:
        row, column = np.argwhere(lost)[0].tolist()
        value = wide[row : row + 1, column : column + 1]
        with np.errstate(over="ignore"):
            fitting = [name for name in _WIDE if np.isfinite(widened(round_to(value, name), name)).all()]
        raise BadRowError(
            where, begin + row, f"logit {column} is {value[0, 0]:g}, too large for {self.after}",
            f"take dtype={' or '.join(map(json.dumps, fitting))}, or let it become infinite with "
            'on_overflow="inf" (--on-overflow inf)',
        )  # fmt: skip

    def _compare(self, before: Matrix, after: Matrix, found: Rounded) -> None:
        ids = np.full(after.n, r.NO_TARGET)
        if self.target is not None:
            given = target_ids(found.columns[self.target], self.ignore_index, None)
            good = (given >= 0) & (given < after.n_classes) & (given != self.ignore_index)
            ids = np.where(good, given, r.NO_TARGET)
        (old, old_nll, old_class), (new, new_nll, new_class) = (_record(m, ids) for m in (before, after))
        used = old == r.USED
        both = used & (new == r.USED)
        found.broken = int((used & (new != r.USED)).sum())
        found.moved = int((both & (old_class != new_class)).sum())
        rows = both & (ids != r.NO_TARGET)
        found.before, found.after = old_nll[rows], new_nll[rows]


def _record(matrix: Matrix, target: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(status, nll, predicted class) of each row."""
    take = RowPass(matrix, target, r.NO_TARGET + 1, RowOptions(), full=True, chunk=matrix.n)
    take(0, matrix.n)
    n = matrix.n
    return take.status[:n], take.record[r.NLL, :n], take.ids[r.PREDICTED, :n]
