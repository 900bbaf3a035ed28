"""Decode stored numbers: copy them, join them from byte planes, or look them up by packed indices."""

from __future__ import annotations

import numpy as np

from fastxent.kernels.jit import inline, jit


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
def unpack(values, bit, width, table, out):  # type: ignore[no-untyped-def]
    """out[i] = table[i-th of the packed indices from ``bit`` on]. False: one points behind the table.

    Each index is cut out of the eight bytes from its first one on; the last few, where that is more than there is, out
    of their own bytes.
    """
    n, size, worst = out.size, np.uint64(table.size), np.uint64(0)
    if n == 0 or size == 0:
        return n == 0
    wide, at = np.uint64(width), np.uint64(bit)
    mask = (np.uint64(1) << wide) - np.uint64(1)
    near = min(n, max(np.int64(0), ((values.size - 8) * 8 - bit) // width + 1))
    for i in range(n):
        first, word = at >> np.uint64(3), np.uint64(0)
        shift = at & np.uint64(7)
        if i < near:
            for k in range(8):
                word |= np.uint64(values[first + np.uint64(k)]) << np.uint64(8 * k)
        else:
            for k in range((shift + wide + np.uint64(7)) >> np.uint64(3)):
                word |= np.uint64(values[first + np.uint64(k)]) << np.uint64(8 * k)
        index = (word >> shift) & mask
        worst = max(worst, index)
        out[i] = table[index if index < size else np.uint64(0)]
        at += wide
    return worst < size
