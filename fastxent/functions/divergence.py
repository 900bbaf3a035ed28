"""Kullback-Leibler and Jensen-Shannon divergences of rows."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fastxent.engine.pool import parallel_rows
from fastxent.errors import ConfigError
from fastxent.functions.inputs import check_reduction, input_of, mode_of, reduce_rows, unit_of
from fastxent.kernels.floats import widened
from fastxent.kernels.launch import Options, RowPass
from fastxent.kernels.matrix import Matrix
from fastxent.kernels.rows import record as rows
from fastxent.kernels.rows.pair import divergence_kernel

_CHUNK_BYTES = 256 << 10  # of float64 copies of each side


def _wide(matrix: Matrix, begin: int, end: int) -> np.ndarray:
    return np.ascontiguousarray(widened(matrix.values[begin:end], matrix.dtype), np.float64)


def _divergence(p: Any, q: Any, input: str, reduction: str, base: float | None, jensen_shannon: bool) -> Any:
    check_reduction(reduction, ("batchmean", "mean", "sum", "none"))
    unit, mode = unit_of(base), mode_of(input)
    a, b = input_of(p, name="p"), input_of(q, name="q")
    if a.array.shape != b.array.shape:
        raise ConfigError(f"p of shape {a.array.shape} and q of shape {b.array.shape} differ")
    n, c = a.matrix.n, a.matrix.n_classes
    result = np.empty(n)
    kernel = divergence_kernel(jensen_shannon, mode)
    chunk = max(1, min(4096, _CHUNK_BYTES // (8 * c)))

    def work(begin: int, end: int) -> None:
        for i in range(begin, end, chunk):
            e = min(end, i + chunk)
            sides = [_wide(m, i, e) for m in (a.matrix, b.matrix)]
            takes = [
                RowPass(Matrix.of(s), None, rows.NO_TARGET + 1, Options(mode), full=False, chunk=e - i) for s in sides
            ]
            for take in takes:
                take(0, e - i)
            x, y = takes
            kernel(x.logits.address, y.logits.address, e - i, c, x.record, x.status, y.record, y.status, result[i:e])

    parallel_rows(work, n, a.row_bytes + b.row_bytes)
    with np.errstate(invalid="ignore"):
        value = reduce_rows((result / unit).reshape(a.lead), "none" if reduction == "none" else "sum", a)
    if reduction in ("none", "sum"):
        return value
    count = n if reduction == "batchmean" else n * c
    return value / count if count else math.nan


def kl_divergence(
    p: Any, q: Any, *, input: str = "logits", reduction: str = "batchmean", base: float | None = None
) -> Any:
    """KL(p‖q) = Σ_c p_c (log p_c - log q_c) of each row, in nats or to ``base``; +inf where q is 0 and p is not.

    Never negative, and 0 for equal rows. Rows that do not sum to 1 are not renormalised: their divergence is the
    generalised one, Σ_c p_c (log p_c - log q_c) - p_c + q_c, as in `scipy.special.kl_div`.

    ``p``, ``q``: the same shape, classes last; logits, log-probabilities or probabilities as ``input`` says; computed
    in float64. ``reduction``: "batchmean" (mean over rows), "mean" (over all numbers), "sum", or "none". Follows
    `torch.nn.functional.kl_div`, with p the target and q the input.

    >>> import numpy as np, fastxent as fx
    >>> float(fx.kl_divergence(np.array([[0.5, 0.5]]), np.array([[0.25, 0.75]]), input="probs").__round__(6))
    0.143841
    """
    return _divergence(p, q, input, reduction, base, False)


def js_divergence(
    p: Any, q: Any, *, input: str = "logits", reduction: str = "batchmean", base: float | None = None
) -> Any:
    """(KL(p‖m) + KL(q‖m)) / 2 with m = (p + q) / 2: symmetric, from 0 for equal rows to log 2.

    Arguments as in `kl_divergence`.
    Source: Lin 1991; `scipy.spatial.distance.jensenshannon` squared.

    >>> import numpy as np, fastxent as fx
    >>> fx.js_divergence(np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]]), input="probs", base=2)
    1.0
    """
    return _divergence(p, q, input, reduction, base, True)
