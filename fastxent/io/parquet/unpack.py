"""Decode stored numbers: copy them, join them from byte planes, or look them up by packed indices."""

from __future__ import annotations

import numpy as np

from fastxent.io.parquet.levels import BIT, END, LEFT, PACKED, POS, VALUE, WIDTH, run_header
from fastxent.kernels.jit import inline, jit
from fastxent.kernels.simd.words import load_word


@jit
def bits(buf, bit, width):  # type: ignore[no-untyped-def]
    """The value of ``width`` <= 32 bits at position ``bit``: the caller knows that they are there."""
    first = bit >> 3
    value = np.int64(0)
    for k in range(((bit & 7) + width + 7) >> 3):
        value |= np.int64(buf[first + k]) << (8 * k)
    return (value >> (bit & 7)) & ((np.int64(1) << width) - 1)


@jit
def copy(source, pos, out, at, n):  # type: ignore[no-untyped-def]
    # (an assignment of slices would do the same, and takes Numba a second to compile; indices that start at 0
    # are known not to be negative, which is what lets the loop become wide moves)
    a, b = source[pos : pos + n], out[at : at + n]
    for i in range(n):
        b[i] = a[i]


@inline
def _pair(low, high):  # type: ignore[no-untyped-def]
    return np.uint32(np.uint32(low) | np.uint32(np.uint32(high) << np.uint32(8)))


@jit
def join(planes, step, out):  # type: ignore[no-untyped-def]
    """Numbers of 2, 4 or 8 bytes from their byte planes, which lie ``step`` apart: at the speed of a copy, where a
    loop over the bytes of each number is twenty times slower."""
    n, size = out.size, out.itemsize
    p0, p1 = planes[:n], planes[step : step + n]
    if size == 2:
        for i in range(n):
            out[i] = _pair(p0[i], p1[i])
        return
    p2, p3 = planes[2 * step : 2 * step + n], planes[3 * step : 3 * step + n]
    if size == 4:
        for i in range(n):
            out[i] = np.uint32(_pair(p0[i], p1[i]) | np.uint32(_pair(p2[i], p3[i]) << np.uint32(16)))
        return
    p4, p5 = planes[4 * step : 4 * step + n], planes[5 * step : 5 * step + n]
    p6, p7 = planes[6 * step : 6 * step + n], planes[7 * step : 7 * step + n]
    for i in range(n):
        low = np.uint32(_pair(p0[i], p1[i]) | np.uint32(_pair(p2[i], p3[i]) << np.uint32(16)))
        high = np.uint32(_pair(p4[i], p5[i]) | np.uint32(_pair(p6[i], p7[i]) << np.uint32(16)))
        out[i] = np.uint64(low) | np.uint64(np.uint64(high) << np.uint64(32))


@jit
def expand(values, cursor, table, out):  # type: ignore[no-untyped-def]
    """out[i] = table[the i-th index from ``cursor`` on]; 0, 1 if one points behind the table, -1 if runs are malformed.

    ``cursor``: see `levels`. The table is not empty. Writers make runs of as few as eight indices, so what a run costs
    counts as much as what an index costs: the state stays in registers, and a header of one byte is read here.
    """
    n, width, end = out.size, cursor[WIDTH], cursor[END]
    pos, left, packed, value, bit = cursor[POS], cursor[LEFT], cursor[PACKED] != 0, cursor[VALUE], cursor[BIT]
    last, worst, done = np.uint64(table.size - 1), np.uint64(0), np.int64(0)
    while done < n:
        if left == 0:
            header = np.int64(values[pos]) if pos < end else np.int64(128)
            size = (header >> 1) * width if header & 1 else np.int64(1)
            if header >= 128 or width > 8 or width == 0 or size >= end - pos:
                pos, left, packed, value = run_header(values, pos, end, width)
                if left < 0:
                    return -1
            else:
                packed, left, value = header & 1 != 0, (header >> 1) << (3 * (header & 1)), pos + 1
                if not packed:
                    value = np.int64(values[pos + 1])
                    if value >> width:
                        return -1
                pos += 1 + size
            bit = value << 3
            continue
        count = min(left, n - done)
        left -= count
        if packed and width > 0:
            worst = max(worst, _unpack(values, bit, width, table, out, done, count))
            bit += count * width
        else:
            index = np.uint64(0) if packed else np.uint64(value)
            worst = max(worst, index)
            _fill(out, done, count, table[min(index, last)])
        done += count
    cursor[POS], cursor[LEFT], cursor[PACKED], cursor[VALUE], cursor[BIT] = pos, left, packed, value, bit
    return np.int64(worst > last)


@inline
def _fill(out, at, n, number):  # type: ignore[no-untyped-def]
    """The same number n times; eight at a time, where what is behind them has not been written yet."""
    i, stop = at, at + n
    while i < stop and i + 8 <= out.size:
        for k in range(8):
            out[np.uint64(i + k)] = number
        i += 8
    for k in range(np.uint64(i), np.uint64(max(i, stop))):
        out[k] = number


@inline
def _unpack(values, bit, width, table, out, at, n):  # type: ignore[no-untyped-def]
    """The n packed indices from ``bit`` on, looked up; returns the largest.

    Each is cut out of the eight bytes from its first one on; the last few, where that is more than there is, out of
    their own bytes. Where eight begin with a byte and lie in eight bytes, those are read once.
    """
    wide, last, worst = np.uint64(width), np.uint64(table.size - 1), np.uint64(0)
    mask, begin = (np.uint64(1) << wide) - np.uint64(1), values.ctypes.data
    i, stop = at, at + n
    if width <= 8 and bit & 7 == 0:
        first, second = table[0], table[min(last, np.uint64(1))]
        while i + 8 <= stop and (bit >> 3) + 8 <= values.size:
            word = np.uint64(load_word(begin + (bit >> 3)))
            if width == 1 and last > 0:  # by arithmetic, in vectors
                for k in range(8):
                    out[np.uint64(i + k)] = first ^ ((first ^ second) & -((word >> np.uint64(k)) & np.uint64(1)))
            else:
                for k in range(8):
                    index = (word >> (np.uint64(k) * wide)) & mask
                    worst = max(worst, index)
                    out[np.uint64(i + k)] = table[min(index, last)]
            i += 8
            bit += 8 * width
    near = min(stop, i + max(np.int64(0), ((values.size - 8) * 8 - bit) // width + 1))
    while i < stop:
        word, shift = np.uint64(0), np.uint64(bit & 7)
        if i < near:
            word = np.uint64(load_word(begin + (bit >> 3)))
        else:
            for k in range(np.int64(shift + wide + np.uint64(7)) >> 3):
                word |= np.uint64(values[np.uint64((bit >> 3) + k)]) << np.uint64(8 * k)
        index = (word >> shift) & mask
        worst = max(worst, index)
        out[np.uint64(i)] = table[min(index, last)]
        i += 1
        bit += width
    return worst
