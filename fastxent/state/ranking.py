"""ROC AUC, average precision and the curves behind them, from the rows of each class by score."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from fastxent.kernels.exact import exact_sum
from fastxent.results.curves import Curves, GainsCurve, OperatingPoint, PrecisionRecallCurve, RocCurve
from fastxent.results.values import Metric
from fastxent.state.intervals import NORMAL

POINTS = 512  # of a curve at most


class Ranked(NamedTuple):
    """Rows of a group by score, cells of it in ascending order.

    threshold: float64 (cells,). The least score of each cell.
    negative, positive: float64 (cells,). Rows of each class, or their weights.
    exact: bool. Each cell holds one score.
    counted: bool. They are rows, so that each is independent of the others.
    """

    threshold: np.ndarray
    negative: np.ndarray
    positive: np.ndarray
    exact: bool
    counted: bool


def roc_auc(rows: Ranked) -> Metric:
    """The share of pairs of a positive and a negative row that the score ranks rightly; a tie is half a pair.

    The standard error is DeLong's (E. DeLong, D. DeLong, D. Clarke-Pearson 1988), from the share of the other class
    that each row is ranked rightly against.
    """
    negative, positive = rows.negative, rows.positive
    if not rows.counted:  # each class by itself: the product of their sums is then neither 0 nor infinite
        negative, positive = _moderate(negative, negative), _moderate(positive, positive)
    n, p = exact_sum(negative), exact_sum(positive)
    if not (n > 0.0 and p > 0.0):
        return Metric(math.nan)
    below = np.cumsum(negative) - negative
    value = exact_sum(positive * (2.0 * below + negative)) / (2.0 * p * n)
    bounds = None
    if not rows.exact:
        least = exact_sum(positive * below) / (p * n)
        most = least + exact_sum(positive * negative) / (p * n)
        bounds = max(0.0, min(least, value)), min(1.0, max(most, value))
    if not rows.counted or n < 2.0 or p < 2.0:
        return Metric(value, bounds=bounds)
    above = p - np.cumsum(positive)
    of_positive = (below + 0.5 * negative) / n - value
    of_negative = (above + 0.5 * positive) / p - value
    spread = exact_sum(positive * of_positive * of_positive) / (p - 1.0) / p
    spread += exact_sum(negative * of_negative * of_negative) / (n - 1.0) / n
    stderr = math.sqrt(spread)
    ends = max(0.0, value - NORMAL * stderr), min(1.0, value + NORMAL * stderr)
    return Metric(value, stderr, ends, "delong", bounds)


def average_precision(rows: Ranked) -> Metric:
    """The precision at each score, weighted by the positive rows that have it.

    A cell of several scores has bounds: its positives before its negatives, or after them. Its value takes both to be
    spread evenly; it is exact for a cell of one row.
    """
    positive, negative = _both(rows)
    p = exact_sum(positive)
    if not p > 0.0:
        return Metric(math.nan)
    true, false = np.cumsum(positive), np.cumsum(negative)
    if rows.exact:
        return Metric(exact_sum(positive * _share(true, false)) / p)
    first = np.minimum(positive, 1.0 if rows.counted else 0.0)
    least = exact_sum(positive * _share(true - positive + first, false)) / p
    most = exact_sum(positive * _share(true, false - negative)) / p
    half = (positive - first) / 2.0 if rows.counted else 0.0
    value = exact_sum(positive * _share(true - half, false - negative / 2.0)) / p
    return Metric(min(max(value, least), most), bounds=(least, most))


def _both(rows: Ranked) -> tuple[np.ndarray, np.ndarray]:
    """(positives, negatives) from the highest score down; weights are scaled together, so that no sum is infinite."""
    positive, negative = rows.positive[::-1], rows.negative[::-1]
    if rows.counted:
        return positive, negative
    most = np.maximum(positive, negative)
    return _moderate(positive, most), _moderate(negative, most)


def _moderate(weights: np.ndarray, most: np.ndarray) -> np.ndarray:
    """Weights times the power of two that brings the largest of ``most`` to about 1."""
    scaled: np.ndarray = np.ldexp(weights, -int(np.frexp(most.max(initial=0.0))[1]))
    return scaled


def _share(part: np.ndarray, other: np.ndarray) -> np.ndarray:
    """part / (part + other), 0 over nothing."""
    total = part + other
    return np.where(total > 0.0, part / np.where(total > 0.0, total, 1.0), 0.0)


def curves(rows: Ranked) -> Curves | None:
    """At most `POINTS` points of each curve, evenly along the ROC curve; None where a class has no rows."""
    true, false = map(np.cumsum, _both(rows))
    if not (len(true) and true[-1] > 0.0 and false[-1] > 0.0):
        return None
    recall, alarm = true / true[-1], false / false[-1]
    precision = _share(true, false)
    part = (true + false) / (true[-1] + false[-1])
    threshold = rows.threshold[::-1]
    threshold = np.where(np.isnan(threshold), -np.inf, threshold)  # below every score
    f1 = 2.0 * true / (true[-1] + true + false)

    def point(place: int) -> OperatingPoint:
        found = (threshold, precision, recall, f1, alarm, 1.0 - recall)
        return OperatingPoint(*(float(column[place]) for column in found))

    chosen = np.arange(len(true))
    if len(chosen) > POINTS - 1:
        along = recall + alarm
        chosen = np.unique(np.searchsorted(along, np.linspace(along[0], along[-1], POINTS - 1)))

    def points(column: np.ndarray) -> tuple[float, ...]:
        return tuple(column[chosen].tolist())

    least = points(threshold)
    return Curves(
        RocCurve((math.inf, *least), (0.0, *points(alarm)), (0.0, *points(recall))),
        PrecisionRecallCurve(least, points(precision), points(recall)),
        GainsCurve(least, points(part), points(recall), points(recall / np.where(part > 0.0, part, 1.0))),
        point(int(np.argmax(f1))),
        point(int(np.argmin(np.abs(alarm + recall - 1.0)))),
    )
