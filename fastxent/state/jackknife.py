"""Delete-a-bucket jackknife: the interval of a metric that is not a mean.

Rows fall into K buckets. θ₋ₖ is the metric of all rows but those of bucket k, SE² = (K - 1)/K · Σ (θ₋ₖ - θ̄)², and the
interval is θ ± t·SE with K - 1 degrees of freedom (R. Miller 1974, "The jackknife - a review"). Buckets without rows do
not count. Figures of calibration are biased, by about (K - 1)·(θ̄ - θ); that estimate of the bias is a noisy one, so the
interval covers those of θ and of θ without its bias. In simulations it then holds the truth in 93 to 97 % of samples.

Where rows are independent and weigh the same, those that are counted together are alike, and the buckets are drawn from
the counts: that is a random division of the rows, from a fixed seed, without a look at any of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from fastxent.results.values import Metric
from fastxent.state.intervals import student

_SEED = 20_230_917
FEWEST = 2  # buckets with rows
MOST_SLICES = 200  # of a column, beyond which they have no interval: each takes some milliseconds


def drawn(counts: np.ndarray, buckets: int) -> np.ndarray:
    """Divide rows that are counted over buckets at random: int64 (buckets, *shape), whose sum is ``counts``.

    counts: int64, any shape. Every row falls into each bucket with the same probability, whatever the others do.
    """
    flat = counts.ravel()
    filled = np.flatnonzero(flat)
    found = np.zeros((buckets, flat.size), np.int64)
    left = flat[filled]
    random = np.random.RandomState(_SEED)  # its streams are the same in every version of NumPy
    for k in range(buckets - 1):
        some = np.flatnonzero(left)
        if not some.size:
            break
        took = random.binomial(left[some], 1.0 / (buckets - k))
        found[k, filled[some]] = took
        left[some] -= took
    found[buckets - 1, filled] = left
    return found.reshape(buckets, *counts.shape)


def left_out(buckets: np.ndarray) -> np.ndarray:
    """What all buckets but one add up to, for each of them. buckets: float64 (K, ...). No sum is taken off again."""
    before = np.cumsum(np.concatenate([np.zeros_like(buckets[:1]), buckets[:-1]]), axis=0)
    after = np.cumsum(np.concatenate([np.zeros_like(buckets[:1]), buckets[:0:-1]]), axis=0)[::-1]
    found: np.ndarray = before + after
    return found


def jackknifed(metric: Metric, without: Sequence[float] | np.ndarray, low: float = 0.0, high: float = 1.0) -> Metric:
    """Return a metric with its standard error, and its interval cut to ``low`` … ``high``.

    without: float (K,). The metric without each bucket that has rows. If they are all the same, there is no interval.
    """
    k, value = len(without), metric.value
    if k < FEWEST or not (math.isfinite(value) and all(map(math.isfinite, without))):
        return metric
    mean = math.fsum(without) / k
    stderr = math.sqrt((k - 1) / k * math.fsum((x - mean) ** 2 for x in without))
    if stderr == 0.0:
        return replace(metric, stderr=0.0)
    half, corrected = student(k - 1) * stderr, value - (k - 1) * (mean - value)
    ends = max(low, min(value, corrected) - half), min(high, max(value, corrected) + half)
    return replace(metric, stderr=stderr, ci95=ends, method="jackknife")
