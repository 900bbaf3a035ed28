"""Rows by target and prediction: the whole matrix of few classes, the wrong predictions of many.

Counts are integers, so both depend on the rows alone. A matrix of many classes does not fit in memory, and neither may
the pairs that occur. Beyond `MOST_PAIRS` different wrong pairs, only those are counted whose hash ends in a zero bit,
then in two, and so on. Which pairs are counted in the end follows from the pairs that occur, not from their order: a
pair that counts in the end counted from the beginning.
"""

from __future__ import annotations

from array import array
from typing import Any

import numpy as np

from fastxent.kernels.grown import grown
from fastxent.kernels.hashed import Numbers, mixed
from fastxent.kernels.tally import tally_pairs
from fastxent.results.details import MOST_CLASSES, MOST_CONFUSED, Confusion, MostConfused
from fastxent.state.component import Summands
from fastxent.state.jackknife import MOST_SLICES
from fastxent.state.packed import stored, stored_counts
from fastxent.state.table import GroupTable

MOST_PAIRS = 1 << 20  # that are counted of more than `MOST_CLASSES` classes
FEW = 64  # classes up to which there is a matrix of each slice
_TABLES = 4  # in which neighbouring rows of few classes are counted
_SPARSE = 32  # rows that wait are at most so many times fewer than entries of the matrix
_LEVELS = 40
_STEP = np.uint64(0x9E3779B97F4A7C15)


class Matrix:
    """Rows by target, then prediction. The places of few rows, target·C + prediction, wait in a list; the memory of the
    matrix is taken once they are more.

    ``known`` turns False, for good, if rows are added of a state of an earlier version, which did not count them.
    """

    def __init__(self, n_classes: int) -> None:
        self.n_classes, self.known = n_classes, True
        self._forget()

    def _forget(self) -> None:
        self._counts, self._waiting, self._places = np.zeros((0, 0), np.int64), 0, [np.zeros(0, np.int64)]

    def _held(self) -> np.ndarray:
        """The matrix (C, C), with all rows."""
        places, self._waiting, self._places = np.concatenate(self._places), 0, [np.zeros(0, np.int64)]
        if not self._counts.size:
            self._counts = np.zeros((self.n_classes, self.n_classes), np.int64)
        np.add.at(self._counts.ravel(), places, 1)
        return self._counts

    def _waits(self, rows: int) -> bool:
        """Whether so many more rows may wait."""
        return not self._counts.size and _SPARSE * (self._waiting + rows) <= self.n_classes**2

    def _wait(self, places: list[np.ndarray], rows: int) -> None:
        self._places += places
        self._waiting += rows

    def add(self, summands: Summands) -> None:
        """Count rows, if they have targets; ids in range are checked before."""
        if not (self.known and summands.labelled):
            return
        rows, few = summands.rows, self.n_classes <= FEW
        if self._waits(summands.n):
            self._wait([rows.target * self.n_classes + rows.predicted], summands.n)
            return
        counts = self._held()
        tables = np.zeros((_TABLES, *counts.shape), np.int64) if few else counts[None]
        tally_pairs(rows.target, rows.predicted, tables)
        if few:
            counts += tables.sum(axis=0)

    def add_counts(self, counts: np.ndarray) -> None:
        """Add a matrix."""
        if self.known:
            held = self._held()
            held += counts

    def absorb(self, other: Matrix, clusters: np.ndarray | None = None) -> None:
        """Add the counts of another."""
        self.known &= other.known
        if not self.known:
            self._forget()
            return
        if other._counts.size:
            self.add_counts(other._counts)
        self._wait(other._places, other._waiting)
        if not self._waits(0):
            self._held()

    def arrays(self, clusters: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """The places of entries that are not 0, and their counts; nothing if not known."""
        places, counts = self.filled()
        return {"pairs": places, "counts": counts} if self.known else {}

    def filled(self) -> tuple[np.ndarray, np.ndarray]:
        """(the places of entries that are not 0, target·C + prediction, and the entries)."""
        if self._waits(0):
            return np.unique(np.concatenate(self._places), return_counts=True)
        flat = self._held().ravel()
        places = np.flatnonzero(flat != 0)  # of booleans: several times as fast as of integers
        return places, flat[places]

    def load(self, arrays: dict[str, np.ndarray], keys: list[str] | None = None, clusters: int = 0) -> None:
        """Take over stored arrays; ValueError if they do not fit."""
        self.known = bool(arrays)
        if arrays:
            pairs, counts = _stored(arrays, self.n_classes**2)
            if len(pairs):
                self._held().ravel()[pairs] = counts

    def check(self, rows: int, right: int) -> None:
        """ValueError if the counts are not those of so many rows, so many of which are right."""
        places, counts = self.filled()
        if self.known and (int(counts.sum()), int(counts[places % (self.n_classes + 1) == 0].sum())) != (rows, right):
            raise ValueError("a confusion matrix that does not add up to the rows")

    def result(self) -> dict[str, Any]:
        """The fields of a result."""
        places, count = self.filled()
        if not len(places):
            return {}
        target, predicted = np.divmod(places, self.n_classes)
        wrong = target != predicted
        return {
            "confusion": Confusion(self.n_classes, *(array("q", x.tobytes()) for x in (target, predicted, count))),
            "most_confused": _most(places[wrong], count[wrong], self.n_classes, 1.0),
        }


class Matrices:
    """The confusion matrix of each group of a table, of few classes: (groups, C, C).

    ``known`` turns False, for good, if there are more than `MOST_SLICES` groups or if rows are added of a state of an
    earlier version, which did not count them. Groups only grow in number, so it does not depend on the order of rows.
    """

    def __init__(self, table: GroupTable, n_classes: int) -> None:
        self.table, self.n_classes, self.known = table, n_classes, True
        self._counts = np.zeros((0, n_classes, n_classes), np.int64)

    def _resize(self) -> None:
        """Make room for every group, or forget everything."""
        self.known &= len(self.table.keys) <= MOST_SLICES
        self._counts = grown(self._counts, len(self.table.keys)) if self.known else self._counts[:0]

    def add(self, summands: Summands) -> None:
        """Count rows, if they have targets."""
        rows, codes = summands.rows, self.table.keys.codes(summands.by[str(self.table.column)])
        self._resize()
        if self.known and summands.labelled:
            codes = codes if len(codes) == summands.n else codes[summands.mask]
            counts = self._counts.reshape(1, -1, self.n_classes)
            tally_pairs(codes * self.n_classes + rows.target, rows.predicted, counts)

    def absorb(self, other: Matrices, clusters: np.ndarray | None = None) -> None:
        """Add the counts of another."""
        codes = self.table.keys.absorb(other.table.keys)
        self.known &= other.known
        self._resize()
        if self.known:
            self._counts[codes] += other._counts[: len(codes)]

    def arrays(self, clusters: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """The places of entries that are not 0, groups in the order of their keys, and these; nothing if not known."""
        self._resize()
        if not self.known:
            return {}
        counts = self._counts[self.table.keys.order()].ravel()
        places = np.flatnonzero(counts)
        return {"pairs": places, "counts": counts[places]}

    def load(self, arrays: dict[str, np.ndarray], keys: list[str] | None = None, clusters: int = 0) -> None:
        """Take over stored arrays; ValueError if they do not fit."""
        self.known = bool(arrays)
        self._resize()
        if not arrays:
            return
        if not self.known:
            raise ValueError("confusion matrices of more slices than there may be")
        pairs, counts = _stored(arrays, self._counts.size)
        self._counts.ravel()[pairs] = counts
        rows = np.array([self.table.contributing(g) for g in range(len(self._counts))], np.int64)
        if len(pairs) and (self._counts.sum(axis=(1, 2)) != rows).any():
            raise ValueError("confusion matrices that do not add up to the rows of slices")

    def filled(self, group: int) -> tuple[np.ndarray, np.ndarray]:
        """(the places of entries of a group that are not 0, target·C + prediction, and the entries)."""
        self._resize()
        flat = self._counts[group].ravel()
        places = np.flatnonzero(flat != 0)
        return places, flat[places]


class Pairs:
    """Counts of rows by wrong pair, target·C + prediction. A pair counts if its hash ends in ``level`` zero bits.

    ``known``: see `Matrix`.
    """

    def __init__(self, n_classes: int) -> None:
        self.n_classes, self.known, self.level = n_classes, True, 0
        self._numbers = Numbers()
        self._counts = np.zeros(0, np.int64)

    def add(self, summands: Summands) -> None:
        """Count rows, if they have targets."""
        rows = summands.rows
        if self.known and summands.labelled:
            wrong = np.flatnonzero(rows.target != rows.predicted)
            self._count(rows.target[wrong] * self.n_classes + rows.predicted[wrong], None)

    def _count(self, pairs: np.ndarray, counts: np.ndarray | None) -> None:
        """Count pairs, each once or as often as ``counts`` says."""
        if self.level:
            chosen = self._chosen(pairs)
            pairs, counts = pairs[chosen], None if counts is None else counts[chosen]
        codes = self._numbers.codes(np.ascontiguousarray(pairs))
        self._counts = grown(self._counts, len(self._numbers))
        if counts is None and len(codes) < len(self._counts):
            np.add.at(self._counts, codes, 1)
        elif counts is None:
            self._counts += np.bincount(codes, minlength=len(self._counts))
        else:
            np.add.at(self._counts, codes, counts)
        while len(self._counts) > MOST_PAIRS and self.level < _LEVELS:
            self._rise(self.level + 1)

    def _rise(self, level: int) -> None:
        """Count fewer pairs from now on."""
        held, counts = self._numbers.distinct, self._counts
        self.level = max(level, self.level)
        chosen = self._chosen(held)
        self._numbers, self._counts = Numbers(), counts[chosen]
        self._numbers.codes(np.ascontiguousarray(held[chosen]))

    def _chosen(self, pairs: np.ndarray) -> np.ndarray:
        """Which pairs count: those whose hash ends in ``level`` zero bits."""
        found: np.ndarray = mixed(pairs.astype(np.uint64) + _STEP) & np.uint64((1 << self.level) - 1) == 0
        return found

    def absorb(self, other: Pairs, clusters: np.ndarray | None = None) -> None:
        """Add the counts of another."""
        if not (self.known and other.known):
            self._forget()
            return
        if other.level > self.level:
            self._rise(other.level)
        self._count(other._numbers.distinct, other._counts)

    def _forget(self) -> None:
        self.known, self.level = False, 0
        self._numbers, self._counts = Numbers(), np.zeros(0, np.int64)

    def arrays(self, clusters: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """The pairs in order, their counts and the level; nothing if not known."""
        order = np.argsort(self._numbers.distinct)
        pairs, counts = self._numbers.distinct[order], self._counts[order]
        return {"pairs": pairs, "counts": counts, "level": np.array([self.level])} if self.known else {}

    def load(self, arrays: dict[str, np.ndarray], keys: list[str] | None = None, clusters: int = 0) -> None:
        """Take over stored arrays; ValueError if they do not fit."""
        if not arrays:
            self._forget()
            return
        pairs, counts = _stored(arrays, self.n_classes**2)
        (self.level,) = stored_counts(arrays, "level", 1).tolist()
        if self.level > _LEVELS or len(pairs) > MOST_PAIRS or (pairs % (self.n_classes + 1) == 0).any():
            raise ValueError("pairs of classes that cannot have been counted")
        if not self._chosen(pairs).all():
            raise ValueError("pairs of classes that do not count")
        self._counts = counts
        self._numbers.codes(pairs)

    def check(self, rows: int, right: int) -> None:
        """ValueError if the counts cannot be those of so many rows, so many of which are right."""
        total = int(self._counts.sum())
        if self.known and (total > rows - right or (not self.level and total < rows - right)):
            raise ValueError("pairs of classes that do not add up to the rows")

    def result(self) -> dict[str, Any]:
        """The fields of a result."""
        pairs = self._numbers.distinct
        if not len(pairs):
            return {}
        return {"most_confused": _most(pairs, self._counts, self.n_classes, 2.0**-self.level)}


def confusion_of(n_classes: int) -> Matrix | Pairs:
    """What counts the pairs of so many classes."""
    return (Matrix if n_classes <= MOST_CLASSES else Pairs)(n_classes)


def _stored(arrays: dict[str, np.ndarray], size: int) -> tuple[np.ndarray, np.ndarray]:
    """Places of entries below ``size``, and the entries."""
    pairs = stored(arrays, "pairs", np.int64, -1)
    if pairs.size and not (pairs[0] >= 0 and pairs[-1] < size and np.all(np.diff(pairs) > 0)):
        raise ValueError("pairs of classes out of order")
    counts = stored_counts(arrays, "counts", len(pairs))
    if not counts.all():
        raise ValueError("pairs of classes without rows")
    return pairs, counts


def _most(places: np.ndarray, count: np.ndarray, n_classes: int, share: float) -> MostConfused:
    """The places with the largest counts; of equal ones the first places."""
    pairs = len(count)
    if pairs > MOST_CONFUSED:  # only those that are listed are sorted
        large = count[count > 1]  # of many pairs most have one row
        least = np.partition(large, -MOST_CONFUSED)[-MOST_CONFUSED] if len(large) >= MOST_CONFUSED else 1
        more, equal = np.flatnonzero(count > least), np.flatnonzero(count == least)
        left = MOST_CONFUSED - len(more)
        some = np.append(more, equal[np.argpartition(places[equal], left - 1)[:left]])
        places, count = places[some], count[some]
    order = np.lexsort((places, -count))
    listed = [tuple(values[order].tolist()) for values in (*np.divmod(places, n_classes), count)]
    return MostConfused(listed[0], listed[1], listed[2], pairs, share)
