"""A row of C numbers back: softmax, log-softmax, or the gradient of a loss, from the logits and their row record.

The second sweep over rows whose record has just been taken, while they are still in the cache. Element by element, so
that order plays no part. Results larger than the cache go past it in aligned whole lines (streaming stores): a copy
reads what it overwrites otherwise, a third more traffic.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np

from fastxent.kernels.jit import inline, jit
from fastxent.kernels.rows.narrow import SPARE, load_tile
from fastxent.kernels.rows.record import IGNORED, LOG_SUM, LOGITS, MAX, PROBS, REST, USED
from fastxent.kernels.rows.numbers import VECTOR, apply_shape, read
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


class Factors(NamedTuple):
    """What the numbers of a row become outputs by, a vector each: of one row, or of one row per lane.

    frame: see `frames`. scale, scale_low: P / Σ exp in two parts, so that its rounding does not push every number of
    the row the same way.
    """

    reference: Any
    frame: Any
    log_sum: Any
    scale: Any
    scale_low: Any
    uniform: Any
    share: Any


class Hot(NamedTuple):
    """The target of a row: its class, or -1, and what is taken off there."""

    at: int
    value: float


@functools.cache
def outcome_of(output: int, mixed: bool, shaped: bool, mode: int) -> Any:
    """What computes outputs, for one set of compile-time flags: see `emit_kernel`."""

    @inline
    def outcome(x, z, factors, hot, others, kept, shape):  # type: ignore[no-untyped-def]
        """Outputs of the numbers x, shaped z. ``hot``: H where the class is the target; ``others``: U·w + S·q·w;
        ``kept``: 0 where the class is masked, else 1."""
        zero = splat(0.0, x)
        if output == LOG_SOFTMAX:
            y = (z - factors.reference) - factors.log_sum
        else:
            y = zero
            if mode == LOGITS:
                power = times_exp(factors.scale, factors.scale_low, z, factors.frame)
                y = select_eq(z, splat(-np.inf, x), zero, power)
            if output == GRADIENT:
                y = y - hot
                if mixed:
                    y = y - others
                if mode == PROBS:
                    y = select_eq(y, zero, zero, y / x)
                if shaped:
                    if shape.softcap > 0.0:
                        t = tanh(x / splat(shape.softcap, x))
                        y = y - y * t * t
                    y = y / splat(shape.temperature, x)
                    y = y * kept
        return y

    return outcome


@functools.cache
def element_of(output: int, mixed: bool, shaped: bool, mode: int) -> Any:
    """What computes outputs of a row in memory, for one set of compile-time flags."""
    outcome = outcome_of(output, mixed, shaped, mode)

    @inline
    def element(row, c, count, factors, hot, shape, q_row, tag):  # type: ignore[no-untyped-def]
        """Outputs ``c`` .. ``c + count`` of the row at ``row``."""
        x = read(row, c, count, tag, shape.mask_at if shaped else 0)
        z = x
        if shaped:
            z = apply_shape(x, shape, LOGITS)
        others = splat(0.0, x)
        kept = splat(1.0, x)
        if mixed:
            weight = splat(1.0, x)
            if shape.weight_at != 0:
                weight = narrow_load(shape.weight_at + c * 8, count, tag)
            others = factors.uniform * weight
            if q_row != 0:
                real = lowest(tag)  # soft targets are of the compute type
                q = keep_first(load_first(q_row + c * itemsize(real), count, real), count)
                others = others + factors.share * q * weight
        if shaped and shape.mask_at != 0:
            kept = load_flags(shape.mask_at + c, count, x)
        return outcome(x, z, factors, one_hot(hot.at - c, hot.value, x), others, kept, shape)

    return element


@inline
def load_factors(i, count, record, coefficients, tag):  # type: ignore[no-untyped-def]
    """`Factors` of rows ``i``.., one per lane, whose scales have been prepared."""
    line = record.strides[0]
    at = record.ctypes.data + i * 8
    known_line = coefficients.strides[0]
    known = coefficients.ctypes.data + i * 8
    reference = narrow_load(at + MAX * line, count, tag)
    return Factors(
        reference, frames(reference), narrow_load(at + LOG_SUM * line, count, tag),
        narrow_load(known + SCALE * known_line, count, tag), narrow_load(known + SCALE_LOW * known_line, count, tag),
        narrow_load(known + UNIFORM * known_line, count, tag), narrow_load(known + SOFT * known_line, count, tag),
    )  # fmt: skip


@functools.cache
def narrow_emit_kernel(output: int, shaped: bool, mode: int) -> Any:
    """`emit_kernel` of few classes: a tile of rows side by side, one in each lane, as in narrow.py.

    Whether targets are mixed is known by ``soft.summed``.
    """
    mixed = output == GRADIENT
    outcome = outcome_of(output, mixed, shaped, mode)

    @jit
    def kernel(rows, out, into, ids, shape, soft):  # type: ignore[no-untyped-def]
        n = rows.n
        n_classes = rows.n_classes
        tag = rows.tag
        scratch = into.scratch
        coefficients = out.coefficients
        w = lanes(tag)
        real = lowest(tag)
        q_tile = scratch + (n_classes + SPARE) * VECTOR
        known = coefficients.ctypes.data
        known_line = coefficients.strides[0]
        for i in range(n):  # in two parts, so that a rounded 1/Σ does not push every number of the row the same way
            a = coefficients[P, i] if output == GRADIENT else 1.0
            exact = a * unbias(tag) / (1.0 + into.record[REST, i])
            high = float(max_lanes(splat(exact, tag)))
            coefficients[SCALE, i] = high
            coefficients[SCALE_LOW, i] = exact - high
            coefficients[BLANK, i] = 0.0 if into.status[i] == IGNORED and output == GRADIENT else np.nan
        for i in range(0, n, w):
            count = min(w, n - i)
            load_tile(rows.address + i * rows.stride, rows.stride, count, n_classes, scratch, tag)
            if mixed and soft.address != 0:
                load_tile(soft.address + i * soft.stride, soft.stride, count, n_classes, q_tile, real)
            factors = load_factors(i, count, into.record, coefficients, tag)
            blank = narrow_load(known + i * 8 + BLANK * known_line, count, tag)
            zero = splat(0.0, tag)
            one = splat(1.0, tag)
            unused = load_flags(into.status.ctypes.data + i, count, zero)
            t = load_targets(ids.ctypes.data + i * 8, count, n_classes, -1, -1, zero)
            hot = narrow_load(known + i * 8 + HOT * known_line, count, tag)
            number = zero
            for c in range(n_classes):
                x = load(scratch + c * VECTOR, real)
                kept = one
                if shaped and shape.mask_at != 0:
                    kept = splat(max_lanes(load_flags(shape.mask_at + c, 1, zero)), tag)
                    x = select_gt(kept, zero, x, splat(-np.inf, tag))
                z = x
                if shaped:
                    z = apply_shape(x, shape, LOGITS)
                others = zero
                if mixed and soft.summed:
                    weight = one
                    if shape.weight_at != 0:
                        weight = splat(load_scalar(shape.weight_at + c * 8, 0.0), tag)
                    others = factors.uniform * weight
                    if soft.address != 0:
                        others = others + factors.share * load(q_tile + c * VECTOR, real) * weight
                y = outcome(x, z, factors, select_eq(number, t, hot, zero), others, kept, shape)
                store(scratch + c * VECTOR, select_gt(unused, zero, blank, y), real)
                number = number + one
            for c in range(0, n_classes, w):
                there = out.address + i * out.stride + c * itemsize(tag)
                store_columns(there, out.stride, count, min(w, n_classes - c), scratch + c * VECTOR, tag)

    return kernel


@functools.cache
def emit_kernel(output: int, mixed: bool, shaped: bool, mode: int) -> Any:
    """The kernel for one set of compile-time flags.

    output: LOG_SOFTMAX, SOFTMAX or GRADIENT; mixed: label smoothing or target probabilities;
    shaped: softcap, temperature or a class mask; mode: what the numbers are. ``into`` holds what the row kernels wrote
    for these rows, from column 0 on.
    """
    element = element_of(output, mixed, shaped, mode)

    @jit
    def kernel(rows, out, into, ids, shape, soft):  # type: ignore[no-untyped-def]
        n_classes = rows.n_classes
        tag = rows.tag
        record = into.record
        coefficients = out.coefficients
        w = lanes(tag)
        size = itemsize(tag)
        line = w * size  # bytes of a vector in memory
        for i in range(rows.n):
            row = rows.address + i * rows.stride
            q_row = soft.address + i * soft.stride
            there = out.address + i * out.stride
            aligned = out.streaming and there % size == 0
            c = 0
            if into.status[i] != USED:
                blank = splat(0.0 if into.status[i] == IGNORED and output == GRADIENT else np.nan, tag)
                while c < n_classes:
                    store_first(there + c * size, min(w, n_classes - c), blank, tag)
                    c += w
                continue
            reference = splat(record[MAX, i], tag)
            a = 1.0
            hot = Hot(-1, 0.0)
            uniform = splat(0.0, tag)
            share = splat(0.0, tag)
            if output == GRADIENT:
                a = coefficients[P, i]
                hot = Hot(ids[i], coefficients[HOT, i])
                uniform = splat(coefficients[UNIFORM, i], tag)
                share = splat(coefficients[SOFT, i], tag)
            # in two parts, so that a rounded 1/Σ does not push every number of the row the same way
            exact = a * unbias(tag) / (1.0 + record[REST, i])
            scale = splat(exact, tag)
            scale_low = splat(exact - float(max_lanes(scale)), tag)
            log_sum = splat(record[LOG_SUM, i], tag)
            factors = Factors(reference, frames(reference), log_sum, scale, scale_low, uniform, share)
            if aligned and there % line != 0:  # up to the first whole line
                count = min(n_classes, (line - there % line) // size)
                store_first(there, count, element(row, c, count, factors, hot, shape, q_row, tag), tag)
                c += count
            ahead = row + rows.stride
            while c + w <= n_classes:
                y = element(row, c, w, factors, hot, shape, q_row, tag)
                prefetch(ahead + c * size)
                if aligned:
                    store_streaming(there + c * size, y, tag)
                else:
                    store(there + c * size, y, tag)
                c += w
            if c < n_classes:
                count = n_classes - c
                store_first(there + c * size, count, element(row, c, count, factors, hot, shape, q_row, tag), tag)
        fence()

    return kernel
