"""Averages over the classes of a multiclass dump, from a few integers of each class.

They are functions of sums alone, so they can also be computed from the sums of all rows less those of some rows.
Semantics are scikit-learn's: a class counts if it is the target or the prediction of a row, and a ratio over nothing is
0 (``zero_division=0``). Of the confusion matrix only its margins and its trace are needed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from fastxent.kernels.exact import exact_sum, rounded_ratio, rounded_root

ENTROPY = "normalized_entropy"
MACRO = ("balanced_accuracy", "macro_precision", "macro_recall", "macro_f1", "weighted_f1", "matthews_corrcoef")
AVERAGES = (ENTROPY, *MACRO)
_EXACT = 1 << 31  # rows up to which products of two counts, summed, fit in 64 bits


class ClassSums(NamedTuple):
    """Integers of some classes, all that occur among them.

    ids: int64 (classes,). The classes, in order.
    rows: int64 (classes,). Rows with the class as target, and rows with it as prediction, added.
    support, predicted, correct: (classes,). Rows by target, by prediction, and by target where the two agree; with
        weights the weights of these rows, as Python integers in one unit.
    finite: bool. False if a weight is not finite; there are no averages then.
    losses: float64 (classes,) or None. The sums of the NLL of the rows of each class, where they are known.
    """

    ids: np.ndarray
    rows: np.ndarray
    support: np.ndarray
    predicted: np.ndarray
    correct: np.ndarray
    finite: bool = True
    losses: np.ndarray | None = None


def averages(sums: ClassSums) -> dict[str, float]:
    """The averages of `MACRO`; NaN without rows."""
    seen = sums.rows != 0
    if not (sums.finite and seen.any()):
        return dict.fromkeys(MACRO, math.nan)
    counts = sums.support[seen], sums.predicted[seen], sums.correct[seen]
    return dict(
        zip(MACRO, (*map(float, _means(*counts, int(seen.sum()), exact_sum)), *_matthews(*counts)), strict=True)
    )


def averages_of_each(counts: np.ndarray) -> dict[str, np.ndarray]:
    """The averages of `MACRO` of each of several groups of rows, (groups,), within the rounding of sums.

    counts: int64 (3, groups, C). Rows of each class by target, by prediction, and by both where they agree.
    """
    seen = np.count_nonzero(counts[0] + counts[1], axis=1)
    means = _means(counts[0], counts[1], counts[2], seen, lambda values: values.sum(axis=-1))
    matthews = np.where(seen != 0, _matthews(*counts), math.nan)
    return dict(zip(MACRO, (*means, matthews), strict=True))


def _means(
    support: np.ndarray, predicted: np.ndarray, correct: np.ndarray, seen: Any, add: Callable[[np.ndarray], Any]
) -> list[Any]:
    """The averages of `MACRO` but the last, over the last axis.

    seen: how many classes occur. add: sums float64 numbers over the last axis.
    """
    precision, recall = ratios(correct, predicted), ratios(correct, support)
    f1 = ratios(2 * correct, support + predicted)
    whole = support.sum(axis=-1, keepdims=True)
    targets, some = np.count_nonzero(support, axis=-1), (whole != 0)[..., 0]
    weighted = add(ratios(support, np.broadcast_to(whole, support.shape)) * f1)
    sums = (add(recall), targets), (add(precision), seen), (add(recall), seen), (add(f1), seen)
    with np.errstate(invalid="ignore"):  # NaN without classes
        return [*(np.float64(total) / count for total, count in sums), np.where(some, weighted, math.nan)]


def class_entropy(sums: ClassSums, class_weight: tuple[float, ...] | None = None) -> float:
    """The entropy of the class frequencies, in nats: the least cross-entropy of a constant prediction.

    class_weight: (C,) or None. Weights of the cross-entropy, which then weigh the frequencies too.
    """
    shares = _frequencies(sums, class_weight)
    shares = shares[shares != 0.0]
    return -exact_sum(shares * np.log(shares)) if len(shares) and (shares > 0.0).all() else math.nan


def _frequencies(sums: ClassSums, class_weight: tuple[float, ...] | None) -> np.ndarray:
    """The share of each class; NaN without rows."""
    whole = int(sums.support.sum())
    if not (sums.finite and whole):
        return np.full(len(sums.ids), math.nan)
    shares = ratios(sums.support, np.full_like(sums.support, whole))
    if class_weight is None:
        return shares
    shares = shares * np.array(class_weight)[sums.ids]
    total = exact_sum(shares)
    found: np.ndarray = shares / total if total > 0.0 else shares * math.nan
    return found


def entropy_error(
    sums: ClassSums, class_weight: tuple[float, ...] | None, loss: float, stderr: float, units: int
) -> float:
    """The standard error of the normalized entropy L/H of independent rows, by the delta method.

    What a row of class y adds to it is (l - L·w - (L/H)·w·(-ln p - H)) / (W·H), where l is w times its NLL, w and p are
    the class weight and the frequency of y, and W the sum of w. Its squares follow from those of l - L·w, which
    the error of L tells, and from the sums of each class.

    loss, stderr: float. L and its standard error.
    units: int. The rows that count, of which W is made.
    """
    shares = _frequencies(sums, class_weight)
    some = shares != 0.0
    if sums.losses is None or units < 2 or not some.any():
        return math.nan
    shares, rows, losses = shares[some], sums.support[some].astype(np.float64), sums.losses[some]
    weights = np.ones(len(rows)) if class_weight is None else np.array(class_weight)[sums.ids[some]]
    weights = weights / np.abs(weights).max()  # only their ratios matter
    whole, above = exact_sum(weights * rows), -np.log(shares)
    entropy = exact_sum(shares * above)
    if not (entropy > 0.0 and math.isfinite(loss)):
        return math.nan
    above = weights * (above - entropy)
    own, slope = stderr * whole * (stderr * whole) * ((units - 1) / units), loss / entropy
    both = exact_sum(above * (weights * losses - loss * weights * rows))
    squares = own - 2.0 * slope * both + slope * slope * exact_sum(rows * above * above)
    if not math.isfinite(squares):
        return math.nan
    return math.sqrt(max(0.0, squares) * (units / (units - 1))) / (whole * entropy)


def entropy_of_each(support: np.ndarray, class_weight: tuple[float, ...] | None) -> np.ndarray:
    """(groups,) the class entropy of each of several groups of rows, within the rounding of sums; NaN where it is 0.

    support: int64 (groups, C). Rows of each class by target.
    """
    weighed = support * (1.0 if class_weight is None else np.array(class_weight))
    shares = weighed / np.maximum(weighed.sum(axis=1, keepdims=True), np.finfo(float).tiny)
    found: np.ndarray = -(shares * np.log(np.where(shares > 0.0, shares, 1.0))).sum(axis=1)
    return np.where(found > 0.0, found, math.nan)


def ratios(upper: np.ndarray, lower: np.ndarray, over_nothing: float = 0.0) -> np.ndarray:
    """Ratios of integers, each rounded once."""
    if upper.dtype == object or lower.dtype == object:
        pairs = zip(upper.tolist(), lower.tolist(), strict=True)
        return np.array([rounded_ratio(a, b) if b else over_nothing for a, b in pairs], np.float64)
    found: np.ndarray = np.divide(upper, lower, out=np.full(upper.shape, over_nothing), where=lower != 0)
    return found


def _matthews(support: np.ndarray, predicted: np.ndarray, correct: np.ndarray) -> list[float]:
    """Correlation of targets and predictions (Gorodkin 2004) over the last axis; 0 where one of them does not vary."""
    if support.dtype != object and support.sum(axis=-1).max(initial=0) >= _EXACT:
        support, predicted = support.astype(object), predicted.astype(object)
    sums = support, correct, support * predicted, support * support, predicted * predicted
    return [_correlation(*group) for group in zip(*(np.ravel(n.sum(axis=-1)).tolist() for n in sums), strict=True)]


def _correlation(rows: int, right: int, both: int, targets: int, predictions: int) -> float:
    covariance = right * rows - both
    spread = (rows * rows - targets) * (rows * rows - predictions)
    size = rounded_root(covariance * covariance, spread) if spread > 0 else 0.0
    return -size if covariance < 0 else size
