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
from fastxent.kernels.rows.record import (
    BAD_LOGITS, BAD_TARGET, CONFIDENCE, ENTROPY, HERE, IGNORED, LINEAR, LOG_SUM, LOGITS, MAX, PREDICTED, PROBS, RANK,
    REST, SOFT, SOFT_WEIGHT, SUM_P2, USED, finish,
)  # fmt: skip
from fastxent.kernels.rows.wide import VECTOR, fetch, shape
from fastxent.kernels.simd.arithmetic import fma, max_lanes, nll, select_eq, select_ge, select_gt, splat, vmax
from fastxent.kernels.simd.columns import load_columns, load_interleaved, load_whole_columns
from fastxent.kernels.simd.exponentials import exp_biased, exp_framed, floor_exp, frames, log1p_inside, unbias
from fastxent.kernels.simd.fields import load_flags, load_targets, load_wide, store_ints, store_wide
from fastxent.kernels.simd.memory import load, load_scalar, store, store_first
from fastxent.kernels.simd.types import itemsize, lanes, lowest

SPARE = 16  # columns of a tile beyond the classes
TILES = 8  # taken through each step together: while one waits for its sums, the processor goes on with the next
# What is known of a tile so far, a vector each.
TARGET, TOP, CURRENT, ARGMAX, SUM, SUM_D, SUM_2, ABOVE = range(8)
SLOTS = 8


def tile_bytes(n_classes):  # type: ignore[no-untyped-def]
    """Room for a tile of logits, one of soft targets, and what is known of it."""
    return (2 * (n_classes + SPARE) + SLOTS) * VECTOR


def scratch_bytes(n_classes: int) -> int:
    return TILES * tile_bytes(n_classes)


@inline
def load_tile(addr, stride, rows, n_classes, scratch, tag):  # type: ignore[no-untyped-def]
    """A tile of rows as class columns at ``scratch``: up to 4 classes in a row from a whole tile come apart in few
    shuffles, anything else is turned 16 (8) columns at a time."""
    w = lanes(tag)
    if n_classes <= 4 and rows == w and stride == n_classes * itemsize(tag):
        load_interleaved(addr, n_classes, scratch, tag)
    elif rows == w:
        for c in range(0, n_classes, w):
            load_whole_columns(addr + c * itemsize(tag), stride, min(w, n_classes - c), scratch + c * VECTOR, tag)
    else:
        for c in range(0, n_classes, w):
            load_columns(addr + c * itemsize(tag), stride, rows - 1, min(w, n_classes - c), scratch + c * VECTOR, tag)


@functools.cache
def narrow_kernel(full: bool, mixed: bool, shaped: bool, mode: int, single: bool = False, alone: bool = False) -> Any:
    """The kernel for one set of compile-time flags: those of `rows.wide_kernel`.

    single: losses are wanted in the compute type only, and the logarithm is taken in it too; in float64 it takes a
    quarter of two classes' time. alone: nothing but those losses is wanted; they go to an array given in place of the
    record, which costs as much to write and to read as two classes do. Arguments are those of the wide kernel.
    ``scratch`` is the address of `scratch_bytes` bytes.
    """

    @jit
    def kernel(addr, stride, n, n_classes, tag, target, ignore, none, softcap, temperature, mask_at,
               weight_at, q_at, q_stride, record, ids, status, at, scratch):  # type: ignore[no-untyped-def]  # fmt: skip
        w = lanes(tag)
        real = lowest(tag)  # a tag for what is in scratch: the compute type
        size = itemsize(real)
        q_tile = (n_classes + SPARE) * VECTOR
        slots = 2 * q_tile
        tile = slots + SLOTS * VECTOR
        zero = splat(0.0, tag)
        one = splat(1.0, tag)
        off = splat(-np.inf, tag)
        undefined = splat(np.nan, tag)
        code_used = splat(float(USED), tag)
        code_broken = splat(float(BAD_LOGITS), tag)
        logged = single and mode == LOGITS
        line = 0 if alone else record.strides[0]
        start = record.ctypes.data
        for group in range(0, n, TILES * w):
            stop = min(n, group + TILES * w)
            place = scratch
            for i in range(group, stop, w):  # the tile, its maxima, the targets' logits
                rows = min(w, n - i)
                if stride <= 4 * n_classes * itemsize(tag):  # rows far apart would be lines without end
                    fetch(addr + i * stride, w * stride)
                fetch(target.ctypes.data + i * 8, w * 8)
                load_tile(addr + i * stride, stride, rows, n_classes, place, tag)
                if mixed and q_at != 0:
                    load_tile(q_at + i * q_stride, q_stride, rows, n_classes, place + q_tile, real)
                t = load_targets(target.ctypes.data + i * 8, rows, n_classes, ignore, none, zero)
                top = off
                argmax = zero
                here = off
                number = zero
                for c in range(n_classes):
                    x = load(place + c * VECTOR, real)
                    if shaped and mask_at != 0 and max_lanes(load_flags(mask_at + c, 1, zero)) == 0.0:
                        x = off
                        store(place + c * VECTOR, x, real)
                    if full:
                        argmax = select_gt(x, top, number, argmax)
                    top = vmax(x, top)
                    here = select_eq(number, t, x, here)
                    number = number + one
                slot = place + slots
                store(slot + TARGET * VECTOR, t, real)
                store(slot + TOP * VECTOR, top, real)
                store(slot + CURRENT * VECTOR, here, real)
                if full:
                    store(slot + ARGMAX * VECTOR, argmax, real)
                place += tile
            place = scratch
            for _ in range(group, stop, w):  # the sums
                slot = place + slots
                t = load(slot + TARGET * VECTOR, real)
                here = load(slot + CURRENT * VECTOR, real)
                reference = zero
                if mode == LOGITS:
                    reference = load(slot + TOP * VECTOR, real)
                    if shaped:
                        reference = shape(reference, softcap, temperature, mode)
                frame = frames(reference)
                rest = zero  # Σ exp without the maxima, whose terms are 1
                lost = zero
                sd = zero
                s2 = zero
                above = zero
                number = zero
                maxima = zero
                for c in range(n_classes):
                    x = load(place + c * VECTOR, real)
                    z = x
                    if shaped or mode == PROBS:
                        z = shape(x, softcap, temperature, mode)
                        store(place + c * VECTOR, z, real)
                    if mode == LOGITS:
                        d, e = exp_framed(z, frame)
                        maxima = select_eq(d, zero, maxima + one, maxima)
                        e = select_eq(d, zero, zero, e)
                    else:
                        d = floor_exp(z)
                        e = x * splat(1.0 / unbias(tag), tag) if mode == PROBS else exp_biased(d)
                    if full:
                        sd = fma(e, d, sd)
                        s2 = fma(e, e, s2)
                        ties = select_gt(t, number, select_eq(x, here, one, zero), zero)
                        above = above + select_gt(x, here, one, ties)
                    total = rest + e  # and what the sum loses in rounding: one lane adds up all classes
                    back = total - rest
                    lost = lost + ((rest - (total - back)) + (e - back))
                    rest = total
                    number = number + one
                rest = select_gt(splat(np.inf, tag), rest, rest + lost, rest) * splat(unbias(tag), tag)
                more = maxima - one if mode == LOGITS else zero - one
                if mode == LOGITS:
                    # broken: NaN, +inf, or nothing above -inf, which no sum shows
                    top = load(slot + TOP * VECTOR, real)
                    limit = splat(np.inf, tag)
                    fine = select_gt(limit, top, select_gt(top, off, rest + more, undefined), undefined)
                    rest = fine
                else:
                    rest = rest + more
                store(slot + SUM * VECTOR, rest, real)
                if full:
                    s2 = s2 * splat(unbias(tag) * unbias(tag), tag)
                    if mode == LOGITS:
                        s2 = s2 + more
                    store(slot + SUM_D * VECTOR, sd * splat(unbias(tag), tag), real)
                    store(slot + SUM_2 * VECTOR, s2, real)
                    store(slot + ABOVE * VECTOR, above, real)
                place += tile
            place = scratch
            for i in range(group, stop, w):  # what the record is made from
                rows = min(w, n - i)
                slot = place + slots
                t = load(slot + TARGET * VECTOR, real)
                top = load(slot + TOP * VECTOR, real)
                here = load(slot + CURRENT * VECTOR, real)
                rest = load(slot + SUM * VECTOR, real)
                reference = zero
                if mode == LOGITS:
                    reference = shape(top, softcap, temperature, mode) if shaped else top
                code = select_gt(splat(np.inf, tag), rest, code_used, code_broken)
                base = select_eq(code, code_used, reference, undefined)
                code = select_eq(t, splat(-1.0, tag), splat(float(IGNORED), tag), code)
                code = select_eq(t, splat(-2.0, tag), splat(float(BAD_TARGET), tag), code)
                store_ints(status.ctypes.data + i, rows, code, np.int8(0))
                if shaped or mode == PROBS:
                    here = shape(here, softcap, temperature, mode)
                if alone:
                    tail = log1p_inside(rest) if mode == LOGITS else zero
                    y = select_eq(code, code_used, nll(base, here, tail), undefined)
                    y = select_eq(code, splat(float(IGNORED), tag), zero, y)
                    store_first(start + i * size, rows, y, real)
                    place += tile
                    continue
                k = start + (at + i) * 8
                store_wide(k + MAX * line, rows, base)
                store_wide(k + HERE * line, rows, select_ge(t, zero, here, undefined))
                store_wide(k + REST * line, rows, rest)
                if logged:
                    store_wide(k + LOG_SUM * line, rows, log1p_inside(rest))
                if full:
                    known = select_eq(code, code_used, one, zero)
                    minus = splat(-1.0, tag)
                    argmax = load(slot + ARGMAX * VECTOR, real)
                    above = load(slot + ABOVE * VECTOR, real)
                    store_wide(k + CONFIDENCE * line, rows, top)
                    store_wide(k + ENTROPY * line, rows, load(slot + SUM_D * VECTOR, real))
                    store_wide(k + SUM_P2 * line, rows, load(slot + SUM_2 * VECTOR, real))
                    predicted = select_gt(known, zero, argmax, minus)
                    rank = select_gt(known, zero, select_ge(t, zero, above, minus), minus)
                    store_ints(ids[PREDICTED].ctypes.data + (at + i) * 8, rows, predicted, 0)
                    store_ints(ids[RANK].ctypes.data + (at + i) * 8, rows, rank, 0)
                if mixed:  # in float64, eight rows at a time
                    empty = splat(0.0, 0.0)
                    for h in range(0, rows, 8):
                        flat = empty
                        soft = empty
                        soft_weight = empty
                        m = load_wide(k + MAX * line + h * 8, 0.0)
                        for c in range(n_classes):
                            d = load_wide(place + c * VECTOR + h * size, real) - m
                            weight = splat(1.0, 0.0)
                            if weight_at != 0:
                                weight = splat(load_scalar(weight_at + c * 8, 0.0), 0.0)
                            flat = flat + select_eq(weight, empty, empty, weight * d)
                            if q_at != 0:
                                q = load_wide(place + q_tile + c * VECTOR + h * size, real) * weight
                                soft_weight = soft_weight + q
                                soft = soft + select_eq(q, empty, empty, q * d)
                        count = min(8, rows - h)
                        store_wide(k + LINEAR * line + h * 8, count, flat)
                        store_wide(k + SOFT * line + h * 8, count, soft)
                        store_wide(k + SOFT_WEIGHT * line + h * 8, count, soft_weight)
                place += tile
        if not alone:
            finish(at, n, record, tag, full, mode, logged, False)

    return kernel
