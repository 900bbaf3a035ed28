"""Counts over rows, in one pass where NumPy would take several."""

from __future__ import annotations

import numpy as np

from fastxent.kernels.jit import inline, jit

# The grid on which the NLL of rows is counted, read off the bits of the double: its exponent and the first bits of its
# mantissa, from 2**LOW to 2**HIGH; one bin below (zero too), one above, and one for infinity.
MANTISSA, LOW, HIGH = 7, -30, 17
PATTERN_SHIFT = 52 - MANTISSA
FIRST_PATTERN = ((1023 + LOW) << MANTISSA) - 1
PATTERNS = ((HIGH - LOW) << MANTISSA) + 3


@jit
def tally_status(status, codes, counts):  # type: ignore[no-untyped-def]
    """Rows by group and status in ``counts`` (groups, statuses); without ``codes`` all are of group 0."""
    for i in range(status.size):
        counts[codes[i] if codes.size else 0, status[i]] += 1


@jit
def sort_by_group(codes, begins, rows):  # type: ignore[no-untyped-def]
    """The rows by group, in their order, into ``rows``; where each group begins into ``begins`` (groups + 2,), zeros,
    the last of which is lost."""
    _count_groups(codes, begins)
    for i in range(codes.size):
        at = codes[i] + 1
        rows[begins[at]] = i
        begins[at] += 1


@jit
def places_by_group(codes, begins, places):  # type: ignore[no-untyped-def]
    """Write the place of each row in the order of groups to ``places``; ``begins``: see `sort_by_group`."""
    _count_groups(codes, begins)
    for i in range(codes.size):
        at = np.uint64(codes[i] + 1)
        place = begins[at]
        places[i] = place
        begins[at] = place + 1


@inline
def _count_groups(codes, begins):  # type: ignore[no-untyped-def]
    for i in range(codes.size):
        begins[np.uint64(codes[i] + 2)] += 1
    for g in range(2, begins.size):
        begins[g] += begins[g - 1]


@jit
def all_below(first, second, end):  # type: ignore[no-untyped-def]
    """Return whether all numbers of two int64 columns of one length are in 0 .. ``end`` - 1."""
    over = np.int64(0)
    for i in range(first.size):
        over |= first[i] | second[i] | (end - 1 - first[i]) | (end - 1 - second[i])
    return over >= 0


@jit
def tally_classes(target, predicted, rank, counts):  # type: ignore[no-untyped-def]
    """Count rows by target, by prediction, and by target where the two agree, in ``counts`` (tables, 3, classes).

    Ids must be in range. Neighbouring rows go to different tables, because an addition to a word waits for the addition
    before it. The number of tables is a power of two.
    """
    mask = np.int64(counts.shape[0] - 1)
    classes = counts.shape[2]
    flat = counts.reshape(counts.size)
    for i in range(target.size):
        first = (i & mask) * 3 * classes
        flat[np.uint64(first + target[i])] += 1
        flat[np.uint64(first + classes + predicted[i])] += 1
        flat[np.uint64(first + 2 * classes + target[i])] += rank[i] == 0


@jit
def tally_patterns(bits, shift, first, counts):  # type: ignore[no-untyped-def]
    """Counts of float64 by the upper bits of their pattern, less ``first``; +inf apart, in the last."""
    last = counts.size - 1
    for i in range(bits.size):
        b = bits[i]
        counts[last if b == 0x7FF0000000000000 else min(max((b >> shift) - first, 0), last - 1)] += 1


@jit
def tally_singles(bits, shift, first, counts, room):  # type: ignore[no-untyped-def]
    """Do what `tally_patterns` does with finite float32 numbers, of whose patterns ``bits`` (int32) are.

    ``shift``, ``first``: of the patterns of doubles. room: int64, as many.
    """
    last, less, moved = counts.size - 2, shift - 29, first - (896 << (52 - shift))  # 29 more bits, a bias 896 higher
    for i in range(bits.size):  # those below 2**-126 are in the first bin
        room[i] = min(max((bits[i] >> less) - moved, 0), last)
    for i in range(bits.size):
        counts[np.uint64(room[i])] += 1


@jit
def tally_pairs(first, second, counts):  # type: ignore[no-untyped-def]
    """Count rows by two ids, which must be in range, in ``counts`` (tables, ids, ids); see `tally_classes`."""
    mask = np.int64(counts.shape[0] - 1)
    classes = counts.shape[2]
    flat = counts.reshape(counts.size)
    for i in range(first.size):
        flat[np.uint64(((i & mask) * classes + first[i]) * classes + second[i])] += 1
