"""Counts and mean NLL of each class, and the precision, recall and F1 that follow."""

from __future__ import annotations

import math

import numpy as np

from fastxent.kernels.cuts import Cuts
from fastxent.kernels.exact import rounded_ratio, special_value
from fastxent.kernels.grouped import ExactSums, Words
from fastxent.kernels.tally import all_below, tally_classes
from fastxent.results.values import PerClass
from fastxent.scoring.rows import ScoredRows
from fastxent.state.averages import ClassSums, ratios
from fastxent.state.component import Summands
from fastxent.state.packed import stored, stored_counts, stored_sums

SUPPORT, PREDICTED, CORRECT = range(3)
_NLL, _WEIGHT, _WEIGHT_CORRECT, _WEIGHT_PREDICTED = range(4)
_FEW, _TABLES = 64, 4  # classes up to which neighbouring rows are counted in different tables, and how many
_DENSE = 16  # if one class of so many occurs, all are added to those of another


class Classes:
    """``counts`` (3, classes): rows by target, by prediction, and by both where they agree. ``sums`` by class: w·nll of
    its rows and, with weights, the weights of those three kinds of rows.

    ``ids`` are the classes held: those that occur, in order, until rows are added; from then on all (None).
    """

    def __init__(self, n_classes: int, weighted: bool) -> None:
        self.n_classes, self.weighted = n_classes, weighted
        self.ids: np.ndarray | None = np.zeros(0, np.int64)
        self.counts = np.zeros((3, 0), np.int64)
        self.sums = ExactSums(4 if weighted else 1)

    def check(self, rows: ScoredRows) -> None:
        """Refuse used rows whose classes are out of range: what follows writes to memory by them."""
        columns = [np.ascontiguousarray(ids, np.int64) for ids in (rows.target, rows.predicted)]
        if all_below(*columns, self.n_classes):
            return
        for ids in columns:
            if ids.size and not 0 <= int(ids.min()) <= int(ids.max()) < self.n_classes:
                raise ValueError(f"scored rows hold class {ids.min()} to {ids.max()} of {self.n_classes} classes")

    def add(self, summands: Summands) -> None:
        """Add rows, if they have targets."""
        if not summands.labelled:
            return
        rows = summands.rows
        if self.ids is not None:
            self._hold(None, self.ids)
        tables = self.counts[None] if self.n_classes > _FEW else np.zeros((_TABLES, 3, self.n_classes), np.int64)
        tally_classes(rows.target, rows.predicted, rows.rank, tables)
        if self.n_classes <= _FEW:
            self.counts += tables.sum(axis=0)
        if rows.weight is None:
            self.sums.add_column(_NLL, rows.nll, rows.target)
            return
        hit = rows.rank == 0
        w, zero = rows.weight, np.zeros(len(rows.target))
        self.sums.add(np.stack([w * rows.nll, w, w * hit, zero], axis=1), rows.target)
        self.sums.add(np.stack([zero, zero, zero, w], axis=1), rows.predicted)

    def add_sums(self, matrix: np.ndarray, losses: Cuts | list[np.ndarray]) -> None:
        """Add unweighted rows by target and prediction (C, C), and the sums of the NLL of each class."""
        if self.ids is not None:
            self._hold(None, self.ids)
        self.counts += np.stack([matrix.sum(axis=1), matrix.sum(axis=0), matrix.diagonal()])
        if isinstance(losses, Cuts):
            self.sums.add_cuts(losses, 0, _NLL)
            return
        for c, sums in enumerate(losses):
            self.sums.add_words(Words(sums[None], np.zeros(1, np.uint8)), c)

    def _hold(self, ids: np.ndarray | None, places: np.ndarray) -> None:
        """Make room for the classes ``ids``, or for all; those held so far go to ``places``."""
        counts, sums = self.counts, self.sums
        held = self.n_classes if ids is None else len(ids)
        self.ids, self.counts = ids, np.zeros((3, held), np.int64)
        self.sums = ExactSums(sums.columns, groups=held)
        self.counts[:, places] = counts
        self.sums.merge_into(sums, places)

    def absorb(self, other: Classes, clusters: np.ndarray | None = None) -> None:
        """Add the counts and sums of another. Only the classes that occur there are touched where they are few, as
        where the other is of few rows."""
        there, seen = other._places()
        if self.ids is None and other.ids is None and len(seen) * _DENSE > self.n_classes:
            self.counts += other.counts
            self.sums.merge_into(other.sums, np.arange(self.n_classes))
            return
        if self.ids is not None:
            ids = np.union1d(self.ids, seen)
            if len(ids) > len(self.ids):
                self._hold(ids, np.searchsorted(ids, self.ids))
        here = seen if self.ids is None else np.searchsorted(self.ids, seen)
        self.counts[:, here] += other.counts[:, there]
        part = ExactSums.restore(self.sums.columns, (), len(seen), other.sums.arrays(there))
        self.sums.merge_into(part, here)

    def _places(self) -> tuple[np.ndarray, np.ndarray]:
        """(places, ids) of the classes that occur."""
        places = np.flatnonzero(self.counts[:2].any(axis=0))
        return places, places if self.ids is None else self.ids[places]

    def rows(self) -> list[int]:
        """Rows by target, and by prediction: each is as many as the rows that have targets."""
        found: list[int] = self.counts[:2].sum(axis=1).tolist()
        return found

    def class_sums(self) -> ClassSums:
        """The sums that averages over classes follow from."""
        places, seen = self._places()
        counts = self.counts[:, places]
        rows = counts[SUPPORT] + counts[PREDICTED]
        if not self.weighted:
            unit = 1 << self.sums.scale
            nll = np.array([rounded_ratio(total, unit) for total in self.sums.each(places)[_NLL]])
            return ClassSums(seen, rows, counts[SUPPORT], counts[PREDICTED], counts[CORRECT], losses=nll)
        sums, finite = self.sums.each(places), not self.sums.special[places, _WEIGHT:].any()
        weights = [np.array(sums[kind], object) for kind in (_WEIGHT, _WEIGHT_PREDICTED, _WEIGHT_CORRECT)]
        return ClassSums(seen, rows, weights[0], weights[1], weights[2], finite)

    def per_class(self, names: tuple[str, ...] | None) -> PerClass:
        """The numbers of every class that occurs."""
        places, seen = self._places()
        counts = self.counts[:, places]
        sums, special = self.sums.each(places), self.sums.special[places, _NLL].tolist()
        support, predicted, correct = counts
        weight = [n << self.sums.scale for n in support.tolist()]
        if self.weighted:
            weight = sums[_WEIGHT]
            each = weight, sums[_WEIGHT_PREDICTED], sums[_WEIGHT_CORRECT]
            support, predicted, correct = (np.array(weights, object) for weights in each)
        nll = [
            special_value(flags) if flags else rounded_ratio(loss, of)
            for loss, of, flags in zip(sums[_NLL], weight, special, strict=True)
        ]
        shares = ((correct, predicted), (correct, support), (2 * correct, support + predicted))
        precision, recall, f1 = (tuple(ratios(upper, lower, math.nan).tolist()) for upper, lower in shares)
        support, predicted, correct = (tuple(kind) for kind in counts.tolist())
        return PerClass(
            class_id=tuple(seen.tolist()),
            name=None if names is None else tuple(names[c] for c in seen),
            support=support,
            predicted=predicted,
            correct=correct,
            precision=precision,
            recall=recall,
            f1=f1,
            nll=tuple(nll),
        )

    def arrays(self, clusters: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """The classes that occur, for storage."""
        places, seen = self._places()
        return {"ids": seen, "counts": self.counts[:, places], **self.sums.arrays(places)}

    def load(self, arrays: dict[str, np.ndarray], keys: list[str] | None = None, clusters: int = 0) -> None:
        """Take over stored arrays; ValueError if they do not fit."""
        ids = stored(arrays, "ids", np.int64, -1)
        if ids.size and not (ids[0] >= 0 and ids[-1] < self.n_classes and np.all(np.diff(ids) > 0)):
            raise ValueError("class ids out of order")
        counts = stored_counts(arrays, "counts", 3, len(ids))
        if not (counts[:2].any(axis=0).all() and (counts[CORRECT] <= counts[:2].min(axis=0)).all()):
            raise ValueError("counts of classes that contradict each other")
        self.ids, self.counts = ids, counts
        self.sums = ExactSums.restore(self.sums.columns, (), len(ids), stored_sums(arrays))
