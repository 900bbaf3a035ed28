"""Counts over rows, in one pass where NumPy would take several."""

from __future__ import annotations


from fastxent.kernels.jit import jit

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
    for i in range(codes.size):
        begins[codes[i] + 2] += 1
    for g in range(2, begins.size):
        begins[g] += begins[g - 1]
    for i in range(codes.size):
        at = codes[i] + 1
        rows[begins[at]] = i
        begins[at] += 1


@jit
def tally_classes(target, predicted, rank, counts):  # type: ignore[no-untyped-def]
    """Rows by target, by prediction, and by target where the two agree, in the rows of ``counts``; ids are in range."""
    for i in range(target.size):
        counts[0, target[i]] += 1
        counts[1, predicted[i]] += 1
        if rank[i] == 0:
            counts[2, target[i]] += 1


@jit
def tally_patterns(bits, shift, first, counts):  # type: ignore[no-untyped-def]
    """Counts of float64 by the upper bits of their pattern, less ``first``; +inf apart, in the last."""
    last = counts.size - 1
    for i in range(bits.size):
        b = bits[i]
        counts[last if b == 0x7FF0000000000000 else min(max((b >> shift) - first, 0), last - 1)] += 1
