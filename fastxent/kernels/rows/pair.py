"""Two rows of C numbers against each other: the divergences of the distributions they stand for.

In float64 throughout: a small divergence is what is left when large terms cancel.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from fastxent.kernels.jit import inline, jit
from fastxent.kernels.rows.record import LOG_SUM, LOGITS, MAX, PROBS, USED
from fastxent.kernels.simd.operations import (
    exp_biased, floor_exp, keep_first, load_first, log, select_eq, splat, sum_lanes, unbias,
)  # fmt: skip


@inline
def distribution(x, count, base, log_sum, mode):  # type: ignore[no-untyped-def]
    """(p, log p) of a vector of numbers; p is 0 in lanes from ``count`` on."""
    if mode == PROBS:
        x = keep_first(x, count)
        return x, log(x)
    y = x
    if mode == LOGITS:
        y = (x - base) - log_sum
    off = splat(-np.inf, x)
    p = exp_biased(floor_exp(y)) * splat(unbias(0.0), x)
    return select_eq(x, off, splat(0.0, x), p), y


@functools.cache
def divergence_kernel(jensen_shannon: bool, mode: int) -> Any:
    """Σ p·(log p - log q), or half the sum of both rows' divergences from their mixture. Rows are float64."""

    @jit
    def kernel(p_at, q_at, n, n_classes, p_record, p_status, q_record, q_status, out):  # type: ignore[no-untyped-def]
        zero = splat(0.0, 0.0)
        half = splat(0.5, 0.0)
        for i in range(n):
            if p_status[i] != USED or q_status[i] != USED:
                out[i] = np.nan
                continue
            p_base = splat(p_record[MAX, i], 0.0)
            p_sum = splat(p_record[LOG_SUM, i], 0.0)
            q_base = splat(q_record[MAX, i], 0.0)
            q_sum = splat(q_record[LOG_SUM, i], 0.0)
            total = zero
            for c in range(0, n_classes, 8):
                count = min(8, n_classes - c)
                at = (i * n_classes + c) * 8
                p, log_p = distribution(load_first(p_at + at, count, 0.0), count, p_base, p_sum, mode)
                q, log_q = distribution(load_first(q_at + at, count, 0.0), count, q_base, q_sum, mode)
                if jensen_shannon:
                    log_m = log((p + q) * half)
                    total = total + select_eq(p, zero, zero, p * (log_p - log_m) * half)
                    total = total + select_eq(q, zero, zero, q * (log_q - log_m) * half)
                else:
                    total = total + select_eq(p, zero, zero, p * (log_p - log_q))
            out[i] = sum_lanes(total)

    return kernel
