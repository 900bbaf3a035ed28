"""Counts of classes without each bucket of rows, for the intervals of averages over classes.

They are int64 (3, 1 + K, C): see `averages.averages_of_each`.
"""

from __future__ import annotations

import numpy as np

from fastxent.state import jackknife
from fastxent.state.class_table import ClassTable
from fastxent.state.classes import CORRECT, PREDICTED, SUPPORT
from fastxent.state.jackknife import Draw


def without_drawn(entries: tuple[np.ndarray, np.ndarray], n_classes: int, buckets: int) -> np.ndarray:
    """The counts of all rows, then without each of some buckets that are drawn: of rows that are alike.

    entries: the places of a confusion matrix that are not 0, and their rows.
    """
    places, rows = entries
    each = np.zeros((3, 1 + buckets, n_classes), np.int64)

    def count(kind: int, classes: np.ndarray, draw: Draw, chosen: np.ndarray | None = None) -> None:
        few, many = (draw.few, draw.many) if chosen is None else (draw.few, draw.many[chosen[draw.many]])
        of = draw.into * n_classes + classes[few]
        of = of if chosen is None else of[chosen[few]]
        each[kind, 1:] += np.bincount(of, minlength=buckets * n_classes).reshape(buckets, -1)
        if many.size:
            numbers = draw.numbers if chosen is None else draw.numbers[:, chosen[draw.many]]
            np.add.at(each[kind, 1:].T, classes[many], numbers.T)

    for some, draw in jackknife.draws(rows, buckets):
        target, predicted = np.divmod(places[some], n_classes)
        count(SUPPORT, target, draw)
        count(PREDICTED, predicted, draw)
        count(CORRECT, target, draw, target == predicted)
    return _without(each)


def without_each(table: ClassTable, group: int) -> np.ndarray:
    """The counts of the rows of a group, then without those of each of its buckets that has rows."""
    return _without(np.pad(table.by_bucket(group), ((0, 0), (1, 0), (0, 0))))


def _without(each: np.ndarray) -> np.ndarray:
    """The counts of all groups, then without each that has rows; ``each`` is lost.

    each: int64 (3, 1 + groups, C). The first are 0.
    """
    filled = each[SUPPORT].any(axis=1)
    filled[0] = True
    np.subtract(each.sum(axis=1, keepdims=True), each, out=each)
    return each if filled.all() else each[:, filled]
