"""Many scores of one owner at once: sorted by their leading bits first, so that what they count lies in the cache.

`state.cells` owns the pages, which are found by their names alone: see `cells.near_cells`.
"""

from __future__ import annotations

import numpy as np

from fastxent.kernels.cells import BITS, CELLS, DONE, FULL, NEW_TOP, NO_ROOM, REST, TOP, UNKNOWN, WIDTH, key_of
from fastxent.kernels.jit import inline, jit
from fastxent.kernels.simd.prefetch import prefetch

BUCKET_BITS = {4: 13, 8: 16}  # by bytes of a score: the sign, the exponent and four bits more
_BLOCK = 64  # rows whose counts are fetched together


@inline
def key_at(scores, i):  # type: ignore[no-untyped-def]
    """The key of a score."""
    return key_of(np.float64(scores[i]).view(np.uint64))


@jit
def sift(patterns, positive, shift, ends, sifted):  # type: ignore[no-untyped-def]
    """Sort scores by bucket into ``sifted``: twice their pattern >> ``shift``, and one more for the positive class.

    patterns: uint32 or uint64 (n,). positive: uint8 (n,), 0 or 1.
    ends: int64 (buckets,), zeros. Where each bucket ends.
    """
    for i in range(patterns.size):
        ends[(np.int64(patterns[i] >> shift) << 1) | positive[i]] += 1
    begin = 0
    for k in range(ends.size):
        count = ends[k]
        ends[k] = begin
        begin += count
    for i in range(patterns.size):
        k = (np.int64(patterns[i] >> shift) << 1) | positive[i]
        at = ends[k]
        sifted[np.uint64(at)] = patterns[i]
        ends[k] = at + 1


@jit
def _tally_near(scores, span, side, tops, widths, pages, counts, waiting):  # type: ignore[no-untyped-def]
    """Count scores as long as they are of one sign and exponent and there is room for their pages.

    span: first and end. side: int. Their class. tops: a sign and exponent, and where in ``found`` its pages begin.
    widths: how far keys are shifted to name a page and a cell, and the mask of what names a page after its exponent.
    pages: a tuple of ``found``, ``names``, ``used`` and ``limit``: see `tally_sifted`.
    Returns the first score that is left, or the end, and whether it is left because pages are too many.
    """
    (i, end), (top, start), (width, cell_width, mask) = span, tops, widths
    found, names, used, limit = pages
    flat, address = counts.reshape(counts.size), counts.ctypes.data
    alike, full = True, False
    while i < end and alike and not full:
        count, last = 0, min(end, i + _BLOCK)
        while i < last:
            key = key_at(scores, i)
            if key >> np.uint64(WIDTH - TOP) != top:
                alike = False
                break
            at = np.uint64(start) + ((key >> width) & mask)
            page = np.int64(found[at])
            if page == 0:
                if used[0] >= limit:
                    full = True
                    break
                names[used[0]] = key >> width
                used[0] += 1
                page = used[0]
                found[at] = page
            cell = np.int64((key >> cell_width) & np.uint64(CELLS - 1))
            place = ((page - 1) << (BITS + 1)) + (side << BITS) + cell
            waiting[count] = place
            prefetch(address + place * counts.itemsize)
            count += 1
            i += 1
        for k in range(count):
            flat[np.uint64(waiting[k])] += 1
    return i, full


@jit
def tally_sifted(sifted, place, shift, limit, near, pages, counts, rest):  # type: ignore[no-untyped-def]
    """Count sifted scores from ``place`` on, and make the pages that are not there.

    sifted: a tuple of scores and ``ends``, as `sift` leaves them. place: int64 (3,): bucket, row, rows in ``rest``.
    shift, limit: how far keys are shifted to name a page, and how many pages there may be.
    near: a tuple of ``starts`` int32 (2**`TOP`,) and ``found`` int32. pages: a tuple of ``names`` uint64, room for
    ``limit``, and ``used`` int64 (1,). counts: (``limit``, 2, `CELLS`).
    rest: a tuple of scores and uint8: rows of exponents that have no room.
    Returns `DONE`; `FULL` before a row whose page would be too many; `NEW_TOP` before one whose exponent is unknown;
    `REST` where ``rest`` is full.
    """
    scores, ends = sifted
    starts, found = near
    aside, sides = rest
    width = np.uint64(shift)
    mask = (np.uint64(1) << (np.uint64(WIDTH - TOP) - width)) - np.uint64(1)
    widths, pages_of = (width, width - np.uint64(BITS), mask), (found, pages[0], pages[1], limit)
    waiting = np.empty(_BLOCK, np.int64)
    while place[0] < ends.size:
        side, end = place[0] & 1, ends[place[0]]
        while place[1] < end:
            i = place[1]
            top = key_at(scores, i) >> np.uint64(WIDTH - TOP)
            start = starts[top]
            if start == UNKNOWN:
                return NEW_TOP
            if start == NO_ROOM:
                if place[2] == aside.size:
                    return REST
                aside[place[2]], sides[place[2]] = scores[i], side
                place[2] += 1
                place[1] = i + 1
                continue
            place[1], full = _tally_near(scores, (i, end), side, (top, start), widths, pages_of, counts, waiting)
            if full:
                return FULL
        place[0] += 1
    return DONE


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
