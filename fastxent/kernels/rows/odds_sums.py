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
from fastxent.kernels.jit import jit
from fastxent.kernels.rows.odds import FIELDS, LOSS, NLL, PROBABILITY, odds_rows
from fastxent.kernels.simd.arithmetic import fma, max_lanes, select_ge, splat, sum_lanes, vmax
from fastxent.kernels.simd.fields import load_flags, load_wide, store_wide
from fastxent.kernels.simd.memory import load, store
from fastxent.kernels.simd.types import itemsize, lanes
from fastxent.kernels.summed import fold_exact, fold_singles, height_of
from fastxent.kernels.tally import tally_finite

BLOCK = 512  # rows: their record takes 20 kB
# Sums: the columns of the record, each in its place there, then their squares. In the places of `LOSS`, the NLL and the
# probability of the positive rows.
SUMS, SQUARES, NLL_POSITIVE, PROBABILITY_POSITIVE = 2 * FIELDS, FIELDS, LOSS, FIELDS + LOSS
POSITIVE, PREDICTED, BOTH, INSIDE = range(4)  # counts: positive rows, predicted to be, both; numbers from 0 to 1
_HIGHEST, _NOTHING = 400, -1500  # exponents of losses: squares of higher ones might be infinite; all are 0


def room() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Room for a block: its record and what is multiplied, targets, places, and what sums of the grid lack."""
    return (
        np.empty((FIELDS + 1, BLOCK)),
        np.empty(BLOCK, np.float32),
        np.empty((2, BLOCK), np.int64),
        np.empty(2 * BLOCK),
    )


@jit
def _fold_record(record, n, sums):  # type: ignore[no-untyped-def]
    """Add ``n`` rows, a multiple of 8, to ``sums``. False if a loss is too large."""
    first, line = record.ctypes.data, 8 * record.shape[1]
    out, share = first + FIELDS * line, first + LOSS * line
    high = height_of(first + NLL * line, n)
    if high > _HIGHEST:
        return False
    for k in range(FIELDS):
        at, top = first + k * line, high if k == NLL else 1
        if k == LOSS or top < _NOTHING:
            continue
        if k in (NLL, PROBABILITY):
            of_positive = sums[NLL_POSITIVE if k == NLL else PROBABILITY_POSITIVE]
            fold_singles(at, share, out, n, top + 1, of_positive)
        fold_exact(at, at, out, n, 2 * top + 1, sums[SQUARES + k])
        fold_singles(at, None, out, n, top + 1, sums[k])
    return True


@jit
def _spread(positive, n, target, share, tag):  # type: ignore[no-untyped-def]
    """Bytes 1 and 0 as float32 numbers and as doubles; of the last vector, what is behind them is 0."""
    at, target_at, share_at, w = positive.ctypes.data, target.ctypes.data, share.ctypes.data, lanes(tag)
    for i in range(0, n, w):
        t = load_flags(at + i, n - i, splat(0.0, tag))
        store(target_at + itemsize(tag) * i, t, tag)
        store_wide(share_at + 8 * i, w, t)


@jit
def _extend(numbers, n, extremes):  # type: ignore[no-untyped-def]
    """Take ``n`` numbers, none of them negative, into the least and the largest."""
    at, whole = numbers.ctypes.data, n // 8 * 8
    top, low = splat(extremes[1], 0.0), splat(-extremes[0], 0.0)
    for i in range(0, whole, 8):
        x = load(at + 8 * i, 0.0)
        top, low = vmax(x, top), vmax(splat(0.0, 0.0) - x, low)
    extremes[0], extremes[1] = -max_lanes(low), max_lanes(top)
    for i in range(whole, n):
        extremes[0], extremes[1] = min(extremes[0], numbers[i]), max(extremes[1], numbers[i])


@jit
def _count(given, tag, share, n, rule, counts):  # type: ignore[no-untyped-def]
    """Count rows by class and prediction. ``rule``: the temperature, and the least number that is predicted to be."""
    at, share_at, whole = given.ctypes.data, share.ctypes.data, n // 8 * 8
    one, zero = splat(1.0, 0.0), splat(0.0, 0.0)
    temperature, least = splat(rule[0], 0.0), splat(rule[1], 0.0)
    held, called, both, inside = zero, zero, zero, zero
    for i in range(0, whole, 8):
        x, t = load_wide(at + itemsize(tag) * i, tag), load(share_at + 8 * i, 0.0)
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
        counts[POSITIVE] += np.int64(share[i])
        counts[PREDICTED] += predicted
        counts[BOTH] += predicted & (share[i] != 0.0)
        counts[INSIDE] += (x >= 0.0) & (x <= 1.0)


@functools.cache
def sums_kernel(with_logits: bool) -> Any:
    """The kernel for log-odds or for probabilities."""
    some = odds_rows(with_logits)

    @jit
    def kernel(numbers, rule, bins, sums, counts, histogram, calibration, space):  # type: ignore[no-untyped-def]
        """Sum rows. False if one is not valid or has a loss beyond 2**400: nothing that was summed counts then.

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
        target_at, record_at, stride = target.ctypes.data, record.ctypes.data, 8 * record.shape[1]
        w = lanes(tag)
        for begin in range(0, given.size, BLOCK):
            n = min(BLOCK, given.size - begin)
            share = record[LOSS]
            _spread(positive[begin : begin + n], n, target, share, tag)
            at, whole = scored.ctypes.data + itemsize(tag) * begin, n // w * w
            invalid = splat(0.0, tag)
            for i in range(0, whole, w):
                invalid = invalid + some(i, w, at, tag, target_at, 0.0, record_at, stride)
            if whole < n:
                invalid = invalid + some(whole, n - whole, at, tag, target_at, 0.0, record_at, stride)
            if sum_lanes(invalid) > 0.0:
                return False
            wide = (n + 7) // 8 * 8
            for k in range(FIELDS):
                for i in range(n, wide):
                    record[k, i] = 0.0
            if not _fold_record(record, wide, sums):
                return False
            _extend(record[NLL], n, extremes)
            tally_finite(record[NLL, :n].view(np.int64), shift, first, losses, places[0])
            probability = record[PROBABILITY, :n]
            add_singles(probability, share[:n], bins, WHOLE_BITS, words, places)
            rest = list_residues(probability, bins, WHOLE_BITS, residues, places.reshape(2 * BLOCK))
            if rest:
                add_block(residues, places.reshape(2 * BLOCK), rest, 0, *cuts, cut)
            _count(given[begin : begin + n], tag, share, n, (temperature, least), counts)
        return True

    return kernel
