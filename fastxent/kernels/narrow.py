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
from fastxent.kernels.rows import (
    BAD_LOGITS,
    BAD_TARGET,
    CONFIDENCE,
    ENTROPY,
    IGNORED,
    LINEAR,
    LOG_SUM,
    LOGITS,
    LSE,
    MAX,
    NLL,
    PREDICTED,
    PROBS,
    RANK,
    SOFT,
    SOFT_WEIGHT,
    SUM_P,
    SUM_P2,
    USED,
    shape,
)  # fmt: skip
from fastxent.kernels.simd import (
    exp_biased,
    floor_exp,
    fma,
    itemsize,
    lanes,
    load,
    load_columns,
    load_flags,
    load_scalar,
    load_targets,
    load_wide,
    log,
    lowest,
    max_lanes,
    select_eq,
    select_ge,
    select_gt,
    splat,
    store,
    store_first,
    store_ints,
    unbias,
    vmax,
)  # fmt: skip

# Vectors of the scratch area behind the tiles: one number a row, in the compute type.
TARGET, TOP, REFERENCE, HERE, OTHERS, SD, S2, ARGMAX, ABOVE = range(9)
VECTOR = 64  # bytes


def scratch_bytes(n_classes: int) -> int:
    """Room for two tiles (logits and soft targets) of up to 16 spare columns each, and the numbers a row."""
    return (2 * (n_classes + 16) + 9) * VECTOR


@inline
def load_tile(addr, stride, last, n_classes, scratch, tag):  # type: ignore[no-untyped-def]
    """A tile of rows as class columns at ``scratch``."""
    w = lanes(tag)
    for c in range(0, n_classes, w):
        load_columns(addr + c * itemsize(tag), stride, last, min(w, n_classes - c), scratch + c * VECTOR, tag)


@functools.cache
def narrow_kernel(full: bool, linear: bool, soft: bool, shaped: bool, mode: int) -> Any:
    """The kernel for one set of compile-time flags: those of `rows.wide_kernel`.

    ``scratch`` is the address of `scratch_bytes` bytes.
    """

    @jit
    def kernel(addr, stride, n, n_classes, tag, target, ignore, softcap, temperature, mask_at,
               weight_at, q_at, q_stride, record, ids, status, scratch):  # type: ignore[no-untyped-def]  # fmt: skip
        w = lanes(tag)
        real = lowest(tag)  # a tag for what is in scratch: the compute type
        size = itemsize(real)
        q_tile = scratch + (n_classes + 16) * VECTOR
        row = q_tile + (n_classes + 16) * VECTOR
        zero = splat(0.0, tag)
        one = splat(1.0, tag)
        off = splat(-np.inf, tag)
        for i in range(0, n, w):
            rows = min(w, n - i)
            load_tile(addr + i * stride, stride, rows - 1, n_classes, scratch, tag)
            if soft:
                load_tile(q_at + i * q_stride, q_stride, rows - 1, n_classes, q_tile, real)
            t = load_targets(target.ctypes.data + i * 8, rows, n_classes, ignore, zero)
            top = off
            argmax = zero
            here = off
            for c in range(n_classes):
                x = load(scratch + c * VECTOR, real)
                if shaped and mask_at != 0 and max_lanes(load_flags(mask_at + c, 1, zero)) == 0.0:
                    x = off
                    store(scratch + c * VECTOR, x, real)
                at = splat(float(c), tag)
                argmax = select_gt(x, top, at, argmax)
                top = vmax(x, top)
                here = select_eq(at, t, x, here)
            reference = zero
            if mode == LOGITS:
                reference = shape(top, softcap, temperature, mode) if shaped else top
            others = zero
            sd = zero
            s2 = zero
            above = zero
            for c in range(n_classes):
                x = load(scratch + c * VECTOR, real)
                at = splat(float(c), tag)
                z = x
                if shaped or mode == PROBS:
                    z = shape(x, softcap, temperature, mode)
                    store(scratch + c * VECTOR, z, real)
                d = floor_exp(z - reference)
                if mode == PROBS:
                    e = x * splat(1.0 / unbias(tag), tag)
                else:
                    e = exp_biased(d)
                if full:
                    sd = fma(e, d, sd)
                    s2 = fma(e, e, s2)
                    ties = select_gt(t, at, select_eq(x, here, one, zero), zero)
                    above = above + select_gt(x, here, one, ties)
                if mode == LOGITS:
                    e = select_eq(at, argmax, zero, e)
                others = others + e
            if shaped or mode == PROBS:
                here = shape(here, softcap, temperature, mode)
            store(row + TARGET * VECTOR, t, real)
            store(row + TOP * VECTOR, top, real)
            store(row + REFERENCE * VECTOR, reference, real)
            store(row + HERE * VECTOR, here, real)
            store(row + OTHERS * VECTOR, others, real)
            if full:
                store(row + SD * VECTOR, sd, real)
                store(row + S2 * VECTOR, s2, real)
                store(row + ARGMAX * VECTOR, argmax, real)
                store(row + ABOVE * VECTOR, above, real)
            # eight rows at a time, in float64
            none = splat(0.0, 0.0)
            unit = splat(1.0, 0.0)
            undefined = splat(np.nan, 0.0)
            for h in range(0, rows, 8):
                at_row = row + h * size
                count = min(8, rows - h)
                k = (i + h) * 8
                t8 = load_wide(at_row + TARGET * VECTOR, real)
                top8 = load_wide(at_row + TOP * VECTOR, real)
                base = load_wide(at_row + REFERENCE * VECTOR, real)
                s = load_wide(at_row + OTHERS * VECTOR, real) * splat(unbias(tag), 0.0)
                log_s = none
                code = unit * splat(float(BAD_LOGITS), 0.0)
                if mode == LOGITS:
                    s = s + unit
                    log_s = log(s)
                    fine = select_gt(splat(np.inf, 0.0), s, splat(float(USED), 0.0), code)
                    fine = select_gt(splat(np.inf, 0.0), top8, fine, code)
                    code = select_gt(top8, splat(-np.inf, 0.0), fine, code)
                else:
                    code = select_gt(splat(np.inf, 0.0), s, splat(float(USED), 0.0), code)
                base = select_eq(code, none, base, undefined)
                code = select_eq(t8, splat(-1.0, 0.0), splat(float(IGNORED), 0.0), code)
                code = select_eq(t8, splat(-2.0, 0.0), splat(float(BAD_TARGET), 0.0), code)
                store_ints(status.ctypes.data + i + h, count, code, np.int8(0))
                lse = base + log_s
                nll = (base - load_wide(at_row + HERE * VECTOR, real)) + log_s
                nll = select_ge(t8, none, nll, undefined)
                store_first(record[NLL].ctypes.data + k, count, nll, 0.0)
                store_first(record[LSE].ctypes.data + k, count, lse, 0.0)
                store_first(record[MAX].ctypes.data + k, count, base if mode == LOGITS else top8, 0.0)
                store_first(record[SUM_P].ctypes.data + k, count, s, 0.0)
                store_first(record[LOG_SUM].ctypes.data + k, count, log_s, 0.0)
                if full:
                    mean_d = load_wide(at_row + SD * VECTOR, real) * splat(unbias(tag), 0.0)
                    p2 = load_wide(at_row + S2 * VECTOR, real) * splat(unbias(tag) * unbias(tag), 0.0)
                    if mode == LOGITS:
                        mean_d = mean_d / s
                        p2 = p2 / (s * s)
                        confidence = unit / s
                    elif mode == PROBS:
                        confidence = top8
                    else:
                        confidence = exp_biased(floor_exp(top8)) * splat(unbias(0.0), 0.0)
                    entropy = log_s - mean_d
                    speck = splat(1e-40, 0.0)  # of masked classes
                    small = select_gt(speck, entropy, select_gt(entropy, none - speck, none, entropy), entropy)
                    store_first(record[CONFIDENCE].ctypes.data + k, count, confidence, 0.0)
                    store_first(record[ENTROPY].ctypes.data + k, count, small, 0.0)
                    store_first(record[SUM_P2].ctypes.data + k, count, p2, 0.0)
                    store_ints(ids[PREDICTED].ctypes.data + k, count, load_wide(at_row + ARGMAX * VECTOR, real), 0)
                    rank = select_ge(t8, none, load_wide(at_row + ABOVE * VECTOR, real), splat(-1.0, 0.0))
                    store_ints(ids[RANK].ctypes.data + k, count, rank, 0)
                if linear or soft:
                    flat = none
                    mixed = none
                    mixed_weight = none
                    for c in range(n_classes):
                        z = load_wide(scratch + c * VECTOR + h * size, real)
                        weight = unit
                        if weight_at != 0:
                            weight = splat(load_scalar(weight_at + c * 8, 0.0), 0.0)
                        if linear:
                            flat = flat + select_eq(weight, none, none, weight * z)
                        if soft:
                            q = load_wide(q_tile + c * VECTOR + h * size, real) * weight
                            mixed_weight = mixed_weight + q
                            mixed = mixed + select_eq(q, none, none, q * z)
                    if linear:
                        store_first(record[LINEAR].ctypes.data + k, count, flat, 0.0)
                    if soft:
                        store_first(record[SOFT].ctypes.data + k, count, mixed, 0.0)
                        store_first(record[SOFT_WEIGHT].ctypes.data + k, count, mixed_weight, 0.0)

    return kernel
