"""Rows added to the dense sums of their groups: see `dense`."""

from __future__ import annotations

import numpy as np

from fastxent.kernels.exact import MASK, special_flag
from fastxent.kernels.fold import fill
from fastxent.kernels.jit import inline, jit
from fastxent.kernels.simd.prefetch import prefetch
from fastxent.kernels.simd.words import word_of

FIRST = 15  # where windows begin at first, in words of 64 bits
ROOM = 1 << 62  # a last word beyond is widened before more is added
ROWS = 256  # rows laid out at a time
_LOW = 8  # shifts by which a mantissa stays within a word, and far below its end
_AHEAD = 12  # rows whose sums are prefetched
_RUN = 8  # rows of one group in a row, on average, from which they are added together
_HIGHEST = 1 << 29  # of the upper half of the sum of a run, so that a last word with room takes it
_EVERYDAY, _UNIT, _REST = 1024.0, 2.0**51, 2.0**63  # numbers below, times this, are a word and the rest of another
_ZERO, _ONE, _TWO = (np.uint64(k) for k in range(3))
_HALF, _MASK = np.uint64(32), np.uint64(MASK)


@inline
def _position(bits):  # type: ignore[no-untyped-def]
    """(bit of a sum at which the finite double with these bits begins, its signed mantissa)."""
    exponent = (bits >> 52) & 0x7FF
    normal = min(exponent, 1)
    mantissa = (bits & 0xFFFFFFFFFFFFF) | (normal << 52)
    sign = bits >> 63
    return exponent + 1 - normal, (mantissa ^ sign) - sign


@inline
def _ripple(flat, place, end, carry):  # type: ignore[no-untyped-def]
    """Hand on a carry of -1, 0 or 1 to the words ``place`` .. ``end`` - 1."""
    while carry != 0 and place < end:
        word = flat[place]
        flat[place] = word + np.uint64(carry)
        carry = np.int64(word == np.uint64(0xFFFFFFFFFFFFFFFF)) if carry > 0 else -np.int64(word == _ZERO)
        place += _ONE


@inline
def _add(flat, at, end, mantissa, shift):  # type: ignore[no-untyped-def]
    """Add mantissa·2**shift, shift below 64, to the words ``at`` .. ``end`` - 1, two at least, whose last has room."""
    low = np.uint64(mantissa) << np.uint64(shift)
    high = (mantissa >> 1) >> (63 - shift)
    word = flat[at] + low
    high += np.int64(word < low)
    flat[at] = word
    over = np.uint64(high)
    word = flat[at + 1] + over
    flat[at + 1] = word
    _ripple(flat, at + _TWO, end, np.int64(word < over) + (high >> 63))


@jit
def _add_number(b, held, g, k):  # type: ignore[no-untyped-def]
    """Add the double with these bits to sum k of a group; False if it does not fit the window."""
    flat, special, shape = held
    columns, width, start = shape
    if (b >> 52) & 0x7FF == 0x7FF:
        special[g, k] |= special_flag(b)
        return True
    position, mantissa = _position(b)
    position = position if mantissa else start << 6  # zeros fit anywhere
    at = (position >> 6) - start
    origin = (g * columns + k) * width
    top = np.int64(flat[np.uint64(origin + width - 1)])
    shift = position & 63
    if at < 0 or at + (1 if shift <= _LOW else 2) > width or not -ROOM <= top < ROOM:
        return False
    if at + 1 == width:
        flat[np.uint64(origin + at)] = np.uint64(top + (mantissa << shift))
    else:
        _add(flat, np.uint64(origin + at), np.uint64(origin + width), mantissa, shift)
    return True


@jit
def _split(numbers, highs, lows, fine):  # type: ignore[no-untyped-def]
    """Numbers of everyday size as what they add to the words from 2**-51 and 2**-115 on; ``fine``: each was one."""
    for i in range(fine.size):
        x = numbers[i]
        inside = abs(x) < _EVERYDAY
        scaled = (x if inside else 0.0) * _UNIT
        high = np.int64(scaled)
        rest = (scaled - np.float64(high)) * _REST
        low = np.int64(rest)
        highs[i], lows[i] = high + (low >> 63), np.uint64(low) << _ONE
        fine[i] &= inside & (np.float64(low) == rest)


@inline
def _add_parts(flat, at, end, high, low):  # type: ignore[no-untyped-def]
    """Add high·2**64 + low to the words from ``at`` - 1 on, of which ``end`` - 1, the last, has room."""
    word = flat[at - _ONE] + low
    flat[at - _ONE] = word
    high += np.int64(word < low)
    word = flat[at] + np.uint64(high)
    flat[at] = word
    at += _ONE
    if at < end:
        _ripple(flat, at, end, np.int64(word < np.uint64(high)) + (high >> 63))


@jit
def _add_run(highs, lows, begin, end, g, sums, held):  # type: ignore[no-untyped-def]
    """Add rows ``begin`` .. ``end`` - 1 of a block, all of group g. False if some sum may not have room: none is added.

    sums: room for three words of each column.
    """
    flat, _, shape = held
    columns, width, start = shape
    origin, middle = g * columns * width, FIRST + 1 - start
    for k in range(columns):
        first, second, third, fourth = np.int64(0), np.int64(0), np.int64(0), np.int64(0)
        for i in range(begin, end):  # halves: their sums do not overflow
            first += np.int64(lows[k, i] & _MASK)
            second += np.int64(lows[k, i] >> _HALF)
            third += highs[k, i] & MASK
            fourth += highs[k, i] >> 32
        second += first >> 32
        third += second >> 32
        fourth += third >> 32
        top = np.int64(flat[np.uint64(origin + (k + 1) * width - 1)])
        if not -ROOM <= top < ROOM or (middle + 1 == width and not -_HIGHEST <= fourth < _HIGHEST):
            return False
        sums[0, k], sums[1, k], sums[2, k] = (second & MASK) << 32 | first & MASK, third & MASK, fourth
    for k in range(columns):
        at, last = np.uint64(origin + k * width + middle), np.uint64(origin + (k + 1) * width)
        _add_parts(flat, at, last, sums[1, k], np.uint64(sums[0, k]))
        if middle + 1 < width:
            _add(flat, at, last, sums[2, k], 32)
        else:
            flat[at] += np.uint64(sums[2, k] << 32)
    return True


@jit
def _lay_out(table, begin, space):  # type: ignore[no-untyped-def]
    """The numbers of some rows from ``begin`` on, in two parts. Whether all are of everyday size."""
    numbers, other, highs, lows, fine, _ = space
    for i in range(fine.size):
        fine[i] = True
    for k in range(table.shape[0]):
        fill(table[k], begin, fine.size, numbers[k], other)
        _split(numbers[k], highs[k], lows[k], fine)
    return fine.all()


@jit
def add_rows(table, codes, done, space, held):  # type: ignore[no-untyped-def]
    """words[codes[i]] += the numbers of row i; the first ``done`` numbers are in. How many are: if less than all, the
    next one does not fit the window.

    table: see `fold.Terms`. space: see `DenseSums._space`. held: (words in a row, special, (columns, width, start)).
    """
    numbers, other, highs, lows, all_fine, sums = space
    flat, _, shape = held
    columns, width, start = shape
    row, stride, last = columns * width, np.uint64(highs.shape[1]), codes.size
    high_parts, low_parts = highs.reshape(highs.size), lows.reshape(lows.size)
    address, middle, first = flat.ctypes.data, np.uint64(FIRST + 1 - start), done // columns
    for begin in range(first, last, ROWS):
        n = min(ROWS, last - begin)
        fine = all_fine[:n]
        plain = _lay_out(table, begin, (numbers, other, highs, lows, fine, sums))
        fine[0] &= begin > first or done % columns == 0
        runs = 1
        for i in range(begin + 1, begin + n):
            runs += codes[i] != codes[i - 1]
        in_runs = plain and fine[0] and runs * _RUN <= n
        i = 0
        while i < n:
            g = codes[begin + i]
            if in_runs:
                end = i + 1
                while end < n and codes[begin + end] == g:
                    end += 1
                if _add_run(highs, lows, i, end, g, sums, held):
                    i = end
                    continue
                in_runs = False
            elif begin + i + _AHEAD < last:
                ahead = address + codes[begin + i + _AHEAD] * row * 8
                for line in range(0, row * 8 + 63, 64):
                    prefetch(ahead + line)
            if not fine[i]:
                for k in range(done % columns if begin + i == first else 0, columns):
                    if not _add_number(np.int64(word_of(numbers[k, i])), held, g, k):
                        return (begin + i) * columns + k
                i += 1
                continue
            place, end_of = np.uint64(i), np.uint64(g * row)
            for k in range(columns):
                at, end_of = end_of + middle, end_of + np.uint64(width)
                top = np.int64(flat[end_of - _ONE])
                if not -ROOM <= top < ROOM:
                    return (begin + i) * columns + k
                _add_parts(flat, at, end_of, high_parts[place], low_parts[place])
                place += stride
            i += 1
    return last * columns
