"""Binary cross-entropy, element by element, of probabilities or logits, with its slope.

With logits x, target t, positive weight b:  (1-t)·softplus(x) + b·t·softplus(-x),  softplus(x) = max(x, 0) +
log1p(exp(-|x|)); slope (1-t)·σ(x) - b·t·σ(-x). Neither loses digits at either end.
"""

from __future__ import annotations

import functools
from typing import Any

from fastxent.kernels.jit import jit
from fastxent.kernels.simd import (
    absolute,
    exp_biased,
    floor_exp,
    fma,
    itemsize,
    lanes,
    load_first,
    log,
    log1p,
    lowest,
    select_eq,
    select_gt,
    splat,
    store_first,
    store_wide,
    unbias,
)  # fmt: skip


@functools.cache
def binary_kernel(with_logits: bool, loss_too: bool, gradient_too: bool) -> Any:
    """The kernel for one set of compile-time flags: what the numbers are, and which results are wanted."""

    @jit
    def kernel(values, n, tag, target, weight, positive, smoothing, scale, loss, grad):  # type: ignore[no-untyped-def]
        """All but scale are addresses of n contiguous elements (0 = not given): target, weight and positive in the
        compute type, loss in float64, grad in the values' dtype, multiplied by ``scale``."""
        w = lanes(tag)
        real = lowest(tag)
        size = itemsize(tag)
        width = itemsize(real)
        zero = splat(0.0, tag)
        one = splat(1.0, tag)
        for i in range(0, n, w):
            count = min(n - i, w)
            x = load_first(values + i * size, count, tag)
            t = load_first(target + i * width, count, real)
            if smoothing != 0.0:
                t = t * splat(1.0 - smoothing, tag) + splat(0.5 * smoothing, tag)
            b = t
            if positive != 0:
                b = b * load_first(positive + i * width, count, real)
            rest = one - t
            factor = one
            if weight != 0:
                factor = load_first(weight + i * width, count, real)
            # 0·inf: a part whose share is 0 costs nothing
            if with_logits:
                e = exp_biased(floor_exp(zero - absolute(x))) * splat(unbias(tag), tag)
                small = e / (one + e)
                large = one / (one + e)
                sigma = select_gt(x, zero, large, small)
                tail = log1p(e)
                if positive == 0:  # the shares of the tail add up to 1, and the slope is σ(x) - t
                    g = sigma - t
                else:
                    tail = (rest + b) * tail
                    g = rest * sigma - b * select_gt(x, zero, small, large)
                share = select_gt(x, zero, rest, b)
                y = select_eq(share, zero, tail, fma(share, absolute(x), tail))
                y = select_eq(x, x, y, x)
                g = select_eq(x, x, g, x)
            else:
                up = select_eq(rest, zero, zero, rest * (zero - log1p(zero - x)))
                y = select_eq(b, zero, zero, b * (zero - log(x))) + up
                y = select_eq(x, x, y, x)
                g = (x - t) / (x * (one - x))
                g = select_eq(b, zero, rest / (one - x), select_eq(rest, zero, zero - b / x, g))
            if loss_too:
                store_wide(loss + i * 8, count, y * factor)
            if gradient_too:
                store_first(grad + i * size, count, g * factor * splat(scale, tag), tag)

    return kernel
