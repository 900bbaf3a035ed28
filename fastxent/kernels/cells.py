"""Scores by their leading bits: cells of a sparse table, found and made in one pass.

The key of a score is the pattern of the double, mapped so that keys are ordered as scores are. A page holds
`CELLS` cells whose keys share their leading bits, all but the last four that are kept. `state.cells` owns the arrays.
"""

from __future__ import annotations

import numpy as np

from fastxent.kernels.jit import inline, jit

BITS = 4  # of a cell within its page
CELLS = 1 << BITS
_SPREAD = np.uint64(0x9E3779B97F4A7C15)  # 2^64 over the golden ratio: neighbouring pages go to distant slots
_OWNER = np.uint64(0xC2B2AE3D27D4EB4F)
_SIGN = np.uint64(1 << 63)
_HALF, _LOW = np.uint64(32), np.uint64(0xFFFFFFFF)


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
        names, owner_of: uint64 and int32 (pages,).
        held: int64 (owners,), pages of each owner. used: int64 (1,), all pages.
    Returns the first row whose page cannot be made: its owner has ``limit``, or all of ``names`` are in use.
    """
    slots, names, owner_of, held, used = pages
    mask = np.uint64(slots.shape[0] - 1)
    for i in range(begin, keys.size):
        owner = owners[i]
        shift = np.uint64(shifts[owner])
        name = keys[i] >> shift
        at = slot_of(name, owner, slots.shape[0])
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


@jit
def move_cells(names, drop, page, places):  # type: ignore[no-untyped-def]
    """Where the cells of pages ``names`` lie once their keys have ``drop`` bits fewer: in ``page`` of each."""
    for k in range(names.size):
        for cell in range(CELLS):
            key = (names[k] << np.uint64(BITS)) | np.uint64(cell)
            places[k * CELLS + cell] = page[k] * CELLS + np.int64((key >> drop[k]) & np.uint64(CELLS - 1))


@jit
def tally_cells(places, positive, counts):  # type: ignore[no-untyped-def]
    """Rows by cell: negatives and positives (0.0 or 1.0) in the columns of ``counts`` (cells, 2)."""
    flat = counts.reshape(counts.size)
    for i in range(places.size):
        flat[np.uint64(2 * places[i] + np.int64(positive[i]))] += 1


@jit
def add_counts(counts, places, into):  # type: ignore[no-untyped-def]
    """Add the counts (n, 2) of some cells to those of the cells ``places``."""
    for i in range(places.size):
        into[places[i], 0] += counts[i, 0]
        into[places[i], 1] += counts[i, 1]
