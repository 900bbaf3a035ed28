"""Binary cross-entropy, element by element, of probabilities or logits, with its slope.

With logits x, target t, positive weight b:  (1-t)·softplus(x) + b·t·softplus(-x),  softplus(x) = max(x, 0) +
log1p(exp(-|x|)); slope (1-t)·σ(x) - b·t·σ(-x). Neither loses digits at either end.
"""

from __future__ import annotations

import functools
from typing import Any

from fastxent.kernels.jit import inline, jit
from fastxent.kernels.rows.arguments import Elements
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
from fastxent.kernels.simd.exponentials import exp_biased, log, log1p, log1p_inside, unbias
from fastxent.kernels.simd.fields import store_wide
from fastxent.kernels.simd.memory import load_first, store_first
from fastxent.kernels.simd.types import itemsize, lanes, lowest


@inline
def weighed(y, factor):  # type: ignore[no-untyped-def]
    """y·factor, where a weight of 0 leaves nothing of an infinite y; NaN stays."""
    zero = splat(0.0, y)
    return select_eq(factor, zero, select_eq(y, y, zero, y), y * factor)


@functools.cache
def binary_kernel(with_logits: bool, widened: bool, gradient_too: bool) -> Any:
    """The kernel for one set of compile-time flags: what the numbers are, whether losses are wanted in float64 or in
    the compute type, and whether slopes are wanted too."""

    @inline
    def some(i, count, of):  # type: ignore[no-untyped-def]
        """Elements ``i`` .. ``i + count``, at most a vector, of ``of``: an `Elements`. Returns 1 where a probability is
        outside 0..1, else 0."""
        tag = of.tag
        real = lowest(tag)
        size = itemsize(tag)
        width = itemsize(real)
        zero = splat(0.0, tag)
        one = splat(1.0, tag)
        x = load_first(of.values + i * size, count, tag)
        t = load_first(of.target + i * width, count, real)
        if of.smoothing != 0.0:
            t = t * splat(1.0 - of.smoothing, tag) + splat(0.5 * of.smoothing, tag)
        b = t
        if of.positive != 0:
            b = b * load_first(of.positive + i * width, count, real)
        rest = one - t
        outside = zero
        # 0·inf: a part whose share is 0 costs nothing
        if with_logits:
            e = exp_biased(zero - absolute(x)) * splat(unbias(tag), tag)
            tail = log1p_inside(e)
            if of.positive != 0:  # else the shares of the tail add up to 1
                tail = (rest + b) * tail
            if gradient_too:
                small = e / (one + e)
                large = one / (one + e)
                sigma = select_gt(x, zero, large, small)
                g = sigma - t
                if of.positive != 0:
                    g = rest * sigma - b * select_gt(x, zero, small, large)
                g = select_eq(x, x, g, x)
            share = select_gt(x, zero, rest, b)
            y = select_eq(share, zero, tail, fma(share, absolute(x), tail))
            y = select_eq(x, x, y, x)
        else:
            inside = select_ge(t, zero, select_ge(one, t, one, zero), zero)
            inside = select_ge(x, zero, select_ge(one, x, inside, zero), zero)
            outside = keep_first(one - inside, count)
            up = select_eq(rest, zero, zero, rest * (zero - log1p(zero - x)))
            y = select_eq(b, zero, zero, b * (zero - log(x))) + up
            y = select_eq(x, x, y, x)
            if gradient_too:
                g = (x - t) / (x * (one - x))
                g = select_eq(b, zero, rest / (one - x), select_eq(rest, zero, zero - b / x, g))
        if of.weight != 0:
            factor = load_first(of.weight + i * width, count, real)
            y = weighed(y, factor)
            if gradient_too:
                g = weighed(g, factor)
        if widened:
            store_wide(of.loss + i * 8, count, y)
        else:
            store_first(of.loss + i * width, count, y, real)
        if gradient_too:
            store_first(of.grad + i * size, count, g * splat(of.scale, tag), tag)
        return outside

    @jit
    def kernel(n, given):  # type: ignore[no-untyped-def]
        """Elements 0 .. ``n``; given: the fields of `Elements`, as a plain tuple. Returns whether a probability, given
        or target, is outside 0..1."""
        of = Elements(*given)
        tag = of.tag
        w = lanes(tag)
        outside = splat(0.0, tag)
        whole = n // w * w
        for i in range(0, whole, w):
            fetch(of.values + i * itemsize(tag), w * itemsize(tag))
            fetch(of.target + i * itemsize(lowest(tag)), w * itemsize(lowest(tag)))
            outside = outside + some(i, w, of)
        if whole < n:
            outside = outside + some(whole, n - whole, of)
        return sum_lanes(outside) > 0.0

    return kernel
