"""ROC AUC, average precision and the curves behind them, from the rows of each class by score."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from fastxent.kernels.exact import FOLD_BITS, exact_fold, exact_round, exact_sum, exact_zeros
from fastxent.results.curves import Curves, GainsCurve, OperatingPoint, PrecisionRecallCurve, RocCurve
from fastxent.results.values import Metric
from fastxent.state.cells import score_of
from fastxent.state.intervals import NORMAL

POINTS = 512  # of a curve at most
_BLOCK = 1 << FOLD_BITS  # cells at a time: what is computed of them stays in the cache


class Ranked(NamedTuple):
    """Rows of a group by score, cells of it in ascending order.

    keys: uint64 (cells,). The key of the least score of each cell: see `state.cells`.
    negative, positive: float64 (cells,). Rows of each class, or their weights.
    exact: bool. Each cell holds one score.
    counted: bool. They are rows, so that each is independent of the others.
    """

    keys: np.ndarray
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
    value, least, tied = _sums(
        (positive * (2.0 * (false - negative) + negative), positive * (false - negative), positive * negative)
        for negative, positive, false, _ in _running(negative, positive)
    )
    value, bounds = value / (2.0 * p * n), None
    if not rows.exact:
        least /= p * n
        bounds = max(0.0, min(least, value)), min(1.0, max(least + tied / (p * n), value))
    if not rows.counted or n < 2.0 or p < 2.0:
        return Metric(value, bounds=bounds)
    spread = _sums(_deviations(negative, positive, n, p, value))
    stderr = math.sqrt(spread[0] / (p - 1.0) / p + spread[1] / (n - 1.0) / n)
    ends = max(0.0, value - NORMAL * stderr), min(1.0, value + NORMAL * stderr)
    return Metric(value, stderr, ends, "delong", bounds)


def _deviations(
    negative: np.ndarray, positive: np.ndarray, n: float, p: float, value: float
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Squared differences between ``value`` and the share of the other class that rows are ranked rightly against."""
    for some, others, false, true in _running(negative, positive):
        of_positive = (false - some + 0.5 * some) / n - value
        of_negative = (p - true + 0.5 * others) / p - value
        yield others * of_positive * of_positive, some * of_negative * of_negative


def average_precision(rows: Ranked) -> Metric:
    """The precision at each score, weighted by the positive rows that have it.

    A cell of several scores has bounds: its positives before its negatives, or after them. Its value takes both to be
    spread evenly; it is exact for a cell of one row.
    """
    positive, negative = _both(rows)
    p = exact_sum(positive)
    if not p > 0.0:
        return Metric(math.nan)
    if rows.exact:
        (value,) = _sums((some * _share(true, false),) for some, _, true, false in _running(positive, negative))
        return Metric(value / p)
    least, most, value = (total / p for total in _sums(_precisions(positive, negative, rows.counted)))
    return Metric(min(max(value, least), most), bounds=(least, most))


def _precisions(positive: np.ndarray, negative: np.ndarray, counted: bool) -> Iterator[tuple[np.ndarray, ...]]:
    """Positives times their precision: with the negatives of their cell before them, behind them, and among them."""
    for some, others, true, false in _running(positive, negative):
        first = np.minimum(some, 1.0 if counted else 0.0)
        half = (some - first) / 2.0 if counted else 0.0
        yield (
            some * _share(true - some + first, false),
            some * _share(true, false - others),
            some * _share(true - half, false - others / 2.0),
        )


def _running(first: np.ndarray, second: np.ndarray) -> Iterator[tuple[np.ndarray, ...]]:
    """Two arrays block by block: what they hold, and their sums up to there."""
    ends = [0.0, 0.0]
    for begin in range(0, len(first), _BLOCK):
        blocks = first[begin : begin + _BLOCK], second[begin : begin + _BLOCK]
        sums = []
        for k, block in enumerate(blocks):
            total = block.copy()
            total[0] += ends[k]
            sums.append(np.cumsum(total, out=total))
            ends[k] = total[-1]
        yield *blocks, *sums


def _sums(terms: Iterable[tuple[np.ndarray, ...]]) -> list[float]:
    """The correctly rounded sum of each array over all blocks; the arrays are lost."""
    totals: list[np.ndarray] = []
    room = np.empty(8)
    for arrays in terms:
        totals = totals or [exact_zeros() for _ in arrays]
        for total, values in zip(totals, arrays, strict=True):
            exact_fold(total, values, room)
    return [exact_round(total) for total in totals]


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
    positive, negative = _both(rows)
    first, last = (0.0, 0.0), (0.0, 0.0)
    for k, (_, _, true, false) in enumerate(_running(positive, negative)):
        first, last = (true[0], false[0]) if k == 0 else first, (true[-1], false[-1])
    if not (last[0] > 0.0 and last[1] > 0.0):
        return None
    wanted = np.linspace(first[0] / last[0] + first[1] / last[1], 2.0, POINTS - 1)
    chosen, begin = np.zeros(len(wanted), np.int64), 0
    best, middle = (math.inf, 0), (math.inf, 0)  # of two sizes the least, and where it is: the first place of several
    for _, _, true, false in _running(positive, negative):
        along = true / last[0] + false / last[1]
        chosen += np.searchsorted(along, wanted)
        best = min(best, _least(-_f1(true, false, last), begin))
        middle = min(middle, _least(np.abs(along - 1.0), begin))
        begin += len(along)
    chosen = np.unique(chosen) if len(positive) > POINTS - 1 else np.arange(len(positive))
    places = np.concatenate([chosen, [best[1], middle[1]]])
    true, false = _sums_to(places, positive, negative)
    recall, alarm = true / last[0], false / last[1]
    precision, part = _share(true, false), (true + false) / (last[0] + last[1])
    threshold = score_of(rows.keys[::-1][places])
    threshold = np.where(np.isnan(threshold), -np.inf, threshold)  # below every score
    f1 = _f1(true, false, last)

    def point(place: int) -> OperatingPoint:
        found = (threshold, precision, recall, f1, alarm, 1.0 - recall)
        return OperatingPoint(*(float(column[place]) for column in found))

    def points(column: np.ndarray) -> tuple[float, ...]:
        return tuple(column[:-2].tolist())

    least = points(threshold)
    return Curves(
        RocCurve((math.inf, *least), (0.0, *points(alarm)), (0.0, *points(recall))),
        PrecisionRecallCurve(least, points(precision), points(recall)),
        GainsCurve(least, points(part), points(recall), points(recall / np.where(part > 0.0, part, 1.0))),
        point(-2),
        point(-1),
    )


def _least(values: np.ndarray, begin: int) -> tuple[float, int]:
    """The least of values, and its place if the first is at ``begin``."""
    place = int(np.argmin(values))
    return float(values[place]), begin + place


def _f1(true: np.ndarray, false: np.ndarray, all_of: tuple[float, float]) -> np.ndarray:
    """F1 where so many positive and negative rows are predicted positive, of ``all_of`` them."""
    found: np.ndarray = 2.0 * true / (all_of[0] + true + false)
    return found


def _sums_to(places: np.ndarray, positive: np.ndarray, negative: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The running sums of two arrays at some places."""
    found, begin = np.empty((2, len(places))), 0
    for _, _, *sums in _running(positive, negative):
        inside = (places >= begin) & (places < begin + len(sums[0]))
        for k in range(2):
            found[k, inside] = sums[k][places[inside] - begin]
        begin += len(sums[0])
    return found[0], found[1]
