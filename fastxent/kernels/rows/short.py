"""Rows of some dozen to some hundred classes: the sums of the wide kernel, a tile of 16 rows (8 in float64) at a time.

A row of a hundred numbers is six vectors, and what is done once for a row takes longer than they do: its largest lane,
what its exponentials are taken against, the sum of its lanes. Here each of these is done for a tile, one row in each
lane. Every row is still summed as in wide.py, vector by vector in the same order: the same record, bit for bit.
"""

from __future__ import annotations

import numpy as np

from fastxent.kernels.jit import inline, jit
from fastxent.kernels.rows.blocks import STEP, STEP_LOW, add_two
from fastxent.kernels.rows.numbers import VECTOR, fetch
from fastxent.kernels.rows.record import BAD_LOGITS, HERE, LEFT, LOGITS, MAX, MORE, REST, USED, finish_of
from fastxent.kernels.rows.wide import counts_in, leave_out
from fastxent.kernels.simd.arithmetic import absolute, floor, select_gt, splat, vmax
from fastxent.kernels.simd.columns import largest_of_rows, sums_of_rows
from fastxent.kernels.simd.exponentials import add_exp, exp_limits, unbias
from fastxent.kernels.simd.fields import load_wide, store_eight, store_wide
from fastxent.kernels.simd.memory import load, load_first, load_scalar, store
from fastxent.kernels.simd.types import itemsize, lanes, lowest

SHORT = 300  # classes up to which rows are taken so (measured: the two meet between 300 and 500)
# What is known of a tile: a vector for each row, its largest numbers, then its sums; then one lane for each row, the
# largest, and what exponentials are taken against: see `blocks.frame_of`.
ROWS = 16
TOP, SHIFT, BASE, LOW, MAGIC, REST_OF_STEP = range(ROWS, ROWS + 6)
SCRATCH = (ROWS + 6) * VECTOR
_finish = finish_of(False, LOGITS, False, True)


@inline
def find_peaks(i, count, rows, place):  # type: ignore[no-untyped-def]
    """The largest number of each of ``count`` rows from row ``i`` on; the last one stands for those behind it."""
    tag = rows.tag
    real = lowest(tag)
    w = lanes(tag)
    size = itemsize(tag)
    n_classes = rows.n_classes
    for k in range(w):
        row = rows.address + (i + min(k, count - 1)) * rows.stride
        m = splat(real, tag)
        more = m
        c = 0
        while c + 2 * w <= n_classes:
            m = vmax(load(row + c * size, tag), m)
            more = vmax(load(row + (c + w) * size, tag), more)
            c += 2 * w
        while c < n_classes:
            m = vmax(load_first(row + c * size, min(w, n_classes - c), tag), m)
            c += w
        fetch(row, n_classes * size)
        store(place + k * VECTOR, vmax(m, more), real)
    store(place + TOP * VECTOR, largest_of_rows(place, real), real)


@inline
def settle_rows(k, count, place, record, tag):  # type: ignore[no-untyped-def]
    """`blocks.settle` and `frame_of` of the maxima of a tile, whose first row has column ``k`` of the record."""
    real = lowest(tag)
    low, magic, slack, multiple = exp_limits(tag)
    zero = splat(0.0, 0.0)
    line = record.strides[0]
    at = record.ctypes.data + k * 8
    for h in range(0, lanes(tag), 8):
        there = place + h * itemsize(real)
        m = load_wide(there + TOP * VECTOR, real)
        shift = select_gt(splat(-2.0 * low, 0.0), absolute(m), zero, m)
        base = m - shift
        steps = base / splat((STEP + STEP_LOW) * multiple, 0.0) + splat(0.5, 0.0)
        steps = floor(steps) * splat(multiple, 0.0)
        left = (base - steps * splat(STEP, 0.0)) - (steps * splat(STEP_LOW, 0.0) + base * splat(slack, 0.0))
        store_eight(there + SHIFT * VECTOR, shift, real)
        store_eight(there + BASE * VECTOR, base, real)
        store_eight(there + LOW * VECTOR, base + splat(low, 0.0), real)
        store_eight(there + MAGIC * VECTOR, splat(magic, 0.0) - steps, real)
        store_eight(there + REST_OF_STEP * VECTOR, left, real)
        some = min(8, count - h)
        store_wide(at + MAX * line + h * 8, some, m + zero)  # 0 for -0
        store_wide(at + LEFT * line + h * 8, some, left if slack != 0.0 else zero)


@inline
def sum_row(row, n_classes, at, tag):  # type: ignore[no-untyped-def]
    """(Σ e, others) of the row at ``row``, as `blocks.sum_block` has them; its part of what is known is at ``at``."""
    real = lowest(tag)
    w = lanes(tag)
    size = itemsize(tag)
    shift = load_scalar(at + SHIFT * VECTOR, real)
    frame = (
        splat(load_scalar(at + BASE * VECTOR, real), tag), splat(load_scalar(at + LOW * VECTOR, real), tag),
        splat(load_scalar(at + MAGIC * VECTOR, real), tag), splat(load_scalar(at + REST_OF_STEP * VECTOR, real), tag),
    )  # fmt: skip
    v_s = splat(0.0, tag)
    u_s = v_s
    others = 0
    c = 0
    if shift == 0.0:
        while c + 2 * w <= n_classes:
            v_s, u_s, k = add_two(v_s, u_s, row + c * size, frame, tag)
            others += k
            c += 2 * w
    while c < n_classes:
        x = load_first(row + c * size, min(n_classes - c, w), tag) - splat(shift, tag)
        v_s, k = add_exp(v_s, x, frame)
        others += k
        c += w
    return v_s + u_s, others


@jit
def short_kernel(rows, targets, shape, soft, into):  # type: ignore[no-untyped-def]
    """The kernel of plain logits where no full record is wanted; arguments are those of the wide kernel."""
    tag = rows.tag
    real = lowest(tag)
    n = rows.n
    n_classes = rows.n_classes
    w = lanes(tag)
    place = into.scratch
    record = into.record
    line = record.strides[0]
    full = (n_classes + w - 1) // w * w
    for i in range(0, n, w):
        count = min(w, n - i)
        k = into.at + i
        find_peaks(i, count, rows, place)
        settle_rows(k, count, place, record, tag)
        for r in range(count):
            row = rows.address + (i + r) * rows.stride
            v, others = sum_row(row, n_classes, place + r * itemsize(real), tag)
            store(place + r * VECTOR, v, real)
            record[MORE, k + r] = full - others - 1
        for h in range(0, w, 8):
            some = min(8, count - h)
            s = sums_of_rows(place + h * VECTOR, real) * splat(unbias(tag), 0.0)
            store_wide(record.ctypes.data + k * 8 + REST * line + h * 8, some, s)
        for r in range(count):
            t = targets.ids[i + r]
            if not counts_in(t, targets, n_classes):
                leave_out(i + r, t, targets, into, False)
                continue
            fine = record[REST, k + r] < np.inf and record[MORE, k + r] >= 0
            into.status[i + r] = USED if fine else BAD_LOGITS
            if not fine:
                record[MAX, k + r] = np.nan
            here = np.nan
            if t != targets.none:
                here = float(load_scalar(rows.address + (i + r) * rows.stride + t * itemsize(tag), tag))
            record[HERE, k + r] = here
    _finish(into.at, n, record, lowest(tag))
