"""Counts and mean NLL of each class, and the precision, recall and F1 that follow."""

from __future__ import annotations

import numpy as np

from fastxent.kernels.exact import rounded_ratio, special_value
from fastxent.kernels.grouped import ExactSums
from fastxent.kernels.tally import tally_classes
from fastxent.result import PerClass
from fastxent.scored import ScoredRows

SUPPORT, PREDICTED, CORRECT = range(3)
_NLL, _WEIGHT, _WEIGHT_CORRECT, _WEIGHT_PREDICTED = range(4)


class Classes:
    """``counts`` (3, n_classes): rows by target, by prediction, and by both where they agree. ``sums`` by class:
    w·nll of its rows and, with weights, the weights of those three kinds of rows."""

    def __init__(self, n_classes: int, weighted: bool) -> None:
        self.weighted = weighted
        self.counts = np.zeros((3, n_classes), np.int64)
        self.sums = ExactSums(4 if weighted else 1, groups=n_classes)

    def check(self, rows: ScoredRows) -> None:
        """Refuse used rows whose classes are out of range: what follows writes to memory by them."""
        n_classes = self.counts.shape[1]
        for ids in (rows.target, rows.predicted):
            if ids.size and not 0 <= int(ids.min()) <= int(ids.max()) < n_classes:
                raise ValueError(f"scored rows hold class {ids.min()} to {ids.max()} of {n_classes} classes")

    def add(self, rows: ScoredRows) -> None:
        """Add rows that are all used."""
        tally_classes(rows.target, rows.predicted, rows.rank, self.counts)
        if rows.weight is None:
            self.sums.add_column(_NLL, rows.nll, rows.target)
            return
        hit = rows.rank == 0
        w, zero = rows.weight, np.zeros(len(rows.target))
        with np.errstate(invalid="ignore"):  # an infinite loss of weight 0
            loss = w * rows.nll
        self.sums.add(np.stack([loss, w, w * hit, zero], axis=1), rows.target)
        self.sums.add(np.stack([zero, zero, zero, w], axis=1), rows.predicted)

    def absorb(self, other: Classes) -> None:
        """Add the counts and sums of another. Only the classes that occur there are touched: few, of many, where the
        other is of few rows."""
        seen = other.seen()
        self.counts[:, seen] += other.counts[:, seen]
        part = ExactSums.restore(self.sums.columns, (), len(seen), other.sums.arrays(seen))
        self.sums.merge_into(part, seen)

    def seen(self) -> np.ndarray:
        """Ids of the classes that occur."""
        return np.flatnonzero(self.counts[:2].any(axis=0))

    def figures(self, names: tuple[str, ...] | None) -> PerClass:
        """The figures of every class that occurs."""
        seen = self.seen()
        counts = self.counts[:, seen].tolist()
        sums, special = self.sums.each(seen), self.sums.special[seen].tolist()
        unit = 1 << self.sums.scale
        support, predicted, correct = (
            (sums[_WEIGHT], sums[_WEIGHT_PREDICTED], sums[_WEIGHT_CORRECT])
            if self.weighted
            else ([n * unit for n in counts[kind]] for kind in (SUPPORT, PREDICTED, CORRECT))
        )
        total = [a + b for a, b in zip(support, predicted, strict=True)]
        nll = [
            special_value(flags[_NLL]) if flags[_NLL] else rounded_ratio(loss, weight)
            for loss, weight, flags in zip(sums[_NLL], support, special, strict=True)
        ]
        return PerClass(
            class_id=tuple(seen.tolist()),
            name=None if names is None else tuple(names[c] for c in seen),
            support=tuple(counts[SUPPORT]),
            predicted=tuple(counts[PREDICTED]),
            correct=tuple(counts[CORRECT]),
            precision=tuple(map(rounded_ratio, correct, predicted)),
            recall=tuple(map(rounded_ratio, correct, support)),
            f1=tuple(rounded_ratio(2 * c, t) for c, t in zip(correct, total, strict=True)),
            nll=tuple(nll),
        )

    def arrays(self) -> dict[str, np.ndarray]:
        """The classes that occur, for storage."""
        seen = self.seen()
        return {"ids": seen, "counts": self.counts[:, seen], **self.sums.arrays(seen)}

    def load(self, arrays: dict[str, np.ndarray]) -> None:
        """Take over stored arrays; ValueError if they do not fit."""
        ids, n_classes = arrays["ids"], self.counts.shape[1]
        if ids.size and not (ids[0] >= 0 and ids[-1] < n_classes and np.all(np.diff(ids) > 0)):
            raise ValueError("class ids out of order")
        self.counts[:, ids] = arrays["counts"]
        self.sums.merge_into(ExactSums.restore(self.sums.columns, (), len(ids), arrays), ids)
