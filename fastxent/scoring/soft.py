"""Losses of soft targets: what the row record does not hold."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from fastxent.kernels.floats import widened
from fastxent.kernels.launch import Emit, LossTerms, RowOptions, RowPass
from fastxent.kernels.matrix import Matrix
from fastxent.kernels.rows import emit
from fastxent.kernels.rows.loss import loss_rows
from fastxent.kernels.rows.record import LOG_PROBS, LOGITS
from fastxent.scoring.lookalike import TOLERANCE
from fastxent.scoring.targets import NO_IGNORE

_BLOCK = 1 << 20  # numbers at a time


def nll(record: np.ndarray, target: np.ndarray, status: np.ndarray, n_classes: int) -> np.ndarray:
    """Σ_c q_c·(-log p_c) of each row, from records without class weights."""
    found, share = np.empty(len(status)), np.empty(len(status))
    plain = LossTerms(n_classes, soft=True)
    loss_rows(0, len(status), record, target, status, plain.arguments(), found, share)
    return found


def unweighted_nll(matrix: Matrix, target: np.ndarray, soft: Matrix, options: RowOptions) -> np.ndarray:
    """`nll` of rows whose records hold class weights: the logits are swept again without them."""
    take = RowPass(matrix, target, NO_IGNORE, options, soft, full=False, chunk=matrix.n)
    take(0, matrix.n)
    return nll(take.record, target, take.status[: matrix.n], matrix.n_classes)


def probabilities(matrix: Matrix, options: RowOptions) -> Iterator[tuple[slice, np.ndarray]]:
    """Yield the probabilities of all rows in parts: (which rows, float64 (rows, C))."""
    step = max(1, _BLOCK // matrix.n_classes)
    for i in range(0, matrix.n, step):
        part = Matrix.of(np.ascontiguousarray(widened(matrix.values[i : i + step], matrix.dtype)))
        p = part.values
        if options.mode == LOGITS:
            result = Matrix.of(np.empty_like(p))
            take = RowPass(part, None, NO_IGNORE, options, full=False, chunk=part.n)
            take.sweep(0, part.n, Emit(take, result, emit.SOFTMAX, streaming=False))
            p = result.values
        p = p.astype(np.float64)
        yield slice(i, i + part.n), np.exp(p) if options.mode == LOG_PROBS else p


def brier(matrix: Matrix, soft: Matrix, options: RowOptions) -> np.ndarray:
    """Σ_c (p_c - q_c)² of each row."""
    out = np.empty(matrix.n)
    for some, p in probabilities(matrix, options):
        out[some] = ((p - soft.values[some]) ** 2).sum(axis=1)
    return out


def unnormalised(soft: Matrix) -> np.ndarray:
    """Whether each row's probabilities do not sum to 1 within `TOLERANCE`."""
    with np.errstate(invalid="ignore"):  # rows that are not used
        off: np.ndarray = np.abs(soft.values.sum(axis=1, dtype=np.float64) - 1.0) > TOLERANCE
    return off
