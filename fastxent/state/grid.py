"""The fine grid of the confidence, for the groups of one column: see `kernels.grid` for its places.

Rows without weights that are right or wrong are counted. Rows with a weight, or that are right in part, are summed
exactly; such a row is two, one that is right and one that is wrong, which share its weight.
"""

from __future__ import annotations

import functools
import sys
from typing import NamedTuple

import numpy as np

from fastxent.kernels.cuts import find_bins
from fastxent.kernels.dense import DenseSums
from fastxent.kernels.exact import rounded_ratio, special_value
from fastxent.kernels.fold import COPY, Summand, Terms
from fastxent.kernels.grid import (
    MOST_ROWS,
    OFFSET_BITS,
    SHIFT,
    SLICE_BITS,
    WHOLE_BITS,
    Layout,
    layout_of,
    places_of,
    room,
    tally_grid,
)  # fmt: skip
from fastxent.kernels.grown import grown
from fastxent.scoring.rows import MultilabelRows
from fastxent.state.buckets import BUCKET, Buckets
from fastxent.state.component import Summands
from fastxent.state.jackknife import MOST_SLICES
from fastxent.state.packed import stored, stored_counts, stored_sums
from fastxent.state.table import GroupTable

_SUMS = 5
_BLOCK = 1 << 15  # labels taken at a time


class Moments(NamedTuple):
    """Sums over the rows of each place, float64 (groups, places): of w·f, w·y, w, w²·(y - f)² and w².

    f: the confidence. y: how far the row is right. w: the weight.
    """

    forecast: np.ndarray
    outcome: np.ndarray
    weight: np.ndarray
    weighted_square: np.ndarray
    squared_weight: np.ndarray


def moments_of(counts: np.ndarray, forecast: np.ndarray) -> Moments:
    """The sums of rows that are counted.

    counts: int64 (groups, places, 2), wrong and right. forecast: float64, their mean confidence, broadcast to counts.
    """
    wrong, right = (counts[..., k].astype(np.float64) for k in range(2))
    of_wrong, of_right = (np.ascontiguousarray(forecast[..., k]) for k in range(2))
    square = wrong * of_wrong**2 + right * (1.0 - of_right) ** 2
    weight = wrong + right
    return Moments(wrong * of_wrong + right * of_right, right, weight, square, weight)


class Grid:
    """The component of a state that holds the grid of each group of ``table``; with ``buckets``, of each bucket of a
    group, as groups that follow one another; nothing then if the table has more than `MOST_SLICES` groups.
    """

    def __init__(self, table: GroupTable, buckets: Buckets | None = None) -> None:
        self.table, self._buckets = table, buckets
        self._parts = 1 if buckets is None else buckets.count
        self.bits = WHOLE_BITS if table.column is None and buckets is None else SLICE_BITS
        self.places = places_of(self.bits, table.bins)
        self.rows = np.zeros(0, np.int64)  # (groups,) rows added
        self.counts, self.offsets = np.zeros((2, 0, 2), np.int64)  # (groups · places, 2): wrong, right
        self.sums = DenseSums(_SUMS)  # of each place, once there are any
        self._words, self._waiting = np.zeros(0, np.int64), 0
        self._resize()

    @property
    def known(self) -> bool:
        """Whether there are no more groups than are held. Groups only grow in number."""
        return self._parts == 1 or len(self.table.keys) <= MOST_SLICES

    @property
    def layout(self) -> Layout:
        """What its places are."""
        return layout_of(self.bits, self.table.bins)

    @property
    def held(self) -> np.ndarray:
        """(groups,) rows added."""
        self._resize()
        return self.rows

    def _resize(self) -> None:
        """Make room for every group, or forget everything."""
        groups = self._parts * len(self.table.keys)
        if not self.known:
            self.rows, self.sums = self.rows[:0], DenseSums(_SUMS)
            self.counts, self.offsets, self._words = self.counts[:0], self.offsets[:0], self._words[:0]
            self._waiting = 0
        elif groups > len(self.rows):
            self.settle()
            self.rows = grown(self.rows, groups)
            self.counts, self.offsets = (grown(a, len(self.rows) * self.places) for a in (self.counts, self.offsets))
            self._words = np.zeros(2 * len(self.counts), np.int64)

    def add(self, summands: Summands) -> None:
        """Add rows to the groups of their column."""
        codes = np.zeros(0, np.int64)
        if self.table.column is not None:
            codes = self.table.keys.codes(summands.by[self.table.column])
            codes = codes if len(codes) == summands.n else codes[summands.mask]
        if self._buckets is not None:
            buckets = summands.by[BUCKET].index
            codes = codes * self._parts + buckets if codes.size else buckets
        self._resize()
        if not self.known:
            return
        if not isinstance(summands.rows, MultilabelRows):
            self.add_rows(summands.calibration, codes)
            return
        step = max(1, _BLOCK // max(1, summands.rows.positive.shape[1]))
        for begin in range(0, summands.n, step):
            self._add_labels(summands.rows, codes, slice(begin, begin + step))

    def _add_labels(self, rows: MultilabelRows, codes: np.ndarray, some: slice) -> None:
        """Add the labels of rows that are not ignored."""
        known = ~np.isnan(rows.positive[some])
        many = known.sum(axis=1)
        weight = np.zeros(0) if rows.weight is None else np.repeat(rows.weight[some], many)
        p, t = (values[some][known].astype(np.float64) for values in (rows.probability, rows.positive))
        self.add_rows((p, np.zeros(0, np.int64), t, weight), np.repeat(codes[some], many) if codes.size else codes)

    def add_rows(self, rows: tuple[np.ndarray, ...], codes: np.ndarray) -> None:
        """Add rows.

        rows: see `Summands.calibration`. codes: int64 groups (n,), or empty: 0.
        """
        self._resize()
        self.rows += np.bincount(codes, minlength=len(self.rows)) if codes.size else len(rows[0])
        confidence, rank, positive, weight = rows
        if weight.size:
            self._weigh(rows, codes)
            return
        if positive.size:
            hard = (positive == 0.0) | (positive == 1.0)
            if not hard.all():
                self._weigh(
                    tuple(c if not c.size else c[~hard] for c in rows), codes if not codes.size else codes[~hard]
                )
                confidence, positive = confidence[hard], positive[hard]
                codes = codes if not codes.size else codes[hard]
        layout, space = (self.bits, self.table.bins), room()
        for begin in range(0, len(confidence), MOST_ROWS):
            some = slice(begin, begin + MOST_ROWS)
            self._expect(len(confidence[some]))
            tally_grid((confidence[some], rank[some], positive[some]), codes[some], layout, self._words, space)

    def add_words(self, words: np.ndarray, rows: int) -> None:
        """Add rows to the one group, summed already."""
        self._expect(rows)
        self._words += words
        self.rows += rows

    def _expect(self, rows: int) -> None:
        """Have room for so many rows in the words."""
        if self._waiting + rows > MOST_ROWS:
            self.settle()
        self._waiting += rows

    def settle(self) -> None:
        """Count the rows that wait in words."""
        if self._waiting:
            words = self._words.reshape(-1, 2)
            self.counts += words >> SHIFT
            self.offsets += words & (1 << SHIFT) - 1
            self._words[:] = self._waiting = 0

    def _weigh(self, rows: tuple[np.ndarray, ...], codes: np.ndarray) -> None:
        """Add rows to the sums of their places."""
        confidence, rank, positive, weight = rows
        f = np.clip(confidence, 0.0, 1.0)
        y = positive if positive.size else (rank == 0).astype(np.float64)
        w = weight if weight.size else np.ones(len(f))
        bins = np.empty(len(f), np.int64)
        find_bins(f, self.table.bins, bins)
        places = bins + np.maximum(np.ceil(f * (1 << self.bits)).astype(np.int64) - 1, 0)
        if codes.size:
            places += codes * self.places
        with np.errstate(over="ignore"):
            columns = w * f, w * y, w, (w * (y - f)) ** 2, w * w
        self.sums.resize(len(self.counts))
        self.sums.add(Terms([Summand(COPY, column) for column in columns]), places)

    def absorb(self, other: Grid, clusters: np.ndarray | None = None) -> None:
        """Add the rows of another."""
        codes = self._groups_of(self.table.keys.absorb(other.table.keys))
        self._resize()
        if not self.known:
            return
        other._resize()
        other.settle()
        self.rows[codes] += other.rows
        for mine, theirs in ((self.counts, other.counts), (self.offsets, other.offsets)):
            by_group = len(self.rows), 2 * self.places
            mine.reshape(by_group)[codes] += theirs.reshape(len(codes), 2 * self.places)
        if other.sums.groups:
            self.sums.resize(len(self.counts))
            self.sums.merge_into(other.sums, self._places_of(codes)[: other.sums.groups])

    def _groups_of(self, keys: np.ndarray) -> np.ndarray:
        """The groups of keys, in order."""
        found: np.ndarray = (keys[:, None] * self._parts + np.arange(self._parts)).ravel()
        return found

    def _places_of(self, groups: np.ndarray) -> np.ndarray:
        """The places of groups, in order."""
        found: np.ndarray = (groups[:, None] * self.places + np.arange(self.places)).ravel()
        return found

    def _summed(self) -> np.ndarray:
        """(groups · places,) whether there are sums."""
        found = np.zeros(len(self.counts), bool)
        found[: self.sums.groups] = self.sums.words[: self.sums.groups].any(axis=(1, 2))
        found[: self.sums.groups] |= self.sums.special[: self.sums.groups].any(axis=1)
        return found

    def arrays(self, clusters: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """The places in use, by group in the order of keys, for storage; nothing without rows."""
        self.settle()
        if not self.held.any():
            return {}
        order = self._groups_of(self.table.keys.order())
        places = self._places_of(order)
        counted = np.flatnonzero(self.counts[places].any(axis=1))
        summed = np.flatnonzero(self._summed()[places])
        sums = self.sums.arrays(places[summed])
        return {
            "rows": self.rows[order],
            "counted": counted,
            "counts": self.counts[places[counted]],
            "offsets": self.offsets[places[counted]],
            "summed": summed,
            **{f"sums/{name}": array for name, array in sums.items()},
        }

    def load(self, arrays: dict[str, np.ndarray], keys: list[str] | None = None, clusters: int = 0) -> None:
        """Take over stored arrays; ValueError if they do not fit. States of earlier versions have none."""
        self._resize()
        if not arrays:
            return
        if not self.known:
            raise ValueError("grids of more slices than there may be")
        self.rows = stored_counts(arrays, "rows", len(self.rows))
        counted, summed = (stored(arrays, name, np.int64, -1) for name in ("counted", "summed"))
        for places in (counted, summed):
            if places.size and not (places[0] >= 0 and places[-1] < len(self.counts) and np.all(np.diff(places) > 0)):
                raise ValueError("places of a grid out of order")
        counts = stored_counts(arrays, "counts", len(counted), 2)
        offsets = stored(arrays, "offsets", np.int64, len(counted), 2)
        if not (counts.any(axis=1).all() and np.all((offsets >= 0) & (offsets >> OFFSET_BITS <= counts))):
            raise ValueError("counts of a grid that contradict each other")
        self.counts[counted], self.offsets[counted] = counts, offsets
        of_groups = counts.sum(axis=1), len(self.rows)
        if (np.bincount(counted // self.places, of_groups[0], of_groups[1]) > self.rows).any():
            raise ValueError("a grid of more rows than there are")
        sums = DenseSums.restore(_SUMS, len(summed), stored_sums(arrays, "sums/"))
        if len(summed):
            self.sums.resize(len(self.counts))
            self.sums.merge_into(sums, summed)

    def moments(self, groups: np.ndarray) -> Moments:
        """The sums of the places of groups."""
        found = moments_of(*self.sides(groups))
        if not self.sums.groups:
            return found
        places = self._places_of(groups)
        summed = np.flatnonzero(self._summed()[places])
        more = np.zeros((_SUMS, len(places)))
        more[:, summed] = self._numbers(places[summed])
        return Moments(*(a + b.reshape(a.shape) for a, b in zip(found, more, strict=True)))

    def holds_sums(self, group: int) -> bool:
        """Whether some rows of a group are summed, so that they are not alike."""
        some = slice(group * self.places, (group + 1) * self.places)
        return self.sums.groups > 0 and bool(self._summed()[some].any())

    def buckets_of(self, key: int) -> np.ndarray:
        """The groups of a key that have rows: its buckets."""
        found: np.ndarray = key * self._parts + np.flatnonzero(self.held[key * self._parts : (key + 1) * self._parts])
        return found

    def _numbers(self, places: np.ndarray) -> np.ndarray:
        """The sums of places, float64 (_SUMS, n)."""
        size, unit = 8 * self.sums.words.shape[2], 1 << self.sums.scale
        data = self.sums.words[places].tobytes()
        special = self.sums.special[places].ravel().tolist()
        found = [
            special_value(flags)
            if flags
            else rounded_ratio(int.from_bytes(data[at : at + size], sys.byteorder, signed=True), unit)
            for at, flags in zip(range(0, len(data), size), special, strict=True)
        ]
        return np.array(found).reshape(-1, _SUMS).T

    def coarse_sides(self, group: int) -> tuple[np.ndarray, np.ndarray, Layout]:
        """The `sides` of one group in the cells of a slice, enough for a standard error, and their layout."""
        (counts,), (forecast,) = self.sides(np.array([group]))
        layout = layout_of(SLICE_BITS, self.table.bins)
        if self.bits == SLICE_BITS:
            return counts, forecast, layout
        joined, sums = self._coarse(counts), self._coarse(counts * forecast)
        return joined, sums / np.maximum(joined, 1), layout

    def coarse_moments(self, group: int) -> Moments:
        """The `moments` of one group in the cells of a slice, each (places,)."""
        found = self.moments(np.array([group]))
        if self.bits == SLICE_BITS:
            return Moments(*(column[0] for column in found))
        return Moments(*(self._coarse(column[0]) for column in found))

    def _coarse(self, column: np.ndarray) -> np.ndarray:
        """Sums over the places that lie in each place of a slice."""
        _, firsts, places = _cells_of(self.bits, self.table.bins)
        found = np.zeros((places_of(SLICE_BITS, self.table.bins), *column.shape[1:]), column.dtype)
        found[places] = np.add.reduceat(column, firsts)
        return found

    def sides(self, groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(rows that are wrong and right, int64 (groups, places, 2); their mean confidence)."""
        self.settle()
        counts, offsets = (a.reshape(-1, self.places, 2)[groups] for a in (self.counts, self.offsets))
        cells = _cells_of(self.bits, self.table.bins)[0]
        mean = offsets / np.maximum(counts, 1) / (1 << OFFSET_BITS)
        return counts, (cells[:, None] + mean) / (1 << self.bits)


@functools.lru_cache(maxsize=16)
def _cells_of(bits: int, bins: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(the cell of each place of a grid, the first of those in one place of a slice, these places of a slice).

    None of them may be written to.
    """
    cells, of_bins = (
        np.searchsorted(starts, np.arange(places_of(bits, bins)), side="right") - 1
        for starts in layout_of(bits, bins)[::-1]
    )
    coarse = (cells >> max(0, bits - SLICE_BITS)) + of_bins
    firsts = np.flatnonzero(np.diff(coarse, prepend=-1))
    return cells, firsts, coarse[firsts]
