"""All sums of rows of one float32 number each, of a block while its record is in the first-level cache.

For rows that are all used, unweighted, and each of one class. The record holds float32 numbers, so that a product of
two is a double. Sums are of the numbers that `kernels.fold` and `kernels.cuts` sum elsewhere, and have the same bits.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from fastxent.kernels.cuts import add_block, find_bins
from fastxent.kernels.grid import WHOLE_BITS, add_to_grid
from fastxent.kernels.jit import jit
from fastxent.kernels.rows.odds import FIELDS, LOSS, NLL, PROBABILITY, odds_rows
from fastxent.kernels.simd.arithmetic import max_lanes, splat, sum_lanes, vmax
from fastxent.kernels.simd.memory import load, store
from fastxent.kernels.simd.types import itemsize, lanes
from fastxent.kernels.summed import fold, height_of
from fastxent.kernels.tally import tally_patterns

BLOCK = 512  # rows: their record takes 20 kB
# Sums: the columns of the record, each in its place there, then their squares. In the places of `LOSS`, the NLL and the
# probability of the positive rows.
SUMS, SQUARES, NLL_POSITIVE, PROBABILITY_POSITIVE = 2 * FIELDS, FIELDS, LOSS, FIELDS + LOSS
POSITIVE, PREDICTED, BOTH, INSIDE = range(4)  # counts: positive rows, predicted to be, both; numbers from 0 to 1
_HIGHEST, _NOTHING = 400, -1500  # exponents of losses: squares of higher ones might be infinite; all are 0


def room() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Room for a block: its record and what is multiplied, targets, bins and what the grid takes."""
    return np.empty((FIELDS + 1, BLOCK)), np.empty(BLOCK, np.float32), np.empty((2, BLOCK), np.int64)


@jit
def _fold_products(at, other_at, n, power, out_at, words):  # type: ignore[no-untyped-def]
    """Add the products of two blocks, at most 2**(power - 1), to a sum. ``out_at``: room for them."""
    for i in range(0, n, 8):
        store(out_at + 8 * i, load(at + 8 * i, 0.0) * load(other_at + 8 * i, 0.0), 0.0)
    fold(out_at, out_at, n, power, words)


@jit
def _fold_record(record, share, n, sums):  # type: ignore[no-untyped-def]
    """Add ``n`` rows, a multiple of 8, to ``sums``. False if a loss is too large. ``share``: 1.0 of positive rows."""
    first, line = record.ctypes.data, 8 * record.shape[1]
    out, positive = first + FIELDS * line, share.ctypes.data
    high = height_of(first + NLL * line, n)
    if high > _HIGHEST:
        return False
    for k in range(FIELDS):
        at, top = first + k * line, high if k == NLL else 1
        if k == LOSS or top < _NOTHING:
            continue
        if k in (NLL, PROBABILITY):
            _fold_products(at, positive, n, top + 1, out, sums[NLL_POSITIVE if k == NLL else PROBABILITY_POSITIVE])
        _fold_products(at, at, n, 2 * top + 1, out, sums[SQUARES + k])
        fold(at, out, n, top + 1, sums[k])
    return True


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
def _count(given, positive, begin, n, temperature, least, counts):  # type: ignore[no-untyped-def]
    """Count rows by class and prediction."""
    held, called, both, inside = 0, 0, 0, 0
    for i in range(begin, begin + n):
        x = np.float64(given[i])
        predicted = (x if temperature == 1.0 else x / temperature) >= least
        held += positive[i]
        called += predicted
        both += predicted & (positive[i] != 0)
        inside += (x >= 0.0) & (x <= 1.0)
    counts[POSITIVE] += held
    counts[PREDICTED] += called
    counts[BOTH] += both
    counts[INSIDE] += inside


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
        calibration: a tuple of what `cuts.add_block` takes, which adds probabilities alone, and the words of
        `grid.add_to_grid`. space: `room` and that of `cuts`.
        """
        given, scored, positive = numbers
        temperature, least, tag = rule
        losses, first, shift, extremes = histogram
        (record, target, room_of_bins), cut = space
        cuts, words = calibration
        places, more = room_of_bins
        target_at, record_at, stride = target.ctypes.data, record.ctypes.data, 8 * record.shape[1]
        w = lanes(tag)
        for begin in range(0, given.size, BLOCK):
            n = min(BLOCK, given.size - begin)
            share = record[LOSS]
            for i in range(n):
                target[i] = positive[begin + i]
                share[i] = positive[begin + i]
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
            if not _fold_record(record, share, wide, sums):
                return False
            _extend(record[NLL], n, extremes)
            tally_patterns(record[NLL, :n].view(np.int64), shift, first, losses)
            probability = record[PROBABILITY, :n]
            find_bins(probability, bins, places)
            add_block(probability, places, n, 0, *cuts, cut)
            add_to_grid(probability, share[:n], places[:n], WHOLE_BITS, words, more)
            _count(given, positive, begin, n, temperature, least, counts)
        return True

    return kernel
