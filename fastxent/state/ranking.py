"""ROC AUC, average precision and the curves behind them, from the rows of each class by score."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from fastxent.kernels.exact import exact_round, exact_sum, exact_zeros
from fastxent.kernels.ranks import (
    choose_cells,
    join_cells,
    room,
    running_at,
    running_ends,
    sum_area,
    sum_deviations,
    sum_exact_precisions,
    sum_precisions,
)  # fmt: skip
from fastxent.results.curves import Curves, GainsCurve, OperatingPoint, PrecisionRecallCurve, RocCurve
from fastxent.results.values import Metric
from fastxent.state.cells import score_of
from fastxent.state.intervals import NORMAL
from fastxent.state.jackknife import left_out, without_drawn

POINTS = 512  # of a curve at most
_COARSE = 1024  # cells for a standard error


class Ranked(NamedTuple):
    """Rows of a group by score, cells of it in ascending order.

    keys: uint64 (cells,). The key of the least score of each cell: see `state.cells`.
    negative, positive: float64 or uint32 (cells,). Rows of each class, or their weights.
    exact: bool. Each cell holds one score.
    counted: bool. They are rows, so that each is independent of the others.
    """

    keys: np.ndarray
    negative: np.ndarray
    positive: np.ndarray
    exact: bool
    counted: bool


def together(calls: Mapping[str, Callable[[], Any]], threads: int) -> dict[str, Any]:
    """What calls return, made by up to ``threads`` threads."""
    if min(threads, len(calls)) < 2:
        return {name: call() for name, call in calls.items()}
    with ThreadPoolExecutor(min(threads, len(calls))) as pool:
        waiting = {name: pool.submit(call) for name, call in calls.items()}
        return {name: future.result() for name, future in waiting.items()}


def roc_auc(rows: Ranked) -> Metric:
    """The share of pairs of a positive and a negative row that the score ranks rightly; a tie is half a pair.

    The standard error is DeLong's (E. DeLong, D. DeLong, D. Clarke-Pearson 1988), from the share of the other class
    that each row is ranked rightly against.
    """
    negative, positive = rows.negative, rows.positive
    if not rows.counted:  # each class by itself: the product of their sums is then neither 0 nor infinite
        negative, positive = _moderate(negative, negative), _moderate(positive, positive)
    n, p = (float(side.sum()) if rows.counted else exact_sum(side) for side in (negative, positive))
    if not (n > 0.0 and p > 0.0):
        return Metric(math.nan)
    value, least, tied = _sums(sum_area, 3, negative, positive)
    value, bounds = value / (2.0 * p * n), None
    if not rows.exact:
        least /= p * n
        bounds = max(0.0, min(least, value)), min(1.0, max(least + tied / (p * n), value))
    if not rows.counted or n < 2.0 or p < 2.0:
        return Metric(value, bounds=bounds)
    spread = _sums(sum_deviations, 2, negative, positive, n, p, value)
    stderr = math.sqrt(spread[0] / (p - 1.0) / p + spread[1] / (n - 1.0) / n)
    ends = max(0.0, value - NORMAL * stderr), min(1.0, value + NORMAL * stderr)
    return Metric(value, stderr, ends, "delong", bounds)


def average_precision(rows: Ranked) -> Metric:
    """The precision at each score, weighted by the positive rows that have it.

    A cell of several scores has bounds: its positives before its negatives, or after them. Its value takes both to be
    spread evenly; it is exact for a cell of one row.
    """
    positive, negative = _both(rows)
    p = float(positive.sum()) if rows.counted else exact_sum(positive)
    if not p > 0.0:
        return Metric(math.nan)
    if rows.exact:
        (value,) = _sums(sum_exact_precisions, 1, positive, negative)
        return Metric(value / p)
    step = 1.0 if rows.counted else 0.0
    least, most, value = (total / p for total in _sums(sum_precisions, 3, positive, negative, step))
    return Metric(min(max(value, least), most), bounds=(least, most))


def without_buckets(rows: Ranked, buckets: int) -> list[Ranked]:
    """All rows, then without each of some buckets that are drawn from their counts, in at most `_COARSE` cells."""
    if len(rows.keys) > _COARSE:
        counts, firsts = np.zeros((2, _COARSE)), np.zeros(_COARSE, np.int64)
        used = join_cells(rows.negative, rows.positive, counts, firsts)
        counts, firsts = counts[:, :used], firsts[:used]
    else:
        counts, firsts = np.stack([rows.negative, rows.positive]), np.arange(len(rows.keys))
    exact = rows.exact and len(firsts) == len(rows.keys)
    return [
        rows._replace(keys=rows.keys[firsts], negative=negative, positive=positive, exact=exact)
        for negative, positive in without_drawn(counts.astype(np.int64), buckets).astype(rows.negative.dtype)
    ]


def without_each(apart: list[Ranked], length: int, longest: int) -> list[Ranked]:
    """All rows, then all but those of one group, for each that has rows. length: leading bits of keys that all keep."""
    apart = [rows for rows in apart if len(rows.keys)]
    if not apart:
        return []
    shift = np.uint64(longest - length)
    keys, places = np.unique(np.concatenate([rows.keys for rows in apart]) >> shift << shift, return_inverse=True)
    total = np.zeros((len(apart), len(keys), 2))
    ends = np.cumsum([len(rows.keys) for rows in apart])
    for mine, rows, at in zip(total, apart, np.split(places, ends[:-1]), strict=True):
        np.add.at(mine, at, np.stack([rows.negative, rows.positive], axis=1))
    counted = all(rows.counted for rows in apart)
    return [Ranked(keys, rest[:, 0].copy(), rest[:, 1].copy(), length == longest, counted) for rest in left_out(total)]


def _sums(add: Callable[..., None], count: int, *arguments: np.ndarray | float) -> list[float]:
    """The correctly rounded sums that a kernel makes of cells."""
    totals = tuple(exact_zeros() for _ in range(count))
    add(*arguments, totals, room())
    return [exact_round(total) for total in totals]


def _both(rows: Ranked) -> tuple[np.ndarray, np.ndarray]:
    """(positives, negatives) by ascending score; weights are scaled together, so that no sum is infinite."""
    positive, negative = rows.positive, rows.negative
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
    last = running_ends(positive, negative)
    if not (last[0] > 0.0 and last[1] > 0.0):
        return None
    wanted = np.linspace(positive[-1] / last[0] + negative[-1] / last[1], 2.0, POINTS - 1)
    chosen = np.zeros(len(wanted), np.int64)
    best, middle = choose_cells(positive, negative, last, wanted, chosen, room())
    chosen = np.unique(chosen) if len(positive) > POINTS - 1 else np.arange(len(positive))
    places = np.concatenate([chosen, [best, middle]])
    true, false = sums = np.empty((2, len(places)))
    running_at(places, np.argsort(places, kind="stable"), positive, negative, sums)
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


def _f1(true: np.ndarray, false: np.ndarray, all_of: tuple[float, float]) -> np.ndarray:
    """F1 where so many positive and negative rows are predicted positive, of ``all_of`` them."""
    found: np.ndarray = 2.0 * true / (all_of[0] + true + false)
    return found
