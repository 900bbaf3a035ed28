"""Rows that list the log-probabilities of a few classes: sums over what each row lists, and its faults."""

from __future__ import annotations

import numpy as np

from fastxent.kernels.jit import jit
from fastxent.kernels.simd.arithmetic import select_ge, splat
from fastxent.kernels.simd.exponentials import exp_biased, log, unbias
from fastxent.kernels.simd.memory import load_first, store_first

BELOW_CUT = -9999.0  # log-probabilities from here down to -inf say only that the class is not among the likeliest
_LEAST = -745.2  # exp of less is 0

# Sums of a row over the classes that it lists: probabilities, their squares, p·log p; the log-probability that no other
# class exceeds, the largest, and that of the target (NaN if it is not listed).
MASS, SQUARES, P_LOG_P, CUT, TOP, TARGET = range(6)
SUMS = 6
# Whole numbers of a row: classes that it lists, the place of the likeliest among all numbers, and how many listed
# classes are ranked before the target (-1 if it is not listed).
SIZE, BEST, AHEAD = range(3)
COUNTS = 3
# What is wrong with a row
GOOD, EMPTY, NOT_A_NUMBER, TOO_LARGE, OUTSIDE, REPEATED = range(6)


@jit
def exponentials(x, out):  # type: ignore[no-untyped-def]
    """exp of contiguous float64 numbers that are at most about 0; NaN gives any number."""
    scale, zero = splat(unbias(0.0), 0.0), splat(0.0, 0.0)
    least = splat(_LEAST, 0.0)
    for i in range(0, x.size, 8):
        n = min(8, x.size - i)
        v = load_first(x.ctypes.data + 8 * i, n, 0.0)
        held = select_ge(v, least, v, zero)
        store_first(out.ctypes.data + 8 * i, n, select_ge(v, least, exp_biased(held) * scale, zero), 0.0)


@jit
def logarithms(x, out):  # type: ignore[no-untyped-def]
    """log of contiguous float64 numbers of at least 0."""
    for i in range(0, x.size, 8):
        n = min(8, x.size - i)
        v = load_first(x.ctypes.data + 8 * i, n, 0.0)
        store_first(out.ctypes.data + 8 * i, n, log(v), 0.0)


@jit
def _held_before(id, stamp, seen):  # type: ignore[no-untyped-def]
    """Whether ``seen`` holds an id under this stamp; it does from now on. (2, 2^k) of more places than ids."""
    mask = seen.shape[1] - 1
    at = ((id * 0x2545F4914F6CDD1D) >> 33) & mask
    while seen[1, at] == stamp:
        if seen[0, at] == id:
            return True
        at = (at + 1) & mask
    seen[0, at], seen[1, at] = id, stamp
    return False


@jit
def _fault(k, ids, logprobs, n_classes, most):  # type: ignore[no-untyped-def]
    """What is wrong with one entry."""
    x = logprobs[k]
    if x != x:
        return NOT_A_NUMBER
    if x > most:
        return TOO_LARGE
    return GOOD if 0 <= ids[k] < n_classes else OUTSIDE


@jit
def sum_lists(rows, values, target, rules, seen, sums, counts, faults):  # type: ignore[no-untyped-def]
    """Fill ``sums`` (SUMS, n), ``counts`` (COUNTS, n) and ``faults`` (2, n): what is wrong with a row, and where in it.

    rows: a tuple of int64 (n,), the first entry and the number of entries of each row, all within ``values``.
    values: a tuple of ids, log-probabilities and probabilities.
    target: int64 (n,). rules: a tuple (number of classes, largest log-probability, bool (n,): whether the target may
    have been added to the likeliest classes, whether ids have an order; if not, the first of two that tie is ranked
    first).
    seen: int64 (2, 2^k), zeros, more places than any row has entries.
    """
    starts, sizes = rows
    ids, logprobs, probs = values
    n_classes, most, added, ordered = rules
    for i in range(starts.size):
        begin, end, wanted = starts[i], starts[i] + sizes[i], target[i]
        mass = squares = weighted = 0.0
        lowest = second = np.inf
        top, own = -np.inf, np.nan
        best = place = np.int64(-1)
        size, fault = 0, GOOD
        for k in range(begin, end):
            x = logprobs[k]
            if x <= BELOW_CUT and x > -np.inf:
                continue
            fault = _fault(k, ids, logprobs, n_classes, most)
            if fault == GOOD and _held_before(ids[k], i + 1, seen):
                fault = REPEATED
            if fault != GOOD:
                faults[1, i] = k - begin
                break
            size += 1
            p = probs[k]
            mass += p
            squares += p * p
            if p > 0.0:
                weighted += p * x
            if best < 0 or x > top or (x == top and ordered and ids[k] < ids[best]):
                top, best = x, k
            if x < lowest:
                lowest, second = x, lowest
            elif x < second:
                second = x
            if ids[k] == wanted:
                own, place = x, k
        if fault == GOOD and size == 0:
            fault = EMPTY
        ahead = -1
        if place >= 0 and fault == GOOD:
            ahead = 0
            for k in range(begin, end):
                x = logprobs[k]
                if x > BELOW_CUT or x == -np.inf:
                    ahead += x > own or (x == own and (ids[k] < wanted if ordered else k < place))
            if added[i] and size > 1 and own == lowest and ahead == size - 1:
                lowest = second
        faults[0, i] = fault
        sums[MASS, i], sums[SQUARES, i], sums[P_LOG_P, i] = mass, squares, weighted
        sums[CUT, i], sums[TOP, i], sums[TARGET, i] = lowest, top, own
        counts[SIZE, i], counts[BEST, i], counts[AHEAD, i] = size, best, ahead
