"""Counts of rows by the cell of their score and by class: see `state.cells`."""

from __future__ import annotations

import numpy as np

from fastxent.kernels.cells import CELLS, add_counts, add_pages, counts_at, move_counts, tally_cells
from fastxent.kernels.ranks import list_ranked
from fastxent.kernels.sifted import BUCKET_BITS, sift
from fastxent.state.cells import LONGEST, Cells, Moves, Used, keys_of

NEGATIVE, POSITIVE = range(2)
_WAITING = 1 << 21  # rows that are counted at once
_FEW = 1 << 16  # rows that need no sorting
_MOST_NARROW = (1 << 32) - 1  # rows that 32 bits can count


class Counted:
    """Rows by cell and class. Rows of a single owner may wait to be counted, many at once: see `hold`."""

    def __init__(self, limit: int, room: int | None = None) -> None:
        self.cells = Cells(limit, self._move, room)
        self.counts = np.zeros((0, 2, CELLS), np.uint32)  # by page, class and cell
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
        if scores.dtype != self._scores.dtype or not len(self._scores):
            self.count()
            self._scores, self._sides = np.empty(_WAITING, scores.dtype), np.empty(_WAITING, np.uint8)
        done = 0
        while done < len(scores):
            begin, some = self._waiting, min(len(scores) - done, len(self._scores) - self._waiting)
            self._scores[begin : begin + some] = scores[done : done + some]
            self._sides[begin : begin + some] = positive[done : done + some]
            self._waiting, done = begin + some, done + some
            if self._waiting == len(self._scores):
                self.count()

    def count(self, few: int | None = None) -> None:
        """Count the rows that wait. ``few``: rows that need no sorting, `_FEW` unless given."""
        scores, sides, self._waiting = self._scores[: self._waiting], self._sides[: self._waiting], 0
        self._expect(len(scores))
        if len(scores) > (_FEW if few is None else few):
            scores, ends = sifted(scores, sides)
            if not self.cells.has_near:
                self.cells.fit(scores)
            done = 0
            if self.cells.has_near:
                self._expect(0, self.cells.limit)
                done = self.cells.tally(scores, ends, self.counts, self._count_scores)
            numbers = np.diff(ends, prepend=0)
            sides = np.repeat(np.arange(len(ends)) & 1, numbers)[done:] if done < len(scores) else sides[:0]
            scores = scores[done:]
        self._count_scores(scores, sides)

    def _count_scores(self, scores: np.ndarray, sides: np.ndarray) -> None:
        for begin in range(0, len(scores), _FEW):
            keys = keys_of(scores[begin : begin + _FEW].astype(np.float64))
            self._count(keys, np.zeros(len(keys), np.int64), sides[begin : begin + _FEW])

    def merge(self, used: Used, counts: np.ndarray) -> None:
        """Add the counts (n, 2) of cells of others."""
        places = self.cells.places(used.keys, used.owners)
        self._expect(int(counts.sum()))
        add_counts(counts.astype(self.counts.dtype, copy=False), places, self.counts)

    def absorb(self, other: Counted, codes: np.ndarray) -> None:
        """Add the rows of others, whose owner g is ``codes[g]`` here."""
        self.count()
        other.count()
        moves = self.cells.joined(other.cells, codes)
        self._expect(other._rows)
        add_pages(*moves, other.counts.astype(self.counts.dtype, copy=False), self.counts)

    def _expect(self, rows: int, pages: int = 0) -> None:
        """Make room for all pages, or for so many, and for counts of so many more rows."""
        self._rows += rows
        if self._rows > _MOST_NARROW and self.counts.dtype == np.uint32:
            self.counts = self.counts.astype(np.int64)
        pages = max(pages, self.cells.count // CELLS)
        if len(self.counts) < pages:
            room = max(pages, 4 * len(self.counts))
            room = max(pages, min(room, self.cells.limit * len(self.cells.lengths)))
            held = self.counts  # memory not used yet takes none
            self.counts = np.zeros((room, *held.shape[1:]), held.dtype)
            self.counts[: len(held)] = held

    def _move(self, moves: Moves) -> None:
        move_counts(*moves, self.counts, np.empty(self.counts.shape[1:], self.counts.dtype))

    def used(self) -> Used:
        """The cells that hold rows."""
        self.count()
        self._expect(0)
        counts = self.counts[: self.cells.count // CELLS]
        return self.cells.used(((counts[:, NEGATIVE] > 0) | (counts[:, POSITIVE] > 0)).ravel())

    def rows_at(self, places: np.ndarray) -> np.ndarray:
        """(n, 2) int64 rows of each class in these cells."""
        found = np.empty((len(places), 2), np.int64)
        counts_at(self.counts, places, found)
        return found

    def listed(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(keys, negative rows, positive rows) of the cells of the one owner that hold rows; rows are of 32 bits as
        long as counts are, since half of the time goes into memory that is used for the first time."""
        self.count()
        self._expect(0)
        pages, names, _ = self.cells.pages()
        kind = np.uint32 if self.counts.dtype == np.uint32 else np.float64
        found = tuple(np.empty(self.cells.count + 1, dtype) for dtype in (np.uint64, kind, kind))
        shift = np.uint64(LONGEST - int(self.cells.lengths[0]))
        count = list_ranked(names, pages, shift, self.counts, *found)
        keys, negative, positive = (column[:count] for column in found)
        return keys, negative, positive


def sifted(scores: np.ndarray, positive: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(scores sorted by `sift`, where each bucket ends)."""
    bits = BUCKET_BITS[scores.itemsize]
    patterns = scores.view(np.dtype(f"uint{8 * scores.itemsize}"))
    ends, found = np.zeros(2 << bits, np.int64), np.empty_like(scores)
    sift(patterns, positive, 8 * scores.itemsize - bits, ends, found.view(patterns.dtype))
    return found, ends


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
