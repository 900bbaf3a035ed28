"""The classwise calibration error: the mean over classes of the gap between probability and frequency in bins.

For class c and bin b of its probability p, the gap is |Σ (p - y)| / n, where y is 1 in rows of that target. They are
added over bins and averaged over all C classes (M. Kull et al. 2019, arXiv 1910.12656).
"""

from __future__ import annotations

import math

import numpy as np

from fastxent.kernels.classwise import BITS
from fastxent.kernels.exact import rounded_ratio
from fastxent.options.config import EvalConfig
from fastxent.results.values import Metric
from fastxent.scoring.classwise import CLASSWISE
from fastxent.state.component import Summands
from fastxent.state.metrics import MetricPlan
from fastxent.state.packed import stored, stored_counts


class ClassGapSums:
    """The component of a state that sums the gaps: ``sums`` int64 (C, bins), in units of 2**-`BITS`."""

    def __init__(self, n_classes: int, bins: int) -> None:
        self.rows, self.sums = 0, np.zeros((n_classes, bins), np.int64)

    def add(self, summands: Summands) -> None:
        """Add the rows of a batch."""
        found = summands.rows.class_gaps
        if found is None:
            raise ValueError("scored rows must have class_gaps, because the configuration uses them")
        self.sums += found.sums
        self.rows += summands.n

    def absorb(self, other: ClassGapSums, clusters: np.ndarray | None = None) -> None:
        """Add the rows of another."""
        self.sums += other.sums
        self.rows += other.rows

    def arrays(self, clusters: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """The arrays to store."""
        return {"rows": np.array([self.rows]), "sums": self.sums}

    def load(self, arrays: dict[str, np.ndarray], keys: list[str] | None = None, clusters: int = 0) -> None:
        """Take over stored arrays; ValueError if they do not fit."""
        self.rows = int(stored_counts(arrays, "rows", 1)[0])
        self.sums = stored(arrays, "sums", np.int64, *self.sums.shape)
        if (abs(int(self.sums.min())) | abs(int(self.sums.max()))) > self.rows << BITS:
            raise ValueError("gaps of more rows than there are")

    def metric(self) -> Metric:
        """The metric."""
        if not self.rows:
            return Metric(math.nan)
        total = sum(np.abs(self.sums).sum(axis=1).tolist())
        return Metric(rounded_ratio(total, (self.rows * len(self.sums)) << BITS))


def class_gaps_of(config: EvalConfig, plan: MetricPlan) -> ClassGapSums | None:
    """The component of a configuration that names the metric; None for others."""
    return ClassGapSums(config.n_classes, config.bins) if CLASSWISE in plan.names else None
