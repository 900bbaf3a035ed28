"""A row of many classes, block by block: `BLOCK` numbers, which stay in the first-level cache.

Each block is summed against the maximum so far, while the maximum of the next block, or of the next row, is found:
what waits for a maximum has it at once, and the loads cost nothing.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np

from fastxent.kernels.jit import inline, jit
from fastxent.kernels.rows.numbers import VECTOR, apply_shape, fetch, read
from fastxent.kernels.rows.record import LOGITS, PROBS
from fastxent.kernels.simd.arithmetic import (
    add_wide, count_ge, first_equal, fma, keep_first, max_lanes, next_above, select_eq, select_gt, splat, vmax,
)  # fmt: skip
from fastxent.kernels.simd.exponentials import add_exp, add_record, exp_biased, exp_limits, floor_exp, unbias
from fastxent.kernels.simd.fields import narrow_load
from fastxent.kernels.simd.memory import load, load_first, load_two, store
from fastxent.kernels.simd.peaks import higher, no_peak, peak, peak_of
from fastxent.kernels.simd.types import itemsize, lanes, lowest

BLOCK = 1024
SCRATCH = 6 * VECTOR  # bytes: thresholds
NOWHERE = 1 << 62  # beyond any class
STEP, STEP_LOW = 0.6931471803691238 / 16, 1.9082149292705877e-10 / 16  # ln 2 / 16; the first of 32 bits


@inline
def exp_one(x):  # type: ignore[no-untyped-def]
    """exp of one float64 < 1, from the same polynomial on every machine."""
    return max_lanes(exp_biased(splat(x, 0.0))) * unbias(0.0)


class Against(NamedTuple):
    """What the exponentials of a row are taken against: a reference, the maximum so far or 0.

    reference = shift + base = shift + steps·(ln 2)/16 + left, with a whole number of steps. Sums are against the
    reference less ``off``.
    """

    reference: Any  # of the compute type
    shift: float
    base: float
    steps: float
    left: float
    off: float


class Sums(NamedTuple):
    """What has been summed of a row. d is z less the reference, e its exponential, w a class weight, q a probability.

    s: Σ e without the maxima. maxima: their number. sd: Σ e·d. s2: Σ e². flat: Σ w·d. flat_weight: Σ w. soft: Σ q·w·d.
    soft_weight: Σ q·w.
    """

    s: float
    maxima: int
    sd: float
    s2: float
    flat: float
    flat_weight: float
    soft: float
    soft_weight: float


class Block(NamedTuple):
    """A block of a row, and the block after it, whose maximum is found on the way.

    row: address. first, end: classes of the block.
    whole: int. As far as numbers are taken as they stand, two vectors at a time.
    both: int. As far as the next block is as long.
    over: int. Bytes from a number to its like in the next block.
    table: address of the thresholds. turn: see `threshold_at`.
    """

    row: int
    first: int
    end: int
    whole: int
    both: int
    over: int
    table: int
    turn: int


class Lanes(NamedTuple):
    """Sums of a block, a vector each: Σ e, Σ e·d and Σ e², without the maxima, still with the bias of `exp_biased`."""

    s: Any
    sd: Any
    s2: Any


class Counts(NamedTuple):
    """others: numbers of a block that are not the maximum. rank: numbers of the row that stand before the target.
    spot: the first pair of vectors with a maximum, or `NOWHERE`."""

    others: int
    rank: int
    spot: int


@inline
def settle(top, tag):  # type: ignore[no-untyped-def]
    """`Against` a maximum.

    In float32 ``steps`` makes a power of 2, against which exponentials are taken without a rounded difference and
    without more work; the sums are then against the maximum less ``left``. In float64 every exponential takes ``left``
    off, and the sums are against the maximum.
    """
    low, _, slack, multiple = exp_limits(tag)
    m = float(top)
    shift = 0.0 if abs(m) < -2.0 * low else m
    base = m - shift
    steps = np.floor(base / ((STEP + STEP_LOW) * multiple) + 0.5) * multiple
    left = (base - steps * STEP) - (steps * STEP_LOW + base * slack)
    return Against(top, shift, base, steps, left, left if slack != 0.0 else 0.0)


@jit
def rescale(sums, before, against, mixed):  # type: ignore[no-untyped-def]
    """Sums that were against ``before``, and its maxima, against a higher maximum."""
    top = float(against.reference)
    fall = float(before.reference) - top
    back = fall - float(before.reference)
    lost = (float(before.reference) - (fall - back)) - (top + back)
    own = exp_one(before.off)
    f = exp_one(fall + (against.off - before.off))
    f = f + f * lost if f > 0.0 else 0.0
    s = sums.s + sums.maxima * own
    s2 = sums.s2 + sums.maxima * (own * own)
    if f == 0.0:
        sd = s * 0.0  # keeps NaN
        s2 = s * 0.0
    else:
        sd = f * (sums.sd + fall * s)
        s2 = f * f * s2
    flat = sums.flat
    soft = sums.soft
    if mixed:
        if sums.flat_weight != 0.0:
            flat += fall * sums.flat_weight
        if sums.soft_weight != 0.0:
            soft += fall * sums.soft_weight
    return Sums(s * f, 0, sd, s2, flat, sums.flat_weight, soft, sums.soft_weight)


@inline
def frame_of(against, tag):  # type: ignore[no-untyped-def]
    """What `add_exp` takes exponentials of shifted numbers against: see `elementary.exp_steps`."""
    low, magic, _, _ = exp_limits(tag)
    base = against.base
    return splat(base, tag), splat(base + low, tag), splat(magic - against.steps, tag), splat(against.left, tag)


@jit
def block_max(p, first, end, tag, mask_at, found):  # type: ignore[no-untyped-def]
    """The largest of ``found``, which `peak` made, and of the numbers ``first``..``end`` of the row at ``p``; at least
    the lowest finite number. NaN is passed over, or hides others: such a row is broken."""
    w = lanes(tag)
    size = itemsize(tag)
    c = first
    if mask_at == 0:
        more = no_peak(tag)
        while c + 4 * w <= end:
            found = peak(found, p + c * size, tag)
            more = peak(more, p + (c + 2 * w) * size, tag)
            c += 4 * w
        found = higher(found, more)
    m = vmax(splat(peak_of(found, tag), tag), splat(lowest(tag), tag))
    while c < end:
        m = vmax(read(p, c, min(end - c, w), tag, mask_at), m)
        c += w
    return max_lanes(m)


@jit
def find_first(p, first, end, value, tag, mask_at):  # type: ignore[no-untyped-def]
    """Index of the first number of the row equal to ``value``, which is there."""
    w = lanes(tag)
    sought = splat(value, tag)
    c = first
    while c + 4 * w <= end:
        found = 0
        for k in range(4):
            found += count_ge(read(p, c + k * w, w, tag, mask_at), sought)
        if found > 0:
            break
        c += 4 * w
    at = first_equal(read(p, c, min(end - c, w), tag, mask_at), value)
    while at == w and c + w < end:
        c += w
        at = first_equal(read(p, c, min(end - c, w), tag, mask_at), value)
    return c + at


@inline
def first_of_two(p, first, n_classes, value, tag):  # type: ignore[no-untyped-def]
    """Index of the first number equal to ``value`` among those of two vectors from ``first`` on, without a branch."""
    w = lanes(tag)
    at = p + first * itemsize(tag)
    k = first_equal(load_first(at, min(w, n_classes - first), tag), value)
    j = first_equal(load_first(at + w * itemsize(tag), min(w, max(0, n_classes - first - w)), tag), value)
    return first + (k if k < w else w + j)


@inline
def threshold_at(table, c, turn):  # type: ignore[no-untyped-def]
    """Where the thresholds of the pair of vectors at ``c`` are; ``turn`` is the target's pair. See `set_thresholds`."""
    return table + ((c >= turn) + (c > turn)) * (2 * VECTOR)


@inline
def set_thresholds(table, here, target, tag):  # type: ignore[no-untyped-def]
    """What x is compared with for the rank of the target, x >= here before it and x > here from it on: two vectors for
    the pairs of vectors before the target's, for that one, and for those after."""
    w = lanes(tag)
    real = lowest(tag)
    before = splat(here, tag)
    after = splat(next_above(here), tag)
    one = splat(1.0, tag)
    left = target % (2 * w)
    for half in range(2):
        at = table + half * VECTOR
        store(at, before, real)
        store(at + 2 * VECTOR, select_gt(keep_first(one, left - half * w), splat(0.0, tag), before, after), real)
        store(at + 4 * VECTOR, after, real)


@inline
def add_two(v_s, u_s, p, frame, tag):  # type: ignore[no-untyped-def]
    """`add_exp` of two vectors."""
    x, y = load_two(p, tag)
    v_s, j = add_exp(v_s, x, frame)
    u_s, k = add_exp(u_s, y, frame)
    return v_s, u_s, j + k


@inline
def add_two_records(first, second, p, frame, table, tag):  # type: ignore[no-untyped-def]
    """`add_record` of two vectors at ``p`` to the sums of either, with the numbers of others and of those before."""
    x, y = load_two(p, tag)
    before, after = load_two(table, lowest(tag))
    v_s, v_sd, v_s2, a, b = add_record(first.s, first.sd, first.s2, x, x, frame, before)
    u_s, u_sd, u_s2, c, d = add_record(second.s, second.sd, second.s2, y, y, frame, after)
    return Lanes(v_s, v_sd, v_s2), Lanes(u_s, u_sd, u_s2), a + c, b + d


@inline
def sum_block(block, against, found, tag):  # type: ignore[no-untyped-def]
    """(Σ e, others, reached, found) of a block: where the search for the next maximum has come to, and what it found.
    Four vectors at a time, as two pairs: the sums are those of the full record, bit for bit."""
    row, first, end, whole, both, over, _, _ = block
    w = lanes(tag)
    size = itemsize(tag)
    frame = frame_of(against, tag)
    v_s = splat(0.0, tag)
    u_s = v_s
    others = 0
    c = first
    while c + 4 * w <= both:
        p = row + c * size
        found = peak(peak(found, p + over, tag), p + over + 2 * w * size, tag)
        v_s, u_s, j = add_two(v_s, u_s, p, frame, tag)
        v_s, u_s, k = add_two(v_s, u_s, p + 2 * w * size, frame, tag)
        fetch(p + over, 4 * w * size)
        others += j + k
        c += 4 * w
    reached = c
    while c + 2 * w <= whole:
        v_s, u_s, k = add_two(v_s, u_s, row + c * size, frame, tag)
        others += k
        c += 2 * w
    while c < end:
        x = load_first(row + c * size, min(end - c, w), tag) - splat(against.shift, tag)
        v_s, k = add_exp(v_s, x, frame)
        others += k
        c += w
    return v_s + u_s, others, reached, found


@inline
def record_pairs(block, against, counts, found, tag):  # type: ignore[no-untyped-def]
    """(sums, Σ e of second vectors, counts, c, reached, found) of the pairs of vectors of a block, up to class c."""
    row, first, _, whole, both, over, thresholds, turn = block
    w = lanes(tag)
    size = itemsize(tag)
    frame = frame_of(against, tag)
    zero = splat(0.0, tag)
    v = Lanes(zero, zero, zero)
    u = v
    others, rank, spot = counts
    c = first
    while c + 2 * w <= both:
        p = row + c * size
        found = peak(found, p + over, tag)
        v, u, k, j = add_two_records(v, u, p, frame, threshold_at(thresholds, c, turn), tag)
        others += k
        rank += j
        spot = min(spot, NOWHERE if k == 2 * w else c)
        fetch(p + over, 2 * w * size)
        c += 2 * w
    reached = c
    while c + 2 * w <= whole:
        v, u, k, j = add_two_records(v, u, row + c * size, frame, threshold_at(thresholds, c, turn), tag)
        others += k
        rank += j
        spot = min(spot, NOWHERE if k == 2 * w else c)
        c += 2 * w
    return Lanes(v.s, v.sd + u.sd, v.s2 + u.s2), u.s, Counts(others, rank, spot), c, reached, found


@functools.cache
def record_rest_of(full: bool, mixed: bool, shaped: bool, mode: int) -> Any:
    """What takes the numbers of a block from class ``c`` on, a vector at a time, for one set of compile-time flags."""
    plain = not (mixed or shaped or mode != LOGITS)

    @inline
    def record_rest(c, block, against, v, counts, shape, q_row, tag):  # type: ignore[no-untyped-def]
        """(sums, counts, (Σ w·d, Σ w, Σ q·w·d, Σ q·w)), added to sums and counts so far."""
        row, _, end, _, _, over, thresholds, turn = block
        w = lanes(tag)
        size = itemsize(tag)
        real = lowest(tag)  # a tag of the compute type, that of soft targets
        zero = splat(0.0, tag)
        frame = frame_of(against, tag)
        m = splat(against.reference, tag)
        v_s, v_sd, v_s2 = v
        others, rank, spot = counts
        v_flat = splat(0.0, 0.0)
        v_flat_weight = splat(0.0, 0.0)
        v_soft = splat(0.0, 0.0)
        v_soft_weight = splat(0.0, 0.0)
        while c < end:
            count = min(end - c, w)
            if not plain:
                fetch(row + c * size + over, w * size)
            x = read(row, c, count, tag, shape.mask_at if shaped else 0)
            threshold = zero
            if full:
                pair = c // (2 * w) * (2 * w)
                threshold = load(threshold_at(thresholds, pair, turn) + (c - pair) // w * VECTOR, real)
            if mode == PROBS:
                x = keep_first(x, count)
            z = x
            if shaped or mode == PROBS:
                z = apply_shape(x, shape, mode)
            if mode == LOGITS:
                v_s, v_sd, v_s2, k, j = add_record(v_s, v_sd, v_s2, x, z - splat(against.shift, tag), frame, threshold)
                others += k
                rank += j
                if plain and full:
                    spot = min(spot, NOWHERE if k == w else c // (2 * w) * (2 * w))
            else:
                d = floor_exp(z)
                if mode == PROBS:
                    e = x * splat(1.0 / unbias(tag), tag)
                else:
                    e = exp_biased(d)
                v_s = v_s + e
                v_sd = fma(e, d, v_sd)
                v_s2 = fma(e, e, v_s2)
                rank += count_ge(x, threshold)
            if mixed:
                d = z - m
                weight = keep_first(splat(1.0, tag), count)
                if shape.weight_at != 0:
                    weight = narrow_load(shape.weight_at + c * 8, count, tag)
                v_flat_weight = add_wide(v_flat_weight, weight, count)
                v_flat = add_wide(v_flat, select_eq(weight, zero, zero, weight * d), count)
                if q_row != 0:
                    q = load_first(q_row + c * itemsize(real), count, real)
                    q = keep_first(q, count) * weight
                    v_soft_weight = add_wide(v_soft_weight, q, count)
                    v_soft = add_wide(v_soft, select_eq(q, zero, zero, q * d), count)
            c += w
        return Lanes(v_s, v_sd, v_s2), Counts(others, rank, spot), (v_flat, v_flat_weight, v_soft, v_soft_weight)

    return record_rest
