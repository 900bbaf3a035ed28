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
    for some, draw in jackknife.draws(rows, buckets):
        target, predicted = np.divmod(places[some], n_classes)
        right = target[draw.few] == predicted[draw.few]
        for kind, classes in ((SUPPORT, target), (PREDICTED, predicted)):
            counted = np.bincount(draw.into * n_classes + classes[draw.few], minlength=buckets * n_classes)
            each[kind] += counted.reshape(buckets, -1)
            np.add.at(each[kind].T, classes[draw.many], draw.numbers.T)
        counted = np.bincount((draw.into * n_classes + target[draw.few])[right], minlength=buckets * n_classes)
        each[CORRECT] += counted.reshape(buckets, -1)
        right = target[draw.many] == predicted[draw.many]
        each[CORRECT][:, target[draw.many][right]] += draw.numbers[:, right]
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
