"""Many scores of one owner at once, whose pages are found by their names alone: see `cells.near_cells`.

`state.cells` owns the pages, `state.counted` the counts.
"""

from __future__ import annotations

import numpy as np

from fastxent.kernels.cells import (
    BITS,
    CELLS,
    DONE,
    FULL,
    NEW_TOP,
    REST,
    TOP,
    UNKNOWN,
    WIDTH,
    count_at,
    key_of,
)  # fmt: skip
from fastxent.kernels.jit import inline, jit
from fastxent.kernels.simd.prefetch import prefetch

_BLOCK = 256  # rows whose memory is fetched together
_NOWHERE = np.uint64(0xFFFFFFFF)  # of a row whose exponent has no room


@inline
def key_at(scores, i):  # type: ignore[no-untyped-def]
    """The key of a score."""
    return key_of(np.float64(scores[i]).view(np.uint64))


@inline
def _find_names(scores, width, near, keys, slots):  # type: ignore[no-untyped-def]
    """The keys of some scores, and where in ``found`` their pages are, which is fetched; `_NOWHERE` without room for
    the exponent. How many rows come before one whose exponent is unknown."""
    starts, found = near
    mask, address = (np.uint64(1) << (np.uint64(WIDTH - TOP) - width)) - np.uint64(1), found.ctypes.data
    for i in range(np.uint64(scores.size)):
        keys[i] = key_at(scores, i)
    for i in range(np.uint64(scores.size)):
        key = keys[i]
        start = starts[key >> np.uint64(WIDTH - TOP)]
        if start < 0:
            if start == UNKNOWN:
                return i
            slots[i] = _NOWHERE
            continue
        at = np.uint64(start) + ((key >> width) & mask)
        slots[i] = at
        prefetch(address + np.int64(at << np.uint64(2)))
    return np.uint64(scores.size)


@inline
def _count_slots(slots, n, counts):  # type: ignore[no-untyped-def]
    """Count rows by the places of their counts."""
    low, high, over = counts
    for i in range(n):
        at = slots[i]
        total = (low[at] + 1) & 255
        low[at] = total
        if total == 0:
            high[at] += 1
            over[at >> np.uint64(BITS + 1)] = True


@jit
def tally_near(rows, place, shift, limit, near, pages, counts, rest):  # type: ignore[no-untyped-def]
    """Count scores from ``place`` on, and make the pages that are not there.

    rows: a tuple of scores and uint8 (n,) 0 or 1, the class. place: int64 (2,): row, rows in ``rest``.
    shift, limit: how far keys are shifted to name a page, and how many pages there may be.
    near: a tuple of ``starts`` int32 (2**`TOP`,) and ``found`` int32. pages: a tuple of ``names`` uint64, room for
    ``limit``, and ``used`` int64 (1,). counts: `cells.Counts` of ``limit`` pages.
    rest: a tuple of scores and uint8: rows of exponents that have no room.
    Returns `DONE`; `FULL` before a row whose page would be too many; `NEW_TOP` before one whose exponent is unknown;
    `REST` where ``rest`` has no room for a block.
    """
    (scores, sides), (_, found), (names, used), (aside, side_of) = rows, near, pages, rest
    width, address = np.uint64(shift), counts[0].ctypes.data
    keys, slots = np.empty(_BLOCK, np.uint64), np.empty(_BLOCK, np.uint64)
    while place[0] < scores.size:
        begin = place[0]
        end = min(begin + _BLOCK, scores.size)
        if place[1] + _BLOCK > aside.size:
            return REST
        some, side = scores[begin:end], sides[begin:end]
        count, code, n = _find_names(some, width, near, keys, slots), DONE, np.uint64(0)
        if count < np.uint64(end - begin):
            code = NEW_TOP
        for i in range(count):
            at = slots[i]
            if at == _NOWHERE:
                aside[place[1]], side_of[place[1]] = some[i], side[i]
                place[1] += 1
                continue
            page = found[at]
            if page == 0:
                if used[0] >= limit:
                    count, code = i, FULL
                    break
                names[used[0]] = keys[i] >> width
                used[0] += 1
                page = used[0]
                found[at] = page
            cell = (keys[i] >> (width - np.uint64(BITS))) & np.uint64(CELLS - 1)
            slot = count_at((np.uint64(page - 1) << np.uint64(BITS)) | cell, np.uint64(side[i]))
            slots[n] = slot
            prefetch(address + np.int64(slot))
            n += np.uint64(1)
        _count_slots(slots, n, counts)
        place[0] = begin + np.int64(count)
        if code != DONE:
            return code
    return DONE


@jit
def order_near(starts, found, width, order):  # type: ignore[no-untyped-def]
    """The pages that are near, by their names, into ``order``, which has room for all and one more; how many there are.

    width: names of a sign and exponent."""
    n = 0
    for top in range(starts.size):
        start = np.int64(starts[top])
        if start < 0:
            continue
        for page in found[start : start + width]:
            order[n] = page - 1
            n += page > 0
    return n


@jit
def mark_tops(scores, tops):  # type: ignore[no-untyped-def]
    """Set ``tops`` (2**`TOP`,) for the sign and exponent of each score."""
    for i in range(scores.size):
        tops[key_at(scores, i) >> np.uint64(WIDTH - TOP)] = True


@jit
def mark_prefixes(scores, length, starts, marks):  # type: ignore[no-untyped-def]
    """Set the bit of the first ``length`` bits of each key in ``marks`` (uint64), where ``starts`` says from which bit
    on those of each sign and exponent lie."""
    shift = np.uint64(WIDTH - length)
    mask = (np.uint64(1) << np.uint64(length - TOP)) - np.uint64(1)
    for i in range(scores.size):
        key = key_at(scores, i)
        bit = np.uint64(starts[key >> np.uint64(WIDTH - TOP)]) + ((key >> shift) & mask)
        marks[bit >> np.uint64(6)] |= np.uint64(1) << (bit & np.uint64(63))


@jit
def halve_marks(marks, count):  # type: ignore[no-untyped-def]
    """Join neighbouring bits of the first ``count`` words, an even number, so that half as many words hold them."""
    for i in range(0, count, 2):
        joined = np.uint64(0)
        for half in range(2):
            w = marks[i + half]
            w = (w | (w >> np.uint64(1))) & np.uint64(0x5555555555555555)
            w = (w | (w >> np.uint64(1))) & np.uint64(0x3333333333333333)
            w = (w | (w >> np.uint64(2))) & np.uint64(0x0F0F0F0F0F0F0F0F)
            w = (w | (w >> np.uint64(4))) & np.uint64(0x00FF00FF00FF00FF)
            w = (w | (w >> np.uint64(8))) & np.uint64(0x0000FFFF0000FFFF)
            w = (w | (w >> np.uint64(16))) & np.uint64(0x00000000FFFFFFFF)
            joined |= w << np.uint64(32 * half)
        marks[i // 2] = joined
    for i in range(count // 2, count):
        marks[i] = 0


@jit
def count_marks(marks, count):  # type: ignore[no-untyped-def]
    """How many bits of the first ``count`` words are set."""
    total = 0
    for i in range(count):
        w = marks[i]
        w -= (w >> np.uint64(1)) & np.uint64(0x5555555555555555)
        w = (w & np.uint64(0x3333333333333333)) + ((w >> np.uint64(2)) & np.uint64(0x3333333333333333))
        w = (w + (w >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
        total += np.int64((w * np.uint64(0x0101010101010101)) >> np.uint64(56))
    return total
