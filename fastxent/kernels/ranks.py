"""Sums over cells of scores in order, for ROC AUC, average precision and the curves behind them.

Rows, or weights, of two classes by cell, and what they add up to: running sums are made cell by cell, what is summed of
them is laid out a block at a time and added exactly.
"""

from __future__ import annotations

import numpy as np

from fastxent.kernels.cells import BITS, CELLS
from fastxent.kernels.exact import exact_fold
from fastxent.kernels.jit import inline, jit
from fastxent.kernels.simd.prefetch import prefetch

BLOCK = 1024  # cells whose terms are in the first-level cache
TERMS = 3
_AHEAD = 8  # pages whose counts are fetched


def room() -> tuple[np.ndarray, np.ndarray]:
    """Room for the terms of a block, and for `exact_fold`."""
    return np.empty((TERMS, BLOCK)), np.empty(8)


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
    low, high, cell, last = 0.0, 0.0, -1, -1.0
    for i in range(negative.size):
        low += negative[i]
        high += positive[i]
        name = np.floor(low * scale[0] + high * scale[1])
        if name != last:
            last = name
            cell += 1
            firsts[cell] = i
        counts[0, cell] += negative[i]
        counts[1, cell] += positive[i]
    return cell + 1


@inline
def share(part, other):  # type: ignore[no-untyped-def]
    """part / (part + other), 0 over nothing."""
    total = part + other
    return part / total if total > 0.0 else 0.0


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
    terms, parts = room
    false = 0.0
    for begin in range(0, negative.size, BLOCK):
        n = min(BLOCK, negative.size - begin)
        for i in range(n):
            some, others = negative[begin + i], positive[begin + i]
            false += some
            terms[0, i] = others * (2.0 * (false - some) + some)
            terms[1, i] = others * (false - some)
            terms[2, i] = others * some
        for k in range(3):
            exact_fold(totals[k], terms[k, :n], parts)


@jit
def sum_deviations(negative, positive, n, p, value, totals, room):  # type: ignore[no-untyped-def]
    """Add to two exact sums: squared differences between ``value`` and the share of the other class, ``n`` and ``p``
    rows, that each positive and each negative row is ranked rightly against."""
    terms, parts = room
    false, true = 0.0, 0.0
    for begin in range(0, negative.size, BLOCK):
        count = min(BLOCK, negative.size - begin)
        for i in range(count):
            some, others = negative[begin + i], positive[begin + i]
            false += some
            true += others
            of_positive = (false - some + 0.5 * some) / n - value
            of_negative = (p - true + 0.5 * others) / p - value
            terms[0, i] = others * of_positive * of_positive
            terms[1, i] = some * of_negative * of_negative
        for k in range(2):
            exact_fold(totals[k], terms[k, :count], parts)


@jit
def sum_precisions(positive, negative, step, totals, room):  # type: ignore[no-untyped-def]
    """Add to three exact sums positives times their precision: with the negatives of their cell before them, behind
    them, and among them. ``step``: 1 if they are rows, 0 if weights. The highest cell, the last, comes first."""
    terms, parts = room
    true, false = 0.0, 0.0
    last = positive.size - 1
    for begin in range(0, positive.size, BLOCK):
        n = min(BLOCK, positive.size - begin)
        for i in range(n):
            some, others = positive[last - begin - i], negative[last - begin - i]
            true += some
            false += others
            first = min(some, step)
            half = (some - first) / 2.0 if step > 0.0 else 0.0
            terms[0, i] = some * share(true - some + first, false)
            terms[1, i] = some * share(true, false - others)
            terms[2, i] = some * share(true - half, false - others / 2.0)
        for k in range(3):
            exact_fold(totals[k], terms[k, :n], parts)


@jit
def sum_exact_precisions(positive, negative, totals, room):  # type: ignore[no-untyped-def]
    """`sum_precisions` of cells that hold one score each: one sum."""
    terms, parts = room
    true, false = 0.0, 0.0
    last = positive.size - 1
    for begin in range(0, positive.size, BLOCK):
        n = min(BLOCK, positive.size - begin)
        for i in range(n):
            true += positive[last - begin - i]
            false += negative[last - begin - i]
            terms[0, i] = positive[last - begin - i] * share(true, false)
        exact_fold(totals[0], terms[0, :n], parts)


@jit
def choose_cells(positive, negative, ends, wanted, chosen):  # type: ignore[no-untyped-def]
    """(the first cell of the best F1, the first whose two error rates are nearest to each other).

    ends: what both classes add up to. ``chosen`` (points,): the first cell at which the sum of both shares reaches
    ``wanted``, ascending; the number of cells where none does. The highest cell, the last, is cell 0 here.
    """
    true, false = 0.0, 0.0
    best, middle, best_at, middle_at, point = np.inf, np.inf, 0, 0, 0
    for i in range(positive.size):
        true += positive[positive.size - 1 - i]
        false += negative[positive.size - 1 - i]
        along = true / ends[0] + false / ends[1]
        while point < wanted.size and along >= wanted[point]:
            chosen[point] = i
            point += 1
        loss = -(2.0 * true / (ends[0] + true + false))
        if loss < best:
            best, best_at = loss, i
        gap = abs(along - 1.0)
        if gap < middle:
            middle, middle_at = gap, i
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
