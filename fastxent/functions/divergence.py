"""Kullback-Leibler and Jensen-Shannon divergences of rows."""

from __future__ import annotations

import math
from typing import Any, Literal, get_args, overload

import numpy as np

from fastxent.engine.pool import parallel_rows
from fastxent.errors import ConfigError
from fastxent.functions.inputs import check_reduction, input_of, mode_of, unit_of
from fastxent.functions.outputs import reduce_rows
from fastxent.kernels.floats import widened
from fastxent.kernels.launch import RowOptions, RowPass
from fastxent.kernels.matrix import Matrix
from fastxent.kernels.rows import record as rows
from fastxent.kernels.rows.arguments import Side
from fastxent.kernels.rows.pair import divergence_kernel
from fastxent.options.choices import BatchReduction, Input

_CHUNK_BYTES = 256 << 10  # of the float64 copies of p and of q


def _wide(matrix: Matrix, begin: int, end: int) -> np.ndarray:
    return np.ascontiguousarray(widened(matrix.values[begin:end], matrix.dtype), np.float64)


def _divergence(p: Any, q: Any, input: str, reduction: str, base: float | None, jensen_shannon: bool) -> Any:
    check_reduction(reduction, get_args(BatchReduction))
    unit, mode = unit_of(base), mode_of(input)
    a, b = input_of(p, name="p"), input_of(q, name="q")
    if a.array.shape != b.array.shape:
        raise ConfigError(f"q must have the shape of p, {a.array.shape}, got {b.array.shape}")
    n, c = a.matrix.n, a.matrix.n_classes
    result = np.empty(n)
    kernel = divergence_kernel(jensen_shannon, mode)
    chunk = max(1, min(4096, _CHUNK_BYTES // (8 * c)))

    def work(begin: int, end: int) -> None:
        for i in range(begin, end, chunk):
            e = min(end, i + chunk)
            sides = [_wide(m, i, e) for m in (a.matrix, b.matrix)]
            takes = [
                RowPass(Matrix.of(s), None, rows.NO_TARGET + 1, RowOptions(mode), full=False, chunk=e - i)
                for s in sides
            ]
            for take in takes:
                take(0, e - i)
            left, right = (tuple(Side(take.logits.address, take.record, take.status)) for take in takes)
            kernel(left, right, e - i, c, result[i:e])

    parallel_rows(work, n, a.row_bytes + b.row_bytes)
    with np.errstate(invalid="ignore"):
        value = reduce_rows((result / unit).reshape(a.lead), "none" if reduction == "none" else "sum", a)
    if reduction in ("none", "sum"):
        return value
    count = n if reduction == "batchmean" else n * c
    return value / count if count else math.nan


@overload
def kl_divergence(
    p: Any,
    q: Any,
    *,
    input: Input = ...,
    reduction: Literal["batchmean", "mean", "sum"] = ...,
    base: float | None = None,
) -> float: ...
@overload
def kl_divergence(
    p: Any, q: Any, *, input: Input = ..., reduction: Literal["none"], base: float | None = None
) -> np.ndarray: ...
def kl_divergence(
    p: Any, q: Any, *, input: Input = "logits", reduction: BatchReduction = "batchmean", base: float | None = None
) -> Any:
    """Return the Kullback-Leibler divergence KL(p‖q) = Σ_c p_c (log p_c - log q_c) of rows, in nats or to ``base``.

    It is at least 0, and 0 for equal rows. Rows that do not sum to 1 are not normalised: their divergence is the
    generalised one, Σ_c p_c (log p_c - log q_c) - p_c + q_c, as in `scipy.special.kl_div`.

    Args:
        p, q: floating-point (..., C), both of the same shape; computed in float64.
        input: "logits", "log_probs" or "probs". The kind of both.
        reduction: "batchmean", mean over rows; "mean", mean over all numbers; "sum"; or "none", one per row.
        base: float above 0 other than 1, or None. Base of the logarithm; None means nats.

    Returns:
        float; for "none" an array of the leading shape, float64 for float64 input, else float32. +inf if a q_c is 0
        and its p_c is not. A logit or log-probability of -inf is a probability of 0. One that is finite is not, even
        if its exponential underflows.

    Raises:
        ConfigError: (a ValueError) the shapes differ, or an option is invalid.
        TypeError: p or q is not floating-point.

    Source: `torch.nn.functional.kl_div`, where p is the target and the logarithm of q is the input.

    >>> import numpy as np, fastxent as fx
    >>> float(fx.kl_divergence(np.array([[0.5, 0.5]]), np.array([[0.25, 0.75]]), input="probs").__round__(6))
    0.143841
    """
    return _divergence(p, q, input, reduction, base, False)


@overload
def js_divergence(
    p: Any,
    q: Any,
    *,
    input: Input = ...,
    reduction: Literal["batchmean", "mean", "sum"] = ...,
    base: float | None = None,
) -> float: ...
@overload
def js_divergence(
    p: Any, q: Any, *, input: Input = ..., reduction: Literal["none"], base: float | None = None
) -> np.ndarray: ...
def js_divergence(
    p: Any, q: Any, *, input: Input = "logits", reduction: BatchReduction = "batchmean", base: float | None = None
) -> Any:
    """Return the Jensen-Shannon divergence (KL(p‖m) + KL(q‖m)) / 2 of rows, with m = (p + q) / 2.

    It is symmetric, 0 for equal rows, and at most log 2.

    Args:
        p, q, input, reduction, base: as in `kl_divergence`.

    Returns:
        As `kl_divergence`.

    Raises:
        ConfigError, TypeError: as in `kl_divergence`.

    Source: Lin 1991; the square of `scipy.spatial.distance.jensenshannon`.

    >>> import numpy as np, fastxent as fx
    >>> fx.js_divergence(np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]]), input="probs", base=2)
    1.0
    """
    return _divergence(p, q, input, reduction, base, True)
