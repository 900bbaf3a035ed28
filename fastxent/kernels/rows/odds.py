"""The record of rows of one number each: log-odds, or the probability of the positive class.

With log-odds x and target t:  nll = (1-t)·softplus(x) + t·softplus(-x),  softplus(x) = max(x, 0) + log1p(exp(-|x|)).
With a probability p:          nll = -t·log p - (1-t)·log1p(-p).  A part whose share is 0 costs nothing.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np

from fastxent.kernels.jit import inline, jit
from fastxent.kernels.rows.numbers import fetch
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
from fastxent.kernels.simd.exponentials import exp_biased, log1p_inside, own_log, own_log1p, unbias
from fastxent.kernels.simd.fields import store_wide
from fastxent.kernels.simd.memory import load_first
from fastxent.kernels.simd.types import itemsize, lanes, lowest

# Rows of the float64 record. LOSS is the NLL of the smoothed target. BRIER: (p - t)².
NLL, LOSS, PROBABILITY, ENTROPY, BRIER = range(5)
FIELDS = 5


class OddsRows(NamedTuple):
    """What computes the numbers of a vector of log-odds or of probabilities."""

    parts: Any
    cost: Any
    brier: Any


@functools.cache
def odds_rows(with_logits: bool) -> OddsRows:
    """The functions for log-odds or for probabilities."""

    @inline
    def parts(x, tag):  # type: ignore[no-untyped-def]
        """(probability, entropy, what the others need, 1 where the number is not valid, else 0)."""
        zero, one = splat(0.0, tag), splat(1.0, tag)
        if with_logits:
            size = absolute(x)
            e = exp_biased(zero - size) * splat(unbias(tag), tag)
            e = select_eq(size, splat(np.inf, tag), zero, e)
            lost = log1p_inside(e)
            small = e / (one + e)
            p = select_gt(x, zero, one / (one + e), small)
            h = select_eq(small, zero, zero, fma(size, small, lost))
            return p, h, (size, lost, lost, small), select_eq(x, x, zero, one)
        lost = zero - own_log(x)
        gained = zero - own_log1p(zero - x)
        h = select_eq(x, zero, zero, x * lost) + select_eq(x, one, zero, (one - x) * gained)
        return x, h, (x, lost, gained, x), select_ge(x, zero, select_ge(one, x, zero, one), one)

    @inline
    def cost(x, t, needed):  # type: ignore[no-untyped-def]
        """NLL of the target t. ``needed``: of log-odds |x| and log1p(exp(-|x|)); else x and the two logarithms."""
        share, lost, gained, _ = needed
        rest = splat(1.0, x) - t
        if with_logits:
            part = select_gt(x, splat(0.0, x), rest, t)
            return select_eq(part, splat(0.0, x), lost, fma(part, share, lost))
        up = select_eq(rest, splat(0.0, x), splat(0.0, x), rest * gained)
        return select_eq(t, splat(0.0, x), splat(0.0, x), t * lost) + up

    @inline
    def brier(x, t, p, needed):  # type: ignore[no-untyped-def]
        """(p - t)²."""
        d = p - t
        if with_logits:  # p is not rounded to 1 where it is near
            d = select_gt(x, splat(0.0, x), (splat(1.0, x) - t) - needed[3], d)
        return d * d

    return OddsRows(parts, cost, brier)


@functools.cache
def odds_kernel(with_logits: bool) -> Any:
    """The kernel for log-odds or for probabilities."""
    parts, cost, brier = odds_rows(with_logits)

    @inline
    def some(i, count, values, tag, target, smoothing, record, stride):  # type: ignore[no-untyped-def]
        """Rows ``i`` .. ``i + count``, at most a vector. Returns 1 where the number is not valid, else 0."""
        real = lowest(tag)
        x = load_first(values + i * itemsize(tag), count, tag)
        at = record + i * 8
        p, h, needed, invalid = parts(x, tag)
        store_wide(at + PROBABILITY * stride, count, p)
        store_wide(at + ENTROPY * stride, count, h)
        if target != 0:
            t = load_first(target + i * itemsize(real), count, real)
            store_wide(at + NLL * stride, count, cost(x, t, needed))
            if smoothing != 0.0:
                s = t * splat(1.0 - smoothing, tag) + splat(0.5 * smoothing, tag)
                store_wide(at + LOSS * stride, count, cost(x, s, needed))
            store_wide(at + BRIER * stride, count, brier(x, t, p, needed))
        return keep_first(invalid, count)

    @jit
    def kernel(values, n, tag, target, smoothing, record, stride):  # type: ignore[no-untyped-def]
        """Addresses: ``values`` n contiguous numbers, ``target`` n of the compute type or 0 without labels, ``record``
        rows of float64, ``stride`` bytes apart. LOSS is left alone without smoothing. Returns whether a number is NaN
        or, of probabilities, outside 0..1; the record of such rows means nothing."""
        w = lanes(tag)
        invalid = splat(0.0, tag)
        whole = n // w * w
        for i in range(0, whole, w):
            fetch(values + i * itemsize(tag), w * itemsize(tag))
            invalid = invalid + some(i, w, values, tag, target, smoothing, record, stride)
        if whole < n:
            invalid = invalid + some(whole, n - whole, values, tag, target, smoothing, record, stride)
        return sum_lanes(invalid) > 0.0

    return kernel
