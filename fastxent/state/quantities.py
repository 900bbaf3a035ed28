"""Quantiles of the numbers of rows of a comparison: counts on a logarithmic grid, and the least and the largest number.

All rows have a fine grid. Slices have a coarser one, of which the cells that hold numbers are kept: a slice takes no
more memory than its rows would.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import numpy as np

from fastxent.kernels.tally import tally_patterns
from fastxent.results.comparison import QUANTILES
from fastxent.scoring.pairs import PairRows
from fastxent.state.component import Summands
from fastxent.state.packed import stored, stored_counts
from fastxent.state.table import GroupTable

_NONE = math.inf, -math.inf  # least and largest of no values
Numbers = Callable[[PairRows], np.ndarray | None]


def pairs_of(rows: Summands) -> PairRows:
    """The rows, which are those of two dumps."""
    return cast(PairRows, rows.rows)


@dataclass(frozen=True)
class Grid:
    """Bins of magnitudes from 2**low to 2**high, each at most 2**-mantissa wide relative to its lower edge.

    There is one bin below (zero too), one above, and one for infinity. A *place* numbers the bins of numbers below 0
    and of others in ascending order.
    """

    mantissa: int
    low: int = -60
    high: int = 17

    @property
    def bins(self) -> int:
        return ((self.high - self.low) << self.mantissa) + 3

    @property
    def shift(self) -> int:
        return 52 - self.mantissa

    @property
    def first(self) -> int:
        return ((1023 + self.low) << self.mantissa) - 1

    def places(self, values: np.ndarray) -> np.ndarray:
        """The places of numbers, none of them NaN."""
        bins = np.clip((np.abs(values).view(np.int64) >> self.shift) - self.first, 0, self.bins - 2)
        bins[np.isinf(values)] = self.bins - 1
        found: np.ndarray = np.where(values < 0.0, self.bins - 1 - bins, self.bins + bins)
        return found

    def values(self, places: np.ndarray, least: float, largest: float) -> np.ndarray:
        """The middles of the bins of places, no further out than the numbers go."""
        bins = np.where(places >= self.bins, places - self.bins, self.bins - 1 - places)
        inner = np.clip(bins, 1, self.bins - 3)
        middles = (self._edges(inner) + self._edges(inner + 1)) / 2
        middles = np.where(bins == inner, middles, np.where(bins == 0, 0.0, math.inf))
        found: np.ndarray = np.clip(np.where(places >= self.bins, middles, -middles), least, largest) + 0.0
        return found

    def _edges(self, bins: np.ndarray) -> np.ndarray:
        """The lower edges of bins."""
        return ((bins + self.first) << self.shift).view(np.float64)

    def quantiles(self, places: np.ndarray, counts: np.ndarray, least: float, largest: float) -> dict[float, float]:
        """Each of `QUANTILES` as NumPy interpolates it: between the numbers beside place q·(n - 1).

        places: int64, ascending. counts: int64. How many numbers each has.
        """
        ends = np.cumsum(counts)
        total = int(ends[-1]) if len(ends) else 0
        if not total:
            return dict.fromkeys(QUANTILES, math.nan)

        def ranked(ranks: np.ndarray) -> list[float]:
            """The numbers that so many others precede."""
            found = self.values(places[np.searchsorted(ends, ranks, side="right")], least, largest)
            numbers: list[float] = np.where(ranks == 0, least, np.where(ranks == total - 1, largest, found)).tolist()
            return numbers

        between = np.array(QUANTILES) * (total - 1)
        lower = np.minimum(between.astype(np.int64), total - 1)
        low, high = ranked(lower), ranked(np.minimum(lower + 1, total - 1))
        shares = (between - lower).tolist()
        found = [x if x == y or not s else x + s * (y - x) for x, y, s in zip(low, high, shares, strict=True)]
        return dict(zip(QUANTILES, found, strict=True))


WHOLE, SLICE = Grid(8), Grid(6)  # quantiles within 0.2 % and 0.8 %


class Quantities:
    """The numbers of all rows.

    of: function of rows. The numbers, none of them NaN; None if the rows have none.
    """

    def __init__(self, of: Numbers) -> None:
        self._of = of
        self.counts = np.zeros((2, WHOLE.bins), np.int64)  # of numbers of at least 0, and of the magnitudes of others
        self.least, self.largest = _NONE

    def add(self, rows: Summands) -> None:
        """Count the numbers of rows."""
        values = self._of(pairs_of(rows))
        if values is None or not values.size:
            return
        below = values < 0.0
        for counts, some in zip(self.counts, (values[~below], -values[below]), strict=True):
            tally_patterns((some + 0.0).view(np.int64), WHOLE.shift, WHOLE.first, counts)  # + 0.0: zero has one sign
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
        self.counts = stored_counts(arrays, "counts", 2, WHOLE.bins)
        self.least, self.largest = stored(arrays, "extremes", np.float64, 2).tolist()
        if not (self.least <= self.largest if self.counts.any() else (self.least, self.largest) == _NONE):
            raise ValueError("extremes that contradict the counts")

    def quantiles(self) -> dict[float, float]:
        """Each of `QUANTILES`, within 0.2 %."""
        counts = np.concatenate([self.counts[1, ::-1], self.counts[0]])
        filled = np.flatnonzero(counts)
        return WHOLE.quantiles(filled, counts[filled], self.least, self.largest)

    def histogram(self, edges: np.ndarray) -> list[int]:
        """Counts between ``edges``, each number at the middle of its bin."""
        filled = np.flatnonzero(self.counts.ravel())
        places = np.where(filled < WHOLE.bins, filled + WHOLE.bins, 2 * WHOLE.bins - 1 - filled)
        middles = WHOLE.values(places, self.least, self.largest)
        found, _ = np.histogram(middles, edges, weights=self.counts.ravel()[filled])
        return [int(n) for n in found]


class SliceQuantities:
    """The numbers of the rows of each group of ``table``. States of earlier versions have none.

    of: as in `Quantities`.
    """

    def __init__(self, table: GroupTable, of: Numbers) -> None:
        self.table, self._of, self._span = table, of, 2 * SLICE.bins
        self._cells, self._counts = np.zeros((2, 0), np.int64)  # ascending: group · span + place; numbers in it
        self._waiting: list[np.ndarray] = []  # cells of numbers that have not been counted
        self._extremes = np.zeros((2, 0))  # (least and largest, groups)

    def _resize(self) -> None:
        missing = len(self.table.keys) - self._extremes.shape[1]
        if missing > 0:
            more = np.repeat(np.array(_NONE)[:, None], missing, axis=1)
            self._extremes = np.concatenate([self._extremes, more], axis=1)

    def add(self, rows: Summands) -> None:
        """Count the numbers of rows."""
        values = self._of(pairs_of(rows))
        codes = self.table.keys.codes(rows.by[str(self.table.column)])
        self._resize()
        if values is None or not values.size:
            return
        codes, values = codes if len(codes) == len(values) else codes[rows.mask], values + 0.0
        np.minimum.at(self._extremes[0], codes, values)
        np.maximum.at(self._extremes[1], codes, values)
        self._waiting.append(codes * self._span + SLICE.places(values))
        if sum(map(len, self._waiting)) > max(1 << 16, len(self._cells)):
            self._count()

    def _count(self) -> None:
        """Count the numbers that wait."""
        cells, counts = np.unique(np.concatenate([*self._waiting, np.zeros(0, np.int64)]), return_counts=True)
        self._waiting = []
        self._include(cells, counts)

    def _include(self, cells: np.ndarray, counts: np.ndarray) -> None:
        together, place = np.unique(np.concatenate([self._cells, cells]), return_inverse=True)
        found = np.zeros(len(together), np.int64)
        np.add.at(found, place.reshape(-1), np.concatenate([self._counts, counts]))
        self._cells, self._counts = together, found

    def absorb(self, other: SliceQuantities, clusters: np.ndarray) -> None:
        """Add the counts of another."""
        codes = self.table.keys.absorb(other.table.keys)
        self._count()
        other._count()
        self._resize()
        self._include(codes[other._cells // self._span] * self._span + other._cells % self._span, other._counts)
        found = codes[: other._extremes.shape[1]]  # which lacks groups without rows
        np.minimum.at(self._extremes[0], found, other._extremes[0])
        np.maximum.at(self._extremes[1], found, other._extremes[1])

    def arrays(self, clusters: np.ndarray) -> dict[str, np.ndarray]:
        """``cells`` and their ``counts``, and ``extremes``, of the groups in the order of their keys."""
        self._count()
        self._resize()
        order = self.table.keys.order()
        place = np.empty(len(order), np.int64)
        place[order] = np.arange(len(order))
        cells = place[self._cells // self._span] * self._span + self._cells % self._span
        at = np.argsort(cells)
        return {"cells": cells[at], "counts": self._counts[at], "extremes": self._extremes[:, order]}

    def load(self, arrays: dict[str, np.ndarray], keys: list[str], clusters: int) -> None:
        """Take over stored arrays; ValueError if they do not fit."""
        self._resize()
        if not arrays:
            return
        groups = len(self.table.keys)
        cells = stored(arrays, "cells", np.int64, -1)
        counts = stored_counts(arrays, "counts", len(cells))
        extremes = stored(arrays, "extremes", np.float64, 2, groups)
        if len(cells) and not (cells[0] >= 0 and cells[-1] < groups * self._span and (np.diff(cells) > 0).all()):
            raise ValueError("cells that are not those of slices")
        numbers = np.zeros(groups, np.int64)
        np.add.at(numbers, cells // self._span, counts)
        if (numbers > [self.table.contributing(g) for g in range(groups)]).any() or not counts.all():
            raise ValueError("more numbers than rows")
        if not np.where(numbers > 0, extremes[0] <= extremes[1], (extremes == np.array(_NONE)[:, None]).all(0)).all():
            raise ValueError("extremes that contradict the counts")
        self._cells, self._counts, self._extremes = cells, counts, extremes

    def of_group(self, g: int) -> tuple[float, float, dict[float, float]] | None:
        """(the least number of a group, the largest, quantiles within 0.8 %); None if not all its rows are counted."""
        self._count()
        self._resize()
        first, end = np.searchsorted(self._cells, [g * self._span, (g + 1) * self._span]).tolist()
        counts = self._counts[first:end]
        if counts.sum() != self.table.contributing(g):
            return None
        least, largest = self._extremes[:, g].tolist()
        places = self._cells[first:end] - g * self._span
        return least, largest, SLICE.quantiles(places, counts, least, largest)
