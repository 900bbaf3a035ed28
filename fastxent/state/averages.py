"""Averages over the classes of a multiclass dump, from a few integers of each class.

They are functions of sums alone, so they can also be computed from the sums of all rows less those of some rows.
Semantics are scikit-learn's: a class counts if it is the target or the prediction of a row, and a ratio over nothing is
0 (``zero_division=0``). Of the confusion matrix only its margins and its trace are needed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

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
    """

    ids: np.ndarray
    rows: np.ndarray
    support: np.ndarray
    predicted: np.ndarray
    correct: np.ndarray
    finite: bool = True


def averages(sums: ClassSums, add: Callable[[np.ndarray], float] = exact_sum) -> dict[str, float]:
    """The averages of `MACRO`; NaN without rows. add: sums float64 numbers; one for errors may round."""
    seen = sums.rows != 0
    if not (sums.finite and seen.any()):
        return dict.fromkeys(MACRO, math.nan)
    support, predicted, correct = sums.support[seen], sums.predicted[seen], sums.correct[seen]
    precision, recall = _ratios(correct, predicted), _ratios(correct, support)
    f1 = _ratios(2 * correct, support + predicted)
    targets = support != 0
    whole = int(support.sum())
    weighted = add(_ratios(support, np.full_like(support, whole)) * f1) if whole else math.nan
    means = [
        add(values) / len(values) if len(values) else math.nan for values in (recall[targets], precision, recall, f1)
    ]
    found = *means, weighted, _matthews(sums)
    return dict(zip(MACRO, found, strict=True))


def class_entropy(sums: ClassSums, class_weight: tuple[float, ...] | None = None) -> float:
    """The entropy of the class frequencies, in nats: the least cross-entropy of a constant prediction.

    class_weight: (C,) or None. Weights of the cross-entropy, which then weigh the frequencies too.
    """
    whole = int(sums.support.sum())
    if not (sums.finite and whole):
        return math.nan
    shares = _ratios(sums.support, np.full_like(sums.support, whole))
    if class_weight is not None:
        shares = shares * np.array(class_weight)[sums.ids]
        total = exact_sum(shares)
        shares = shares / total if total > 0.0 else shares * math.nan
    shares = shares[shares != 0.0]
    return math.nan if not (shares > 0.0).all() else -exact_sum(shares * np.log(shares))


def _ratios(upper: np.ndarray, lower: np.ndarray) -> np.ndarray:
    """Ratios of integers, each rounded once; 0 over 0."""
    if upper.dtype == object or lower.dtype == object:
        pairs = zip(upper.tolist(), lower.tolist(), strict=True)
        return np.array([rounded_ratio(a, b) if b else 0.0 for a, b in pairs])
    found: np.ndarray = np.divide(upper, lower, out=np.zeros(len(upper)), where=lower != 0)
    return found


def _matthews(sums: ClassSums) -> float:
    """Correlation of targets and predictions (Gorodkin 2004); 0 where one of them does not vary."""
    support, predicted = sums.support, sums.predicted
    rows, right = int(support.sum()), int(sums.correct.sum())
    if support.dtype != object and rows >= _EXACT:
        support, predicted = support.astype(object), predicted.astype(object)
    covariance = right * rows - int(np.dot(support, predicted))
    spread = (rows * rows - int(np.dot(support, support))) * (rows * rows - int(np.dot(predicted, predicted)))
    size = rounded_root(covariance * covariance, spread) if spread > 0 else 0.0
    return -size if covariance < 0 else size
