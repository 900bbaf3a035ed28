"""Counts of each class in each group of rows, for averages over classes of slices and for their jackknife."""

from __future__ import annotations

import numpy as np

from fastxent.kernels.grouped import ExactSums
from fastxent.kernels.grown import grown
from fastxent.kernels.tally import tally_classes
from fastxent.state.averages import ClassSums
from fastxent.state.buckets import BUCKET, Buckets
from fastxent.state.classes import CORRECT, PREDICTED, SUPPORT
from fastxent.state.component import Summands
from fastxent.state.packed import stored_counts, stored_sums
from fastxent.state.table import GroupTable

MOST_BYTES = 32 << 20  # of counts and sums; with more slices, their averages are not known
_COUNT_BYTES, _SUM_BYTES = 24, 144  # of a slice and a class
_TOO_MANY = "there are too many pairs of a slice and a class"
_EARLIER = "an earlier version of fastxent, which did not count them, wrote the state"


class ClassTable:
    """``counts`` (3, groups·C) of each group of ``table``, as in `Classes`; with weights, ``sums`` (groups·C, 3) of the
    weights of these rows. With ``buckets``, those of each bucket of a group are apart: (3, groups·buckets·C).

    ``known`` turns False, for good, if they would take more than `MOST_BYTES` or if rows are added of a state of an
    earlier version, which did not count them. Groups only grow in number, so it does not depend on the order of rows.
    """

    def __init__(self, table: GroupTable, n_classes: int, weighted: bool, buckets: Buckets | None = None) -> None:
        self.table, self.n_classes, self.weighted, self._buckets = table, n_classes, weighted, buckets
        self._size = n_classes * (1 if buckets is None else buckets.count)  # places of a group
        self.known = True
        self.counts = np.zeros((3, 0), np.int64)
        self.sums = ExactSums(3)
        self._resize()

    @property
    def reason(self) -> str:
        """Why it is not known."""
        return _TOO_MANY if self._bytes() > MOST_BYTES else _EARLIER

    def _bytes(self) -> int:
        return len(self.table.keys) * self._size * (_COUNT_BYTES + self.weighted * _SUM_BYTES)

    def _resize(self) -> None:
        """Make room for every key, or forget everything."""
        places = len(self.table.keys) * self._size
        if self._bytes() > MOST_BYTES:
            self._forget()
        elif self.known and places > self.counts.shape[1]:
            self.counts = grown(self.counts, places, 1)
            self.sums.resize(places * self.weighted)

    def _forget(self) -> None:
        self.known, self.counts, self.sums = False, np.zeros((3, 0), np.int64), ExactSums(3)

    def add(self, summands: Summands) -> None:
        """Add rows to the groups of their column, if they have targets."""
        rows, column = summands.rows, self.table.column
        codes = np.zeros(summands.n, np.int64) if column is None else self.table.keys.codes(summands.by[column])
        self._resize()
        if not (self.known and summands.labelled):
            return
        begins = (codes if len(codes) == summands.n else codes[summands.mask]) * self._size
        if self._buckets is not None:
            begins += summands.by[BUCKET].index * self.n_classes
        target, predicted = begins + rows.target, begins + rows.predicted
        tally_classes(target, predicted, rows.rank, self.counts[None])
        if rows.weight is not None:
            w, zero = rows.weight, np.zeros(len(begins))
            self.sums.add(np.stack([w, zero, w * (rows.rank == 0)], axis=1), target)
            self.sums.add(np.stack([zero, w, zero], axis=1), predicted)

    def absorb(self, other: ClassTable, clusters: np.ndarray | None = None) -> None:
        """Add the rows of another."""
        codes = self.table.keys.absorb(other.table.keys)
        self._resize()
        if not other.known:
            self._forget()
        if self.known:
            filled = np.flatnonzero(other.counts[:2].any(axis=0))  # few, of many classes
            places = self._places(codes)[filled]
            self.counts[:, places] += other.counts[:, filled]
            if self.weighted:
                part = ExactSums.restore(3, (), len(filled), other.sums.arrays(filled))
                self.sums.merge_into(part, places)

    def _places(self, groups: np.ndarray) -> np.ndarray:
        found: np.ndarray = (groups[:, None] * self._size + np.arange(self._size)).ravel()
        return found

    def arrays(self, clusters: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """The places of a group and a class that have rows, groups in the order of their keys; nothing if not known."""
        self._resize()
        if not self.known:
            return {}
        order = self._places(self.table.keys.order())
        filled = np.flatnonzero(self.counts[:2, order].any(axis=0))
        places = order[filled]
        found = {"places": filled, "counts": self.counts[:, places]}
        return {**found, **(self.sums.arrays(places) if self.weighted else {})}

    def load(self, arrays: dict[str, np.ndarray], keys: list[str] | None = None, clusters: int = 0) -> None:
        """Take over stored arrays; ValueError if they do not fit."""
        if not arrays:
            self._forget()
            return
        self._resize()
        if not self.known:
            raise ValueError("counts of more slices and classes than there may be")
        places, size = arrays["places"], self.counts.shape[1]
        if places.dtype != np.int64 or places.ndim != 1:
            raise ValueError("places of classes that are not numbers")
        if places.size and not (places[0] >= 0 and places[-1] < size and np.all(np.diff(places) > 0)):
            raise ValueError("places of classes out of order")
        counts = stored_counts(arrays, "counts", 3, len(places))
        if not (counts[:2].any(axis=0).all() and (counts[CORRECT] <= counts[:2].min(axis=0)).all()):
            raise ValueError("counts of classes that contradict each other")
        self.counts[:, places] = counts
        rows = np.array([self.table.contributing(g) for g in range(len(self.table.keys))], np.int64)
        for kind in (SUPPORT, PREDICTED):
            each = self.counts[kind].reshape(len(rows), self._size).sum(axis=1)
            if each.any() and (each != rows).any():
                raise ValueError("classes that do not add up to the rows of slices")
        if self.weighted:
            self.sums.merge_into(ExactSums.restore(3, (), len(places), stored_sums(arrays)), places)

    def by_bucket(self, group: int) -> np.ndarray:
        """int64 (3, buckets, C): the counts of one group by bucket."""
        self._resize()
        return self.counts[:, group * self._size : (group + 1) * self._size].reshape(3, -1, self.n_classes)

    def class_sums(self, group: int) -> ClassSums | None:
        """The sums of one group that averages over classes follow from; None if they are not known."""
        self._resize()
        if not self.known:
            return None
        begin = group * self.n_classes
        counts = self.counts[:, begin : begin + self.n_classes]
        ids = np.flatnonzero(counts[:2].any(axis=0))
        counts = counts[:, ids]
        rows = counts[SUPPORT] + counts[PREDICTED]
        if not self.weighted:
            return ClassSums(ids, rows, counts[SUPPORT], counts[PREDICTED], counts[CORRECT])
        places = ids + begin
        weights = [np.array(sums, object) for sums in self.sums.each(places)]
        return ClassSums(ids, rows, weights[0], weights[1], weights[2], not self.sums.special[places].any())
