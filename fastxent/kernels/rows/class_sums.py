"""All sums of rows of few classes, of a block while its record is in the cache.

For rows that are unweighted and of one class each. Sums are those that `kernels.fold`, `kernels.cuts`, `kernels.grid`
and `kernels.tally` make of records of many rows.
"""

from __future__ import annotations

import functools

import numba
import numpy as np
from numba import types

from fastxent.kernels import cuts
from fastxent.kernels.cuts import add_block, find_bins
from fastxent.kernels.fold import fold_block, fold_room
from fastxent.kernels.grid import WHOLE_BITS, add_to_grid
from fastxent.kernels.jit import bare, jit
from fastxent.kernels.rows.arguments import Rows
from fastxent.kernels.rows.called import address, call_rows, calling
from fastxent.kernels.rows.labels import count_distributions, rows_within
from fastxent.kernels.rows.record import (
    BAD_LOGITS, BRIER, CONFIDENCE, ENTROPY, LSE, MAX, NLL, PREDICTED, RANK, USED,
)  # fmt: skip
from fastxent.kernels.rows.sweep import chunk_of
from fastxent.kernels.simd.arithmetic import max_lanes, splat, vmax
from fastxent.kernels.simd.memory import load
from fastxent.kernels.tally import all_below, tally_pairs, tally_patterns

BLOCK = 512  # rows: their record takes 60 kB
_SUMMED = (NLL, LSE, CONFIDENCE, ENTROPY, BRIER)  # columns of the record that anything is made of


def room(columns: int) -> tuple[tuple[np.ndarray, ...], ...]:
    """Room for a block: how far its rows are right; targets, bins, places and what is added; that of `fold` for so many
    columns, and that of `cuts`."""
    return (np.empty(BLOCK), np.empty((4, BLOCK), np.int64)), fold_room(columns), cuts.room()


@jit
def _extend(numbers, extremes):  # type: ignore[no-untyped-def]
    """Take float64 numbers, none of them NaN, into the least and the largest."""
    at, whole, zero = numbers.ctypes.data, numbers.size // 8 * 8, splat(0.0, 0.0)
    top, low = splat(extremes[1], 0.0), splat(-extremes[0], 0.0)
    for i in range(0, whole, 8):
        x = load(at + 8 * i, 0.0)
        top, low = vmax(x, top), vmax(zero - x, low)
    extremes[0], extremes[1] = -max_lanes(low), max_lanes(top)
    for i in range(whole, numbers.size):
        extremes[0], extremes[1] = min(extremes[0], numbers[i]), max(extremes[1], numbers[i])


@jit
def _keep_used(into, target, coded):  # type: ignore[no-untyped-def]
    """Move the used rows of a block to its front, and their targets to ``coded``. How many there are."""
    record, ids, status = into.record, into.ids, into.status
    n = 0
    for i in range(status.size):
        if status[i] == USED:
            for k in _SUMMED:
                record[k, n] = record[k, i]
            ids[PREDICTED, n], ids[RANK, n] = ids[PREDICTED, i], ids[RANK, i]
            coded[n] = target[i]
            n += 1
    return n


@bare
def _sum_block(record, ids, target, n, terms, sums, space):  # type: ignore[no-untyped-def]
    """Add ``n`` used rows. False if a class is out of range: nothing that was summed counts then."""
    words, special, matrix, ranks, losses, extremes, calibration, words_of_grid, classes = sums
    (right, places), folds, cut = space
    nll, confidence = record[NLL, :n], record[CONFIDENCE, :n]
    predicted, rank = ids[PREDICTED, :n], ids[RANK, :n]
    n_classes = matrix.shape[1]
    if not (all_below(target, predicted, n_classes) and all_below(rank, rank, n_classes)):
        return False
    fold_block(terms, 0, n, folds, words, special)
    tally_pairs(target, predicted, matrix)
    find_bins(confidence, calibration[0].shape[0], places[1])
    add_block(confidence, places[1], n, 0, *calibration, cut)
    for i in range(n):
        right[i] = 1.0 if rank[i] == 0 else 0.0
    mask = ranks.shape[0] - 1
    for i in range(n):
        ranks[i & mask, np.uint64(rank[i])] += 1
    add_to_grid(confidence, right[:n], places[1, :n], WHOLE_BITS, words_of_grid, places[2])
    add_block(nll, target, n, 0, *classes, cut)
    histogram, shift, first = losses
    tally_patterns(nll.view(np.int64), shift, first, histogram)
    _extend(nll, extremes)
    return True


@functools.cache
def block_at() -> int:
    """Address of what adds a block, which is compiled once and not for each type of logits."""
    return address(_sum_block, _block_types(), types.boolean)


@functools.cache
def _block_types() -> tuple[types.Type, ...]:
    line, plane = np.empty(0, np.int64), np.empty((0, 0), np.int64)
    left = np.empty(0), line, line
    cut = plane, left
    sums = plane, np.empty(0, np.uint8), np.empty((0, 0, 0), np.int64), plane, (line, 0, 0), np.empty(0), cut, line, cut
    given = np.empty((0, 0)), plane, line, 0, (plane, plane), sums, room(0)
    return tuple(map(numba.typeof, given))


_call_block = calling(_block_types, rows=0, returns=types.boolean)


@bare
def sum_rows(kernels, read, held, rule, terms, sums, counts, space):  # type: ignore[no-untyped-def]
    """Score and sum rows. (how many were, whether all classes are in range): less than all if one is bad.

    kernels: addresses of a row kernel, and `block_at`.
    read, held: fields of `Rows`, `Targets`, `Shape` and `Soft`, and of `Buffers`, for a record of `BLOCK` rows.
    rule: a tuple of whether the first bad row ends it; whether rows are counted that are probabilities; the
        temperature; the slack and the bounds of these, see `labels.rows_within`.
    terms: see `fold.fold_rows`, of the record.
    sums: a tuple of sums and flags of `fold.fold_block`; int64 (tables, C, C) of `tally.tally_pairs`; rows by rank,
        int64 (tables, C); counts, shift and first pattern of `tally.tally_patterns`; the least and the largest NLL,
        float64 (2,); what `cuts.add_block` takes for the confidence by bin; the words of `grid.add_to_grid`; what
        `cuts.add_block` takes for the NLL by class.
    Tables are a power of two: neighbouring rows are counted in different ones.
    counts: int64 (5,). Rows by status, and those that are probabilities.
    space: see `room`.
    """
    strict, probes, temperature, slack, bounds = rule
    rows = Rows(*read[0])
    coded, found = space[0][1][0], space[0][1][3]
    for b in range(0, rows.n, BLOCK):
        n = min(BLOCK, rows.n - b)
        here, aims, shape, beside, into = chunk_of(b, n, read, held)
        call_rows(kernels[0], (here, aims, shape, beside, into))
        status, other = into.status, 0
        for i in range(n):
            other |= status[i] != USED
        if other:
            for i in range(n):
                if strict and status[i] >= BAD_LOGITS:
                    return b + i, True
                counts[status[i]] += 1
        else:
            counts[USED] += n
        if probes:
            record = into.record
            some = rows_within(status, USED, record[MAX, :n], temperature, record[LSE, :n], bounds, found)
            if some:
                counts[4] += count_distributions(
                    here.address, rows.stride, rows.n_classes, rows.tag, found[:some], slack
                )
        target = aims.ids
        if other:
            n = _keep_used(into, target, coded)
            target = coded[:n]
        if not _call_block(kernels[1], (into.record, into.ids, target, n, terms, sums, space)):
            return b, False
    return rows.n, True
