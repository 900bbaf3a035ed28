"""Sums over cells of scores in order, for ROC AUC, average precision and the curves behind them.

Rows, or weights, of two classes by cell, and what they add up to: running sums are made cell by cell, what is summed of
them is laid out a block at a time and added exactly.
"""

from __future__ import annotations

import numpy as np

from fastxent.kernels.cells import BITS, CELLS
from fastxent.kernels.exact import exact_add
from fastxent.kernels.jit import inline, jit
from fastxent.kernels.simd.arithmetic import absolute, max_lanes, select_gt, splat, vmin
from fastxent.kernels.simd.memory import load, store
from fastxent.kernels.simd.prefetch import prefetch
from fastxent.kernels.summed import fold, height_of

BLOCK = 512  # cells whose rows and terms are in the first-level cache, a multiple of 8
TERMS = 3
_AHEAD = 8  # pages whose counts are fetched
_HIGHEST = 1000  # exponents of numbers that are folded; of those that are all 0: `height_of`
_NOTHING = -2000


def room() -> tuple[np.ndarray, np.ndarray]:
    """Room for the terms of a block, and for its rows of two classes and what they add up to."""
    return np.empty((TERMS, BLOCK)), np.empty((4, BLOCK))


@inline
def _add(total, terms, n):  # type: ignore[no-untyped-def]
    """Add ``n`` terms of a block, which are lost, a multiple of 8, to an exact sum."""
    high = height_of(terms.ctypes.data, n)
    if high > _HIGHEST:
        exact_add(total, terms[:n])
    elif high > _NOTHING:
        fold(terms.ctypes.data, terms.ctypes.data, n, high + 1, total[0])


@inline
def _add_up(first, second, begin, step, ends, rows):  # type: ignore[no-untyped-def]
    """Take a block of cells: their rows of both classes, and what they add up to, into ``rows``.

    first, second: the cells of all blocks. begin, step: the first of the block, and 1 or -1 to the next one. ends: what
    those before it add up to. Behind the last cell are some without rows, to a multiple of 8.
    Returns the number of cells, with those, and the new ends.
    """
    a, b = ends
    n = min(BLOCK, first.size - begin if step > 0 else begin + 1)
    for i in range(n):
        at = np.uint64(begin + step * i)
        some, others = np.float64(first[at]), np.float64(second[at])
        a += some
        b += others
        rows[0, i], rows[1, i], rows[2, i], rows[3, i] = some, others, a, b
    whole = (n + 7) // 8 * 8
    for i in range(n, whole):
        rows[0, i], rows[1, i], rows[2, i], rows[3, i] = 0.0, 0.0, a, b
    return whole, (a, b)


@inline
def _loaded(rows, i):  # type: ignore[no-untyped-def]
    """Eight cells of a block: rows of both classes, and what they add up to."""
    at, line = rows.ctypes.data + 8 * i, 8 * BLOCK
    return load(at, 0.0), load(at + line, 0.0), load(at + 2 * line, 0.0), load(at + 3 * line, 0.0)


@inline
def _store(terms, k, i, x):  # type: ignore[no-untyped-def]
    """Eight terms of a block."""
    store(terms.ctypes.data + 8 * (k * BLOCK + i), x, 0.0)


@jit
def list_ranked(names, pages, shift, counts, keys, negative, positive):  # type: ignore[no-untyped-def]
    """The least keys and the rows of the cells of ``pages`` in that order that hold rows; how many.

    counts: `cells.Counts`. keys, negative, positive: room for all cells and one more.
    """
    found = np.uint64(0)
    low, high, over = counts
    address = low.ctypes.data
    for k in range(pages.size):
        prefetch(address + pages[min(k + _AHEAD, pages.size - 1)] * 2 * CELLS)
        page = pages[k]
        name, first, more = names[page] << np.uint64(BITS), np.uint64(page * 2 * CELLS), over[page]
        for cell in range(np.uint64(CELLS)):  # without branches: half of the cells may be empty
            at = first + cell
            some, others = np.int64(low[at]), np.int64(low[at + np.uint64(CELLS)])
            if more:
                some, others = some + (np.int64(high[at]) << 8), others + (np.int64(high[at + np.uint64(CELLS)]) << 8)
            keys[found] = (name | cell) << shift
            negative[found] = some
            positive[found] = others
            found += np.uint64((some | others) != 0)
    return np.int64(found)


@jit
def join_cells(negative, positive, counts, firsts):  # type: ignore[no-untyped-def]
    """Join neighbouring cells, so that each holds about the same share of the rows of both classes; how many there are.

    negative, positive: whole numbers, float64 (n,). counts: (2, cells), zeros. firsts: int64 (cells,), the first of the
    cells that each joins. A cell is named by the shares up to its end, which add up to 2.
    """
    ends = running_ends(negative, positive)
    step = np.float64(firsts.size // 2 - 1)
    scale = step / max(ends[0], 1.0), step / max(ends[1], 1.0)
    low, high, cell, end = 0.0, 0.0, -1, -1.0
    begin = 0.0, 0.0
    for i in range(negative.size):
        before = low, high
        low += negative[i]
        high += positive[i]
        along = low * scale[0] + high * scale[1]
        if along >= end:  # of another name than the cell before it
            if cell >= 0:
                counts[0, cell], counts[1, cell] = before[0] - begin[0], before[1] - begin[1]
            begin, end = before, np.floor(along) + 1.0
            cell += 1
            firsts[cell] = i
    if cell >= 0:
        counts[0, cell], counts[1, cell] = low - begin[0], high - begin[1]
    return cell + 1


@inline
def share(part, other):  # type: ignore[no-untyped-def]
    """part / (part + other), 0 over nothing."""
    total, zero = part + other, splat(0.0, part)
    return select_gt(total, zero, part / total, zero)


@jit
def running_ends(first, second):  # type: ignore[no-untyped-def]
    """What two arrays add up to, from their ends."""
    a, b = 0.0, 0.0
    for i in range(first.size - 1, -1, -1):
        a += first[i]
        b += second[i]
    return a, b


@jit
def sum_area(negative, positive, totals, room):  # type: ignore[no-untyped-def]
    """Add to three exact sums: twice the pairs that are ranked rightly, a tie being one; those without ties; the ties.

    totals: a tuple of `exact_zeros`. Cells are in ascending order.
    """
    terms, rows = room
    ends, two = (0.0, 0.0), splat(2.0, 0.0)
    for begin in range(0, negative.size, BLOCK):
        n, ends = _add_up(negative, positive, begin, 1, ends, rows)
        for i in range(0, n, 8):
            some, others, false, _ = _loaded(rows, i)
            _store(terms, 0, i, others * (two * (false - some) + some))
            _store(terms, 1, i, others * (false - some))
            _store(terms, 2, i, others * some)
        for k in range(3):
            _add(totals[k], terms[k], n)


@jit
def sum_deviations(negative, positive, n, p, value, totals, room):  # type: ignore[no-untyped-def]
    """Add to two exact sums: squared differences between ``value`` and the share of the other class, ``n`` and ``p``
    rows, that each positive and each negative row is ranked rightly against."""
    terms, rows = room
    ends, half, mean = (0.0, 0.0), splat(0.5, 0.0), splat(value, 0.0)
    all_negative, all_positive = splat(n, 0.0), splat(p, 0.0)
    for begin in range(0, negative.size, BLOCK):
        count, ends = _add_up(negative, positive, begin, 1, ends, rows)
        for i in range(0, count, 8):
            some, others, false, true = _loaded(rows, i)
            of_positive = (false - some + half * some) / all_negative - mean
            of_negative = (all_positive - true + half * others) / all_positive - mean
            _store(terms, 0, i, others * of_positive * of_positive)
            _store(terms, 1, i, some * of_negative * of_negative)
        for k in range(2):
            _add(totals[k], terms[k], count)


@jit
def sum_precisions(positive, negative, step, totals, room):  # type: ignore[no-untyped-def]
    """Add to three exact sums positives times their precision: with the negatives of their cell before them, behind
    them, and among them. ``step``: 1 if they are rows, 0 if weights. The highest cell, the last, comes first."""
    terms, rows = room
    ends, two, one_row = (0.0, 0.0), splat(2.0, 0.0), splat(step, 0.0)
    for begin in range(positive.size - 1, -1, -BLOCK):
        n, ends = _add_up(positive, negative, begin, -1, ends, rows)
        for i in range(0, n, 8):
            some, others, true, false = _loaded(rows, i)
            first = vmin(some, one_row)
            half = (some - first) / two
            if step == 0.0:
                half = splat(0.0, 0.0)
            _store(terms, 0, i, some * share(true - some + first, false))
            _store(terms, 1, i, some * share(true, false - others))
            _store(terms, 2, i, some * share(true - half, false - others / two))
        for k in range(3):
            _add(totals[k], terms[k], n)


@jit
def sum_exact_precisions(positive, negative, totals, room):  # type: ignore[no-untyped-def]
    """`sum_precisions` of cells that hold one score each: one sum."""
    terms, rows = room
    ends = 0.0, 0.0
    for begin in range(positive.size - 1, -1, -BLOCK):
        n, ends = _add_up(positive, negative, begin, -1, ends, rows)
        for i in range(0, n, 8):
            some, _, true, false = _loaded(rows, i)
            _store(terms, 0, i, some * share(true, false))
        _add(totals[0], terms[0], n)


@inline
def _rate_cells(rows, n, ends, terms):  # type: ignore[no-untyped-def]
    """The sum of both shares up to each cell of a block, how far it is from 1, and the F1 there, negative, into
    ``terms``; the least of the last two."""
    one, two, zero = splat(1.0, 0.0), splat(2.0, 0.0), splat(0.0, 0.0)
    positive, negative = splat(ends[0], 0.0), splat(ends[1], 0.0)
    least_gap, least_loss = splat(np.inf, 0.0), splat(np.inf, 0.0)
    for i in range(0, n, 8):
        _, _, true, false = _loaded(rows, i)
        along = true / positive + false / negative
        gap, loss = absolute(along - one), zero - two * true / (positive + true + false)
        least_gap, least_loss = vmin(gap, least_gap), vmin(loss, least_loss)
        _store(terms, 0, i, along)
        _store(terms, 1, i, gap)
        _store(terms, 2, i, loss)
    return -max_lanes(zero - least_gap), -max_lanes(zero - least_loss)


@inline
def _place_of(values, value):  # type: ignore[no-untyped-def]
    """The place of the first number that is ``value``, which is there."""
    i = 0
    while values[i] != value:
        i += 1
    return i


@jit
def choose_cells(positive, negative, ends, wanted, chosen, room):  # type: ignore[no-untyped-def]
    """(the first cell of the best F1, the first whose two error rates are nearest to each other).

    ends: what both classes add up to. ``chosen`` (points,): the first cell at which the sum of both shares reaches
    ``wanted``, ascending; the number of cells where none does. The highest cell, the last, is cell 0 here.
    """
    terms, rows = room
    last = positive.size - 1
    sums, best, middle, best_at, middle_at, point = (0.0, 0.0), np.inf, np.inf, 0, 0, 0
    for begin in range(0, positive.size, BLOCK):
        n, sums = _add_up(positive, negative, last - begin, -1, sums, rows)
        gap, loss = _rate_cells(rows, n, ends, terms)
        if loss < best:
            best, best_at = loss, begin + _place_of(terms[2], loss)
        if gap < middle:
            middle, middle_at = gap, begin + _place_of(terms[1], gap)
        i = 0
        while point < wanted.size and terms[0, n - 1] >= wanted[point]:
            while not terms[0, i] >= wanted[point]:
                i += 1
            chosen[point] = begin + i
            point += 1
    for k in range(point, wanted.size):
        chosen[k] = positive.size
    return best_at, middle_at


@jit
def running_at(places, order, first, second, found):  # type: ignore[no-untyped-def]
    """The running sums of two arrays, from their ends, at some places from there, into ``found`` (2, places).

    order: what sorts the places."""
    a, b, i = 0.0, 0.0, 0
    for k in order:
        while i <= places[k]:
            a += first[first.size - 1 - i]
            b += second[first.size - 1 - i]
            i += 1
        found[0, k], found[1, k] = a, b
