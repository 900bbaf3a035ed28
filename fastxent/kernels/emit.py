"""A row of C numbers back: softmax, log-softmax, or the gradient of a loss, from the logits and their row record.

The second sweep over rows whose record has just been taken, while they are still in the cache. Element by element, so
that order plays no part. Results larger than the cache go past it in aligned whole lines (streaming stores): a copy
reads what it overwrites otherwise, a third more traffic.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from fastxent.kernels.jit import inline, jit
from fastxent.kernels.record import IGNORED, LOG_SUM, LOGITS, MAX, PROBS, REST, USED
from fastxent.kernels.rows import read, shape
from fastxent.kernels.simd import (
    fence, itemsize, keep_first, lanes, load_first, load_flags, lowest, max_lanes, narrow_load, one_hot, prefetch,
    select_eq, splat, store, store_first, store_streaming, tanh, times_exp, unbias,
)  # fmt: skip

# coefficients of a gradient row: A·p_c - H·[c = y] - U·w_c - S·q_c·w_c
P, HOT, UNIFORM, SOFT = range(4)
COEFFICIENTS = 4

LOG_SOFTMAX, SOFTMAX, GRADIENT = range(3)


@inline
def element(row, c, count, tag, output, mixed, shaped, mode, reference, log_sum, scale, scale_low, at, hot, uniform,
            share, softcap, temperature, mask_at, weight_at, q_row):  # type: ignore[no-untyped-def]  # fmt: skip
    """Outputs ``c`` .. ``c + count`` of a row."""
    x = read(row, c, count, tag, mask_at)
    zero = splat(0.0, x)
    off = splat(-np.inf, x)
    z = x
    if shaped:
        z = shape(x, softcap, temperature, LOGITS)
    if output == LOG_SOFTMAX:
        y = (z - reference) - log_sum
    else:
        y = zero
        if mode == LOGITS:
            y = select_eq(z, off, zero, times_exp(scale, scale_low, z, reference))
        if output == GRADIENT:
            y = y - one_hot(at - c, hot, zero)
            if mixed:
                weight = splat(1.0, x)
                if weight_at != 0:
                    weight = narrow_load(weight_at + c * 8, count, tag)
                y = y - uniform * weight
                if q_row != 0:
                    real = lowest(tag)  # soft targets are of the compute type
                    q = load_first(q_row + c * itemsize(real), count, real)
                    y = y - share * keep_first(q, count) * weight
            if mode == PROBS:
                y = select_eq(y, zero, zero, y / x)
            if shaped:
                if softcap > 0.0:
                    t = tanh(x / splat(softcap, x))
                    y = y - y * t * t
                y = y / splat(temperature, x)
                if mask_at != 0:
                    y = y * load_flags(mask_at + c, count, x)
    return y


@functools.cache
def emit_kernel(output: int, mixed: bool, shaped: bool, mode: int) -> Any:
    """The kernel for one set of compile-time flags.

    output: LOG_SOFTMAX, SOFTMAX or GRADIENT; mixed: label smoothing or target probabilities;
    shaped: softcap, temperature or a class mask; mode: what the numbers are. ``record`` is that of the row kernels,
    ``streaming`` asks for stores past the cache.
    """

    @jit
    def kernel(addr, stride, n, n_classes, tag, out, out_stride, streaming, record, coefficients, target, status,
               softcap, temperature, mask_at, weight_at, q_at, q_stride):  # type: ignore[no-untyped-def]  # fmt: skip
        w = lanes(tag)
        size = itemsize(tag)
        line = w * size  # bytes of a vector in memory
        if not shaped:
            mask_at = 0
        for i in range(n):
            row = addr + i * stride
            q_row = q_at + i * q_stride
            there = out + i * out_stride
            aligned = streaming and there % size == 0
            c = 0
            if status[i] != USED:
                blank = splat(0.0 if status[i] == IGNORED and output == GRADIENT else np.nan, tag)
                while c < n_classes:
                    store_first(there + c * size, min(w, n_classes - c), blank, tag)
                    c += w
                continue
            reference = splat(record[MAX, i], tag)
            log_sum = splat(record[LOG_SUM, i], tag)
            a = 1.0
            hot = 0.0
            at = -1
            uniform = splat(0.0, tag)
            share = splat(0.0, tag)
            if output == GRADIENT:
                a = coefficients[P, i]
                hot = coefficients[HOT, i]
                at = target[i]
                uniform = splat(coefficients[UNIFORM, i], tag)
                share = splat(coefficients[SOFT, i], tag)
            # in two parts, so that a rounded 1/Σ does not push every number of the row the same way
            exact = a * unbias(tag) / (1.0 + record[REST, i])
            scale = splat(exact, tag)
            scale_low = splat(exact - float(max_lanes(scale)), tag)
            if aligned and there % line != 0:  # up to the first whole line
                count = min(n_classes, (line - there % line) // size)
                y = element(row, c, count, tag, output, mixed, shaped, mode, reference, log_sum, scale, scale_low, at,
                            hot, uniform, share, softcap, temperature, mask_at, weight_at, q_row)  # fmt: skip
                store_first(there, count, y, tag)
                c += count
            ahead = row + stride
            while c + w <= n_classes:
                y = element(row, c, w, tag, output, mixed, shaped, mode, reference, log_sum, scale, scale_low, at, hot,
                            uniform, share, softcap, temperature, mask_at, weight_at, q_row)  # fmt: skip
                prefetch(ahead + c * size)
                if aligned:
                    store_streaming(there + c * size, y, tag)
                else:
                    store(there + c * size, y, tag)
                c += w
            if c < n_classes:
                count = n_classes - c
                y = element(row, c, count, tag, output, mixed, shaped, mode, reference, log_sum, scale, scale_low, at,
                            hot, uniform, share, softcap, temperature, mask_at, weight_at, q_row)  # fmt: skip
                store_first(there + c * size, count, y, tag)
        fence()

    return kernel
