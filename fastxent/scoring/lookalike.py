"""Detection of scores of another kind than the user named: logits that are probabilities."""

from __future__ import annotations

import math

import numpy as np

from fastxent.kernels.floats import FLOAT_TYPES
from fastxent.kernels.matrix import Matrix
from fastxent.kernels.rows import record as r
from fastxent.kernels.rows.labels import count_distributions, rows_within
from fastxent.scoring.rows import USED

TOLERANCE = 1e-3  # of a sum of probabilities
_COARSE = 1e-2  # the same for numbers of 16 bits


def count_probabilities(logits: Matrix, record: np.ndarray, status: np.ndarray, temperature: float) -> int:
    """How many of the used rows of logits (n, C) lie within 0..1 and sum to 1.

    The record (fields, n) rules out nearly all rows of real logits: the maximum must lie in 1/C..1 and, by convexity,
    the log-sum-exp in log(C) + 1/C .. log(C + e - 1). Only rows that pass are read again.
    """
    c, kind = logits.n_classes, FLOAT_TYPES[logits.dtype]
    if c < 2:
        return 0
    slack, bounds = bounds_of(c, logits.dtype, temperature)
    rows = np.empty(len(status), np.int64)
    rows = rows[: rows_within(status, USED, record[r.MAX], temperature, record[r.LSE], bounds, rows)]
    return int(count_distributions(logits.address, logits.stride, c, kind.tag, rows, slack))


def bounds_of(n_classes: int, dtype: str, temperature: float) -> tuple[float, tuple[float, float, float, float]]:
    """(the tolerance of a sum, the bounds of the maximum and of the log-sum-exp of rows that may be probabilities)."""
    slack = TOLERANCE if dtype in ("float32", "float64") else _COARSE
    least, most = -math.inf, math.inf
    if temperature == 1.0:
        least, most = math.log(n_classes) + 1 / n_classes - slack, math.log(n_classes + math.e - 1) + slack
    return slack, (1 / n_classes - slack, 1.0 + slack, least, most)
