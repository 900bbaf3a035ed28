"""From the record of each label to the sums of each row, of rows of one number per label: see `odds`."""

from __future__ import annotations

from fastxent.kernels.jit import jit
from fastxent.kernels.rows.odds import BRIER, ENTROPY, NLL

# Sums of a row over its labels that are not ignored. COUNTED: how many; HELD: their targets; CALLED: predicted ones;
# BOTH: targets of those; WRONG: labels whose prediction is not the target, where a target of at least 0.5 is positive.
COUNTED, LOSS_SUM, NLL_SUM, BRIER_SUM, ENTROPY_SUM, HELD, CALLED, BOTH, WRONG = range(9)
SUMS = 9


@jit
def sum_labels(record, loss, positive, called, begin, sums):  # type: ignore[no-untyped-def]
    """Add up the labels of rows, each in the order of its labels, into columns of ``sums`` from ``begin`` on.

    record: float64 (fields, rows·C). loss: int, the field of the loss.
    positive: (rows, C) targets, NaN where the label is ignored. called: bool (rows, C). sums: float64 (SUMS, n).
    """
    n, c = positive.shape
    for i in range(n):
        counted = a = b = d = e = held = yes = both = wrong = 0.0
        for j in range(c):
            t = positive[i, j]
            if t != t:
                continue
            k = i * c + j
            counted += 1.0
            a += record[loss, k]
            b += record[NLL, k]
            d += record[BRIER, k]
            e += record[ENTROPY, k]
            held += t
            if called[i, j]:
                yes += 1.0
                both += t
            if called[i, j] != (t >= 0.5):
                wrong += 1.0
        at = begin + i
        sums[COUNTED, at] = counted
        sums[LOSS_SUM, at] = a
        sums[NLL_SUM, at] = b
        sums[BRIER_SUM, at] = d
        sums[ENTROPY_SUM, at] = e
        sums[HELD, at] = held
        sums[CALLED, at] = yes
        sums[BOTH, at] = both
        sums[WRONG, at] = wrong
