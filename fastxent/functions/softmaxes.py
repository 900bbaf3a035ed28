"""Softmax, its logarithm, and the logarithm of its denominator."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastxent.engine.pool import parallel_rows
from fastxent.functions.inputs import Out, OutRows, input_of, largest
from fastxent.kernels.launch import Emit, Options, RowPass
from fastxent.kernels.rows import emit, record as rows
from fastxent.options.config import check_loss_options

_CHUNK = 4096  # rows, where each chunk is copied from


def _softmax(values: Any, axis: int, temperature: float, out: Any, dtype: str | None, output: int) -> np.ndarray:
    _, temperature, _ = check_loss_options(0.0, temperature, None)
    x = input_of(values, axis, dtype)
    result = Out(x, out)
    options = Options(temperature=temperature)

    def work(begin: int, end: int) -> None:
        take = RowPass(x.matrix, None, rows.NO_TARGET + 1, options, full=False, twice=True)
        write = Emit(take, result.matrix, output, result.streaming)
        take.sweep(begin, end, write)

    parallel_rows(work, x.matrix.n, 2 * x.row_bytes)
    return result.finish(x)


def log_softmax(
    logits: Any, *, axis: int = -1, temperature: float = 1.0, out: Any = None, dtype: str | None = None
) -> np.ndarray:
    """Logarithm of the softmax: x_c/T - log Σ_j exp(x_j/T).

    ``logits``: any shape with classes along ``axis``. Returns an array of the same shape and dtype, or ``out`` (which
    may be the logits themselves). Rows that hold NaN or +inf, or nothing but -inf, are NaN; -inf stays -inf.
    Raises ConfigError (a ValueError) for C = 0 or an unfit ``out``. Follows `torch.nn.functional.log_softmax`.

    >>> import numpy as np, fastxent as fx
    >>> np.exp(fx.log_softmax(np.log([[1.0, 3.0]]))).round(12)
    array([[0.25, 0.75]])
    """
    return _softmax(logits, axis, temperature, out, dtype, emit.LOG_SOFTMAX)


def softmax(
    logits: Any, *, axis: int = -1, temperature: float = 1.0, out: Any = None, dtype: str | None = None
) -> np.ndarray:
    """exp(x_c/T) / Σ_j exp(x_j/T). Shapes, dtypes, errors and broken rows as in `log_softmax`.

    >>> import numpy as np, fastxent as fx
    >>> fx.softmax(np.array([0.0, 0.0, -np.inf]))
    array([0.5, 0.5, 0. ])
    """
    return _softmax(logits, axis, temperature, out, dtype, emit.SOFTMAX)


def logsumexp(
    logits: Any, *, axis: int = -1, temperature: float = 1.0, out: Any = None, dtype: str | None = None
) -> Any:
    """log Σ_c exp(x_c/T) of each row: float64 for float64 logits, else float32; or written to ``out``.

    -inf for a row of -inf, +inf for a row that holds it, NaN for a row with NaN. Follows `scipy.special.logsumexp`.

    >>> import numpy as np, fastxent as fx
    >>> round(float(fx.logsumexp(np.log([1.0, 2.0, 5.0]))), 12) == round(float(np.log(8)), 12)
    True
    """
    _, temperature, _ = check_loss_options(0.0, temperature, None)
    x = input_of(logits, axis, dtype)
    result = OutRows(x.lead, x.loss_dtype, out)
    lse = np.empty(x.matrix.n)

    def work(begin: int, end: int) -> None:
        options = Options(temperature=temperature)
        take = RowPass(x.matrix, None, rows.NO_TARGET + 1, options, full=False, chunk=_CHUNK)
        for b in range(begin, end, take.chunk):
            e = min(end, b + take.chunk)
            take(b, e)
            lse[b:e] = take.record[rows.LSE, : e - b]

    parallel_rows(work, x.matrix.n, x.row_bytes)
    for i in np.flatnonzero(np.isnan(lse)):
        top = largest(x, int(i), None)
        lse[i] = top if np.isinf(top) else np.nan
    result.rows[...] = lse
    return result.finish()
