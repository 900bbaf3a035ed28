"""The cells of scores: a cell is the leading bits of a score, as many as a bounded number of pages allows.

A score is known by its key, 64 bits that are ordered as scores are. An owner (the whole dump, or one slice) keeps the
leading ``length`` + 4 bits of its keys: the largest length, up to 60, of which its rows have at most ``limit``
different prefixes. 60 + 4 are all bits. So the cells follow from the rows alone, not from their order, and an owner
with few different scores knows them all exactly. Rows that come later can only shorten the length, and cells of a
longer length each lie in one cell of a shorter one, so counts are handed on exactly.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from fastxent.kernels.cells import (
    BITS,
    CELLS,
    DONE,
    FULL,
    NEW_TOP,
    NO_ROOM,
    TOP,
    UNKNOWN,
    WIDTH,
    Counts,
    enter_pages,
    find_cells,
    list_cells,
    near_cells,
    score_keys,
)  # fmt: skip
from fastxent.kernels.grown import grown
from fastxent.kernels.near import count_marks, halve_marks, mark_prefixes, mark_tops, order_near, tally_near

LONGEST = WIDTH - BITS
_LEAST_SLOTS = 256
_LONGEST_NEAR, _MOST_NEAR = TOP + 18, 1 << 20  # bits of names that are looked up directly, and how many names are
_MOST_MARKS = 1 << 27  # bits that tell how many prefixes there are
_ASIDE = 1 << 14  # rows whose pages are not near, at a time


def keys_of(scores: np.ndarray) -> np.ndarray:
    """The keys of float64 scores, (n,) uint64; none of the scores is NaN."""
    keys = np.empty(len(scores), np.uint64)
    score_keys(np.ascontiguousarray(scores), keys)
    return keys


def score_of(keys: np.ndarray) -> np.ndarray:
    """The scores that have these keys."""
    sign = np.uint64(1 << 63)
    return np.where(keys & sign, keys ^ sign, ~keys).view(np.float64)


class Used(NamedTuple):
    """Cells, by owner and key: ``places``, the key of the least score that each may hold, and their owners."""

    places: np.ndarray
    keys: np.ndarray
    owners: np.ndarray


class Moves(NamedTuple):
    """What becomes of pages: their names, the bits that keys lose, and the page that each becomes a part of."""

    names: np.ndarray
    drop: np.ndarray
    page: np.ndarray


class Cells:
    """The pages of some owners. ``moved`` is called when pages move, none of them up.

    limit: int. Pages that one owner may have.
    room: int or None. Pages that it may have before they are counted again, `limit` unless given: where there are many
        owners, all of those beyond the limit then move at once. `settle` brings them within it.
    """

    def __init__(self, limit: int, moved: Callable[[Moves], None], room: int | None = None) -> None:
        self.limit, self._moved = limit, moved
        self._room = limit if room is None else room
        self.lengths = np.zeros(0, np.int64)
        self._held = np.zeros(0, np.int64)
        self._slots = np.zeros((_LEAST_SLOTS, 2), np.uint64)
        self._names = np.zeros(_LEAST_SLOTS // 2, np.uint64)
        self._owner_of = np.zeros(_LEAST_SLOTS // 2, np.int32)
        self._used = np.zeros(1, np.int64)
        self._entered = 0  # pages that `find_cells` knows: all, unless others have made some
        self._starts, self._near, self._nears = np.full(1 << TOP, UNKNOWN, np.int32), np.zeros(0, np.int32), 0

    @property
    def count(self) -> int:
        """Number of cells, empty ones included."""
        return int(self._used[0]) * CELLS

    def resize(self, owners: int) -> None:
        """Make room for owners 0 .. ``owners`` - 1."""
        more = owners - len(self.lengths)
        if more > 0:
            self.lengths = np.pad(self.lengths, (0, more), constant_values=LONGEST)
            self._held = grown(self._held, owners)

    def places(self, keys: np.ndarray, owners: np.ndarray) -> np.ndarray:
        """(n,) the cells of these keys, after other cells have moved where that is due."""
        if not self.has_near:
            return self._find(keys, owners)
        length = int(self.lengths[0])
        found = self.near(keys)
        if found is None:
            self.shorten(self._due(keys, owners))
            return self.places(keys, owners)
        rest = np.flatnonzero(found < 0)
        if len(rest):
            found[rest] = self._find(keys[rest], owners[rest])
            if self.lengths[0] < length:  # all cells have moved
                return self.places(keys, owners)
        return found

    def near(self, keys: np.ndarray) -> np.ndarray | None:
        """(n,) the cells of keys whose pages are near, -1 for others; None if there would be too many pages."""
        found, begin = np.empty(len(keys), np.int64), 0
        self._reserve()
        while True:
            near, pages = (self._starts, self._near), (self._names, self._used)
            begin, code, _ = near_cells(keys, begin, WIDTH - int(self.lengths[0]), self._room, near, pages, found)
            self._held[0] = self._used[0]
            if code == FULL:
                return None
            if code == DONE:
                return found
            self._open(int(keys[begin] >> np.uint64(WIDTH - TOP)))

    @property
    def has_near(self) -> bool:
        """Whether pages are found by their names alone."""
        return len(self.lengths) == 1 and TOP <= self.lengths[0] <= _LONGEST_NEAR

    def _reserve(self) -> None:
        """Make room for all pages that one owner may have."""
        room = max(self._room, len(self._names))
        if len(self._names) < room:
            self._names = np.concatenate([self._names, np.zeros(room - len(self._names), np.uint64)])
            self._owner_of = np.concatenate([self._owner_of, np.zeros(room - len(self._owner_of), np.int32)])
            self._slots, self._entered = np.zeros((1 << (2 * room - 1).bit_length(), 2), np.uint64), 0

    def _open(self, top: int) -> None:
        """Have the pages of a sign and exponent near, if there is room. There are none of it as yet."""
        begin, width = self._nears, 1 << (int(self.lengths[0]) - TOP)
        if begin + width > _MOST_NEAR:
            self._starts[top] = NO_ROOM
            return
        if not len(self._near):
            self._near = np.zeros(_MOST_NEAR, np.int32)
        self._starts[top], self._nears = begin, begin + width

    def _bring_near(self, first: int) -> None:
        """Have the pages from ``first`` on near, as far as there is room."""
        names, rest = self._names[first : self._used[0]], np.uint64(self.lengths[0] - TOP)
        tops = (names >> rest).astype(np.int64)
        for top in np.unique(tops[self._starts[tops] == UNKNOWN]).tolist():
            self._open(top)
        known = np.flatnonzero(self._starts[tops] >= 0)
        within = (names[known] & np.uint64((1 << int(rest)) - 1)).astype(np.int64)
        self._near[self._starts[tops[known]] + within] = first + 1 + known

    def _find(self, keys: np.ndarray, owners: np.ndarray) -> np.ndarray:
        found = np.empty(len(keys), np.int64)
        begin, first = 0, int(self._used[0])
        while True:
            if self._entered < self._used[0]:
                self._slots[:] = 0
                enter_pages(self._names, self._owner_of, int(self._used[0]), self._slots)
            shifts = WIDTH - self.lengths
            pages = self._slots, self._names, self._owner_of, self._held, self._used
            begin = find_cells(keys, owners, begin, shifts, self._room, pages, found)
            self._entered = int(self._used[0])
            if begin == len(keys):
                if self.has_near and self._entered > first:
                    self._bring_near(first)
                return found
            if self._held[owners[begin]] < self._room:
                self._grow(len(keys) - begin)
            else:
                self.shorten(self._due(keys, owners))
                begin, first = 0, int(self._used[0])

    def tally(self, scores: np.ndarray, sides: np.ndarray, counts: Counts, aside: Callable[..., None]) -> int:
        """Count scores of the one owner as long as pages are near; return how many of them are done.

        sides: uint8 (n,) 0 or 1, the class. counts: room for all pages that there may be.
        aside: called with scores and classes of rows whose pages are not near.
        """
        place, rest = np.zeros(2, np.int64), (np.empty(_ASIDE, scores.dtype), np.empty(_ASIDE, np.uint8))
        self._reserve()
        while self.has_near:
            shift, near = WIDTH - int(self.lengths[0]), (self._starts, self._near)
            rows, pages = (scores, sides), (self._names, self._used)
            code = tally_near(rows, place, shift, self._room, near, pages, counts, rest)
            self._held[0] = self._used[0]
            if code == NEW_TOP:
                (key,) = keys_of(scores[place[0] : place[0] + 1].astype(np.float64))
                self._open(int(key >> np.uint64(WIDTH - TOP)))
            elif code == FULL:
                self.shorten(self.lengths - 1)
            elif place[1]:
                some, place[1] = int(place[1]), 0
                aside(rest[0][:some], rest[1][:some])
            if code == DONE:
                break
        aside(rest[0][: place[1]], rest[1][: place[1]])
        return int(place[0])

    def fit(self, scores: np.ndarray) -> None:
        """Shorten the length of the one owner to what these scores leave of it, if its pages are near then."""
        used = int(self._used[0])
        held = score_of(self._names[:used] << np.uint64(WIDTH - self.lengths[0]))
        tops = np.zeros(1 << TOP, bool)
        for some in (scores, held):
            mark_tops(some, tops)
        count = int(tops.sum())
        bits = min(_LONGEST_NEAR - TOP, (_MOST_MARKS // count).bit_length() - 1)
        starts = np.cumsum(tops) - 1 << bits
        words = max(2, 1 << ((count << bits) - 1 >> 6).bit_length())
        marks = np.zeros(words, np.uint64)
        for some in (scores, held):
            mark_prefixes(some, TOP + bits, starts, marks)
        if count_marks(marks, words) <= self.limit:
            return
        while bits > 0:
            halve_marks(marks, words)
            bits, words = bits - 1, max(2, words // 2)
            if count_marks(marks, words) <= self.limit:
                break
        else:
            return
        lengths = np.minimum(self.lengths, TOP + bits)
        self.shorten(lengths)
        self.lengths = lengths  # also without pages

    def settle(self) -> None:
        """Reduce every owner to its limit, so that the cells depend on the rows only."""
        if (self._held > self.limit).any():
            self.shorten(self._due(np.zeros(0, np.uint64), np.zeros(0, np.int64)))

    def _grow(self, rows: int) -> None:
        """Make room for more pages: at most one for each of ``rows``, and for at least as many as there are now."""
        used, held = int(self._used[0]), len(self._names)
        room = max(2 * held, min(held + rows, self._room))
        self._names = np.concatenate([self._names, np.zeros(room - len(self._names), np.uint64)])
        self._owner_of = np.concatenate([self._owner_of, np.zeros(room - len(self._owner_of), np.int32)])
        self._slots = np.zeros((1 << (2 * room - 1).bit_length(), 2), np.uint64)
        enter_pages(self._names, self._owner_of, used, self._slots)

    def _due(self, keys: np.ndarray, owners: np.ndarray) -> np.ndarray:
        """The length of each owner, once these rows are there too."""
        used = int(self._used[0])
        shifts = (WIDTH - self.lengths).astype(np.uint64)
        held = self._names[:used] << shifts[self._owner_of[:used]]
        coming = keys >> shifts[owners] << shifts[owners]
        keys = np.concatenate([held, coming])
        owners = np.concatenate([self._owner_of[:used].astype(np.int64), owners])
        if len(self.lengths) == 1:
            keys = np.sort(keys)
        else:
            order = np.lexsort((keys, owners))
            keys, owners = keys[order], owners[order]
        lengths = self.lengths.copy()
        shared = WIDTH - _bit_length(keys[1:] ^ keys[:-1])  # bits that neighbours have in common
        apart = (owners[1:] == owners[:-1]) & (keys[1:] != keys[:-1])
        shared, owners = shared[apart], owners[1:][apart]
        numbers = np.bincount(owners, minlength=len(lengths))
        ends = np.cumsum(numbers)
        for owner in np.flatnonzero(numbers >= self.limit).tolist():
            mine = shared[ends[owner] - numbers[owner] : ends[owner]]
            least = int(np.partition(mine, self.limit - 1)[self.limit - 1])
            lengths[owner] = min(lengths[owner], least)
        return lengths

    def shorten(self, lengths: np.ndarray) -> None:
        """Keep fewer leading bits, none of ``lengths`` being larger than those now."""
        used = int(self._used[0])
        owners, names = self._owner_of[:used], self._names[:used]
        drop = (self.lengths - lengths)[owners].astype(np.uint64)
        if not drop.any():
            return
        before, owners = names.copy(), owners.astype(np.int64)
        keys = before << (WIDTH - self.lengths)[owners].astype(np.uint64)
        self.lengths = lengths
        self._clear()
        page = self._made_anew(keys, owners) // CELLS
        self._moved(Moves(before, drop, page))

    def _made_anew(self, keys: np.ndarray, owners: np.ndarray) -> np.ndarray:
        """The cells of these keys, whose pages are made in their order: none is numbered higher than before."""
        if self.has_near:
            found = self.near(keys)
            if found is not None and (found >= 0).all():
                return found
            self._clear()
        return self._find(keys, owners)

    def _clear(self) -> None:
        """Forget all pages."""
        if self._entered:
            self._slots[:] = 0
        self._held[:] = self._used[:] = self._entered = self._nears = 0
        self._starts[:], self._near = UNKNOWN, self._near[:0]

    def joined(self, other: Cells, codes: np.ndarray) -> Moves:
        """Make room for the pages of other owners, of whom g is ``codes[g]`` here."""
        lengths = self.lengths.copy()
        lengths[codes] = np.minimum(lengths[codes], other.lengths)
        self.shorten(lengths)
        self.lengths = lengths  # also of those without pages
        used = int(other._used[0])
        names, owners = other._names[:used], other._owner_of[:used].astype(np.int64)
        lengths = other.lengths[owners]
        page = self.places(names << (WIDTH - lengths).astype(np.uint64), codes[owners]) // CELLS
        return Moves(names, (lengths - self.lengths[codes[owners]]).astype(np.uint64), page)

    def pages(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(pages by owner and key, the names of all, how far the keys of their cells are shifted)."""
        used = int(self._used[0])
        names, owners = self._names[:used], self._owner_of[:used]
        if self.has_near:
            order = np.empty(used + 1, np.int64)
            near = order_near(self._starts, self._near, 1 << (int(self.lengths[0]) - TOP), order)
            order = order[:used] if near == used else np.argsort(names)
        else:
            order = np.lexsort((names, owners)) if len(self.lengths) > 1 else np.argsort(names)
        return order, names, (LONGEST - self.lengths[owners]).astype(np.uint64)

    def used(self, filled: np.ndarray) -> Used:
        """The cells where ``filled`` (cells,) is true, in order."""
        order, names, shifts = self.pages()
        owners = self._owner_of[: len(names)]
        places = np.empty(int(np.count_nonzero(filled)), np.int64)
        keys = np.empty(len(places), np.uint64)
        list_cells(names, shifts, order, filled, places, keys)
        one = len(self.lengths) == 1
        return Used(places, keys, np.zeros(len(places), np.int64) if one else owners[places >> BITS].astype(np.int64))


def _bit_length(values: np.ndarray) -> np.ndarray:
    """The bit length of uint64 values."""
    high, low = values >> np.uint64(32), values & np.uint64(0xFFFFFFFF)
    lengths = [np.frexp(part.astype(np.float64))[1] for part in (high, low)]
    return np.where(high > 0, lengths[0] + 32, lengths[1]).astype(np.int64)
