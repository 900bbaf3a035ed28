"""The row record: everything a metric needs, read off a row of C logits in one pass.

A row is taken in blocks of 2048 numbers, which stay in the first-level cache: the maximum of the block, then its
exponentials against the maximum so far, while the next block is fetched. Sums are carried in float64 from block to
block and rescaled when the maximum rises, so a row is read from memory once, whatever its length. The order of
operations depends on C and dtype alone. Up to `NARROW` classes a row is too short for vectors, and 16 (or 8) rows
are taken side by side instead: see narrow.py. Taking the next block's maximum inside the exponential loop instead of
prefetching it gained 5 % on one thread, nothing on two, and cost a second code path for row ends.

Kernels trust their caller (`launch.py`): addresses, strides and array lengths have been proven.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from fastxent.kernels.jit import inline, jit
from fastxent.kernels.simd import (
    add_exp,
    add_wide,
    count_ge,
    counters,
    exp_biased,
    first_equal,
    floor_exp,
    fma,
    itemsize,
    keep_first,
    lanes,
    load,
    load_first,
    load_flags,
    load_scalar,
    log,
    lowest,
    max_lanes,
    narrow_load,
    next_above,
    prefetch,
    select_eq,
    select_gt,
    splat,
    sum_lanes,
    tanh,
    unbias,
    vmax,
)  # fmt: skip

BLOCK = 2048
NARROW = 48  # classes up to which rows are taken side by side (measured: the two meet between 48 and 64)

# rows of the float64 record
NLL, LSE, MAX, SUM_P, LOG_SUM, CONFIDENCE, ENTROPY, SUM_P2, LINEAR, SOFT, SOFT_WEIGHT = range(11)
FIELDS = 11
# rows of the int64 record
PREDICTED, RANK = range(2)
# status of a row
USED, IGNORED, BAD_LOGITS, BAD_TARGET = range(4)
NO_TARGET = np.iinfo(np.int64).min  # a target that is not there: the row is used, nll and rank are not

LOGITS, LOG_PROBS, PROBS = range(3)  # what the numbers are


@inline
def exp_one(x):  # type: ignore[no-untyped-def]
    """exp of one float64 <= 0, from the same polynomial on every machine."""
    return max_lanes(exp_biased(splat(x, 0.0))) * unbias(0.0)


@inline
def log_one(x):  # type: ignore[no-untyped-def]
    """log of one float64, from the same polynomial on every machine."""
    y = log(splat(x, 0.0))
    return sum_lanes(keep_first(y, 1))


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


@inline
def block_max(p, first, end, top, tag, mask_at):  # type: ignore[no-untyped-def]
    """The largest of ``top`` and the numbers ``first``..``end`` of the row at ``p``; NaN is passed over."""
    w = lanes(tag)
    m0 = splat(top, tag)
    m1 = m0
    m2 = m0
    m3 = m0
    c = first
    while c + 4 * w <= end:
        m0 = vmax(read(p, c, w, tag, mask_at), m0)
        m1 = vmax(read(p, c + w, w, tag, mask_at), m1)
        m2 = vmax(read(p, c + 2 * w, w, tag, mask_at), m2)
        m3 = vmax(read(p, c + 3 * w, w, tag, mask_at), m3)
        c += 4 * w
    while c < end:
        m0 = vmax(read(p, c, min(end - c, w), tag, mask_at), m0)
        c += w
    return max_lanes(vmax(vmax(m0, m1), vmax(m2, m3)))


@inline
def find_first(p, first, end, value, tag, mask_at):  # type: ignore[no-untyped-def]
    """Index of the first number of the row equal to ``value``, which is there."""
    w = lanes(tag)
    c = first
    at = first_equal(read(p, c, min(end - c, w), tag, mask_at), value)
    while at == w and c + w < end:
        c += w
        at = first_equal(read(p, c, min(end - c, w), tag, mask_at), value)
    return c + at


@inline
def count_equal(p, first, end, value, tag, mask_at):  # type: ignore[no-untyped-def]
    """How many of the numbers ``first``..``end`` equal ``value``."""
    w = lanes(tag)
    sought = splat(value, tag)
    total = counters(tag)
    c = first
    while c + w <= end:
        x = read(p, c, w, tag, mask_at)
        total = count_ge(total, select_eq(x, sought, x, splat(np.nan, x)), sought)
        c += w
    if c < end:
        x = read(p, c, end - c, tag, mask_at)
        ones = keep_first(select_eq(x, sought, splat(1.0, x), splat(0.0, x)), end - c)
        total = count_ge(total, ones, splat(1.0, x))
    return sum_lanes(total)


@inline
def block_exp_sum(p, first, end, ahead, reference, tag):  # type: ignore[no-untyped-def]
    """Sum of exp(x - reference), biased, over plain logits ``first``..``end``; ``ahead`` is fetched meanwhile."""
    w = lanes(tag)
    step = w * itemsize(tag)
    m = splat(reference, tag)
    s0 = splat(0.0, tag)
    s1 = s0
    s2 = s0
    s3 = s0
    c = first
    while c + 4 * w <= end:
        q = p + c * itemsize(tag)
        fetch = ahead + (c - first) * itemsize(tag)
        s0 = add_exp(s0, load(q, tag) - m)
        s1 = add_exp(s1, load(q + step, tag) - m)
        s2 = add_exp(s2, load(q + 2 * step, tag) - m)
        s3 = add_exp(s3, load(q + 3 * step, tag) - m)
        line = 0
        while line < 4 * step:
            prefetch(fetch + line)
            line += 64
        c += 4 * w
    while c < end:
        prefetch(ahead + (c - first) * itemsize(tag))
        s0 = add_exp(s0, load_first(p + c * itemsize(tag), min(end - c, w), tag) - m)
        c += w
    return sum_lanes((s0 + s1) + (s2 + s3))


@inline
def gather(x, m, threshold, s, sd, s2, count):  # type: ignore[no-untyped-def]
    """Take a vector of plain logits into Σe, Σe·d, Σe² and the count of those at or above the threshold."""
    d = floor_exp(x - m)
    e = exp_biased(d)
    return s + e, fma(e, d, sd), fma(e, e, s2), count_ge(count, x, threshold)


@functools.cache
def wide_kernel(full: bool, linear: bool, soft: bool, shaped: bool, mode: int) -> Any:
    """The kernel for one set of compile-time flags.

    full: confidence, entropy, sum of p², predicted class and rank beside nll and lse. linear: Σ w·z (label smoothing).
    soft: Σ q·w·z and Σ q·w for a row q of target probabilities. shaped: softcap, temperature or a class mask
    is given. mode: what the numbers are.
    """

    @jit
    def kernel(addr, stride, n, n_classes, tag, target, ignore, softcap, temperature, mask_at,
               weight_at, q_at, q_stride, record, ids, status):  # type: ignore[no-untyped-def]  # fmt: skip
        w = lanes(tag)
        size = itemsize(tag)
        real = lowest(tag)  # a tag of the compute type, that of soft targets
        zero = splat(0.0, tag)
        if not shaped:
            mask_at = 0
        for i in range(n):
            row = addr + i * stride
            t = target[i]
            if t == ignore:
                status[i] = IGNORED
                continue
            if t != NO_TARGET and not (0 <= t < n_classes):
                status[i] = BAD_TARGET
                continue
            here = lowest(tag)  # of the same type as the logits
            if t != NO_TARGET:
                here = load_scalar(row + t * size, tag)
                if mask_at != 0:
                    here = max_lanes(read(row, t, 1, tag, mask_at))
            above = next_above(here)
            top = lowest(tag)
            reference = lowest(tag)
            if mode != LOGITS:
                reference = reference * 0 + 0
            s = 0.0
            sd = 0.0
            s2 = 0.0
            flat = 0.0
            mixed = 0.0
            mixed_weight = 0.0
            rank = 0
            top_block = 0
            for first in range(0, n_classes, BLOCK):
                end = min(first + BLOCK, n_classes)
                ahead = row + end * size if end < n_classes else row + stride
                peak = block_max(row, first, end, top, tag, mask_at)
                if peak > top:
                    top = peak
                    top_block = first
                    if mode == LOGITS:
                        risen = top
                        if shaped:
                            risen = max_lanes(shape(splat(top, tag), softcap, temperature, mode))
                        if s != 0.0:
                            fall = float(reference) - float(risen)
                            f = exp_one(fall)
                            if f == 0.0:
                                sd = s * 0.0  # keeps NaN
                                s2 = s * 0.0
                            else:
                                sd = f * (sd + fall * s)
                                s2 = f * f * s2
                            s *= f
                        reference = risen
                if not (full or linear or soft or shaped or mode != LOGITS):
                    s += block_exp_sum(row, first, end, ahead, reference, tag) * unbias(tag)
                else:
                    m = splat(reference, tag)
                    threshold = splat(here if t >= end else above, tag)
                    v_s = zero
                    v_sd = zero
                    v_s2 = zero
                    v_count = counters(tag)
                    v_flat = splat(0.0, 0.0)
                    v_mixed = splat(0.0, 0.0)
                    v_weight = splat(0.0, 0.0)
                    c = first
                    if full and not (linear or soft or shaped or mode != LOGITS):  # the common case, two at a time
                        u_s = zero
                        u_sd = zero
                        u_s2 = zero
                        u_count = counters(tag)
                        while c + 2 * w <= end:
                            fetch = ahead + (c - first) * size
                            line = 0
                            while line < 2 * w * size:
                                prefetch(fetch + line)
                                line += 64
                            v_s, v_sd, v_s2, v_count = gather(
                                load(row + c * size, tag), m, threshold, v_s, v_sd, v_s2, v_count
                            )
                            u_s, u_sd, u_s2, u_count = gather(
                                load(row + (c + w) * size, tag), m, threshold, u_s, u_sd, u_s2, u_count
                            )
                            c += 2 * w
                        v_s = v_s + u_s
                        v_sd = v_sd + u_sd
                        v_s2 = v_s2 + u_s2
                        v_count = v_count + u_count
                    while c < end:
                        count = min(end - c, w)
                        prefetch(ahead + (c - first) * size)
                        x = read(row, c, count, tag, mask_at)
                        if mode == PROBS:
                            x = keep_first(x, count)
                        z = x
                        if shaped or mode == PROBS:
                            z = shape(x, softcap, temperature, mode)
                        d = floor_exp(z - m)
                        if mode == PROBS:
                            e = x * splat(1.0 / unbias(tag), tag)
                        else:
                            e = exp_biased(d)
                        v_s = v_s + e
                        if full:
                            v_sd = fma(e, d, v_sd)
                            v_s2 = fma(e, e, v_s2)
                            v_count = count_ge(v_count, x, threshold)
                        if linear:
                            if weight_at == 0:
                                v_flat = add_wide(v_flat, z, count)
                            else:
                                weight = narrow_load(weight_at + c * 8, count, tag)
                                v_flat = add_wide(v_flat, select_eq(weight, zero, zero, weight * z), count)
                        if soft:
                            q = keep_first(load_first(q_at + i * q_stride + c * itemsize(real), count, real), count)
                            if weight_at != 0:
                                q = q * narrow_load(weight_at + c * 8, count, tag)
                            v_weight = add_wide(v_weight, q, count)
                            v_mixed = add_wide(v_mixed, select_eq(q, zero, zero, q * z), count)
                        c += w
                    scale = unbias(tag)
                    s += sum_lanes(v_s) * scale
                    sd += sum_lanes(v_sd) * scale
                    s2 += sum_lanes(v_s2) * (scale * scale)
                    rank += sum_lanes(v_count)
                    flat += sum_lanes(v_flat)
                    mixed += sum_lanes(v_mixed)
                    mixed_weight += sum_lanes(v_weight)
                    if full and t != NO_TARGET and first <= t < end:
                        rank += count_equal(row, first, t, here, tag, mask_at)
            status[i] = USED
            if mode == LOGITS:
                if not 0.5 <= s < np.inf:  # NaN, +inf, or nothing above -inf: the maximum itself gives 1
                    status[i] = BAD_LOGITS
            elif not s < np.inf:
                status[i] = BAD_LOGITS
            base = float(reference)
            log_s = log_one(s) if mode == LOGITS else 0.0
            if status[i] == BAD_LOGITS:
                base = np.nan
            z_t = float(here)
            if shaped or mode == PROBS:
                z_t = float(max_lanes(shape(splat(here, tag), softcap, temperature, mode)))
                if here == -np.inf or (mode == PROBS and here == 0.0):
                    z_t = -np.inf
            record[NLL, i] = (base - z_t) + log_s if t != NO_TARGET else np.nan
            record[LSE, i] = base + log_s
            record[MAX, i] = reference if mode == LOGITS else top
            record[SUM_P, i] = s
            record[LOG_SUM, i] = log_s
            if linear:
                record[LINEAR, i] = flat
            if soft:
                record[SOFT, i] = mixed
                record[SOFT_WEIGHT, i] = mixed_weight
            if full:
                if mode == LOGITS:
                    record[CONFIDENCE, i] = 1.0 / s
                    entropy = log_s - sd / s
                    record[SUM_P2, i] = s2 / (s * s)
                else:
                    record[CONFIDENCE, i] = float(top) if mode == PROBS else exp_one(float(top))
                    entropy = -sd
                    record[SUM_P2, i] = s2
                record[ENTROPY, i] = 0.0 if abs(entropy) <= 1e-40 else entropy  # specks of masked classes
                if status[i] == USED:
                    ids[PREDICTED, i] = find_first(row, top_block, n_classes, top, tag, mask_at)
                ids[RANK, i] = rank if t != NO_TARGET else -1

    return kernel
