"""What rounding the logits to another float type costs: exact sums, so no metric depends on threads."""

from __future__ import annotations

import json
import math
import threading
from dataclasses import dataclass

import numpy as np

from fastxent.errors import BadRowError
from fastxent.io.batch import Batch
from fastxent.io.columns import target_ids
from fastxent.kernels.exact import exact_add, exact_ratio, exact_zeros
from fastxent.kernels.floats import FLOAT_TYPES, widened
from fastxent.kernels.launch import Options, RowPass
from fastxent.kernels.matrix import Matrix
from fastxent.kernels.rows import record as r
from fastxent.results.conversion import Rounding
from fastxent.scoring.rounding import round_to

_WIDE = ("bfloat16", "float32", "float64")
_BLOCK = 1 << 18  # bytes rounded at a time: they stay in the second-level cache


class Cost:
    """Rounds batches, on any thread, and sums what that costs."""

    def __init__(self, before: str, after: str, overflows: bool, ignore_index: int) -> None:
        self._before, self._after, self._overflows, self._ignore = before, after, overflows, ignore_index
        self._lock = threading.Lock()
        self._sums = {name: exact_zeros() for name in ("before", "after", "change")}
        self._most = {"error": 0.0, "change": 0.0}
        self._counts = {"overflowed": 0, "broken": 0, "argmax": 0, "compared": 0}

    def rounded(self, batch: Batch, target: str | None) -> np.ndarray:
        """The logits of a batch in the new type, in memory of their own. ``target``: the column of class ids."""
        values, (n, c) = batch.held.values, batch.logits.shape
        out = np.empty((n, c), FLOAT_TYPES[self._after].stored)
        error, overflowed = 0.0, 0
        step = max(1, _BLOCK // max(1, c * values.itemsize))
        for begin in range(0, n, step):
            wide = widened(values[begin : begin + step], self._before)
            new = out[begin : begin + step]
            new[...] = round_to(wide, self._after)
            back = widened(new, self._after)
            lost = np.isinf(back) & np.isfinite(wide)
            if lost.any() and not self._overflows:
                self._refuse(batch, begin, wide, lost)
            with np.errstate(invalid="ignore"):  # inf - inf; NaN
                distance = np.abs(back - wide)
            error = max(error, float(np.where(np.isfinite(distance), distance, 0.0).max(initial=0.0)))
            overflowed += int(lost.sum())
        self._compare(batch, Matrix.of(out, self._after), target, error, overflowed)
        return out

    def _refuse(self, batch: Batch, begin: int, wide: np.ndarray, lost: np.ndarray) -> None:
        row, column = np.argwhere(lost)[0].tolist()
        value = wide[row : row + 1, column : column + 1]
        with np.errstate(over="ignore"):
            fitting = [name for name in _WIDE if np.isfinite(widened(round_to(value, name), name)).all()]
        raise BadRowError(
            batch.where, begin + row, f"logit {column} is {value[0, 0]:g}, too large for {self._after}",
            f"take dtype={' or '.join(map(json.dumps, fitting))}, or let it become infinite with "
            'on_overflow="inf" (--on-overflow inf)',
        )  # fmt: skip

    def _compare(self, batch: Batch, after: Matrix, target: str | None, error: float, overflowed: int) -> None:
        n = after.n
        ids = np.full(n, r.NO_TARGET)
        if target is not None:
            given = target_ids(batch.columns[target], self._ignore, None)
            good = (given >= 0) & (given < after.n_classes) & (given != self._ignore)
            ids = np.where(good, given, r.NO_TARGET)
        old, new = (self._scored(m, ids) for m in (Matrix.of(batch.held.values, batch.logits.dtype), after))
        broken = int(((old.status == r.USED) & (new.status != r.USED)).sum())
        both = (old.status == r.USED) & (new.status == r.USED)
        moved = int((both & (old.predicted != new.predicted)).sum())
        rows = both & (ids != r.NO_TARGET)
        left, right = old.nll[rows], new.nll[rows]
        with np.errstate(invalid="ignore"):  # a loss that is infinite before and after has not changed
            change = np.where(left == right, 0.0, np.abs(right - left))
        with self._lock:
            for name, values in (("before", left), ("after", right), ("change", change)):
                exact_add(self._sums[name], values)
            for name, value in (("error", error), ("change", float(change.max(initial=0.0)))):
                self._most[name] = max(self._most[name], value)
            counts = {"overflowed": overflowed, "broken": broken, "argmax": moved, "compared": len(left)}
            for name, count in counts.items():
                self._counts[name] += count

    def _scored(self, matrix: Matrix, target: np.ndarray) -> _Rows:
        take = RowPass(matrix, target, r.NO_TARGET + 1, Options(), full=True, chunk=matrix.n)
        take(0, matrix.n)
        n = matrix.n
        return _Rows(take.status[:n], take.record[r.NLL, :n], take.ids[r.PREDICTED, :n])

    def result(self) -> Rounding:
        """The figures of all batches."""
        n = self._counts["compared"]
        count = exact_zeros()
        exact_add(count, np.array([float(n)]))
        before, after, change = (exact_ratio(self._sums[name], count) for name in ("before", "after", "change"))
        return Rounding(
            max_logit_error=self._most["error"], overflowed=self._counts["overflowed"], broken=self._counts["broken"],
            argmax_changed=self._counts["argmax"], compared=n, nll_before=before, nll_after=after,
            nll_mean_change=change, nll_max_change=self._most["change"] if n else math.nan,
        )  # fmt: skip


@dataclass(frozen=True)
class _Rows:
    status: np.ndarray
    nll: np.ndarray
    predicted: np.ndarray
