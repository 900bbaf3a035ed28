"""Two rows of C numbers against each other: the divergences of the distributions they stand for.

Term by term in a form that cannot be negative, so that nothing cancels between classes, in float64. A class adds

    KL  p·(exp(d) - 1 - d)             d = log(q/p)
    JS  m·(u·artanh u + log(1 - u²)/2)   m = (p + q)/2, u = (p - q)/(p + q)

as a power series where p and q are close, else as q - p - p·d and (p·log(p/m) + q·log(q/m)) / 2. Σ (q - p), which KL
has too much, is 0 for two distributions. For rows with other sums it makes the generalised divergence, that of
`scipy.special.kl_div`: 0 only for equal rows, where Σ p·log(p/q) is as negative as the sums differ.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from fastxent.kernels.jit import inline, jit
from fastxent.kernels.rows.arguments import Side
from fastxent.kernels.rows.record import LOG_SUM, LOGITS, MAX, PROBS, USED
from fastxent.kernels.simd.arithmetic import (
    absolute,
    fma,
    keep_first,
    select_eq,
    select_ge,
    select_gt,
    splat,
    sum_lanes,
)
from fastxent.kernels.simd.exponentials import exp_biased, floor_exp, log, unbias
from fastxent.kernels.simd.memory import load_first

CLOSE = 0.125  # |d| or |u| below which the series serve, whose rest is below 1e-16 of them
LN_2 = float(np.log(2.0))


@inline
def distribution(x, count, log_sum, mode):  # type: ignore[no-untyped-def]
    """(p, log p) of a vector of numbers, of which a maximum has been taken off; p is 0 in lanes from ``count`` on."""
    if mode == PROBS:
        x = keep_first(x, count)
        return x, log(x)
    y = x - log_sum
    off = splat(-np.inf, x)
    p = exp_biased(floor_exp(y)) * splat(unbias(0.0), x)
    return select_eq(x, off, splat(0.0, x), p), y


@inline
def kl_term(p, log_p, q, log_q):  # type: ignore[no-untyped-def]
    """q - p - p·log(q/p), at least 0; infinite where log p is a number and log q is -inf, even if p comes out as 0."""
    zero = splat(0.0, p)
    d = log_q - log_p
    s = splat(1.0 / 39916800.0, p)
    for k in (3628800.0, 362880.0, 40320.0, 5040.0, 720.0, 120.0, 24.0, 6.0, 2.0):
        s = fma(s, d, splat(1.0 / k, p))
    apart = (q - p) - p * d
    term = select_gt(splat(CLOSE, p), absolute(d), p * (s * d * d), apart)
    off = splat(-np.inf, p)
    only_q = select_ge(q, zero, q, log_q)  # log q of a negative "probability" is NaN
    only_q = select_eq(log_q, off, select_eq(log_p, off, zero, splat(np.inf, p)), only_q)
    return select_gt(p, zero, term, select_eq(p, zero, only_q, log_p))


@inline
def js_term(p, log_p, q, log_q):  # type: ignore[no-untyped-def]
    """(p·log(p/m) + q·log(q/m)) / 2 with m = (p + q)/2, at least 0."""
    zero = splat(0.0, p)
    half = splat(0.5, p)
    total = p + q
    u = (p - q) / total
    v = u * u
    s = splat(1.0 / 240.0, p)
    for k in (14, 12, 10, 8, 6, 4, 2):
        s = fma(s, v, splat(1.0 / (k * (k - 1)), p))
    log_m = log(total) - splat(LN_2, p)
    of_p = select_eq(p, zero, zero, p * (log_p - log_m))
    of_q = select_eq(q, zero, zero, q * (log_q - log_m))
    apart = (of_p + of_q) * half
    term = select_gt(splat(CLOSE, p), absolute(u), total * half * (s * v), apart)
    return select_gt(p, zero, term, apart)


@functools.cache
def divergence_kernel(jensen_shannon: bool, mode: int) -> Any:
    """The Kullback-Leibler or the Jensen-Shannon divergence of pairs of rows, which are float64."""

    @jit
    def kernel(left, right, n, n_classes, out):  # type: ignore[no-untyped-def]
        """left, right: the fields of `Side`, as plain tuples. Row i of ``n`` goes to ``out[i]``."""
        of_p, of_q = Side(*left), Side(*right)
        zero = splat(0.0, 0.0)
        one = splat(1.0, 0.0)
        for i in range(n):
            if of_p.status[i] != USED or of_q.status[i] != USED:
                out[i] = np.nan
                continue
            p_base = splat(of_p.record[MAX, i], 0.0)
            p_sum = splat(of_p.record[LOG_SUM, i], 0.0)
            q_base = splat(of_q.record[MAX, i], 0.0)
            q_sum = splat(of_q.record[LOG_SUM, i], 0.0)
            total = zero
            unlike = zero
            for c in range(0, n_classes, 8):
                count = min(8, n_classes - c)
                at = (i * n_classes + c) * 8
                x = load_first(of_p.address + at, count, 0.0)
                y = load_first(of_q.address + at, count, 0.0)
                if mode == LOGITS:
                    x = x - p_base
                    y = y - q_base
                    unlike = unlike + select_eq(x, y, zero, one)
                p, log_p = distribution(x, count, p_sum, mode)
                q, log_q = distribution(y, count, q_sum, mode)
                if jensen_shannon:
                    total = total + js_term(p, log_p, q, log_q)
                else:
                    total = total + kl_term(p, log_p, q, log_q)
            out[i] = sum_lanes(total)
            if mode == LOGITS:  # the logits differ by a constant: the two sums may yet differ in their last bit
                if sum_lanes(unlike) == 0.0:
                    out[i] = 0.0

    return kernel
