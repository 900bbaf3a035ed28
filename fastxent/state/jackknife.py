"""Delete-a-bucket jackknife: the interval of a metric that is not a mean.

Rows fall into K buckets. θ₋ₖ is the metric of all rows but those of bucket k, SE² = (K - 1)/K · Σ (θ₋ₖ - θ̄)², and the
interval is θ ± t·SE (R. Miller 1974, "The jackknife - a review"). Buckets without rows do not count. Student's t has
at most K - 1 degrees of freedom, and fewer where few buckets make most of the error, as with few clusters of different
sizes: Satterthwaite's (Σ d²)²/Σ d⁴ of the distances d from the mean, times 3.16 - 2.77/√K, which makes up for their
being estimated (E. Johnson, K. Rust 1992, "Population inferences and variance estimation for NAEP data"; see also
arXiv 2409.14606). Figures of calibration are biased, by about (K - 1)·(θ̄ - θ); that estimate of the bias is a noisy
one, so the interval covers those of θ and of θ without its bias. The README says how often each metric's interval holds
the truth in simulations.
The θ of the bias is of all buckets together, in the cells that θ₋ₖ is computed in: they may be fewer than those of θ.

Where rows are independent and weigh the same, those that are counted together are alike, and the buckets are drawn from
the counts: that is a random division of the rows, without a look at any of them. The seed is a checksum of the counts.
With one seed for all dumps, the standard errors of all dumps of one shape would be too small, or too large, alike.
"""

from __future__ import annotations

import math
import threading
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from fastxent.results.values import Metric
from fastxent.state.intervals import student

FEWEST = 2  # buckets with rows
_FEW = 64  # rows that are counted together, up to which each is drawn by itself
_BLOCK = 1 << 15  # counts that are divided at once
_SQUARED = 1e150  # figures below have squares that are doubles
_ROUNDING = 2.0**-50  # of a figure; a standard error below it is 0
MOST_SLICES = 200  # of a column, beyond which they have no interval: each takes some milliseconds


class _OfThread(threading.local):
    """A generator for each thread, since it takes longer to make one than to draw from it."""

    def __init__(self) -> None:
        self.random = np.random.RandomState()  # its streams are the same in every version of NumPy


_of_thread = _OfThread()


class Draw(NamedTuple):
    """Rows that are counted in some places, divided over buckets: those of few rows one by one, the others by number.

    few: int64 (rows,). The place of each row. into: int64 (rows,). Its bucket.
    many: int64 (places,). The other places that have rows. numbers: int64 (buckets, places). Their rows.
    """

    few: np.ndarray
    into: np.ndarray
    many: np.ndarray
    numbers: np.ndarray


def drawn(counts: np.ndarray, buckets: int) -> np.ndarray:
    """Divide rows that are counted over buckets at random: int64 (buckets, *shape), whose sum is ``counts``.

    counts: int64, any shape. Every row falls into each bucket with the same probability, whatever the others do.
    """
    found = [np.zeros((buckets, 0), np.int64)]
    for some, draw in draws(counts.ravel(), buckets):
        size = len(counts.ravel()[some])
        found.append(np.bincount(draw.into * size + draw.few, minlength=buckets * size).reshape(buckets, -1))
        found[-1][:, draw.many] = draw.numbers
    return np.concatenate(found, axis=1).reshape(buckets, *counts.shape)


def draws(counts: np.ndarray, buckets: int) -> Iterator[tuple[slice, Draw]]:
    """Divide (n,) counts over buckets, as `drawn` does, in parts: which of them, and their rows.

    One thread must not go through two divisions by turns: they share a generator.
    """
    random = _of_thread.random
    random.seed(zlib.crc32(np.ascontiguousarray(counts, "<i8").tobytes()))
    for begin in range(0, len(counts), _BLOCK):
        some = slice(begin, begin + _BLOCK)
        yield some, _draw(counts[some], buckets, random)


def _draw(counts: np.ndarray, buckets: int, random: np.random.RandomState) -> Draw:
    few = np.flatnonzero((counts > 0) & (counts <= _FEW))
    rows = np.repeat(few, counts[few])
    into = (random.random_sample(len(rows)) * buckets).astype(np.int64)
    many = np.flatnonzero(counts > _FEW)
    left, numbers = counts[many], np.zeros((buckets, len(many)), np.int64)
    for k in range(buckets - 1 if len(many) else 0):
        numbers[k] = random.binomial(left, 1.0 / (buckets - k))
        left -= numbers[k]
    numbers[buckets - 1] = left
    return Draw(rows, into, many, numbers)


def without_drawn(counts: np.ndarray, buckets: int) -> np.ndarray:
    """All rows that are counted, then those without each bucket that `drawn` gives rows: int64 (1 + K, *shape)."""
    taken = drawn(counts, buckets)
    taken = taken[taken.any(axis=tuple(range(1, taken.ndim)))]
    return np.concatenate([counts[None], counts - taken])


def left_out(buckets: np.ndarray) -> np.ndarray:
    """What all buckets add up to, then all but each of them: float64 (1 + K, ...). No sum is taken off again.

    buckets: float64 (K, ...).
    """
    before = np.cumsum(np.concatenate([np.zeros_like(buckets[:1]), buckets[:-1]]), axis=0)
    after = np.cumsum(np.concatenate([np.zeros_like(buckets[:1]), buckets[:0:-1]]), axis=0)[::-1]
    return np.concatenate([buckets.sum(axis=0, keepdims=True), before + after])


def freedom(without: Sequence[float] | np.ndarray) -> float:
    """The degrees of freedom of a standard error of the metrics without each of K buckets, at most K - 1."""
    k = len(without)
    mean = math.fsum(without) / k
    most = max((abs(x - mean) for x in without), default=0.0)
    if not most > 0.0:
        return k - 1
    squares = [((x - mean) / most) ** 2 for x in without]
    effective = math.fsum(squares) ** 2 / math.fsum(x * x for x in squares)
    return min(k - 1.0, (3.16 - 2.77 / math.sqrt(k)) * effective)


def jackknifed(metric: Metric, figures: Sequence[float] | np.ndarray, low: float = 0.0, high: float = 1.0) -> Metric:
    """Return a metric with its standard error, and its interval cut to ``low`` … ``high``.

    figures: float (1 + K,). The metric of all buckets together, then without each bucket that has rows, all in the same
        cells. If leaving out a bucket changes nothing, there is no interval.
    """
    k, value = len(figures) - 1, metric.value
    if k < FEWEST or not all(abs(figure) < _SQUARED for figure in (value, *figures)):
        return metric
    together, without = float(figures[0]), figures[1:]
    mean = math.fsum(without) / k
    stderr = math.sqrt((k - 1) / k * math.fsum((x - mean) ** 2 for x in without))
    if stderr <= _ROUNDING * abs(mean):
        return replace(metric, stderr=0.0)
    half, corrected = student(freedom(without)) * stderr, value - (k - 1) * (mean - together)
    ends = min(value, corrected) - half, max(value, corrected) + half
    first, last = (min(high, max(low, end)) for end in ends)
    return replace(metric, stderr=stderr, ci95=(first, last), method="jackknife")
