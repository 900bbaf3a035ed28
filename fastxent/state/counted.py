"""Counts of rows by the cell of their score and by class: see `state.cells`."""

from __future__ import annotations

import numpy as np

from fastxent.kernels.cells import (
    CELLS,
    Counts,
    add_counts,
    add_pages,
    counts_at,
    mark_filled,
    move_counts,
    tally_cells,
)  # fmt: skip
from fastxent.kernels.ranks import list_ranked
from fastxent.state.cells import LONGEST, Cells, Moves, Used, keys_of

NEGATIVE, POSITIVE = range(2)
_WAITING = 1 << 21  # rows that tell how many pages there will be
_FEW = 1 << 16  # rows whose pages are made and found by a table of slots
_MOST_NARROW = 1 << 40  # rows that `Counts` with 32 bits hold, in one cell
_MOST_LISTED = (1 << 32) - 1  # rows that are listed in 32 bits


class Counted:
    """Rows by cell and class. Rows of a single owner may wait to be counted: see `hold`."""

    def __init__(self, limit: int, room: int | None = None) -> None:
        self.cells = Cells(limit, self._move, room)
        self.counts = Counts.zeros(0)
        self._rows = 0
        self._scores, self._sides, self._waiting = np.zeros(0, np.float32), np.zeros(0, np.uint8), 0

    def add(self, keys: np.ndarray, owners: np.ndarray, positive: np.ndarray) -> None:
        """Add rows; ``positive``: 0 or 1, of any type."""
        self._expect(len(keys))
        self._count(keys, owners, positive)

    def _count(self, keys: np.ndarray, owners: np.ndarray, positive: np.ndarray) -> None:
        places = self.cells.places(keys, owners)
        self._expect(0)
        tally_cells(places, positive.astype(np.float64, copy=False), self.counts)

    def hold(self, scores: np.ndarray, positive: np.ndarray) -> None:
        """Add rows of the one owner: float32 or float64 scores, none of them NaN, and uint8 0 or 1."""
        if self.cells.has_near:
            self._tally(scores, positive)
            return
        if scores.dtype != self._scores.dtype or not len(self._scores):
            self.count()
            self._scores, self._sides = np.empty(_WAITING, scores.dtype), np.empty(_WAITING, np.uint8)
        begin, some = self._waiting, min(len(scores), len(self._scores) - self._waiting)
        self._scores[begin : begin + some], self._sides[begin : begin + some] = scores[:some], positive[:some]
        self._waiting += some
        if self._waiting == len(self._scores):
            self.count()
        if some < len(scores):
            self.hold(scores[some:], positive[some:])

    def count(self, few: int | None = None) -> None:
        """Count the rows that wait. ``few``: see `_FEW`."""
        scores, sides, self._waiting = self._scores[: self._waiting], self._sides[: self._waiting], 0
        if len(scores) > (_FEW if few is None else few) and not self.cells.has_near:
            self.cells.fit(scores)
        self._tally(scores, sides)

    def _tally(self, scores: np.ndarray, sides: np.ndarray) -> None:
        self._expect(len(scores))
        done = 0
        if self.cells.has_near:
            self._expect(0, self.cells.limit)
            done = self.cells.tally(scores, sides, self.counts, self._count_scores)
        self._count_scores(scores[done:], sides[done:])

    def _count_scores(self, scores: np.ndarray, sides: np.ndarray) -> None:
        for begin in range(0, len(scores), _FEW):
            keys = keys_of(scores[begin : begin + _FEW].astype(np.float64))
            self._count(keys, np.zeros(len(keys), np.int64), sides[begin : begin + _FEW])

    def merge(self, used: Used, counts: np.ndarray) -> None:
        """Add the counts (n, 2) of cells of others."""
        places = self.cells.places(used.keys, used.owners)
        self._expect(int(counts.sum()))
        add_counts(counts, places, self.counts)

    def absorb(self, other: Counted, codes: np.ndarray) -> None:
        """Add the rows of others, whose owner g is ``codes[g]`` here."""
        self.count()
        other.count()
        moves = self.cells.joined(other.cells, codes)
        self._expect(other._rows)
        add_pages(*moves, other.counts, self.counts, np.empty((2, CELLS), np.int64))

    def _expect(self, rows: int, pages: int = 0) -> None:
        """Make room for all pages, or for so many, and for counts of so many more rows."""
        self._rows += rows
        if self._rows >= _MOST_NARROW and self.counts.high.dtype == np.uint32:
            self.counts = self.counts._replace(high=self.counts.high.astype(np.int64))
        pages, held = max(pages, self.cells.count // CELLS), len(self.counts.over)
        if held < pages:
            room = min(max(pages, 4 * held), self.cells.limit * len(self.cells.lengths))
            self.counts = self.counts.grown(max(pages, room))

    def _move(self, moves: Moves) -> None:
        move_counts(*moves, self.counts, np.empty((2, CELLS), np.int64))

    def used(self) -> Used:
        """The cells that hold rows."""
        self.count()
        self._expect(0)
        filled = np.empty(self.cells.count, bool)
        mark_filled(self.counts, filled)
        return self.cells.used(filled)

    def rows_at(self, places: np.ndarray) -> np.ndarray:
        """(n, 2) int64 rows of each class in these cells."""
        found = np.empty((len(places), 2), np.int64)
        counts_at(self.counts, places, found)
        return found

    def listed(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(keys, negative rows, positive rows) of the cells of the one owner that hold rows; rows are of 32 bits as
        long as they fit, since half of the time goes into memory that is used for the first time."""
        self.count()
        self._expect(0)
        pages, names, _ = self.cells.pages()
        kind = np.uint32 if self._rows <= _MOST_LISTED else np.float64
        found = tuple(np.empty(self.cells.count + 1, dtype) for dtype in (np.uint64, kind, kind))
        shift = np.uint64(LONGEST - int(self.cells.lengths[0]))
        count = list_ranked(names, pages, shift, self.counts, *found)
        keys, negative, positive = (column[:count] for column in found)
        return keys, negative, positive


def warm_up(dtype: str) -> None:
    """Compile what many scores of a type need: their pages are made, found, moved, merged and listed."""
    scores = np.linspace(0.5, 1.0, 400, endpoint=False).astype(dtype)
    sides = (np.arange(len(scores)) % 2).astype(np.uint8)
    states = [Counted(64), Counted(64)]
    for counted in states:
        counted.cells.resize(1)
        counted.hold(scores, sides)
        counted.count(few=0)
    first, second = states
    first.add(keys_of(scores.astype(np.float64)), np.zeros(len(scores), np.int64), sides)
    second.hold(scores * scores.dtype.type(0.25), sides)  # more pages than there may be
    second.count(few=0)
    first.absorb(second, np.zeros(1, np.int64))
    first.listed()
