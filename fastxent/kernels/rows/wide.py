"""The row record: everything a metric needs, read off a row of C logits in one pass.

A row is taken in blocks of 1024 numbers, which stay in the first-level cache: exponentials of one block against the
maximum so far, while the maximum of the next block, or of the next row, is found. Sums are carried in float64 from
block to block and rescaled when the maximum rises, so a row is read from memory once, whatever its length. The order
of operations depends on C and dtype alone. Up to `NARROW` classes a row is too short for vectors, and 16 (or 8) rows
are taken side by side instead: see narrow.py.

Kernels trust their caller (`launch.py`): addresses, strides and array lengths have been proven.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from fastxent.kernels.jit import inline, jit
from fastxent.kernels.rows.record import (
    BAD_LOGITS, BAD_TARGET, CONFIDENCE, ENTROPY, HERE, IGNORED, LEFT, LINEAR, LOGITS, MAX, MORE, PREDICTED, PROBS,
    RANK, REST, SOFT, SOFT_WEIGHT, SUM_P2, USED, finish,
)  # fmt: skip
from fastxent.kernels.simd.arithmetic import (
    add_wide, count_ge, first_equal, fma, keep_first, max_lanes, next_above, select_eq, select_gt, splat, sum_lanes,
    vmax,
)  # fmt: skip
from fastxent.kernels.simd.exponentials import add_exp, add_record, exp_biased, exp_limits, floor_exp, log, tanh, unbias
from fastxent.kernels.simd.fields import load_flags, narrow_load
from fastxent.kernels.simd.memory import load, load_first, load_scalar, load_two, store
from fastxent.kernels.simd.peaks import higher, no_peak, peak, peak_of
from fastxent.kernels.simd.prefetch import goes_on_in_page, prefetch, prefetch_far
from fastxent.kernels.simd.types import itemsize, lanes, lowest

BLOCK = 1024
VECTOR = 64  # bytes
SCRATCH = 6 * VECTOR  # bytes: thresholds
NOWHERE = 1 << 62  # beyond any class
NEAR, FAR, PAGE = 3 << 9, 1 << 13, 1 << 12  # bytes
NARROW = 48  # classes up to which rows are taken side by side (measured: the two meet between 48 and 64)
STEP, STEP_LOW = 0.6931471803691238 / 16, 1.9082149292705877e-10 / 16  # ln 2 / 16; the first of 32 bits


@inline
def exp_one(x):  # type: ignore[no-untyped-def]
    """exp of one float64 < 1, from the same polynomial on every machine."""
    return max_lanes(exp_biased(splat(x, 0.0))) * unbias(0.0)


@inline
def settle(top, tag):  # type: ignore[no-untyped-def]
    """(shift, base, steps, left) of a maximum = shift + base = shift + steps·(ln 2)/16 + left, for a whole number.

    In float32 ``steps`` makes a power of 2, against which exponentials are taken without a rounded difference and
    without more work; the sums are then against the maximum less ``left``. In float64 every exponential takes ``left``
    off, and the sums are against the maximum.
    """
    low, _, slack, multiple = exp_limits(tag)
    m = float(top)
    shift = 0.0 if abs(m) < -2.0 * low else m
    base = m - shift
    steps = np.floor(base / ((STEP + STEP_LOW) * multiple) + 0.5) * multiple
    return shift, base, steps, (base - steps * STEP) - (steps * STEP_LOW + base * slack)


@inline
def frame_of(base, steps, left, tag):  # type: ignore[no-untyped-def]
    """What `add_exp` takes exponentials of shifted numbers against: see `elementary.exp_steps`."""
    low, magic, _, _ = exp_limits(tag)
    return splat(base, tag), splat(base + low, tag), splat(magic - steps, tag), splat(left, tag)


@inline
def read(p, first, count, tag, mask_at):  # type: ignore[no-untyped-def]
    """Numbers ``first``.. of a row at ``p``; -inf where a class is masked and in lanes from ``count`` on."""
    x = load_first(p + first * itemsize(tag), count, tag)
    if mask_at != 0:
        off = splat(-np.inf, x)
        x = select_gt(load_flags(mask_at + first, count, x), splat(0.0, x), x, off)
    return x


@inline
def shape(x, softcap, temperature, mode):  # type: ignore[no-untyped-def]
    """Softcap, then temperature; probabilities become logarithms. Infinities stay: a masked class, a broken row."""
    if mode == PROBS:
        return log(x)
    z = x
    if softcap > 0.0:
        cap = splat(softcap, x)
        z = tanh(z / cap) * cap
    z = z / splat(temperature, x)
    off = splat(-np.inf, x)
    broken = splat(np.inf, x)
    return select_eq(x, off, off, select_eq(x, broken, broken, z))


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
def add_two_records(v_s, v_sd, v_s2, u_s, u_sd, u_s2, p, frame, table, tag):  # type: ignore[no-untyped-def]
    """`add_record` of two vectors."""
    x, y = load_two(p, tag)
    before, after = load_two(table, lowest(tag))
    v_s, v_sd, v_s2, a, b = add_record(v_s, v_sd, v_s2, x, x, frame, before)
    u_s, u_sd, u_s2, c, d = add_record(u_s, u_sd, u_s2, y, y, frame, after)
    return v_s, v_sd, v_s2, u_s, u_sd, u_s2, a + c, b + d


@inline
def fetch(front, nbytes):  # type: ignore[no-untyped-def]
    """Ask for the lines of ``nbytes`` beyond ``front``, where numbers are read for the first time.

    Near, into the first-level cache; and into the second what the processor does not ask for by itself: the first
    lines of the next page, from which its own prefetcher goes on, or all that is far. After the loads of the loop: in
    front of them it made a loop from memory a fifth slower.
    """
    for line in range(0, nbytes, 64):
        prefetch(front + NEAR + line)
        if not goes_on_in_page():
            prefetch_far(front + FAR + line)
    if goes_on_in_page() and front % PAGE < nbytes:
        for line in range(0, 256, 64):
            prefetch_far(front + PAGE + line)


@functools.cache
def wide_kernel(full: bool, mixed: bool, shaped: bool, mode: int) -> Any:
    """The kernel for one set of compile-time flags.

    full: the whole record, predicted class and rank beside nll and lse. mixed: also Σ w·(z - max) for label smoothing,
    and, where target probabilities q are given, Σ q·w·(z - max) and Σ q·w. shaped: softcap, temperature or a class mask
    is given. mode: what the numbers are.

    A target that equals ``ignore`` makes a row ignored, one that equals ``none`` is missing. Results go into ``status``
    and into columns ``at``.. of ``record`` and ``ids``. ``scratch`` is the address of `SCRATCH` bytes.
    """
    plain = not (mixed or shaped or mode != LOGITS)

    @jit
    def kernel(addr, stride, n, n_classes, tag, target, ignore, none, softcap, temperature, mask_at,
               weight_at, q_at, q_stride, record, ids, status, at, scratch):  # type: ignore[no-untyped-def]  # fmt: skip
        w = lanes(tag)
        size = itemsize(tag)
        real = lowest(tag)  # a tag of the compute type, that of soft targets
        zero = splat(0.0, tag)
        scale = unbias(tag)
        if not shaped:
            mask_at = 0
        next_peak = lowest(tag)  # the maximum of the next block, if known
        known = False
        for i in range(n):
            row = addr + i * stride
            t = target[i]
            if t == ignore or (t != none and not (0 <= t < n_classes)):
                status[i] = IGNORED if t == ignore else BAD_TARGET
                record[MAX, at + i] = np.nan
                record[REST, at + i] = 0.0
                record[LEFT, at + i] = 0.0
                record[MORE, at + i] = 0.0
                if full:
                    ids[PREDICTED, at + i] = -1
                    ids[RANK, at + i] = -1
                continue
            here = lowest(tag)  # of the same type as the logits
            if t != none:
                here = load_scalar(row + t * size, tag)
                if mask_at != 0:
                    here = max_lanes(read(row, t, 1, tag, mask_at))
            if full:
                set_thresholds(scratch, here, max(t, 0), tag)
            turn = max(t, 0) // (2 * w) * (2 * w)
            top = lowest(tag)
            reference = lowest(tag)
            if mode != LOGITS:
                reference = reference * 0 + 0
            shift, base, steps, left = float(top), 0.0, 0.0, 0.0
            off = 0.0  # what sums are against is the maximum less this
            s = 0.0  # Σ exp without the maxima, of which there are ``maxima``
            maxima = 0
            sd = 0.0
            s2 = 0.0
            flat = 0.0
            flat_weight = 0.0
            soft = 0.0
            soft_weight = 0.0
            rank = 0
            top_block = 0
            spot = NOWHERE  # the first pair of vectors with a maximum
            for first in range(0, n_classes, BLOCK):
                end = min(first + BLOCK, n_classes)
                highest = next_peak
                if not known:
                    highest = block_max(row, first, end, tag, mask_at, no_peak(tag))
                # The maximum of the next block, ``begin``..``limit`` of the row at ``beside``, is found on the way
                # through this one: what waits for a maximum has it at once, and the loads cost nothing.
                beside = row
                begin = end
                limit = min(end + BLOCK, n_classes)
                if end == n_classes:
                    beside = row + stride
                    begin = 0
                    limit = 0
                    following = target[i + 1] if i + 1 < n else ignore
                    if following != ignore and (0 <= following < n_classes or following == none):
                        limit = min(BLOCK, n_classes)
                known = limit > begin
                over = beside + begin * size - (row + first * size)
                found = no_peak(tag)
                if highest > top or first == 0:
                    top = highest
                    top_block = first
                    spot = NOWHERE
                    if mode == LOGITS:
                        risen = top
                        if shaped:
                            shaped_top = shape(splat(top, tag), softcap, temperature, mode)
                            risen = max_lanes(vmax(shaped_top, splat(lowest(tag), tag)))
                        before, off_before = float(reference), off
                        shift, base, steps, left = settle(risen, tag)
                        if exp_limits(tag)[2] != 0.0:
                            off = left
                        if first > 0:
                            fall = before - float(risen)
                            back = fall - before
                            lost = (before - (fall - back)) - (float(risen) + back)
                            own = exp_one(off_before)
                            f = exp_one(fall + (off - off_before))
                            f = f + f * lost if f > 0.0 else 0.0
                            s += maxima * own
                            s2 += maxima * (own * own)
                            if f == 0.0:
                                sd = s * 0.0  # keeps NaN
                                s2 = s * 0.0
                            else:
                                sd = f * (sd + fall * s)
                                s2 = f * f * s2
                            s *= f
                            if mixed:
                                if flat_weight != 0.0:
                                    flat += fall * flat_weight
                                if soft_weight != 0.0:
                                    soft += fall * soft_weight
                            maxima = 0
                        reference = risen
                m = splat(reference, tag)
                frame = frame_of(base, steps, left, tag)
                v_s = zero
                u_s = zero
                others = 0
                c = first
                whole = end if plain and shift == 0.0 else first  # as far as numbers are taken as they stand
                both = min(whole, first + limit - begin)  # as far as the next block is as long
                reached = first  # as far as its maximum has been looked for
                if plain and not full:
                    while c + 4 * w <= both:  # as two pairs: the sums are those of the full record, bit for bit
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
                        x = load_first(row + c * size, min(end - c, w), tag) - splat(shift, tag)
                        v_s, k = add_exp(v_s, x, frame)
                        others += k
                        c += w
                else:
                    v_sd = zero
                    v_s2 = zero
                    if plain:  # two at a time
                        u_sd = zero
                        u_s2 = zero
                        while c + 2 * w <= both:
                            p = row + c * size
                            found = peak(found, p + over, tag)
                            table = threshold_at(scratch, c, turn)
                            v_s, v_sd, v_s2, u_s, u_sd, u_s2, k, j = add_two_records(
                                v_s, v_sd, v_s2, u_s, u_sd, u_s2, p, frame, table, tag
                            )
                            others += k
                            rank += j
                            spot = min(spot, NOWHERE if k == 2 * w else c)
                            fetch(p + over, 2 * w * size)
                            c += 2 * w
                        reached = c
                        while c + 2 * w <= whole:
                            table = threshold_at(scratch, c, turn)
                            v_s, v_sd, v_s2, u_s, u_sd, u_s2, k, j = add_two_records(
                                v_s, v_sd, v_s2, u_s, u_sd, u_s2, row + c * size, frame, table, tag
                            )
                            others += k
                            rank += j
                            spot = min(spot, NOWHERE if k == 2 * w else c)
                            c += 2 * w
                        v_sd = v_sd + u_sd
                        v_s2 = v_s2 + u_s2
                    v_flat = splat(0.0, 0.0)
                    v_flat_weight = splat(0.0, 0.0)
                    v_soft = splat(0.0, 0.0)
                    v_soft_weight = splat(0.0, 0.0)
                    while c < end:
                        count = min(end - c, w)
                        if not plain:
                            fetch(row + c * size + over, w * size)
                        x = read(row, c, count, tag, mask_at)
                        threshold = zero
                        if full:
                            pair = c // (2 * w) * (2 * w)
                            table = threshold_at(scratch, pair, turn)
                            threshold = load(table + (c - pair) // w * VECTOR, real)
                        if mode == PROBS:
                            x = keep_first(x, count)
                        z = x
                        if shaped or mode == PROBS:
                            z = shape(x, softcap, temperature, mode)
                        if mode == LOGITS:
                            v_s, v_sd, v_s2, k, j = add_record(
                                v_s, v_sd, v_s2, x, z - splat(shift, tag), frame, threshold
                            )
                            others += k
                            rank += j
                            if plain and full:
                                spot = min(spot, NOWHERE if k == w else c // (2 * w) * (2 * w))
                        else:
                            d = floor_exp(z)
                            if mode == PROBS:
                                e = x * splat(1.0 / scale, tag)
                            else:
                                e = exp_biased(d)
                            v_s = v_s + e
                            v_sd = fma(e, d, v_sd)
                            v_s2 = fma(e, e, v_s2)
                            rank += count_ge(x, threshold)
                        if mixed:
                            d = z - m
                            weight = keep_first(splat(1.0, tag), count)
                            if weight_at != 0:
                                weight = narrow_load(weight_at + c * 8, count, tag)
                            v_flat_weight = add_wide(v_flat_weight, weight, count)
                            v_flat = add_wide(v_flat, select_eq(weight, zero, zero, weight * d), count)
                            if q_at != 0:
                                q = load_first(q_at + i * q_stride + c * itemsize(real), count, real)
                                q = keep_first(q, count) * weight
                                v_soft_weight = add_wide(v_soft_weight, q, count)
                                v_soft = add_wide(v_soft, select_eq(q, zero, zero, q * d), count)
                        c += w
                    sd += sum_lanes(v_sd) * scale
                    s2 += sum_lanes(v_s2) * (scale * scale)
                    if mixed:
                        flat += sum_lanes(v_flat)
                        flat_weight += sum_lanes(v_flat_weight)
                        soft += sum_lanes(v_soft)
                        soft_weight += sum_lanes(v_soft_weight)
                s += sum_lanes(v_s + u_s) * scale
                if known:
                    next_peak = block_max(beside, begin + reached - first, limit, tag, mask_at, found)
                if mode == LOGITS:
                    maxima += (end - first + w - 1) // w * w - others
            # NaN, +inf, or nothing above -inf: then no number equals the maximum
            fine = s < np.inf and (mode != LOGITS or maxima > 0)
            status[i] = USED if fine else BAD_LOGITS
            z_t = float(here)
            if shaped or mode == PROBS:
                z_t = float(max_lanes(shape(splat(here, tag), softcap, temperature, mode)))
            record[MAX, at + i] = float(reference) + 0.0 if fine else np.nan  # 0 for -0: which of them is by chance
            record[HERE, at + i] = z_t if t != none else np.nan
            record[REST, at + i] = s if mode == LOGITS else s - 1.0
            record[LEFT, at + i] = off
            record[MORE, at + i] = maxima - 1
            if mixed:
                record[LINEAR, at + i] = flat
                record[SOFT, at + i] = soft
                record[SOFT_WEIGHT, at + i] = soft_weight
            if full:
                record[CONFIDENCE, at + i] = top
                record[ENTROPY, at + i] = sd
                record[SUM_P2, at + i] = s2
                place = -1
                if fine and plain:
                    place = first_of_two(row, spot, n_classes, top, tag)
                elif fine:
                    place = find_first(row, top_block, n_classes, top, tag, mask_at)
                    if place >= n_classes:  # nothing but probabilities of 0
                        place = 0
                ids[PREDICTED, at + i] = place
                ids[RANK, at + i] = rank if fine and t != none else -1
        finish(at, n, record, tag, full, mode, False, True)

    return kernel
