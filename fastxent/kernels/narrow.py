"""Few classes: 16 rows (8 in float64) side by side, one in each lane.

A row of ten numbers is all overhead for a kernel that takes one row at a time. Here a tile of rows is turned in
registers, so that a vector holds one class of 16 rows; what was a reduction becomes plain arithmetic, and the logarithm
is taken for all of them at once. The sum of exponentials leaves out the maximum, whose term is exactly 1, so that the
loss of a confident row keeps its relative accuracy. Same record, same flags as rows.py.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from fastxent.kernels.jit import inline, jit
from fastxent.kernels.record import (
    BAD_LOGITS, BAD_TARGET, CONFIDENCE, ENTROPY, HERE, IGNORED, LINEAR, LOGITS, MAX, PREDICTED, PROBS, RANK, REST, SOFT,
    SOFT_WEIGHT, SUM_P2, USED, finish,
)  # fmt: skip
from fastxent.kernels.rows import shape
from fastxent.kernels.simd import (
    exp_biased, exp_difference, floor_exp, fma, itemsize, lanes, load, load_columns, load_flags, load_interleaved, load_scalar,
    load_targets, load_wide, lowest, max_lanes,
    select_eq, select_ge, select_gt, splat, store, store_ints, store_wide,
    unbias, vmax,
)  # fmt: skip

VECTOR = 64  # bytes
SPARE = 16  # columns of a tile beyond the classes


def scratch_bytes(n_classes: int) -> int:
    """Room for two tiles, of logits and of soft targets."""
    return 2 * (n_classes + SPARE) * VECTOR


@inline
def load_tile(addr, stride, rows, n_classes, scratch, tag):  # type: ignore[no-untyped-def]
    """A tile of rows as class columns at ``scratch``: up to 4 classes in a row from a whole tile come apart in few
    shuffles, anything else is turned 16 (8) columns at a time."""
    w = lanes(tag)
    if n_classes <= 4 and rows == w and stride == n_classes * itemsize(tag):
        load_interleaved(addr, n_classes, scratch, tag)
    else:
        for c in range(0, n_classes, w):
            load_columns(addr + c * itemsize(tag), stride, rows - 1, min(w, n_classes - c), scratch + c * VECTOR, tag)


@functools.cache
def narrow_kernel(full: bool, mixed: bool, shaped: bool, mode: int) -> Any:
    """The kernel for one set of compile-time flags: those of `rows.wide_kernel`.

    ``scratch`` is the address of `scratch_bytes` bytes.
    """

    @jit
    def kernel(addr, stride, n, n_classes, tag, target, ignore, softcap, temperature, mask_at,
               weight_at, q_at, q_stride, record, ids, status, scratch):  # type: ignore[no-untyped-def]  # fmt: skip
        w = lanes(tag)
        real = lowest(tag)  # a tag for what is in scratch: the compute type
        size = itemsize(real)
        q_tile = scratch + (n_classes + SPARE) * VECTOR
        zero = splat(0.0, tag)
        one = splat(1.0, tag)
        off = splat(-np.inf, tag)
        undefined = splat(np.nan, tag)
        code_used = splat(float(USED), tag)
        code_broken = splat(float(BAD_LOGITS), tag)
        line = record.strides[0]
        start = record.ctypes.data
        for i in range(0, n, w):
            rows = min(w, n - i)
            load_tile(addr + i * stride, stride, rows, n_classes, scratch, tag)
            if mixed and q_at != 0:
                load_tile(q_at + i * q_stride, q_stride, rows, n_classes, q_tile, real)
            t = load_targets(target.ctypes.data + i * 8, rows, n_classes, ignore, zero)
            top = off
            argmax = zero
            here = off
            at = zero
            for c in range(n_classes):
                x = load(scratch + c * VECTOR, real)
                if shaped and mask_at != 0 and max_lanes(load_flags(mask_at + c, 1, zero)) == 0.0:
                    x = off
                    store(scratch + c * VECTOR, x, real)
                argmax = select_gt(x, top, at, argmax)
                top = vmax(x, top)
                here = select_eq(at, t, x, here)
                at = at + one
            reference = zero
            if mode == LOGITS:
                reference = shape(top, softcap, temperature, mode) if shaped else top
            rest = zero  # Σ exp without the maximum, whose term is 1
            lost = zero
            sd = zero
            s2 = zero
            above = zero
            at = zero
            for c in range(n_classes):
                x = load(scratch + c * VECTOR, real)
                z = x
                if shaped or mode == PROBS:
                    z = shape(x, softcap, temperature, mode)
                    store(scratch + c * VECTOR, z, real)
                d = floor_exp(z - reference)
                if mode == PROBS:
                    e = x * splat(1.0 / unbias(tag), tag)
                elif mode == LOGITS:
                    e = exp_difference(z, reference, d)
                else:
                    e = exp_biased(d)
                if mode == LOGITS:
                    e = select_eq(at, argmax, zero, e)
                if full:
                    sd = fma(e, d, sd)
                    s2 = fma(e, e, s2)
                    ties = select_gt(t, at, select_eq(x, here, one, zero), zero)
                    above = above + select_gt(x, here, one, ties)
                total = rest + e  # and what the sum loses in rounding: one lane adds up all classes
                back = total - rest
                lost = lost + ((rest - (total - back)) + (e - back))
                rest = total
                at = at + one
            rest = select_gt(splat(np.inf, tag), rest, rest + lost, rest) * splat(unbias(tag), tag)
            limit = splat(np.inf, tag)
            code = select_gt(limit, rest, code_used, code_broken)
            if mode == LOGITS:
                code = select_gt(limit, top, select_gt(top, off, code, code_broken), code_broken)
            else:
                rest = rest - one
            base = select_eq(code, code_used, reference, undefined)
            code = select_eq(t, splat(-1.0, tag), splat(float(IGNORED), tag), code)
            code = select_eq(t, splat(-2.0, tag), splat(float(BAD_TARGET), tag), code)
            store_ints(status.ctypes.data + i, rows, code, np.int8(0))
            if shaped or mode == PROBS:
                here = shape(here, softcap, temperature, mode)
            k = start + i * 8
            store_wide(k + MAX * line, rows, base)
            store_wide(k + HERE * line, rows, select_ge(t, zero, here, undefined))
            store_wide(k + REST * line, rows, rest)
            if full:
                known = select_eq(code, code_used, one, zero)
                store_wide(k + CONFIDENCE * line, rows, top)
                store_wide(k + ENTROPY * line, rows, sd * splat(unbias(tag), tag))
                store_wide(k + SUM_P2 * line, rows, s2 * splat(unbias(tag) * unbias(tag), tag))
                none = splat(-1.0, tag)
                store_ints(ids[PREDICTED].ctypes.data + i * 8, rows, select_gt(known, zero, argmax, none), 0)
                rank = select_gt(known, zero, select_ge(t, zero, above, none), none)
                store_ints(ids[RANK].ctypes.data + i * 8, rows, rank, 0)
            if mixed:  # in float64, eight rows at a time
                empty = splat(0.0, 0.0)
                for h in range(0, rows, 8):
                    flat = empty
                    soft = empty
                    soft_weight = empty
                    m = load_wide(k + MAX * line + h * 8, 0.0)
                    for c in range(n_classes):
                        d = load_wide(scratch + c * VECTOR + h * size, real) - m
                        weight = splat(1.0, 0.0)
                        if weight_at != 0:
                            weight = splat(load_scalar(weight_at + c * 8, 0.0), 0.0)
                        flat = flat + select_eq(weight, empty, empty, weight * d)
                        if q_at != 0:
                            q = load_wide(q_tile + c * VECTOR + h * size, real) * weight
                            soft_weight = soft_weight + q
                            soft = soft + select_eq(q, empty, empty, q * d)
                    count = min(8, rows - h)
                    store_wide(k + LINEAR * line + h * 8, count, flat)
                    store_wide(k + SOFT * line + h * 8, count, soft)
                    store_wide(k + SOFT_WEIGHT * line + h * 8, count, soft_weight)
        finish(n, record, full, mode)

    return kernel
