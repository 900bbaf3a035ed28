"""95 % intervals: Student's t for a mean, its exponential for a perplexity, Wilson's for a rate.

Formulas: Miller 2024 (arXiv 2411.00640) for clustered standard errors; Wilson 1927 for rates, with the number of rows
that the standard error is worth where rows are weighted or clustered (Korn and Graubard 1998).
"""

from __future__ import annotations

import functools
import math

from fastxent.results.values import Metric

NORMAL = 1.959963984540054  # the 97.5 % point of the normal distribution
_WIDEST = 1e100  # of z²/n in Wilson's interval: it is 0 … 1 then


@functools.lru_cache(maxsize=4096)
def student(freedom: float) -> float:
    """Return the 97.5 % point of Student's t."""
    from scipy.special import stdtrit

    return float(stdtrit(freedom, 0.975))


def exponential(mean: float) -> float:
    """Return exp(mean), infinite where it overflows."""
    return math.exp(mean) if mean < 709.7 else math.inf if mean == mean else math.nan


def by_student(value: float, stderr: float, freedom: int) -> Metric:
    """Return a metric with the interval value ± t·stderr."""
    if not (freedom > 0 and math.isfinite(stderr)):
        return Metric(value, stderr)
    half = student(freedom) * stderr
    return Metric(value, stderr, (value - half, value + half), "t")


def by_exponential(mean: float, stderr: float, freedom: int) -> Metric:
    """Return exp(mean) with the exponential of the mean's interval; ``stderr`` is the mean's, scaled by the slope."""
    value = exponential(mean)
    low, high = by_student(mean, stderr, freedom).ci95
    if low != low:
        return Metric(value, value * stderr if stderr == stderr else math.nan)
    return Metric(value, value * stderr, (exponential(low), exponential(high)), "exp-t")


def by_wilson(value: float, stderr: float, units: int, rows: float | None) -> Metric:
    """Return a rate with Wilson's interval. It has a positive width even at 0 and 1.

    units: int. Independent rows or clusters.
    rows: float or None. Rows of the rate if each is independent and weighs 1. None: as many as ``stderr`` is worth,
        and Student's t instead of the normal distribution.
    """
    if not 0.0 <= value <= 1.0:  # undefined, or with negative weights
        return by_student(value, stderr, units - 1)
    z = NORMAL
    if rows is None:
        if not math.isfinite(stderr):
            return Metric(value, stderr)
        z = student(units - 1)
        varies = stderr > 0.0 and 0.0 < value < 1.0
        rows = value * (1.0 - value) / stderr / stderr if varies else float(units)
    return Metric(value, stderr, wilson(value, z, rows), "wilson")


def wilson(value: float, z: float, rows: float) -> tuple[float, float]:
    """Return the interval of a rate: the p with |value - p| <= z·√(p(1 - p)/rows)."""
    a = min(z * z / rows, _WIDEST) if rows > 0.0 else _WIDEST
    middle = (value + a / 2.0) / (1.0 + a)
    half = math.sqrt(max(0.0, value * (1.0 - value)) * a + a * a / 4.0) / (1.0 + a)
    low = 0.0 if value == 0.0 else max(0.0, middle - half)
    high = 1.0 if value == 1.0 else min(1.0, middle + half)
    return low, high
