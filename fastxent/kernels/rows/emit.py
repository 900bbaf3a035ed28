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
from fastxent.kernels.rows.narrow import SPARE, load_tile
from fastxent.kernels.rows.record import IGNORED, LOG_SUM, LOGITS, MAX, PROBS, REST, USED
from fastxent.kernels.rows.wide import VECTOR, read, shape
from fastxent.kernels.simd.arithmetic import keep_first, max_lanes, one_hot, select_eq, select_gt, splat
from fastxent.kernels.simd.columns import store_columns
from fastxent.kernels.simd.exponentials import frames, tanh, times_exp, unbias
from fastxent.kernels.simd.fields import load_flags, load_targets, narrow_load
from fastxent.kernels.simd.memory import load, load_first, load_scalar, store, store_first, store_streaming
from fastxent.kernels.simd.prefetch import fence, prefetch
from fastxent.kernels.simd.types import itemsize, lanes, lowest

# coefficients of a gradient row: A·p_c - H·[c = y] - U·w_c - S·q_c·w_c; and room for what the narrow kernel makes of it
P, HOT, UNIFORM, SOFT, SCALE, SCALE_LOW, BLANK = range(7)
COEFFICIENTS = 7

LOG_SOFTMAX, SOFTMAX, GRADIENT = range(3)


@inline
def outcome(x, z, output, mixed, shaped, mode, reference, frame, log_sum, scale, scale_low, hot, others, softcap,
            temperature, kept):  # type: ignore[no-untyped-def]  # fmt: skip
    """Outputs of the numbers x, shaped z. ``hot``: H where the class is the target; ``others``: U·w + S·q·w;
    ``kept``: 0 where the class is masked, else 1."""
    zero = splat(0.0, x)
    if output == LOG_SOFTMAX:
        return (z - reference) - log_sum
    y = zero
    if mode == LOGITS:
        y = select_eq(z, splat(-np.inf, x), zero, times_exp(scale, scale_low, z, frame))
    if output == GRADIENT:
        y = y - hot
        if mixed:
            y = y - others
        if mode == PROBS:
            y = select_eq(y, zero, zero, y / x)
        if shaped:
            if softcap > 0.0:
                t = tanh(x / splat(softcap, x))
                y = y - y * t * t
            y = y / splat(temperature, x)
            y = y * kept
    return y


@inline
def element(row, c, count, tag, output, mixed, shaped, mode, reference, frame, log_sum, scale, scale_low, at, hot,
            uniform, share, softcap, temperature, mask_at, weight_at, q_row):  # type: ignore[no-untyped-def]  # fmt: skip
    """Outputs ``c`` .. ``c + count`` of a row."""
    x = read(row, c, count, tag, mask_at)
    z = x
    if shaped:
        z = shape(x, softcap, temperature, LOGITS)
    others = splat(0.0, x)
    kept = splat(1.0, x)
    if mixed:
        weight = splat(1.0, x)
        if weight_at != 0:
            weight = narrow_load(weight_at + c * 8, count, tag)
        others = uniform * weight
        if q_row != 0:
            real = lowest(tag)  # soft targets are of the compute type
            others = others + share * keep_first(load_first(q_row + c * itemsize(real), count, real), count) * weight
    if mask_at != 0:
        kept = load_flags(mask_at + c, count, x)
    hot_here = one_hot(at - c, hot, x)
    return outcome(x, z, output, mixed, shaped, mode, reference, frame, log_sum, scale, scale_low, hot_here, others,
                   softcap, temperature, kept)  # fmt: skip


@functools.cache
def narrow_emit_kernel(output: int, mixed: bool, shaped: bool, mode: int) -> Any:
    """`emit_kernel` of few classes: a tile of rows side by side, one in each lane, as in narrow.py."""

    @jit
    def kernel(addr, stride, n, n_classes, tag, out, out_stride, streaming, record, coefficients, target, status,
               softcap, temperature, mask_at, weight_at, q_at, q_stride, scratch):  # type: ignore[no-untyped-def]  # fmt: skip
        w = lanes(tag)
        real = lowest(tag)
        q_tile = scratch + (n_classes + SPARE) * VECTOR
        line = record.strides[0]
        records = record.ctypes.data
        known = coefficients.ctypes.data
        known_line = coefficients.strides[0]
        for i in range(n):  # in two parts, so that a rounded 1/Σ does not push every number of the row the same way
            a = coefficients[P, i] if output == GRADIENT else 1.0
            exact = a * unbias(tag) / (1.0 + record[REST, i])
            high = float(max_lanes(splat(exact, tag)))
            coefficients[SCALE, i] = high
            coefficients[SCALE_LOW, i] = exact - high
            coefficients[BLANK, i] = 0.0 if status[i] == IGNORED and output == GRADIENT else np.nan
        for i in range(0, n, w):
            rows = min(w, n - i)
            load_tile(addr + i * stride, stride, rows, n_classes, scratch, tag)
            if mixed and q_at != 0:
                load_tile(q_at + i * q_stride, q_stride, rows, n_classes, q_tile, real)
            at = known + i * 8
            reference = narrow_load(records + MAX * line + i * 8, rows, tag)
            frame = frames(reference)
            log_sum = narrow_load(records + LOG_SUM * line + i * 8, rows, tag)
            scale = narrow_load(at + SCALE * known_line, rows, tag)
            scale_low = narrow_load(at + SCALE_LOW * known_line, rows, tag)
            blank = narrow_load(at + BLANK * known_line, rows, tag)
            zero = splat(0.0, tag)
            one = splat(1.0, tag)
            unused = load_flags(status.ctypes.data + i, rows, zero)
            t = load_targets(target.ctypes.data + i * 8, rows, n_classes, -1, -1, zero)
            hot = narrow_load(at + HOT * known_line, rows, tag)
            uniform = narrow_load(at + UNIFORM * known_line, rows, tag)
            share = narrow_load(at + SOFT * known_line, rows, tag)
            number = zero
            for c in range(n_classes):
                x = load(scratch + c * VECTOR, real)
                kept = one
                if shaped and mask_at != 0:
                    kept = splat(max_lanes(load_flags(mask_at + c, 1, zero)), tag)
                    x = select_gt(kept, zero, x, splat(-np.inf, tag))
                z = x
                if shaped:
                    z = shape(x, softcap, temperature, LOGITS)
                others = zero
                if mixed:
                    weight = one
                    if weight_at != 0:
                        weight = splat(load_scalar(weight_at + c * 8, 0.0), tag)
                    others = uniform * weight
                    if q_at != 0:
                        others = others + share * load(q_tile + c * VECTOR, real) * weight
                y = outcome(x, z, output, mixed, shaped, mode, reference, frame, log_sum, scale, scale_low,
                            select_eq(number, t, hot, zero), others, softcap, temperature, kept)  # fmt: skip
                store(scratch + c * VECTOR, select_gt(unused, zero, blank, y), real)
                number = number + one
            for c in range(0, n_classes, w):
                store_columns(out + i * out_stride + c * itemsize(tag), out_stride, rows, min(w, n_classes - c),
                              scratch + c * VECTOR, tag)  # fmt: skip

    return kernel


@functools.cache
def emit_kernel(output: int, mixed: bool, shaped: bool, mode: int) -> Any:
    """The kernel for one set of compile-time flags.

    output: LOG_SOFTMAX, SOFTMAX or GRADIENT; mixed: label smoothing or target probabilities;
    shaped: softcap, temperature or a class mask; mode: what the numbers are. ``record`` is that of the row kernels,
    ``streaming`` asks for stores past the cache.
    """

    @jit
    def kernel(addr, stride, n, n_classes, tag, out, out_stride, streaming, record, coefficients, target, status,
               softcap, temperature, mask_at, weight_at, q_at, q_stride, scratch):  # type: ignore[no-untyped-def]  # fmt: skip
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
            frame = frames(reference)
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
                y = element(row, c, count, tag, output, mixed, shaped, mode, reference, frame, log_sum, scale,
                            scale_low, at, hot, uniform, share, softcap, temperature, mask_at, weight_at,
                            q_row)  # fmt: skip
                store_first(there, count, y, tag)
                c += count
            ahead = row + stride
            while c + w <= n_classes:
                y = element(row, c, w, tag, output, mixed, shaped, mode, reference, frame, log_sum, scale,
                            scale_low, at, hot, uniform, share, softcap, temperature, mask_at, weight_at,
                            q_row)  # fmt: skip
                prefetch(ahead + c * size)
                if aligned:
                    store_streaming(there + c * size, y, tag)
                else:
                    store(there + c * size, y, tag)
                c += w
            if c < n_classes:
                count = n_classes - c
                y = element(row, c, count, tag, output, mixed, shaped, mode, reference, frame, log_sum, scale,
                            scale_low, at, hot, uniform, share, softcap, temperature, mask_at, weight_at,
                            q_row)  # fmt: skip
                store_first(there + c * size, count, y, tag)
        fence()

    return kernel
