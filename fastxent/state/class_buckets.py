"""Sums of classes without each bucket of rows, for the intervals of averages over classes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from fastxent.state import jackknife
from fastxent.state.averages import ClassSums
from fastxent.state.class_table import ClassTable
from fastxent.state.classes import CORRECT, PREDICTED, SUPPORT
from fastxent.state.confusion import Matrix


def without_drawn(confusion: Matrix, buckets: int) -> Iterator[ClassSums]:
    """The sums of all rows, then without each of some buckets that are drawn: of rows that are alike."""
    n_classes, (places, rows) = confusion.n_classes, confusion.filled()
    each = np.zeros((3, buckets, n_classes), np.int64)
    for some, divided in jackknife.drawn_blocks(rows, buckets):
        target, predicted = np.divmod(places[some], n_classes)
        right = np.flatnonzero(target == predicted)
        for k in range(buckets):
            np.add.at(each[SUPPORT, k], target, divided[k])
            np.add.at(each[PREDICTED, k], predicted, divided[k])
            each[CORRECT, k, target[right]] += divided[k, right]
    return _without(each)


def without_each(table: ClassTable) -> Iterator[ClassSums]:
    """The sums of all rows, then without those of each group of a table that has rows."""
    return _without(table.counts.reshape(3, -1, table.n_classes))


def _without(each: np.ndarray) -> Iterator[ClassSums]:
    """The sums of all groups, then without each that has rows. each: (3, groups, C)."""
    whole = each.sum(axis=1)
    for left_out in (0, *(each[:, k] for k in np.flatnonzero(each[SUPPORT].any(axis=1)))):
        support, predicted, correct = whole[[SUPPORT, PREDICTED, CORRECT]] - left_out
        yield ClassSums(np.arange(len(support)), support + predicted, support, predicted, correct)
