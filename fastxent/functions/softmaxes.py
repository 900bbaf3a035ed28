"""Softmax, its logarithm, and the logarithm of its denominator."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastxent.engine.pool import parallel_rows
from fastxent.functions.inputs import input_of, largest, temperature_of
from fastxent.functions.outputs import Out, OutRows
from fastxent.kernels.launch import Emit, RowOptions, RowPass
from fastxent.kernels.rows import emit, record as rows
from fastxent.options.choices import FloatName
from fastxent.options.declared import DEFAULTS

_CHUNK = 4096  # rows whose log-sum-exp is copied at a time
_TEMPERATURE = DEFAULTS["temperature"]


def _softmax(values: Any, axis: int, temperature: float, out: Any, dtype: str | None, output: int) -> np.ndarray:
    options = RowOptions(temperature=temperature_of(temperature))
    x = input_of(values, axis, dtype)
    result = Out(x, out)

    def work(begin: int, end: int) -> None:
        take = RowPass(x.matrix, None, rows.NO_TARGET + 1, options, full=False, twice=True)
        write = Emit(take, result.matrix, output, result.streaming)
        take.sweep(begin, end, write)

    parallel_rows(work, x.matrix.n, 2 * x.row_bytes)
    return result.finish(x)


def log_softmax(
    logits: Any, *, axis: int = -1, temperature: float = _TEMPERATURE, out: Any = None, dtype: FloatName | None = None
) -> np.ndarray:
    """Return the logarithm of the softmax of each row, x_c/T - log Σ_j exp(x_j/T).

    Args:
        logits: floating-point (..., C, ...), classes along ``axis``.
        axis: int. The class axis.
        temperature: float above 0. T, the divisor of the logits.
        out: array of the logits' shape and dtype, or None. The place of the result; ``logits`` itself is allowed.
        dtype: float type or None. "bfloat16" reads 16-bit integers as bfloat16.

    Returns:
        ``out``, or an array of the logits' shape and dtype. A row with NaN, +inf or only -inf is NaN; -inf stays -inf.

    Raises:
        ConfigError: (a ValueError) there are no classes, or an option or ``out`` is invalid.
        TypeError: logits are not floating-point.

    Source: `torch.nn.functional.log_softmax`.

    >>> import numpy as np, fastxent as fx
    >>> np.exp(fx.log_softmax(np.log([[1.0, 3.0]]))).round(12)
    array([[0.25, 0.75]])
    """
    return _softmax(logits, axis, temperature, out, dtype, emit.LOG_SOFTMAX)


def softmax(
    logits: Any, *, axis: int = -1, temperature: float = _TEMPERATURE, out: Any = None, dtype: FloatName | None = None
) -> np.ndarray:
    """Return the softmax of each row, exp(x_c/T) / Σ_j exp(x_j/T).

    Args:
        logits, axis, temperature, out, dtype: as in `log_softmax`.

    Returns:
        As `log_softmax`; -inf becomes 0.

    Raises:
        ConfigError, TypeError: as in `log_softmax`.

    Source: `torch.nn.functional.softmax`.

    >>> import numpy as np, fastxent as fx
    >>> fx.softmax(np.array([0.0, 0.0, -np.inf]))
    array([0.5, 0.5, 0. ])
    """
    return _softmax(logits, axis, temperature, out, dtype, emit.SOFTMAX)


def logsumexp(
    logits: Any, *, axis: int = -1, temperature: float = _TEMPERATURE, out: Any = None, dtype: FloatName | None = None
) -> Any:
    """Return log Σ_c exp(x_c/T) of each row.

    Args:
        logits, axis, temperature, dtype: as in `log_softmax`.
        out: array of the leading shape and the result's dtype, or None. The place of the result.

    Returns:
        ``out``, or an array of the leading shape, float64 for float64 logits, else float32. A row with NaN is NaN, a
        row with +inf is +inf, and a row of only -inf is -inf.

    Raises:
        ConfigError, TypeError: as in `log_softmax`.

    Source: `scipy.special.logsumexp`.

    >>> import numpy as np, fastxent as fx
    >>> round(float(fx.logsumexp(np.log([1.0, 2.0, 5.0]))), 12) == round(float(np.log(8)), 12)
    True
    """
    options = RowOptions(temperature=temperature_of(temperature))
    x = input_of(logits, axis, dtype)
    result = OutRows(x.lead, x.loss_dtype, out)
    lse = np.empty(x.matrix.n)

    def work(begin: int, end: int) -> None:
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
