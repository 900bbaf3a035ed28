"""Sums of classes without each bucket of rows, for the intervals of averages over classes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from fastxent.state import jackknife
from fastxent.state.averages import ClassSums
from fastxent.state.class_table import ClassTable
from fastxent.state.classes import CORRECT, PREDICTED, SUPPORT


def without_drawn(counts: np.ndarray, buckets: int) -> list[ClassSums]:
    """The sums of all rows, then without each of some buckets that are drawn: of a confusion matrix (C, C) of rows that
    are alike."""
    target, predicted = np.nonzero(counts)
    rows = counts[target, predicted]
    right = target == predicted

    def sums(classes: np.ndarray, some: np.ndarray) -> np.ndarray:
        found = np.zeros(len(counts), np.int64)
        np.add.at(found, classes, some)
        return found

    return [
        _class_sums(sums(target, rest), sums(predicted, rest), sums(target[right], rest[right]))
        for rest in jackknife.without_drawn(rows, buckets)
    ]


def without_each(table: ClassTable) -> Iterator[ClassSums]:
    """The sums of all rows, then without those of each group of a table that has rows."""
    each = table.counts.reshape(3, -1, table.n_classes)
    whole = each.sum(axis=1)
    for left_out in (0, *(each[:, k] for k in np.flatnonzero(each[SUPPORT].any(axis=1)))):
        rest = whole - left_out
        yield _class_sums(rest[SUPPORT], rest[PREDICTED], rest[CORRECT])


def _class_sums(support: np.ndarray, predicted: np.ndarray, correct: np.ndarray) -> ClassSums:
    return ClassSums(np.arange(len(support)), support + predicted, support, predicted, correct)
