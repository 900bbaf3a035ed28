"""Few classes, from logits to results: losses, and softmax, log-softmax or gradient rows, without a record in between.

The tiles of narrow.py, and its steps; then what the rows become is computed while they are still in scratch memory. To
write a record and to read it again takes as long as the arithmetic of a few classes. The gradient and the softmax use
the exponentials of the sum a second time. The same operations in the same order as by way of a record: the same bits.

Tiles are whole here. The last rows, which are not, are copied to a tile of their own, filled up with ignored rows.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from fastxent.kernels.jit import inline, jit
from fastxent.kernels.rows.arguments import Goals, Rows, Soft
from fastxent.kernels.rows.called import call_group
from fastxent.kernels.rows.narrow import (
    CURRENT, SPARE, SUM, TARGET, TILES, TOP, add_up_of, find_tops_of, judge_of, slots_of, tile_bytes,
)  # fmt: skip
from fastxent.kernels.rows.numbers import VECTOR
from fastxent.kernels.rows.record import BAD_LOGITS, BAD_TARGET, IGNORED, LOGITS, USED
from fastxent.kernels.simd.arithmetic import max_lanes, nll, select_eq, select_gt, splat, sum_lanes, vmax
from fastxent.kernels.simd.columns import store_columns, store_interleaved
from fastxent.kernels.simd.exponentials import log1p_inside, scale_exp, unbias
from fastxent.kernels.simd.fields import load_wide, store_eight, store_whole
from fastxent.kernels.simd.memory import load, load_first, store, store_first
from fastxent.kernels.simd.types import itemsize, lanes, lowest

NOTHING, LOG_SOFTMAX, SOFTMAX, GRADIENT = -1, 0, 1, 2
ROOM = 4 * VECTOR  # bytes for class ids and losses of a tile
# What becomes of a tile, in the slots that only a full record uses.
CODE, SCALE, SCALE_LOW, LOG = 3, 5, 6, 7


def fused_bytes(n_classes: int) -> int:
    """Room for the tiles, and for the last rows, their class ids and losses."""
    return TILES * int(tile_bytes.py_func(n_classes)) + ROOM + (n_classes + SPARE) * VECTOR


@functools.cache
def conclude_of(output: int, shaped: bool, mode: int) -> Any:
    """The third step for one set of compile-time flags: see `group_of`."""
    judge = judge_of(shaped, mode)

    @inline
    def conclude(place, n_classes, shape, scale, loss_at, losses, tag):  # type: ignore[no-untyped-def]
        """Write the losses of the tile at ``place``, and what its outputs are made with. Returns what became of its
        rows."""
        real = lowest(tag)
        size = itemsize(real)
        zero = splat(0.0, tag)
        slot = slots_of(place, n_classes)
        code, base, here, rest = judge(slot, shape, tag)
        if losses == 1:
            tail = log1p_inside(rest) if mode == LOGITS else zero
            y = select_eq(code, splat(float(USED), tag), nll(base, here, tail), splat(np.nan, tag))
            store(loss_at, select_eq(code, splat(float(IGNORED), tag), zero, y), real)
        if losses == 2 or output != NOTHING:
            store(slot + CODE * VECTOR, code, real)
            store(slot + TOP * VECTOR, base, real)
            store(slot + CURRENT * VECTOR, here, real)
            none = splat(0.0, 0.0)
            for h in range(0, lanes(tag), 8):
                at = slot + h * size
                m = load_wide(at + TOP * VECTOR, real)
                rest_wide = load_wide(at + SUM * VECTOR, real)
                log_sum = none
                if mode == LOGITS and (output == LOG_SOFTMAX or losses == 2):
                    log_sum = log1p_inside(rest_wide)
                if output == LOG_SOFTMAX:
                    store_eight(at + LOG * VECTOR, log_sum, real)
                elif output != NOTHING:
                    exact = splat(scale * unbias(tag), 0.0) / (splat(1.0, 0.0) + rest_wide)
                    high = store_eight(at + SCALE * VECTOR, exact, real)
                    store_eight(at + SCALE_LOW * VECTOR, exact - high, real)
                if losses == 2:
                    z = load_wide(at + CURRENT * VECTOR, real)
                    gap = m - z
                    value = gap + log_sum
                    if itemsize(tag) == 8:  # see `record.finish`
                        back = gap - m
                        lost = (m - (gap - back)) - (z + back)
                        value = gap + (log_sum + select_gt(splat(np.inf, 0.0), gap, lost, none))
                    of = load_wide(at + CODE * VECTOR, real)
                    value = select_eq(of, splat(float(USED), 0.0), value, splat(np.nan, 0.0))
                    store(loss_at + h * 8, select_eq(of, splat(float(IGNORED), 0.0), none, value), 0.0)
        return code

    return conclude


@functools.cache
def write_out_of(output: int) -> Any:
    """The last step, for an output: `emit.outcome_of` of exponentials that are there."""

    @inline
    def write_out(place, n_classes, scale, there, stride, tag):  # type: ignore[no-untyped-def]
        """Turn the tile at ``place`` into outputs, and write them as rows from ``there`` on."""
        real = lowest(tag)
        zero = splat(0.0, tag)
        one = splat(1.0, tag)
        slot = slots_of(place, n_classes)
        code = load(slot + CODE * VECTOR, real)
        used = splat(float(USED), tag)
        blank = splat(np.nan, tag)
        if output == GRADIENT:
            blank = select_eq(code, splat(float(IGNORED), tag), zero, blank)
        t = load(slot + TARGET * VECTOR, real)
        hot = splat(scale, tag)
        high = load(slot + SCALE * VECTOR, real)
        low = load(slot + SCALE_LOW * VECTOR, real)
        base = load(slot + TOP * VECTOR, real)
        log_sum = load(slot + LOG * VECTOR, real)
        left = place + (n_classes + SPARE) * VECTOR
        number = zero
        for c in range(n_classes):
            y = load(place + c * VECTOR, real)
            if output == LOG_SOFTMAX:
                y = (y - base) - log_sum
            else:
                y = scale_exp(high, low, y, load(left + c * VECTOR, real))
                if output == GRADIENT:
                    y = y - select_eq(number, t, hot, zero)
            store(place + c * VECTOR, select_eq(code, used, y, blank), real)
            number = number + one
        w = lanes(tag)
        if n_classes <= 4 and stride == n_classes * itemsize(tag):
            store_interleaved(there, n_classes, place, tag)
        else:
            for c in range(0, n_classes, w):
                store_columns(there + c * itemsize(tag), stride, w, min(w, n_classes - c), place + c * VECTOR, tag)

    return write_out


@functools.cache
def group_of(output: int, shaped: bool, mode: int) -> Any:
    """What takes some whole tiles through all steps, for one set of compile-time flags.

    output: NOTHING, LOG_SOFTMAX, SOFTMAX or GRADIENT. shaped, mode: as in `wide.wide_kernel`; a gradient is that of
    plain logits.
    """
    find_tops = find_tops_of(False, shaped)
    add_up = add_up_of(False, shaped, mode, output in (SOFTMAX, GRADIENT))
    conclude = conclude_of(output, shaped, mode)
    write_out = write_out_of(output)

    @jit
    def group(rows, ids, targets, shape, goals, scratch):  # type: ignore[no-untyped-def]
        """``rows.n`` rows, whose class ids are at ``ids``. Returns (the worst that became of one, how many count)."""
        tag = rows.tag
        n_classes = rows.n_classes
        w = lanes(tag)
        tile = tile_bytes(n_classes)
        place = scratch
        for i in range(0, rows.n, w):
            find_tops(i, w, place, rows, ids, targets, shape, Soft(0, 0, False))
            place += tile
        place = scratch
        for _ in range(0, rows.n, w):
            add_up(place, n_classes, shape, tag)
            place += tile
        place = scratch
        zero = splat(0.0, tag)
        one = splat(1.0, tag)
        worst = zero
        counted = zero
        at = goals.loss
        for _ in range(0, rows.n, w):
            code = conclude(place, n_classes, shape, goals.scale, at, goals.losses, tag)
            worst = vmax(code, worst)
            counted = counted + select_eq(code, splat(float(USED), tag), one, zero)
            counted = counted + select_eq(code, splat(float(BAD_LOGITS), tag), one, zero)
            at += w * loss_size(goals.losses, tag)
            place += tile
        found = np.float64(max_lanes(worst))
        if output != NOTHING and not (goals.strict and found == BAD_TARGET):
            place = scratch
            at = goals.out
            for _ in range(0, rows.n, w):
                write_out(place, n_classes, goals.scale, at, goals.stride, tag)
                at += w * goals.stride
                place += tile
        return found, sum_lanes(counted)

    return group


@inline
def loss_size(losses, tag):  # type: ignore[no-untyped-def]
    """Bytes of a loss."""
    return itemsize(lowest(tag)) if losses == 1 else 8


@inline
def copy_rows(n, n_classes, source, stride, target, target_stride, tag):  # type: ignore[no-untyped-def]
    """Copy rows of numbers."""
    w = lanes(tag)
    for i in range(n):
        for c in range(0, n_classes, w):
            count = min(w, n_classes - c)
            x = load_first(source + i * stride + c * itemsize(tag), count, tag)
            store_first(target + i * target_stride + c * itemsize(tag), count, x, tag)


@inline
def shifted(goals, loss, out, stride):  # type: ignore[no-untyped-def]
    """The same goals, elsewhere."""
    return Goals(loss, out, stride, goals.scale, goals.strict, goals.losses)


@jit
def run_tiles(group, rows, targets, shape, goals, scratch):  # type: ignore[no-untyped-def]
    """Take rows through all steps, some tiles at a time.

    group: address of `group_of`. scratch: address of `fused_bytes` bytes. Returns (the worst that became of a row, how
    many count in a mean).
    """
    address, stride, n, n_classes, tag = rows
    ids = targets.ids.ctypes.data
    w = lanes(tag)
    size = loss_size(goals.losses, tag)
    whole = n // w * w
    worst = 0.0
    counted = 0.0
    for i in range(0, whole, TILES * w):
        here = Rows(address + i * stride, stride, min(TILES * w, whole - i), n_classes, tag)
        place = shifted(goals, goals.loss + i * size, goals.out + i * goals.stride, goals.stride)
        found, some = call_group(group, (here, ids + i * 8, targets, shape, place, scratch))
        worst = max(worst, found)
        counted += some
    if whole < n:
        left = n - whole
        line = n_classes * itemsize(tag)
        own_ids = scratch + TILES * tile_bytes(n_classes)
        own = shifted(goals, own_ids + 2 * VECTOR, own_ids + ROOM, line)
        for i in range(w):
            store_whole(own_ids + i * 8, targets.ids[whole + i] if i < left else targets.ignore)
        copy_rows(left, n_classes, address + whole * stride, stride, own.out, line, tag)
        last = Rows(own.out, line, w, n_classes, tag)
        found, some = call_group(group, (last, own_ids, targets, shape, own, scratch))
        worst = max(worst, found)
        counted += some
        if goals.losses == 1:
            copy_rows(1, left, own.loss, 0, goals.loss + whole * size, 0, lowest(tag))
        elif goals.losses == 2:
            copy_rows(1, left, own.loss, 0, goals.loss + whole * size, 0, 0.0)
        if goals.out != 0 and not (goals.strict and found == BAD_TARGET):
            copy_rows(left, n_classes, own.out, line, goals.out + whole * goals.stride, goals.stride, tag)
    return worst, counted
