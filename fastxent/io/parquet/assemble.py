"""Parquet pages that are not plain memory: dictionary, byte-stream-split, nulls, ragged rows, rows over two pages.

`assemble` walks the two level streams of a page stretch by stretch, takes values from the page's encoding, and
writes whole rows into an (n, C) buffer. It can stop at any row and go on later, in the same page or the next:
all it remembers is the small int64 array ``s``, whose slots are named below. A row that is not C values is
filled with NaN and its verdict says why. Numbers are not trusted: positions are compared with the ends
of their buffers before each read, dictionary indices with the dictionary, and every turn of a loop consumes an entry.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fastxent.io.parquet.levels import BIT, END, LEFT, PACKED, POS, SAME, VALUE, WIDTH, run_header
from fastxent.io.parquet.unpack import bits, copy, expand, join
from fastxent.kernels.jit import jit

REP, DEF, INDEX = 0, 8, 16  # three cursors over runs: see `levels`
# of the page
ENTRIES, ENCODING, NEXT, VALUES_END, PLANE, TAKEN = range(24, 30)
# ^ entries left; encoding; position of the next value; end of values; length of a byte plane; values taken so far
# of the chunk
EXPECTED, UNITS, MAX_DEF, LIST_DEF, ELEMENT_DEF, NAN, ROW_BYTES = range(30, 37)
# ^ elements a row; numbers an element; full definition level; level from which a list is there; level from which an
#   entry is an element; bits of NaN; bytes of a row
# of the row in progress
OPEN, HAVE, NULL_AT, NO_LIST, LENGTH = range(37, 42)  # NULL_AT: first null element, -1 = none
BAD = 42  # rows with another verdict than `FINE`
SLOTS = 43

PLAIN, DICTIONARY, SPLIT, BYTES = range(4)  # ENCODING; BYTES: plain byte arrays, each behind its length

SLACK = 8  # bytes that may lie behind plain values: fastparquet leaves so many

# verdicts on rows: a count >= 0 is a wrong number of elements (for byte arrays: of bytes)
FINE, NULL_ROW, NULL_ELEMENT = -1, -2, -3  # NULL_ELEMENT - k: the first null is element k
# errors, instead of a number of rows
BAD_LEVELS, BAD_VALUES, BAD_INDEX, ORPHAN, LEVEL_RANGE = -1, -2, -3, -4, -5


class Values(NamedTuple):
    """Where the values of a page come from.

    page: uint8 (bytes,). The values of the page, encoded.
    dictionary: (entries, UNITS) numbers.
    lengths: int64 (entries, 2). For byte arrays, (bytes, place in ``dictionary``) of each entry; the place is -1 if the
        entry cannot be a row.
    """

    page: np.ndarray
    dictionary: np.ndarray
    lengths: np.ndarray


class Output(NamedTuple):
    """Where rows go.

    numbers: (rows · C,) numbers of the size of the stored ones.
    raw: uint8. The same memory as bytes.
    verdicts: int64 (rows,).
    """

    numbers: np.ndarray
    raw: np.ndarray
    verdicts: np.ndarray


@jit
def begin_page(s, parts, values, n, rep_width, def_width, encoding, unit_bytes):  # type: ignore[no-untyped-def]
    """Set ``s`` to the start of a page of n entries. False: the values cannot be of that encoding.

    ``parts``: where its levels are, as `levels.locate_levels` has it; parts[4]: where its values begin in ``values``.
    """
    s[ENTRIES], s[ENCODING], s[NEXT], s[VALUES_END], s[TAKEN] = n, encoding, parts[4], values.size, 0
    for part in range(3):
        cursor = 8 * part
        s[cursor : cursor + 8] = 0
        if part < 2:
            width = rep_width if part == 0 else def_width
            s[cursor + POS], s[cursor + END], s[cursor + WIDTH] = parts[2 * part], parts[2 * part + 1], width
            s[cursor + SAME] = 0 if width else n  # no levels: n of them that are 0
    if encoding == DICTIONARY:
        s[INDEX + POS] = s[INDEX + END] = values.size
        if values.size > parts[4]:
            s[INDEX + POS] = parts[4] + 1
            s[INDEX + WIDTH] = values[parts[4]]
        return s[INDEX + WIDTH] <= 32
    if encoding == SPLIT:
        width = s[UNITS] * unit_bytes
        s[PLANE] = (values.size - parts[4]) // width
        return s[PLANE] * width == values.size - parts[4]
    return True


@jit
def byte_array_lengths(buf, places):  # type: ignore[no-untyped-def]
    """Fill ``places`` with (length, position) of the byte arrays in ``buf``. False: malformed."""
    pos = np.int64(0)
    for k in range(places.shape[0]):
        if buf.size - pos < 4:
            return False
        length = np.int64(0)
        for b in range(4):
            length |= np.int64(buf[pos + b]) << (8 * b)
        pos += 4
        if length > buf.size - pos:
            return False
        places[k, 0], places[k, 1] = length, pos
        pos += length
    return pos == buf.size


@jit
def next_run(buf, s, c):  # type: ignore[no-untyped-def]
    """Read run headers until one holds something. False: malformed."""
    count = np.int64(0)
    while count == 0:
        pos, count, packed, value = run_header(buf, s[c + POS], s[c + END], s[c + WIDTH])
        s[c + POS] = pos
        if count < 0:
            return False
        s[c + LEFT], s[c + PACKED], s[c + VALUE] = count, packed, value
        if packed:
            s[c + BIT] = value * 8
    return True


@jit
def _next_stretch(buf, s, c):  # type: ignore[no-untyped-def]
    """Set VALUE and SAME to the next stretch of equal levels."""
    if s[c + LEFT] == 0 and not next_run(buf, s, c):
        return False
    if not s[c + PACKED]:
        s[c + SAME] = s[c + LEFT]
        s[c + LEFT] = 0
        return True
    width, bit, left = s[c + WIDTH], s[c + BIT], s[c + LEFT]
    value = bits(buf, bit, width)
    same = np.int64(0)
    while same < left and bits(buf, bit, width) == value:
        same += 1
        bit += width
    s[c + VALUE], s[c + BIT], s[c + LEFT], s[c + SAME] = value, bit, left - same, same
    return True


@jit
def take(given, s, into, at, k, wanted):  # type: ignore[no-untyped-def]
    """The next k elements to ``into.numbers[at:]``, or past them if not ``wanted``; 0 or an error code.

    LENGTH becomes the bytes of the last byte array.
    """
    values, out, raw = given.page, into.numbers, into.raw
    units, encoding = s[UNITS], s[ENCODING]
    size = out.itemsize
    width = units * size
    s[TAKEN] += k
    if encoding == PLAIN:
        pos = s[NEXT]
        if k * width > s[VALUES_END] - pos:
            return BAD_VALUES
        if wanted:
            copy(values, pos, raw, at * size, k * width)
        s[NEXT] = pos + k * width
    elif encoding == SPLIT:
        first, plane = s[NEXT] + s[TAKEN] - k, s[PLANE]  # NEXT stays at the first plane
        if s[TAKEN] > plane:
            return BAD_VALUES
        if wanted and units == 1:
            join(values[first:], plane, out[at : at + k])
        elif wanted:
            for b in range(width):
                for i in range(k):
                    raw[at * size + i * width + b] = values[first + b * plane + i]
    elif encoding == DICTIONARY:
        return _look_up(given, s, out, at, k, wanted)
    else:
        for i in range(k):
            pos = s[NEXT]
            if s[VALUES_END] - pos < 4:
                return BAD_VALUES
            length = np.int64(0)
            for b in range(4):
                length |= np.int64(values[pos + b]) << (8 * b)
            pos += 4
            if length > s[VALUES_END] - pos:
                return BAD_VALUES
            if wanted and length == width:
                copy(values, pos, raw, at * size + i * width, width)
            s[NEXT] = pos + length
            s[LENGTH] = length
    return 0


@jit
def _look_up(given, s, out, at, k, wanted):  # type: ignore[no-untyped-def]
    """`take` for dictionary indices."""
    values, dictionary, lengths = given.page, given.dictionary, given.lengths
    units, width = s[UNITS], s[INDEX + WIDTH]
    varying = lengths.shape[0] > 0
    entries = lengths.shape[0] if varying else dictionary.shape[0]
    done = np.int64(0)
    if wanted and units == 1 and entries and not varying:  # the common case
        missing = expand(values, s[INDEX : INDEX + 8], dictionary[:, 0], out[at : at + k])
        if missing:
            return BAD_INDEX if missing > 0 else BAD_VALUES
        done = k
    while done < k:
        if s[INDEX + LEFT] == 0 and not next_run(values, s, INDEX):
            return BAD_VALUES
        count = min(k - done, s[INDEX + LEFT])
        s[INDEX + LEFT] -= count
        packed = s[INDEX + PACKED] != 0 and width > 0
        bit = s[INDEX + BIT]
        if s[INDEX + PACKED]:
            s[INDEX + BIT] = bit + count * width
        if not wanted:
            done += count
            continue
        index = np.int64(0) if s[INDEX + PACKED] else s[INDEX + VALUE]
        for i in range(count):
            if packed:
                index = bits(values, bit + i * width, width)
            if index >= entries:
                return BAD_INDEX
            place = index
            if varying:
                s[LENGTH], place = lengths[index, 0], lengths[index, 1]
            if place < 0:
                continue
            if units == 1:
                out[at + done + i] = dictionary[place, 0]
            else:
                for u in range(units):
                    out[at + (done + i) * units + u] = dictionary[place, u]
        done += count
    return 0


@jit
def used_up(s):  # type: ignore[no-untyped-def]
    """Whether all values have been used, as they must be at the end of a page."""
    if s[ENCODING] == SPLIT:
        return s[TAKEN] == s[PLANE]
    return s[ENCODING] == DICTIONARY or s[VALUES_END] - s[NEXT] <= SLACK


@jit
def assemble_regular(given, s, into, rows, capacity):  # type: ignore[no-untyped-def]
    """`assemble` for a page that is proven to be rows without nulls; the first may be in progress, the last go on.

    Not for byte arrays, whose lengths differ. Row by row, reading byte-stream-split takes 1.4 times as long. The caller
    has set all verdicts to `FINE`.
    """
    expected = s[EXPECTED]
    have = s[HAVE] if s[OPEN] else np.int64(0)
    k = min((capacity - rows) * expected - have, s[ENTRIES])
    code = take(given, s, into, (rows * expected + have) * s[UNITS], k, True)
    if code < 0:
        return code
    s[ENTRIES] -= k
    end = rows + (have + k) // expected
    s[HAVE] = (have + k) % expected
    s[OPEN] = s[HAVE] > 0
    s[NULL_AT], s[NO_LIST], s[LENGTH] = -1, 0, s[ROW_BYTES]
    return end if s[ENTRIES] or used_up(s) else BAD_VALUES


@jit
def assemble(levels, given, s, into, rows, capacity, closes):  # type: ignore[no-untyped-def]
    """Go on with the page in ``s`` until ``into`` holds ``capacity`` rows or the page ends.

    Returns the number of rows that ``into`` now holds (``rows`` of them were there before), or an error code.
    ``closes``: the row in progress ends with this page.
    """
    expected, units, top = s[EXPECTED], s[UNITS], s[MAX_DEF]
    while rows < capacity:
        start = rows * expected * units
        ended = False
        while s[ENTRIES] > 0:
            if s[REP + SAME] == 0 and not _next_stretch(levels, s, REP):
                return BAD_LEVELS
            if s[DEF + SAME] == 0 and not _next_stretch(levels, s, DEF):
                return BAD_LEVELS
            level = s[DEF + VALUE] if top else 0
            if level > top:
                return LEVEL_RANGE
            k = np.int64(1)
            if s[REP + VALUE] == 0:
                if s[OPEN]:
                    ended = True
                    break
                s[OPEN] = 1
                s[HAVE] = s[NO_LIST] = 0
                s[NULL_AT] = -1
                s[LENGTH] = s[ROW_BYTES]
            else:
                if not s[OPEN]:
                    return ORPHAN
                if level < s[ELEMENT_DEF]:  # a list that is null or empty has one entry
                    return LEVEL_RANGE
                k = min(s[REP + SAME], s[DEF + SAME], s[ENTRIES])
            s[REP + SAME] -= k
            s[DEF + SAME] -= k
            s[ENTRIES] -= k
            if level == top:
                wanted = s[NULL_AT] < 0 and s[HAVE] + k <= expected
                at = start + s[HAVE] * units if wanted else np.int64(0)
                code = take(given, s, into, at, k, wanted)
                if code < 0:
                    return code
                s[HAVE] += k
            elif level >= s[ELEMENT_DEF]:
                if s[NULL_AT] < 0:
                    s[NULL_AT] = s[HAVE]
                s[HAVE] += k
            elif level < s[LIST_DEF]:
                s[NO_LIST] = 1
        if not s[OPEN] or not (ended or closes):
            return rows if used_up(s) else BAD_VALUES
        verdict = np.int64(FINE)
        if s[NO_LIST]:
            verdict = NULL_ROW
        elif s[HAVE] != expected:
            verdict = s[HAVE]
        elif s[NULL_AT] >= 0:
            verdict = NULL_ELEMENT - s[NULL_AT]
        elif s[LENGTH] != s[ROW_BYTES]:
            verdict = s[LENGTH]
        if verdict != FINE:
            s[BAD] += 1
            for i in range(start, start + expected * units):
                into.numbers[i] = s[NAN]
        into.verdicts[rows] = verdict
        rows += 1
        s[OPEN] = 0
    return rows
