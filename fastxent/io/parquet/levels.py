"""Parquet levels: prove that a page holds only whole rows, in time proportional to its runs.

Levels come as a hybrid of runs: a varint header whose lowest bit says "bit-packed groups of 8" or "one value
repeated". A list page of rows of C values has the repetition levels 0 1 1 … 1 0 1 1 …, C long each, and every
definition level at its maximum. Writers emit that as two or three runs a row, so proving it costs nothing beside
the row, and once it is proven the values are plain memory. Pages that fail the proof go to `kernels/assemble.py`.

Every kernel here takes hostile bytes: a position is compared with the end before each read, counts are clipped
to what is left, and every turn of a loop consumes a byte.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fastxent.kernels.jit import brief, inline, jit

MALFORMED, STARTS_ROW, REGULAR = -1, 1, 2  # what `examine` finds
# A cursor over runs: position of the next run, and the end; bits of a value; what is left of the run, whether it is
# packed, its value, or the bit at which the next one is; equal levels to come
POS, END, WIDTH, LEFT, PACKED, VALUE, BIT, SAME = range(8)


class Nesting(NamedTuple):
    """How the rows of a column lie in its levels.

    n_classes: int. Values of a row.
    max_rep: int. 0: one entry per row; 1: one entry per value.
    def_width: int. Bits of a definition level.
    max_def: int. The definition level of a value that is not null.
    """

    n_classes: int
    max_rep: int
    def_width: int
    max_def: int


@jit
def run_header(buf, pos, end, width):  # type: ignore[no-untyped-def]
    """(position behind the run, count, packed, value): the run at ``pos``.

    ``value`` is the repeated value, or for a packed run the position of its first byte. count = -1: malformed.
    A packed run cut short by ``end`` counts the whole values there are: some writers drop its padding.
    """
    header = np.uint64(0)
    for shift in range(0, 35, 7):
        if pos >= end:
            return end, -1, False, 0
        byte = np.uint64(buf[pos])
        pos += 1
        header |= (byte & np.uint64(127)) << np.uint64(shift)
        if byte < 128:
            break
    else:
        return end, -1, False, 0
    count = np.int64(header >> np.uint64(1))
    if header & np.uint64(1):
        first = pos
        size = count * width
        if size > end - pos:
            size = end - pos
            return end, (size * 8 // width if size > 0 else -1), True, first
        return pos + size, count * 8, True, first
    size = (width + 7) // 8
    if size > end - pos:
        return end, -1, False, 0
    value = np.int64(0)
    for k in range(size):
        value |= np.int64(buf[pos + k]) << (8 * k)
    if value >> width:
        return end, -1, False, 0
    return pos + size, count, False, value


@jit
def repetition_is_regular(buf, pos, end, n, n_classes, phase):  # type: ignore[no-untyped-def]
    """Whether the n levels (width 1) in buf[pos:end] are those of rows of ``n_classes``: 0 and then 1.

    ``phase``: how many levels of the first row went before.
    """
    done = np.int64(0)
    phase = np.int64(phase)  # place in its row of the next level
    while done < n:
        pos, count, packed, value = run_header(buf, pos, end, 1)
        if count < 0:
            return False
        if count > n - done:
            count = n - done
        if packed:
            if not _packed_is_regular(buf, value, count, phase, n_classes):
                return False
            phase = (phase + count) % n_classes
        elif value == 1:
            if phase == 0 or phase + count > n_classes:
                if count > 0:
                    return False
            phase += count
            if phase == n_classes:
                phase = 0
        else:
            if count > 1 and n_classes > 1:
                return False
            if count > 0:
                if phase != 0:
                    return False
                phase = 1 % n_classes
        done += count
    return True


@jit
def _packed_is_regular(buf, pos, count, phase, n_classes):  # type: ignore[no-untyped-def]
    """The same for ``count`` packed levels from byte ``pos``, the first at ``phase`` of its row.

    Bytes repeat after so many as hold whole rows: the first of them are looked at one by one, and each of the others is
    compared with the one before it by that many, in vectors.
    """
    period = np.int64(n_classes)
    for _ in range(3):
        if period & 1 == 0:
            period >>= 1
    length = count >> 3
    whole = min(length, period)
    wrong = np.uint8(0)
    if whole < length:
        first, others = buf[pos : pos + length - period], buf[pos + period : pos + length]
        for k in range(others.size):  # no early exit: this form vectorises
            wrong |= others[k] ^ first[k]
    if wrong:
        return False
    if n_classes >= 8:  # one row start a byte at most
        start = (n_classes - phase) % n_classes  # levels until the next row starts
        for k in range(whole):
            if start < 8:
                if buf[pos + k] != 255 ^ (1 << start):
                    return False
                start += n_classes
            elif buf[pos + k] != 255:
                return False
            start -= 8
        phase = (n_classes - start) % n_classes
    else:
        table = np.uint64(0)  # byte p: the eight levels that follow phase p
        for p in range(n_classes):
            byte = np.uint64(255)
            for k in range((n_classes - p) % n_classes, 8, n_classes):
                byte ^= np.uint64(1) << np.uint64(k)
            table |= byte << np.uint64(8 * p)
        step = 8 % n_classes
        for k in range(whole):
            if np.uint64(buf[pos + k]) != (table >> np.uint64(8 * phase)) & np.uint64(255):
                return False
            phase += step
            if phase >= n_classes:
                phase -= n_classes
    phase = (phase + 8 * (length - whole)) % n_classes
    for k in range(count & 7):
        level = (buf[pos + length] >> k) & 1
        if level != (phase != 0):
            return False
        phase += 1
        if phase == n_classes:
            phase = 0
    return True


@jit
def definition_is_full(buf, pos, end, n, width, top):  # type: ignore[no-untyped-def]
    """Whether the n levels (of ``width`` 1 or 2 bits) in buf[pos:end] all equal ``top``."""
    full = np.int64(top)  # a byte of packed levels that all equal top
    for _ in range(3):
        full |= full << width
    if width == 1:
        full |= full << 4
    full &= 255
    done = np.int64(0)
    while done < n:
        pos, count, packed, value = run_header(buf, pos, end, width)
        if count < 0:
            return False
        if count > n - done:
            count = n - done
        if packed:
            bits = count * width
            wrong = np.uint8(0)
            for k in range(value, value + (bits >> 3)):  # no early exit: this form vectorises
                wrong |= buf[k] ^ np.uint8(full)
            if bits & 7 and (buf[value + (bits >> 3)] ^ full) & ((1 << (bits & 7)) - 1):
                return False
            if wrong:
                return False
        elif value != top and count > 0:
            return False
        done += count
    return True


@inline
def u32(buf, pos):  # type: ignore[no-untyped-def]
    low = np.int64(buf[pos]) | np.int64(buf[pos + 1]) << 8
    return low | np.int64(buf[pos + 2]) << 16 | np.int64(buf[pos + 3]) << 24


@jit
def locate_levels(buf, max_rep, max_def, out):  # type: ignore[no-untyped-def]
    """Find the parts of a v1 page: out = (rep begin, rep end, def begin, def end, values begin). False: malformed."""
    pos = np.int64(0)
    for part in range(2):
        out[2 * part] = out[2 * part + 1] = pos
        if max_rep if part == 0 else max_def:
            if buf.size - pos < 4:
                return False
            size = u32(buf, pos)
            pos += 4
            if size > buf.size - pos:
                return False
            out[2 * part] = pos
            pos += size
            out[2 * part + 1] = pos
    out[4] = pos
    return True


@jit
def rows_are_regular(buf, parts, n, nesting, phase):  # type: ignore[no-untyped-def]
    """Whether the page's n entries are rows of C values each, none null; the last may go on behind it.

    ``parts`` is what `locate_levels` gave for ``buf``; with max_rep 0 every entry is a row. ``phase``: how many values
    of the first row went before.
    """
    if nesting.max_rep and not repetition_is_regular(buf, parts[0], parts[1], n, nesting.n_classes, phase):
        return False
    top = nesting.max_def
    return top == 0 or definition_is_full(buf, parts[2], parts[3], n, nesting.def_width, top)


@jit
def first_level(buf, pos, end):  # type: ignore[no-untyped-def]
    """The first repetition level (width 1) in buf[pos:end]; -1 where there is none to read."""
    count = np.int64(0)
    while count == 0:
        pos, count, packed, value = run_header(buf, pos, end, 1)
        if count > 0:
            return np.int64(buf[value] & 1) if packed else np.int64(value)
    return np.int64(-1)


@brief
def examine(buf, rep_bytes, def_bytes, n, nesting, parts):  # type: ignore[no-untyped-def]
    """Locate the levels of a page of n entries in ``buf`` (into ``parts``) and look at them.

    ``rep_bytes``: as the header of a v2 page has it, which then has ``def_bytes`` too; -1 where lengths precede the
    levels. Returns MALFORMED, or a sum of STARTS_ROW (the first entry begins a row, as far as one can tell) and
    REGULAR (`rows_are_regular`, and whole rows). Where there are no levels to read, the decoder will say so.
    """
    if rep_bytes >= 0:
        if rep_bytes + def_bytes > buf.size:
            return MALFORMED
        parts[0], parts[1], parts[2], parts[3], parts[4] = 0, rep_bytes, rep_bytes, rep_bytes + def_bytes, 0
    elif not locate_levels(buf, nesting.max_rep, nesting.max_def, parts):
        return MALFORMED
    found = np.int64(0)
    if nesting.max_rep == 0 or first_level(buf, parts[0], parts[1]) != 1:
        found |= STARTS_ROW
    whole = nesting.max_rep == 0 or n % nesting.n_classes == 0
    if whole and rows_are_regular(buf, parts, n, nesting, 0):
        found |= REGULAR
    return found


@jit
def equal_lengths(buf, begin, n, size):  # type: ignore[no-untyped-def]
    """How many of the n byte arrays (u32 length, bytes) in buf[begin:] are ``size`` bytes long, up to the first that
    is not."""
    for k in range(n):
        pos = begin + k * (size + 4)
        if buf.size - pos < size + 4 or u32(buf, pos) != size:
            return k
    return n


@jit
def lz4_size(buf):  # type: ignore[no-untyped-def]
    """Bytes that the raw LZ4 block ``buf`` decompresses to, or -1: a walk over its tokens that writes nothing.

    Needed because the library call behind pyarrow.Codec does not tell how much it wrote.
    """
    pos, total = np.int64(0), np.int64(0)
    end = np.int64(buf.size)
    while pos < end:
        token = np.int64(buf[pos])
        pos += 1
        for part in range(2):
            length = token >> 4 if part == 0 else token & 15
            if part == 1:
                if pos + 2 > end:
                    return -1
                pos += 2
            more = length == 15
            while more:
                if pos >= end:
                    return -1
                length += buf[pos]
                more = buf[pos] == 255
                pos += 1
            if part == 0:
                pos += length
                total += length
                if pos >= end:  # the last sequence is literals only
                    return total if pos == end else -1
            else:
                total += length + 4
    return -1
