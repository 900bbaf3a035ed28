"""Counts over rows, in one pass where NumPy would take several."""

from __future__ import annotations

import numpy as np

from fastxent.kernels.jit import jit


@jit
def tally_bins(values, edges, bins):  # type: ignore[no-untyped-def]
    """The bin of each value, (edge k, edge k + 1], into ``bins``; NaN and what lies beyond, in the last or the first.

    Bins are as wide as each other, so the place of a number follows from it, within one bin.
    """
    last = edges.size - 2
    for i in range(values.size):
        x = values[i]
        k = min(max(np.int64(x * (last + 1)), 0), last) if abs(x) < 2.0 else last
        while k < last and x > edges[k + 1]:
            k += 1
        while k > 0 and x <= edges[k]:
            k -= 1
        bins[i] = k


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
