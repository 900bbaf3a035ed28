"""The distribution of the NLL of rows: integer counts on a fixed logarithmic grid, which merge exactly.

The grid is read off the bits of the double: its exponent and the first 7 bits of its mantissa, from 2**-30 to 2**17.
A bin is at most 1/128 wide relative to its lower edge, so its middle is within 0.4 % of every value in it.
"""

from __future__ import annotations

import math

import numpy as np

from fastxent.kernels.tally import FIRST_PATTERN, MANTISSA, PATTERN_SHIFT, PATTERNS as BINS, tally_patterns
from fastxent.results.values import Histogram
from fastxent.state.component import Summands
from fastxent.state.packed import stored, stored_counts

_SHOWN = 8  # bins an octave for display
_NONE = math.inf, -math.inf  # least and largest of no values
QUANTILES = (0.0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999, 1.0)


class Distribution:
    """Counts of values by bin; the least and the largest value, exactly."""

    def __init__(self) -> None:
        self.counts = np.zeros(BINS, np.int64)
        self.least, self.largest = _NONE

    def add(self, rows: Summands) -> None:
        """Count the NLL of rows, if they have one."""
        if rows.losses:
            self.count(rows.rows.nll)

    def count(self, values: np.ndarray) -> None:
        """Count float64 values, none of them NaN."""
        if not values.size:
            return
        # a negative value has a negative pattern: below
        tally_patterns(np.ascontiguousarray(values).view(np.int64), PATTERN_SHIFT, FIRST_PATTERN, self.counts)
        self.least = min(self.least, float(values.min()) + 0.0)  # + 0.0: zero has one sign
        self.largest = max(self.largest, float(values.max()) + 0.0)

    def add_counts(self, counts: np.ndarray, extremes: np.ndarray) -> None:
        """Add the counts of values, and the least and the largest of them."""
        self.counts += counts
        self.least = min(self.least, float(extremes[0]) + 0.0)
        self.largest = max(self.largest, float(extremes[1]) + 0.0)

    def absorb(self, other: Distribution, clusters: np.ndarray | None = None) -> None:
        """Add the counts of another."""
        self.counts += other.counts
        self.least, self.largest = min(self.least, other.least), max(self.largest, other.largest)

    def arrays(self, clusters: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """``counts``, and ``extremes``: the least and the largest value."""
        return {"counts": self.counts, "extremes": np.array([self.least, self.largest])}

    def load(self, arrays: dict[str, np.ndarray], keys: list[str] | None = None, clusters: int = 0) -> None:
        """Take over stored ``counts`` and ``extremes``; ValueError if they do not fit."""
        self.counts = stored_counts(arrays, "counts", BINS)
        self.least, self.largest = stored(arrays, "extremes", np.float64, 2).tolist()
        if not (self.least <= self.largest if self.counts.any() else (self.least, self.largest) == _NONE):
            raise ValueError("NLL extremes that contradict the counts")

    def quantiles(self) -> dict[float, float]:
        """The value of rank ceil(q·n) for each q, within 0.4 %; 0 and 1 are the least and the largest, exactly."""
        total = int(self.counts.sum())
        if not total:
            return dict.fromkeys(QUANTILES, math.nan)
        ends = np.cumsum(self.counts)
        found = {q: self._value(int(np.searchsorted(ends, max(1, math.ceil(q * total))))) for q in QUANTILES}
        return {**found, 0.0: self.least, 1.0: self.largest}

    def _value(self, bin_: int) -> float:
        """The middle of a bin, no further out than the values go."""
        if bin_ == BINS - 1:
            return math.inf
        middle = (
            0.0 if bin_ == 0 else self.largest if bin_ == BINS - 2 else float(_edges(bin_ + np.arange(2)).sum()) / 2
        )
        return min(max(middle, self.least), self.largest)

    def shown(self) -> Histogram:
        """At 8 bins an octave, without the empty ends."""
        fine = self.counts[1:-2].reshape(-1, (1 << MANTISSA) // _SHOWN).sum(axis=1)
        counts = np.concatenate([self.counts[:1], fine, self.counts[-2:-1]])
        edges = [0.0, *_edges(1 + np.arange(len(fine) + 1) * ((1 << MANTISSA) // _SHOWN)).tolist(), math.inf]
        used = np.flatnonzero(counts)
        first, last = (int(used[0]), int(used[-1]) + 1) if used.size else (0, 0)
        return Histogram(
            tuple(edges[first : last + 1]) if used.size else (),
            tuple(counts[first:last].tolist()),
            int(self.counts[-1]),
        )


def _edges(bins: np.ndarray) -> np.ndarray:
    """The lower edges of bins of the grid."""
    found: np.ndarray = ((bins + FIRST_PATTERN) << PATTERN_SHIFT).view(np.float64)
    return found
