"""The components of a comparison beside its means: quantiles, flips, groups by confidence, the largest changes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, cast

import numpy as np

from fastxent.kernels.exact import rounded_root
from fastxent.kernels.tally import tally_patterns
from fastxent.results.comparison import QUANTILES, ChangedRow, Flips
from fastxent.results.encoding import float_in
from fastxent.scoring.pairs import MultilabelPairRows, PairRows
from fastxent.scoring.rows import ScoredRows
from fastxent.state.component import Summands
from fastxent.state.extreme import Extreme, ids_at
from fastxent.state.keys import EncodedColumn
from fastxent.state.metrics import MetricPlan
from fastxent.state.packed import stored, stored_counts
from fastxent.state.table import GroupTable

CONFIDENCE_EDGES = (0.0, 0.25, 0.5, 0.75, 0.95, 1.0)  # of the first dump: (edge, next edge], the first one closed
_MANTISSA, _LOW, _HIGH = 8, -60, 17  # a bin is at most 1/256 wide relative to its lower edge
_SHIFT = 52 - _MANTISSA
_FIRST = (1023 + _LOW) << _MANTISSA
_BINS = ((_HIGH - _LOW) << _MANTISSA) + 3  # one below (zero too), the grid, one above, and one for infinity
_NONE = math.inf, -math.inf  # least and largest of no values


def pairs_of(rows: Summands) -> PairRows:
    """The rows, which are those of two dumps."""
    return cast(PairRows, rows.rows)


class Quantities:
    """Counts of numbers on a logarithmic grid, of those below 0 too; the least and the largest, exactly.

    of: function of rows. The numbers, none of them NaN; None if the rows have none.
    """

    def __init__(self, of: Callable[[PairRows], np.ndarray | None]) -> None:
        self._of = of
        self.counts = np.zeros((2, _BINS), np.int64)  # of numbers of at least 0, and of the magnitudes of the others
        self.least, self.largest = _NONE

    def add(self, rows: Summands) -> None:
        """Count the numbers of rows."""
        values = self._of(pairs_of(rows))
        if values is None or not values.size:
            return
        below = values < 0.0
        for counts, some in zip(self.counts, (values[~below], -values[below]), strict=True):
            tally_patterns((some + 0.0).view(np.int64), _SHIFT, _FIRST - 1, counts)  # + 0.0: zero has one sign
        self.least = min(self.least, float(values.min()) + 0.0)
        self.largest = max(self.largest, float(values.max()) + 0.0)

    def absorb(self, other: Quantities, clusters: np.ndarray) -> None:
        """Add the counts of another."""
        self.counts += other.counts
        self.least, self.largest = min(self.least, other.least), max(self.largest, other.largest)

    def arrays(self, clusters: np.ndarray) -> dict[str, np.ndarray]:
        """``counts``, and ``extremes``: the least and the largest number."""
        return {"counts": self.counts, "extremes": np.array([self.least, self.largest])}

    def load(self, arrays: dict[str, np.ndarray], keys: list[str], clusters: int) -> None:
        """Take over stored arrays; ValueError if they do not fit."""
        self.counts = stored_counts(arrays, "counts", 2, _BINS)
        self.least, self.largest = stored(arrays, "extremes", np.float64, 2).tolist()
        if not (self.least <= self.largest if self.counts.any() else (self.least, self.largest) == _NONE):
            raise ValueError("extremes that contradict the counts")

    def quantiles(self) -> dict[float, float]:
        """Each of `QUANTILES` as NumPy interpolates it: between the numbers beside place q·(n - 1), within 0.2 %."""
        ends = np.cumsum(np.concatenate([self.counts[1, ::-1], self.counts[0]]))
        total = int(ends[-1])
        if not total:
            return dict.fromkeys(QUANTILES, math.nan)
        places = np.array(QUANTILES) * (total - 1)
        lower = np.minimum(places.astype(np.int64), total - 1)
        low, high = (self._ranked(ends, np.minimum(ranks, total - 1)) for ranks in (lower, lower + 1))
        shares = (places - lower).tolist()
        found = [x if x == y or not s else x + s * (y - x) for x, y, s in zip(low, high, shares, strict=True)]
        return dict(zip(QUANTILES, found, strict=True))

    def _ranked(self, ends: np.ndarray, ranks: np.ndarray) -> list[float]:
        """The numbers that so many others precede: the middles of their bins, no further out than the numbers go."""
        found = self._values(np.searchsorted(ends, ranks, side="right"))
        found = np.where(ranks == 0, self.least, np.where(ranks == ends[-1] - 1, self.largest, found))
        numbers: list[float] = found.tolist()
        return numbers

    def _values(self, places: np.ndarray) -> np.ndarray:
        """The middles of bins."""
        bins = np.where(places >= _BINS, places - _BINS, _BINS - 1 - places)
        inner = np.clip(bins, 1, _BINS - 3)
        middles = np.where(bins == inner, (_edges(inner) + _edges(inner + 1)) / 2, np.where(bins == 0, 0.0, math.inf))
        found: np.ndarray = np.clip(np.where(places >= _BINS, middles, -middles), self.least, self.largest) + 0.0
        return found

    def histogram(self, edges: np.ndarray) -> list[int]:
        """Counts between ``edges``, each number at the middle of its bin."""
        filled = np.flatnonzero(self.counts.ravel())
        places = np.where(filled < _BINS, filled + _BINS, 2 * _BINS - 1 - filled)
        found, _ = np.histogram(self._values(places), edges, weights=self.counts.ravel()[filled])
        return [int(n) for n in found]


def _edges(bins: np.ndarray) -> np.ndarray:
    """The lower edges of bins of the grid."""
    return ((bins + (_FIRST - 1)) << _SHIFT).view(np.float64)


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
            self.counts = np.pad(self.counts, ((0, groups - len(self.counts)), (0, 0)))

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
