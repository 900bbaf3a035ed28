"""Scores by their leading bits: cells of a sparse table, found and made in one pass.

The key of a score is the pattern of the double, mapped so that keys are ordered as scores are. A page holds
`CELLS` cells whose keys share their leading bits, all but the last four that are kept. `state.cells` owns the arrays.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from fastxent.kernels.jit import inline, jit
from fastxent.kernels.simd.prefetch import prefetch

WIDTH = 64  # bits of a key
TOP = 12  # of a sign and an exponent
BITS = 4  # of a cell within its page
CELLS = 1 << BITS
_SPREAD = np.uint64(0x9E3779B97F4A7C15)  # 2^64 over the golden ratio: neighbouring pages go to distant slots
_OWNER = np.uint64(0xC2B2AE3D27D4EB4F)
_SIGN = np.uint64(1 << 63)
_BLOCK = 64  # rows whose memory is fetched together
_SLOT = 16  # bytes
_AHEAD = 8  # pages whose counts are fetched
UNKNOWN, NO_ROOM = -1, -2  # of a sign and exponent: whether `near_cells` knows its pages, or is not to
DONE, FULL, NEW_TOP, REST = range(4)  # why counting ends
_HALF, _LOW = np.uint64(32), np.uint64(0xFFFFFFFF)
_BYTE = 8  # bits of a count in the first place


class Counts(NamedTuple):
    """Rows by cell and class, in pages of 2 · `CELLS` counts: those of a class lie together, see `count_at`.

    low: uint8. What fits in a byte, so that most of what is counted lies in the cache.
    high: uint32 or int64, likewise. How often ``low`` began anew; memory that is not used takes none.
    over: bool (pages,). Whether ``high`` of a page is not 0 everywhere.
    """

    low: np.ndarray
    high: np.ndarray
    over: np.ndarray

    @classmethod
    def zeros(cls, pages: int, kind: Any = np.uint32) -> Counts:
        """No rows in so many pages."""
        low, high = (np.zeros(pages * 2 * CELLS, dtype) for dtype in (np.uint8, kind))
        return cls(low, high, np.zeros(pages, bool))

    def grown(self, pages: int) -> Counts:
        """The same rows, and room for more pages."""
        found = Counts.zeros(pages, self.high.dtype)
        found.low[: len(self.low)], found.over[: len(self.over)] = self.low, self.over
        if self.over.any():
            found.high[: len(self.high)] = self.high
        return found


@inline
def key_of(bits):  # type: ignore[no-untyped-def]
    """The key of the double that has these bits; -0.0 has the key of 0.0."""
    if bits == _SIGN:
        bits = np.uint64(0)
    return ~bits if bits & _SIGN else bits | _SIGN


@jit
def score_keys(scores, keys):  # type: ignore[no-untyped-def]
    """The keys of float64 scores, none of them NaN."""
    bits = scores.view(np.uint64)
    for i in range(bits.size):
        keys[i] = key_of(bits[i])


@inline
def slot_of(name, owner, slots):  # type: ignore[no-untyped-def]
    """Where the search for a page begins. ``slots``: a power of two."""
    mixed = (name ^ (np.uint64(owner) * _OWNER)) * _SPREAD
    return (mixed >> np.uint64(32)) & np.uint64(slots - 1)


@inline
def entry(page, owner):  # type: ignore[no-untyped-def]
    """What a slot says beside the name of its page: the owner, and the page + 1."""
    return (np.uint64(owner) << _HALF) | np.uint64(page + 1)


@jit
def find_cells(keys, owners, begin, shifts, limit, pages, places):  # type: ignore[no-untyped-def]
    """The cell of each row from ``begin`` on, into ``places``; pages that are not there are made.

    keys, owners: uint64 and int64 (n,). shifts: int64 (owners,), how far keys are shifted to name a page.
    limit: int. Pages that an owner may have.
    pages: a tuple of
        slots: uint64 (slots, 2), name, and `entry` or 0; at least one is 0. A slot is in one cache line.
        names, owner_of: uint64 and int32 (pages,), in the order in which they were made.
        held: int64 (owners,), pages of each owner. used: int64 (1,), all pages.
    Returns the first row whose page cannot be made: its owner has ``limit``, or all of ``names`` are in use.
    """
    slots, names, owner_of, held, used = pages
    mask = np.uint64(slots.shape[0] - 1)
    for first in range(begin, keys.size, _BLOCK):
        end = min(first + _BLOCK, keys.size)
        for i in range(first, end):  # the slots lie anywhere: all of a block are on their way at once
            at = slot_of(keys[i] >> np.uint64(shifts[owners[i]]), owners[i], slots.shape[0])
            places[i] = at
            prefetch(np.int64(slots.ctypes.data) + np.int64(at) * _SLOT)
        for i in range(first, end):
            owner = owners[i]
            shift = np.uint64(shifts[owner])
            name = keys[i] >> shift
            at = np.uint64(places[i])
            found = slots[at, 1]
            while found and not (slots[at, 0] == name and np.int64(found >> _HALF) == owner):
                at = (at + np.uint64(1)) & mask
                found = slots[at, 1]
            page = np.int64(found & _LOW) - 1
            if page < 0:
                if held[owner] >= limit or used[0] >= names.size:
                    return i
                page = used[0]
                used[0] = page + 1
                held[owner] += 1
                slots[at, 0] = name
                slots[at, 1] = entry(page, owner)
                names[page] = name
                owner_of[page] = owner
            places[i] = page * CELLS + np.int64((keys[i] >> (shift - np.uint64(BITS))) & np.uint64(CELLS - 1))
    return keys.size


@jit
def near_cells(keys, begin, shift, limit, near, pages, places):  # type: ignore[no-untyped-def]
    """The cell of each row from ``begin`` on, into ``places``; pages that are not there are made.

    The pages of one owner, found by their name itself: 4 bytes each where a slot takes 16.

    shift, limit: int. How far keys are shifted to name a page, at most 52, and how many pages there may be.
    near: a tuple of
        starts: int32 (2**`TOP`,). Where in ``found`` the pages of each sign and exponent begin, `UNKNOWN` or `NO_ROOM`.
        found: int32. Page + 1 by the rest of its name, 0 where there is none.
    pages: a tuple of ``names`` uint64, room for ``limit``, and ``used`` int64 (1,).
    Returns (row, code, rows): `DONE`; `FULL` before a row whose page would be too many; `NEW_TOP` before one whose
    exponent is unknown. Rows whose exponent has no room have place -1; how many.
    """
    starts, found = near
    names, used = pages
    width = np.uint64(shift)
    mask = (np.uint64(1) << (np.uint64(WIDTH - TOP) - width)) - np.uint64(1)
    left = 0
    for i in range(begin, keys.size):
        key = keys[i]
        start = starts[key >> np.uint64(WIDTH - TOP)]
        if start < 0:
            if start == UNKNOWN:
                return i, NEW_TOP, left
            places[i] = -1
            left += 1
            continue
        at = np.uint64(start) + ((key >> width) & mask)
        page = np.int64(found[at])
        if page == 0:
            if used[0] >= limit:
                return i, FULL, left
            names[used[0]] = key >> width
            used[0] += 1
            page = used[0]
            found[at] = page
        places[i] = (page - 1) * CELLS + np.int64((key >> (width - np.uint64(BITS))) & np.uint64(CELLS - 1))
    return keys.size, DONE, left


@jit
def enter_pages(names, owner_of, count, slots):  # type: ignore[no-untyped-def]
    """Enter ``count`` pages into empty slots, of which there are more."""
    mask = np.uint64(slots.shape[0] - 1)
    for page in range(count):
        owner = np.int64(owner_of[page])
        at = slot_of(names[page], owner, slots.shape[0])
        while slots[at, 1]:
            at = (at + np.uint64(1)) & mask
        slots[at, 0] = names[page]
        slots[at, 1] = entry(page, owner)


@inline
def count_at(cell, side):  # type: ignore[no-untyped-def]
    """Where the count of a cell and class is in flat counts: a page has those of one class in one cache line."""
    c, bits = np.uint64(cell), np.uint64(BITS)
    return ((c >> bits) << np.uint64(BITS + 1)) | (np.uint64(side) << bits) | (c & np.uint64(CELLS - 1))


@inline
def _moved(name, cell, drop, page):  # type: ignore[no-untyped-def]
    """Where a cell lies once its key has ``drop`` bits fewer: in ``page``."""
    key = (name << np.uint64(BITS)) | np.uint64(cell)
    return page * CELLS + np.int64((key >> drop) & np.uint64(CELLS - 1))


@jit
def move_cells(names, drop, page, places):  # type: ignore[no-untyped-def]
    """Where the cells of pages ``names`` lie once their keys have ``drop`` bits fewer: in ``page`` of each."""
    for k in range(names.size):
        for cell in range(CELLS):
            places[k * CELLS + cell] = _moved(names[k], cell, drop[k], page[k])


@inline
def rows_in(counts, cell, side):  # type: ignore[no-untyped-def]
    """The rows of a cell and class."""
    low, high, over = counts
    at = count_at(cell, side)
    rows = np.int64(low[at])
    if over[cell >> BITS]:
        rows += np.int64(high[at]) << _BYTE
    return rows


@inline
def add_rows(counts, cell, side, rows):  # type: ignore[no-untyped-def]
    """Add rows of a class to those of a cell."""
    low, high, over = counts
    at = count_at(cell, side)
    total = np.int64(low[at]) + rows
    low[at] = total & ((1 << _BYTE) - 1)
    if total >> _BYTE:
        high[at] += total >> _BYTE
        over[cell >> BITS] = True


@inline
def _take(counts, page, side, room):  # type: ignore[no-untyped-def]
    """The rows of a class in the cells of a page, into ``room``."""
    low, high, over = counts
    first = np.uint64((2 * page + side) * CELLS)
    for cell in range(np.uint64(CELLS)):
        room[cell] = low[first + cell]
    if over[page]:
        for cell in range(np.uint64(CELLS)):
            room[cell] += np.int64(high[first + cell]) << _BYTE


@inline
def _add_moved(room, name, drop, page, side, into):  # type: ignore[no-untyped-def]
    """Add the rows of a class in the cells of page ``name``, which are lost, where `_moved` says."""
    low, high, over = into
    cells = np.uint64(CELLS)
    for _ in range(min(drop, np.uint64(BITS))):  # neighbouring cells become one
        cells >>= np.uint64(1)
        for cell in range(cells):
            room[cell] = room[np.uint64(2) * cell] + room[np.uint64(2) * cell + np.uint64(1)]
    first = np.uint64(count_at(_moved(name, 0, drop, page), side))
    for cell in range(cells):
        total = np.int64(low[first + cell]) + room[cell]
        low[first + cell] = total & ((1 << _BYTE) - 1)
        if total >> _BYTE:
            high[first + cell] += total >> _BYTE
            over[page] = True


@jit
def move_counts(names, drop, page, counts, room):  # type: ignore[no-untyped-def]
    """Move the counts of pages ``names`` as `move_cells` says, in place: no page moves up.

    counts: `Counts`. room: int64 (2, CELLS). For one page.
    """
    low, high, over = counts
    for k in range(min(names.size, over.size)):
        for side in range(2):
            _take(counts, k, side, room[side])
        for at in range(k * 2 * CELLS, (k + 1) * 2 * CELLS):
            low[at] = 0
        if over[k]:
            for at in range(k * 2 * CELLS, (k + 1) * 2 * CELLS):
                high[at] = 0
        over[k] = False
        for side in range(2):
            _add_moved(room[side], names[k], drop[k], page[k], side, counts)


@jit
def add_pages(names, drop, page, counts, into, room):  # type: ignore[no-untyped-def]
    """Add the `Counts` of pages ``names`` to others, which are where `move_cells` says. ``room``: see `move_counts`."""
    some, low = counts[0], into[0]
    count = min(names.size, counts[2].size)
    address = low.ctypes.data
    for k in range(count):
        prefetch(address + page[min(k + _AHEAD, count - 1)] * 2 * CELLS)
        if drop[k] == 0 and not counts[2][k]:
            first, to, full = np.uint64(k * 2 * CELLS), np.uint64(page[k] * 2 * CELLS), False
            for i in range(np.uint64(2 * CELLS)):
                full |= low[to + i] + some[first + i] > 255
            if not full:
                for i in range(np.uint64(2 * CELLS)):
                    low[to + i] += some[first + i]
                continue
        for side in range(2):
            _take(counts, k, side, room[side])
            _add_moved(room[side], names[k], drop[k], page[k], side, into)


@jit
def list_cells(names, shifts, pages, filled, places, keys):  # type: ignore[no-untyped-def]
    """The places and least keys of the cells of ``pages``, in that order, where ``filled``; ``shifts``: of keys.

    Returns their number."""
    found = 0
    for page in pages:
        for cell in range(CELLS):
            if filled[page * CELLS + cell]:
                places[found] = page * CELLS + cell
                keys[found] = ((names[page] << np.uint64(BITS)) | np.uint64(cell)) << shifts[page]
                found += 1
    return found


@jit
def tally_cells(places, positive, counts):  # type: ignore[no-untyped-def]
    """Rows by cell and class, negatives and positives (0.0 or 1.0), in `Counts`. ``places`` are lost."""
    low, high, over = counts
    address = low.ctypes.data
    for first in range(0, places.size, _BLOCK):
        end = min(first + _BLOCK, places.size)
        for i in range(first, end):
            at = np.int64(count_at(places[i], np.int64(positive[i])))
            places[i] = at
            prefetch(address + at)
        for i in range(first, end):
            at = np.uint64(places[i])
            total = (low[at] + 1) & ((1 << _BYTE) - 1)
            low[at] = total
            if total == 0:
                high[at] += 1
                over[at >> np.uint64(BITS + 1)] = True


@jit
def add_counts(numbers, places, counts):  # type: ignore[no-untyped-def]
    """Add rows, int64 (n, 2), of some cells to the `Counts` of the cells ``places``."""
    for i in range(places.size):
        for side in range(2):
            add_rows(counts, places[i], side, numbers[i, side])


@jit
def counts_at(counts, places, found):  # type: ignore[no-untyped-def]
    """The rows of the cells ``places`` into ``found`` (n, 2)."""
    for i in range(places.size):
        for side in range(2):
            found[i, side] = rows_in(counts, places[i], side)


@jit
def mark_filled(counts, filled):  # type: ignore[no-untyped-def]
    """Whether each cell holds rows, into ``filled`` (cells,)."""
    for cell in range(filled.size):
        filled[cell] = rows_in(counts, cell, 0) + rows_in(counts, cell, 1) > 0
