"""Few classes: 16 rows (8 in float64) side by side, one in each lane.

A row of ten numbers is all overhead for a kernel that takes one row at a time. Here a tile of rows is turned in
registers, so that a vector holds one class of 16 rows; what was a reduction becomes plain arithmetic, and the logarithm
is taken for all of them at once. The sum of exponentials leaves out the maximum, whose term is exactly 1, so that the
loss of a confident row keeps its relative accuracy. Same record, same flags as wide.py.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from fastxent.kernels.jit import inline, jit
from fastxent.kernels.rows.record import (
    BAD_LOGITS, BAD_TARGET, HERE, IGNORED, LARGEST, LINEAR, LOG_SUM, LOGITS, MAX, PREDICTED, PROBS, RANK, REST, SOFT,
    SOFT_WEIGHT, SUM_ED, SUM_EE, USED, finish_of,
)  # fmt: skip
from fastxent.kernels.rows.numbers import VECTOR, apply_shape, fetch
from fastxent.kernels.simd.arithmetic import fma, max_lanes, select_eq, select_ge, select_gt, splat, vmax, vmin
from fastxent.kernels.simd.columns import load_columns, load_interleaved, load_whole_columns
from fastxent.kernels.simd.exponentials import exp_biased, exp_framed, floor_exp, frames, log1p_inside, unbias
from fastxent.kernels.simd.fields import load_flags, load_targets, load_wide, store_ints, store_wide
from fastxent.kernels.simd.memory import load, load_scalar, store
from fastxent.kernels.simd.types import itemsize, lanes, lowest

SPARE = 16  # columns of a tile beyond the classes
TILES = 8  # taken through each step together: while one waits for its sums, the processor goes on with the next
# What is known of a tile so far, a vector each.
TARGET, TOP, CURRENT, ARGMAX, SUM, SUM_D, SUM_2, ABOVE = range(8)
SLOTS = 8


@inline
def tile_bytes(n_classes):  # type: ignore[no-untyped-def]
    """Room for a tile of logits, one of soft targets, and what is known of it."""
    return (2 * (n_classes + SPARE) + SLOTS) * VECTOR


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


@inline
def slots_of(place, n_classes):  # type: ignore[no-untyped-def]
    """Where what is known of the tile at ``place`` stands, behind its logits and soft targets."""
    return place + 2 * (n_classes + SPARE) * VECTOR


@functools.cache
def find_tops_of(full: bool, shaped: bool) -> Any:
    """The first step for one set of compile-time flags."""

    @inline
    def find_tops(i, count, place, rows, ids, targets, shape, soft):  # type: ignore[no-untyped-def]
        """Load the tile of ``count`` rows from row ``i``, whose class ids are from ``ids`` on; find its maxima and the
        targets' logits."""
        tag = rows.tag
        n_classes = rows.n_classes
        real = lowest(tag)  # a tag for what is in scratch: the compute type
        w = lanes(tag)
        zero = splat(0.0, tag)
        off = splat(-np.inf, tag)
        at = rows.address + i * rows.stride
        if rows.stride <= 4 * n_classes * itemsize(tag):  # rows far apart would be lines without end
            fetch(at, w * rows.stride)
        fetch(ids + i * 8, w * 8)
        load_tile(at, rows.stride, count, n_classes, place, tag)
        if soft.address != 0:
            q_tile = place + (n_classes + SPARE) * VECTOR
            load_tile(soft.address + i * soft.stride, soft.stride, count, n_classes, q_tile, real)
        t = load_targets(ids + i * 8, count, n_classes, targets.ignore, targets.none, zero)
        top = off
        argmax = zero
        here = off
        number = zero
        for c in range(n_classes):
            x = load(place + c * VECTOR, real)
            if shaped and shape.mask_at != 0 and max_lanes(load_flags(shape.mask_at + c, 1, zero)) == 0.0:
                x = off
                store(place + c * VECTOR, x, real)
            if full:
                argmax = select_gt(x, top, number, argmax)
            top = vmax(x, top)
            here = select_eq(number, t, x, here)
            number = number + splat(1.0, tag)
        slot = slots_of(place, n_classes)
        store(slot + TARGET * VECTOR, t, real)
        store(slot + TOP * VECTOR, top, real)
        store(slot + CURRENT * VECTOR, here, real)
        if full:
            store(slot + ARGMAX * VECTOR, argmax, real)

    return find_tops


@functools.cache
def add_up_of(full: bool, shaped: bool, mode: int, keep: bool = False) -> Any:
    """The second step for one set of compile-time flags. keep: the exponentials take the place of the logits, and what
    `exp_framed` has beside them that of the soft targets."""

    @inline
    def add_up(place, n_classes, shape, tag):  # type: ignore[no-untyped-def]
        """Sum the exponentials of the tile at ``place``."""
        real = lowest(tag)
        zero = splat(0.0, tag)
        one = splat(1.0, tag)
        off = splat(-np.inf, tag)
        undefined = splat(np.nan, tag)
        slot = slots_of(place, n_classes)
        t = load(slot + TARGET * VECTOR, real)
        here = load(slot + CURRENT * VECTOR, real)
        reference = zero
        if mode == LOGITS:
            reference = load(slot + TOP * VECTOR, real)
            if shaped:
                reference = apply_shape(reference, shape, mode)
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
                z = apply_shape(x, shape, mode)
                store(place + c * VECTOR, z, real)
            if mode == LOGITS:
                d, power, left = exp_framed(z, frame)
                e = fma(power, left, power)
                if keep:  # of -inf nothing
                    store(place + c * VECTOR, select_eq(z, off, zero, power), real)
                    store(place + (n_classes + SPARE + c) * VECTOR, left, real)
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
            if mode == LOGITS:  # neither is negative
                lost = lost + (vmin(rest, e) - (total - vmax(rest, e)))
            else:
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

    return add_up


@inline
def mix(k, place, line, rows, shape, soft):  # type: ignore[no-untyped-def]
    """Σ w·(z - MAX), Σ q·w·(z - MAX) and Σ q·w of up to eight rows at ``place``, in float64, whose record is at ``k``,
    with ``line`` bytes from a field to the next."""
    empty = splat(0.0, 0.0)
    flat = empty
    soft_sum = empty
    soft_weight = empty
    m = load_wide(k + MAX * line, 0.0)
    q_tile = place + (rows.n_classes + SPARE) * VECTOR
    for c in range(rows.n_classes):
        d = load_wide(place + c * VECTOR, lowest(rows.tag)) - m
        weight = splat(1.0, 0.0)
        if shape.weight_at != 0:
            weight = splat(load_scalar(shape.weight_at + c * 8, 0.0), 0.0)
        flat = flat + select_eq(weight, empty, empty, weight * d)
        if soft.address != 0:
            q = load_wide(q_tile + c * VECTOR, lowest(rows.tag)) * weight
            soft_weight = soft_weight + q
            soft_sum = soft_sum + select_eq(q, empty, empty, q * d)
    return flat, soft_sum, soft_weight


@functools.cache
def judge_of(shaped: bool, mode: int) -> Any:
    """What says what became of the rows of a tile, for one set of compile-time flags."""

    @inline
    def judge(slot, shape, tag):  # type: ignore[no-untyped-def]
        """(status, maximum, target's logit, sum of the others' exponentials) of the tile whose slots are at ``slot``;
        NaN for a maximum that is not one, and for a target that is not there."""
        real = lowest(tag)
        zero = splat(0.0, tag)
        undefined = splat(np.nan, tag)
        code_used = splat(float(USED), tag)
        t = load(slot + TARGET * VECTOR, real)
        here = load(slot + CURRENT * VECTOR, real)
        rest = load(slot + SUM * VECTOR, real)
        reference = zero
        if mode == LOGITS:
            reference = load(slot + TOP * VECTOR, real)
        if shaped and mode == LOGITS:
            reference = apply_shape(reference, shape, mode)
        if shaped or mode == PROBS:
            here = apply_shape(here, shape, mode)
        code = select_gt(splat(np.inf, tag), rest, code_used, splat(float(BAD_LOGITS), tag))
        base = select_eq(code, code_used, reference, undefined)
        code = select_eq(t, splat(-1.0, tag), splat(float(IGNORED), tag), code)
        code = select_eq(t, splat(-2.0, tag), splat(float(BAD_TARGET), tag), code)
        return code, base, select_ge(t, zero, here, undefined), rest

    return judge


@functools.cache
def write_rows_of(full: bool, shaped: bool, mode: int, logged: bool) -> Any:
    """The last step for one set of compile-time flags."""
    judge = judge_of(shaped, mode)

    @inline
    def write_rows(i, count, place, rows, shape, into):  # type: ignore[no-untyped-def]
        """Write what the record of ``count`` rows from row ``i`` is made from."""
        tag = rows.tag
        n_classes = rows.n_classes
        real = lowest(tag)
        zero = splat(0.0, tag)
        slot = slots_of(place, n_classes)
        code, base, here, rest = judge(slot, shape, tag)
        store_ints(into.status.ctypes.data + i, count, code, np.int8(0))
        line = into.record.strides[0]
        k = into.record.ctypes.data + (into.at + i) * 8
        store_wide(k + MAX * line, count, base)
        store_wide(k + HERE * line, count, here)
        store_wide(k + REST * line, count, rest)
        if logged:
            store_wide(k + LOG_SUM * line, count, log1p_inside(rest))
        if full:
            t = load(slot + TARGET * VECTOR, real)
            known = select_eq(code, splat(float(USED), tag), splat(1.0, tag), zero)
            minus = splat(-1.0, tag)
            store_wide(k + LARGEST * line, count, load(slot + TOP * VECTOR, real))
            store_wide(k + SUM_ED * line, count, load(slot + SUM_D * VECTOR, real))
            store_wide(k + SUM_EE * line, count, load(slot + SUM_2 * VECTOR, real))
            predicted = select_gt(known, zero, load(slot + ARGMAX * VECTOR, real), minus)
            above = load(slot + ABOVE * VECTOR, real)
            rank = select_gt(known, zero, select_ge(t, zero, above, minus), minus)
            store_ints(into.ids[PREDICTED].ctypes.data + (into.at + i) * 8, count, predicted, 0)
            store_ints(into.ids[RANK].ctypes.data + (into.at + i) * 8, count, rank, 0)

    return write_rows


@inline
def write_mixed(i, count, place, rows, shape, soft, into):  # type: ignore[no-untyped-def]
    """Write the sums over all classes of ``count`` rows from row ``i``, eight at a time."""
    line = into.record.strides[0]
    k = into.record.ctypes.data + (into.at + i) * 8
    for h in range(0, count, 8):
        there = place + h * itemsize(lowest(rows.tag))
        flat, soft_sum, soft_weight = mix(k + h * 8, there, line, rows, shape, soft)
        some = min(8, count - h)
        store_wide(k + LINEAR * line + h * 8, some, flat)
        store_wide(k + SOFT * line + h * 8, some, soft_sum)
        store_wide(k + SOFT_WEIGHT * line + h * 8, some, soft_weight)


@functools.cache
def narrow_kernel(full: bool, shaped: bool, mode: int, logged: bool) -> Any:
    """The kernel for one set of compile-time flags: those of `wide.wide_kernel`, but for whether targets are mixed,
    which ``soft.summed`` says.

    logged: losses are wanted in the compute type only, and the logarithm is taken in it too; in float64 it takes a
    quarter of two classes' time. Arguments are those of the wide kernel. ``into.scratch`` is the address of `TILES`
    times `tile_bytes`.
    """
    find_tops = find_tops_of(full, shaped)
    add_up = add_up_of(full, shaped, mode)
    write_rows = write_rows_of(full, shaped, mode, logged)
    finish = finish_of(full, mode, logged, False)

    @jit
    def kernel(rows, targets, shape, soft, into):  # type: ignore[no-untyped-def]
        n = rows.n
        w = lanes(rows.tag)
        tile = tile_bytes(rows.n_classes)
        for group in range(0, n, TILES * w):
            stop = min(n, group + TILES * w)
            place = into.scratch
            for i in range(group, stop, w):
                find_tops(i, min(w, n - i), place, rows, targets.ids.ctypes.data, targets, shape, soft)
                place += tile
            place = into.scratch
            for _ in range(group, stop, w):
                add_up(place, rows.n_classes, shape, rows.tag)
                place += tile
            place = into.scratch
            for i in range(group, stop, w):
                write_rows(i, min(w, n - i), place, rows, shape, into)
                place += tile
            if soft.summed:
                place = into.scratch
                for i in range(group, stop, w):
                    write_mixed(i, min(w, n - i), place, rows, shape, soft, into)
                    place += tile
        finish(into.at, n, into.record, lowest(rows.tag))

    return kernel
