"""The row record: everything a metric needs, read off a row of C logits in one pass.

A row is taken in blocks: see blocks.py. Sums are carried in float64 from block to block and rescaled when the maximum
rises, so a row is read from memory once, whatever its length. The order of operations depends on C and dtype alone. Up
to `NARROW` classes a row is too short for vectors, and 16 (or 8) rows are taken side by side instead: see narrow.py.
Where only losses are wanted, rows of up to `short.SHORT` classes go through short.py, to the same bits.

Kernels trust their caller (`launch.py`): addresses, strides and array lengths have been proven.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from fastxent.kernels.jit import inline, jit
from fastxent.kernels.rows.blocks import (
    BLOCK, NOWHERE, Against, Block, Counts, Lanes, Sums, block_max, find_first, first_of_two, record_pairs,
    record_rest_of, rescale, set_thresholds, settle, sum_block,
)  # fmt: skip
from fastxent.kernels.rows.numbers import apply_shape, read
from fastxent.kernels.rows.record import (
    BAD_LOGITS, BAD_TARGET, HERE, IGNORED, LARGEST, LEFT, LINEAR, LOGITS, MAX, MORE, PREDICTED, PROBS, RANK, REST,
    SOFT, SOFT_WEIGHT, SUM_ED, SUM_EE, USED, finish_of,
)  # fmt: skip
from fastxent.kernels.simd.arithmetic import max_lanes, splat, sum_lanes, vmax
from fastxent.kernels.simd.exponentials import unbias
from fastxent.kernels.simd.memory import load_scalar
from fastxent.kernels.simd.peaks import no_peak
from fastxent.kernels.simd.types import itemsize, lanes, lowest

NARROW = 48  # classes up to which rows are taken side by side (measured: the two meet between 48 and 64)


@inline
def counts_in(t, targets, n_classes):  # type: ignore[no-untyped-def]
    """Whether a row with this class id is read: one that is in range, or one that has none."""
    return t != targets.ignore and (t == targets.none or (0 <= t < n_classes))


@inline
def leave_out(i, t, targets, into, full):  # type: ignore[no-untyped-def]
    """Write row ``i``, which is ignored or has a target out of range."""
    k = into.at + i
    into.status[i] = IGNORED if t == targets.ignore else BAD_TARGET
    into.record[MAX, k] = np.nan
    into.record[REST, k] = 0.0
    into.record[LEFT, k] = 0.0
    into.record[MORE, k] = 0.0
    if full:
        into.ids[PREDICTED, k] = -1
        into.ids[RANK, k] = -1


@inline
def next_block(i, row, end, rows, targets):  # type: ignore[no-untyped-def]
    """(row's address, first class, end) of the block after the one that ends at ``end``: of this row, or of the next
    one, empty where that is not read."""
    n_classes = rows.n_classes
    beside = row
    begin = end
    limit = min(end + BLOCK, n_classes)
    if end == n_classes:
        beside = row + rows.stride
        begin = 0
        limit = 0
        following = targets.ids[i + 1] if i + 1 < rows.n else targets.ignore
        if counts_in(following, targets, n_classes):
            limit = min(BLOCK, n_classes)
    return beside, begin, limit


@inline
def write_sums(k, sums, against, fine, into, mode):  # type: ignore[no-untyped-def]
    """Write what `finish` makes the record of column ``k`` from."""
    record = into.record
    record[MAX, k] = float(against.reference) + 0.0 if fine else np.nan  # 0 for -0: which of them is by chance
    record[REST, k] = sums.s if mode == LOGITS else sums.s - 1.0
    record[LEFT, k] = against.off
    record[MORE, k] = sums.maxima - 1


@functools.cache
def wide_kernel(full: bool, mixed: bool, shaped: bool, mode: int) -> Any:
    """The kernel for one set of compile-time flags.

    full: the whole record, predicted class and rank beside nll and lse. mixed: also Σ w·(z - max) for label smoothing,
    and, where target probabilities q are given, Σ q·w·(z - max) and Σ q·w. shaped: softcap, temperature or a class mask
    is given. mode: what the numbers are.

    A target that equals ``targets.ignore`` makes a row ignored, one that equals ``targets.none`` is missing.
    """
    plain = not (mixed or shaped or mode != LOGITS)
    record_rest = record_rest_of(full, mixed, shaped, mode)
    finish = finish_of(full, mode, False, True)

    @jit
    def kernel(rows, targets, shape, soft, into):  # type: ignore[no-untyped-def]
        n_classes = rows.n_classes
        tag = rows.tag
        w = lanes(tag)
        size = itemsize(tag)
        zero = splat(0.0, tag)
        scale = unbias(tag)
        mask_at = shape.mask_at if shaped else 0
        next_peak = lowest(tag)  # the maximum of the next block, if known
        known = False
        for i in range(rows.n):
            row = rows.address + i * rows.stride
            t = targets.ids[i]
            if not counts_in(t, targets, n_classes):
                leave_out(i, t, targets, into, full)
                continue
            here = lowest(tag)  # of the same type as the logits
            if t != targets.none:
                here = load_scalar(row + t * size, tag)
                if mask_at != 0:
                    here = max_lanes(read(row, t, 1, tag, mask_at))
            if full:
                set_thresholds(into.scratch, here, max(t, 0), tag)
            turn = max(t, 0) // (2 * w) * (2 * w)
            q_row = soft.address + i * soft.stride
            top = lowest(tag)
            reference = lowest(tag)
            if mode != LOGITS:
                reference = reference * 0 + 0
            against = Against(reference, np.float64(top), 0.0, 0.0, 0.0, 0.0)
            sums = Sums(0.0, 0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
            rank = 0
            top_block = 0
            spot = NOWHERE
            for first in range(0, n_classes, BLOCK):
                end = min(first + BLOCK, n_classes)
                highest = next_peak
                if not known:
                    highest = block_max(row, first, end, tag, mask_at, no_peak(tag))
                beside, begin, limit = next_block(i, row, end, rows, targets)
                known = limit > begin
                found = no_peak(tag)
                if highest > top or first == 0:
                    top = highest
                    top_block = first
                    spot = NOWHERE
                    if mode == LOGITS:
                        risen = top
                        if shaped:
                            shaped_top = apply_shape(splat(top, tag), shape, mode)
                            risen = max_lanes(vmax(shaped_top, splat(lowest(tag), tag)))
                        before = against
                        against = settle(risen, tag)
                        if first > 0:
                            sums = rescale(sums, before, against, mixed)
                whole = end if plain and against.shift == 0.0 else first
                over = beside + begin * size - (row + first * size)
                block = Block(row, first, end, whole, min(whole, first + limit - begin), over, into.scratch, turn)
                s, maxima, sd, s2, flat, flat_weight, some, some_weight = sums
                if plain and not full:
                    v_s, others, reached, found = sum_block(block, against, found, tag)
                else:
                    v = Lanes(zero, zero, zero)
                    u_s = zero
                    counts = Counts(0, rank, spot)
                    c = first
                    reached = first
                    if plain:
                        v, u_s, counts, c, reached, found = record_pairs(block, against, counts, found, tag)
                    v, counts, mixes = record_rest(c, block, against, v, counts, shape, q_row, tag)
                    others, rank, spot = counts
                    sd += sum_lanes(v.sd) * scale
                    s2 += sum_lanes(v.s2) * (scale * scale)
                    if mixed:
                        flat += sum_lanes(mixes[0])
                        flat_weight += sum_lanes(mixes[1])
                        some += sum_lanes(mixes[2])
                        some_weight += sum_lanes(mixes[3])
                    v_s = v.s + u_s
                s += sum_lanes(v_s) * scale
                if known:
                    next_peak = block_max(beside, begin + reached - first, limit, tag, mask_at, found)
                if mode == LOGITS:
                    maxima += (end - first + w - 1) // w * w - others
                sums = Sums(s, maxima, sd, s2, flat, flat_weight, some, some_weight)
            # NaN, +inf, or nothing above -inf: then no number equals the maximum
            fine = sums.s < np.inf and (mode != LOGITS or sums.maxima > 0)
            into.status[i] = USED if fine else BAD_LOGITS
            k = into.at + i
            write_sums(k, sums, against, fine, into, mode)
            z_t = float(here)
            if shaped or mode == PROBS:
                z_t = float(max_lanes(apply_shape(splat(here, tag), shape, mode)))
            into.record[HERE, k] = z_t if t != targets.none else np.nan
            if mixed:
                into.record[LINEAR, k] = sums.flat
                into.record[SOFT, k] = sums.soft
                into.record[SOFT_WEIGHT, k] = sums.soft_weight
            if full:
                into.record[LARGEST, k] = top
                into.record[SUM_ED, k] = sums.sd
                into.record[SUM_EE, k] = sums.s2
                place = -1
                if fine and plain:
                    place = first_of_two(row, spot, n_classes, top, tag)
                elif fine:
                    place = find_first(row, top_block, n_classes, top, tag, mask_at)
                    if place >= n_classes:  # nothing but probabilities of 0
                        place = 0
                into.ids[PREDICTED, k] = place
                into.ids[RANK, k] = rank if fine and t != targets.none else -1
        finish(into.at, rows.n, into.record, lowest(tag))

    return kernel
