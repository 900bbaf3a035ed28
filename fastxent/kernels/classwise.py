"""Calibration of each class: by class and bin of its probability, Σ (p - y), where y is 1 in rows of that target.

A probability counts as a multiple of 2**-`BITS`, so sums are integers: the same for any order of rows.
"""

from __future__ import annotations

import numpy as np

from fastxent.kernels.cuts import find_bins
from fastxent.kernels.jit import jit

BITS = 30


@jit
def add_class_gaps(p, target, used, bins, gaps):  # type: ignore[no-untyped-def]
    """Add rows to ``gaps``.

    p: float64 (n, C). Probabilities; those of rows that are not used may be anything.
    target: int64 (n,), from 0 to C - 1 in used rows. used: bool (n,). bins: int64.
    gaps: int64 (C, bins).
    """
    classes = p.shape[1]
    numbers, places = np.empty(classes), np.empty(classes, np.int64)
    for i in range(p.shape[0]):
        if not used[i]:
            continue
        for c in range(classes):
            numbers[c] = min(max(p[i, c], 0.0), 1.0)
        find_bins(numbers, bins, places)
        for c in range(classes):
            gaps[c, places[c]] += np.int64(np.rint(numbers[c] * np.float64(1 << BITS)))
        gaps[target[i], places[target[i]]] -= np.int64(1 << BITS)
