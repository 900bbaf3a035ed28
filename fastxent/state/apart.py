"""The components of a comparison beside its means: flips, groups by confidence, the largest changes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from fastxent.kernels.exact import rounded_root
from fastxent.kernels.grown import grown
from fastxent.results.comparison import ChangedRow, Flips
from fastxent.results.encoding import float_in
from fastxent.scoring.pairs import MultilabelPairRows
from fastxent.scoring.rows import ScoredRows
from fastxent.state.component import Summands
from fastxent.state.extreme import Extreme, ids_at
from fastxent.state.keys import EncodedColumn
from fastxent.state.metrics import MetricPlan
from fastxent.state.packed import stored_counts
from fastxent.state.quantities import pairs_of
from fastxent.state.table import GroupTable

CONFIDENCE_EDGES = (0.0, 0.25, 0.5, 0.75, 0.95, 1.0)  # of the first dump: (edge, next edge], the first one closed


class FlipTable:
    """Counts of rows by whether either dump is right, for each group of ``table``: 2·(first is right) + (second is).

    right: function of the rows of a dump. Which are right; None if nothing says so, and nothing is counted.
    """

    def __init__(self, table: GroupTable, right: Callable[[ScoredRows], np.ndarray] | None) -> None:
        self.table, self._right = table, right
        self.counts = np.zeros((0, 4), np.int64)
        self._resize()

    def _resize(self) -> None:
        groups = len(self.table.keys)
        if groups > len(self.counts):
            self.counts = grown(self.counts, groups)

    def add(self, rows: Summands) -> None:
        """Count rows."""
        codes = np.zeros(len(rows.rows.rank), np.int64)
        if self.table.column is not None:
            codes = self.table.keys.codes(rows.by[self.table.column])
            codes = codes if len(codes) == len(rows.rows.rank) else codes[rows.mask]
        self._resize()
        if self._right is not None:
            pairs = pairs_of(rows)
            kinds = 2 * self._right(pairs) + self._right(pairs.second)
            self.counts += np.bincount(4 * codes + kinds, minlength=self.counts.size).reshape(self.counts.shape)

    def absorb(self, other: FlipTable, clusters: np.ndarray) -> None:
        """Add the counts of another."""
        codes = self.table.keys.absorb(other.table.keys)
        self._resize()
        np.add.at(self.counts, codes[: len(other.counts)], other.counts)  # which lacks groups without rows

    def arrays(self, clusters: np.ndarray) -> dict[str, np.ndarray]:
        """``counts`` of the groups in the order of their keys."""
        self._resize()
        return {"counts": self.counts[self.table.keys.order()]}

    def load(self, arrays: dict[str, np.ndarray], keys: list[str], clusters: int) -> None:
        """Take over stored arrays; ValueError if they do not fit."""
        self.counts = stored_counts(arrays, "counts", len(self.table.keys), 4)

    def counts_of(self, g: int, change: tuple[int, int] | None) -> Flips:
        """The flips of a group.

        change: with clusters, the sum of their changes and that of the squares of these.
        """
        self._resize()
        wrong, to_right, to_wrong, right = self.counts[g].tolist()
        z = None
        if change is not None:
            total, squares = change
            root = rounded_root(total * total, squares)
            z = root if total >= 0 else -root
        return Flips(right, wrong, to_wrong, to_right, mcnemar(to_wrong, to_right), z)


def mcnemar(to_wrong: int, to_right: int) -> float:
    """The exact p-value of McNemar's test: min(1, 2·P(Binomial(n, 1/2) <= the smaller)); 1 without flips."""
    from scipy.special import bdtr

    n = to_wrong + to_right
    return min(1.0, 2.0 * float(bdtr(min(to_wrong, to_right), n, 0.5))) if n else 1.0


class ByConfidence(GroupTable):
    """A table of the rows by the confidence of the first dump, in the buckets of `CONFIDENCE_EDGES`."""

    def __init__(self, plan: MetricPlan) -> None:
        super().__init__(plan, 1, "confidence of the first dump")
        self._own = [f"int:{k}" for k in range(len(CONFIDENCE_EDGES) - 1)]
        for key in self._own:
            self.keys.code(key)
        self.resize()

    def add(self, rows: Summands) -> None:
        """Add rows to their buckets."""
        index = np.zeros(len(rows.status), np.int64)  # a row that is not used has no confidence
        places = np.searchsorted(CONFIDENCE_EDGES, rows.rows.confidence) - 1
        index[rows.mask] = np.clip(places, 0, len(self._own) - 1)
        by = {str(self.column): EncodedColumn(self._own, index)}
        summands = Summands.of(self.plan, rows.rows, rows.status, rows.mask, by)
        summands.clusters = rows.clusters
        super().add(summands)

    def load(self, arrays: dict[str, np.ndarray], keys: list[str], clusters: int) -> None:
        """Take over stored arrays; ValueError if they do not fit."""
        super().load(arrays, self.keys.names_in_order(), clusters)


class Largest(Extreme[ChangedRow]):
    """The rows that changed most: by the change of the NLL, without targets by KL(a‖b); ties by file and row."""

    floor = 0.0  # rows that changed

    def _sizes(self, rows: Summands) -> np.ndarray:
        pairs, other = pairs_of(rows), pairs_of(rows).second
        if not rows.labelled:
            return pairs.kl_ab
        with np.errstate(invalid="ignore"):
            sizes = np.abs(other.nll - pairs.nll)
        found: np.ndarray = np.where(other.nll == pairs.nll, 0.0, sizes)  # infinite ones too
        return found

    def _size(self, row: ChangedRow) -> float:
        return row.size

    def _made(self, rows: Summands, chosen: np.ndarray, sizes: np.ndarray) -> list[ChangedRow]:
        pairs, other = pairs_of(rows), pairs_of(rows).second
        ids = ids_at(pairs.id, np.flatnonzero(rows.mask)[chosen])
        found = []
        is_nested = isinstance(pairs, MultilabelPairRows)  # no one label is the target
        for id, i in zip(ids, chosen.tolist(), strict=True):
            name = id
            if pairs.id is None and pairs.position is not None:
                name = f"document {pairs.row[i]}, position {pairs.position[i]}"
            labelled = (None if is_nested else int(pairs.target[i]), float(pairs.nll[i]), float(other.nll[i]))
            target, before, after = labelled if rows.labelled else (None, math.nan, math.nan)
            found.append(ChangedRow(
                pairs.file, int(pairs.row[i]), name, float(sizes[i]) + 0.0, target, before, after,
                int(pairs.predicted[i]), int(other.predicted[i]), float(pairs.kl_ab[i]),
            ))  # fmt: skip
        return found

    def _order(self, row: ChangedRow) -> tuple[Any, ...]:
        return -row.size, row.file, row.row, repr(row.id), row.target or 0, row.predicted_a, row.predicted_b

    def _row(self, values: list[Any]) -> ChangedRow:
        return ChangedRow(*(float_in(value) if place in _FLOATS else value for place, value in enumerate(values)))


_FLOATS = (3, 5, 6, 9)  # fields of a `ChangedRow` that are floats
