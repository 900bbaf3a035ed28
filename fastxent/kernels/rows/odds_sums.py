"""All sums of rows of one float32 number each, of a block while its record is in the first-level cache.

For rows that are all used, unweighted, and each of one class. The record holds float32 numbers, so that a product of
two is a double. Sums are of the numbers that `kernels.fold` and `kernels.cuts` sum elsewhere, and have the same bits.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from fastxent.kernels.cuts import add_block
from fastxent.kernels.grid import WHOLE_BITS, add_singles, list_residues
from fastxent.kernels.jit import inline, jit
from fastxent.kernels.rows.odds import BRIER, ENTROPY, FIELDS, LOSS, NLL, PROBABILITY, odds_rows
from fastxent.kernels.simd.arithmetic import fma, keep_first, max_lanes, select_ge, splat, sum_lanes, vmax
from fastxent.kernels.simd.fields import load_flags, load_wide
from fastxent.kernels.simd.memory import load, load_first, store
from fastxent.kernels.simd.types import itemsize, lanes
from fastxent.kernels.summed import fold_apart, fold_narrow, span_of
from fastxent.kernels.tally import tally_singles

BLOCK = 512  # rows: their record takes 8 kB
# Sums: the columns of the record, each in its place there, then their squares. In the places of `LOSS`, the NLL and the
# probability of the positive rows.
SUMS, SQUARES, NLL_POSITIVE, PROBABILITY_POSITIVE = 2 * FIELDS, FIELDS, LOSS, FIELDS + LOSS
POSITIVE, PREDICTED, BOTH, INSIDE = range(4)  # counts: positive rows, predicted to be, both; numbers from 0 to 1
_INFINITE = 255  # the exponent of float32 numbers that are not finite


def room() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Room for a block: its record, targets, places, and what sums of the grid lack or what is multiplied."""
    return (
        np.empty((FIELDS, BLOCK), np.float32),
        np.empty(BLOCK, np.float32),
        np.empty((2, BLOCK), np.int64),
        np.empty(2 * BLOCK),
    )


@inline
def _fold(record, k, target_at, n, span, sums, room_at):  # type: ignore[no-untyped-def]
    """Add a column of ``n`` rows, a multiple of 8, to its sums."""
    at = record.ctypes.data + k * 4 * record.shape[1]
    if not fold_narrow(at, target_at, n, span, sums):
        fold_apart(at, target_at, n, span, sums, room_at)


@jit
def _fold_record(record, target_at, n, sums, room_at):  # type: ignore[no-untyped-def]
    """Add ``n`` rows, a multiple of 8, to ``sums``. False if a loss is not finite."""
    patterns = record.view(np.uint32)
    for k in (NLL, PROBABILITY, ENTROPY, BRIER):
        span, squares = span_of(patterns[k, :n]), sums[SQUARES + k]
        if span[0] == _INFINITE:
            return False
        if span[1] > _INFINITE:  # all are 0
            continue
        if k == NLL:
            _fold(record, k, target_at, n, span, (sums[k], sums[NLL_POSITIVE], squares), room_at)
        elif k == PROBABILITY:
            _fold(record, k, target_at, n, span, (sums[k], sums[PROBABILITY_POSITIVE], squares), room_at)
        else:
            _fold(record, k, None, n, span, (sums[k], sums[k], squares), room_at)
    return True


@jit
def _spread(positive, n, target_at, tag):  # type: ignore[no-untyped-def]
    """Bytes 1 and 0 as float32 numbers; of the last vector, what is behind them is 0."""
    at, w, zero = positive.ctypes.data, lanes(tag), splat(0.0, tag)
    whole = n // w * w
    for i in range(0, whole, w):
        store(target_at + itemsize(tag) * i, load_flags(at + i, w, zero), tag)
    if whole < n:
        store(target_at + itemsize(tag) * whole, load_flags(at + whole, n - whole, zero), tag)


@jit
def _extend(numbers, n, extremes):  # type: ignore[no-untyped-def]
    """Take ``n`` float32 numbers, none of them negative, into the least and the largest."""
    at, whole, tag = numbers.ctypes.data, n // 16 * 16, np.float32(0.0)
    zero = splat(0.0, tag)
    top, low = splat(extremes[1], tag), splat(-extremes[0], tag)
    for i in range(0, whole, 16):
        x = load(at + 4 * i, tag)
        top, low = vmax(x, top), vmax(zero - x, low)
    extremes[0], extremes[1] = -max_lanes(low), max_lanes(top)
    for i in range(whole, n):
        x = np.float64(numbers[i])
        extremes[0], extremes[1] = min(extremes[0], x), max(extremes[1], x)


@jit
def _count(given, tag, target, n, rule, counts):  # type: ignore[no-untyped-def]
    """Count rows by class and prediction. ``rule``: the temperature, and the least number that is predicted to be."""
    at, target_at, whole = given.ctypes.data, target.ctypes.data, n // 8 * 8
    one, zero = splat(1.0, 0.0), splat(0.0, 0.0)
    temperature, least = splat(rule[0], 0.0), splat(rule[1], 0.0)
    held, called, both, inside = zero, zero, zero, zero
    for i in range(0, whole, 8):
        x, t = load_wide(at + itemsize(tag) * i, tag), load_wide(target_at + itemsize(tag) * i, tag)
        predicted = select_ge(x / temperature, least, one, zero)
        held, called, both = held + t, called + predicted, fma(predicted, t, both)
        inside = inside + select_ge(x, zero, select_ge(one, x, one, zero), zero)
    counts[POSITIVE] += np.int64(sum_lanes(held))
    counts[PREDICTED] += np.int64(sum_lanes(called))
    counts[BOTH] += np.int64(sum_lanes(both))
    counts[INSIDE] += np.int64(sum_lanes(inside))
    for i in range(whole, n):
        x = np.float64(given[i])
        predicted = x / rule[0] >= rule[1]
        counts[POSITIVE] += np.int64(target[i])
        counts[PREDICTED] += predicted
        counts[BOTH] += predicted & (target[i] != 0.0)
        counts[INSIDE] += (x >= 0.0) & (x <= 1.0)


@functools.cache
def sums_kernel(with_logits: bool) -> Any:
    """The kernel for log-odds or for probabilities."""
    parts, cost, brier = odds_rows(with_logits)

    @inline
    def some(i, count, values, tag, target, record, stride):  # type: ignore[no-untyped-def]
        """Rows ``i`` .. ``i + count`` of a block, at most a vector; the record of those behind them is 0. Returns 1
        where the number is not valid, else 0."""
        x, t = load_first(values + i * itemsize(tag), count, tag), load(target + i * itemsize(tag), tag)
        p, h, needed, invalid = parts(x, tag)
        at = record + i * itemsize(tag)
        store(at + PROBABILITY * stride, keep_first(p, count), tag)
        store(at + ENTROPY * stride, keep_first(h, count), tag)
        store(at + NLL * stride, keep_first(cost(x, t, needed), count), tag)
        store(at + BRIER * stride, keep_first(brier(x, t, p, needed), count), tag)
        return keep_first(invalid, count)

    @jit
    def kernel(numbers, rule, bins, sums, counts, histogram, calibration, space):  # type: ignore[no-untyped-def]
        """Sum rows. False if one is not valid or has an infinite loss: nothing that was summed counts then.

        numbers: a tuple of what was given and what is scored, float32 (n,), and uint8 (n,) 0 or 1, the class.
        rule: a tuple of the temperature, the least number that is predicted positive, and the tag of the numbers.
        sums: int64 (SUMS, WORDS). counts: int64 (4,). histogram: a tuple of int64 counts, the first pattern and the
        shift of `tally_patterns`, and the least and the largest of NLL, float64 (2,).
        calibration: a tuple of what `cuts.add_block` takes, for what the sums of the grid lack, and the words of
        `grid.add_singles`. space: `room` and that of `cuts`.
        """
        given, scored, positive = numbers
        temperature, least, tag = rule
        losses, first, shift, extremes = histogram
        (record, target, places, residues), cut = space
        cuts, words = calibration
        target_at, record_at, stride = target.ctypes.data, record.ctypes.data, itemsize(tag) * record.shape[1]
        w = lanes(tag)
        for begin in range(0, given.size, BLOCK):
            n = min(BLOCK, given.size - begin)
            _spread(positive[begin : begin + n], n, target_at, tag)
            at, whole = scored.ctypes.data + itemsize(tag) * begin, n // w * w
            invalid = splat(0.0, tag)
            for i in range(0, whole, w):
                invalid = invalid + some(i, w, at, tag, target_at, record_at, stride)
            if whole < n:
                invalid = invalid + some(whole, n - whole, at, tag, target_at, record_at, stride)
            wide = (n + w - 1) // w * w
            if sum_lanes(invalid) > 0.0 or not _fold_record(record, target_at, wide, sums, residues.ctypes.data):
                return False
            _extend(record[NLL], n, extremes)
            tally_singles(record[NLL, :n].view(np.int32), shift, first, losses, places[0])
            probability = record[PROBABILITY]
            add_singles(probability, target, n, bins, WHOLE_BITS, words, places)
            rest = list_residues(probability, n, bins, WHOLE_BITS, residues, places.reshape(2 * BLOCK))
            if rest:
                add_block(residues, places.reshape(2 * BLOCK), rest, 0, *cuts, cut)
            _count(given[begin : begin + n], tag, target, n, (temperature, least), counts)
        return True

    return kernel
