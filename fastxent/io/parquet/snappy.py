"""Snappy, decompressed to where the bytes are wanted.

`pyarrow.Codec` gives them in memory of its own, for 15 µs a page, a third of what the rows of a small page cost.
Lengths and offsets are compared with what is left before each move. Moves may go up to 15 bytes past what they copy,
within the memory of the result: what follows is written after them.
"""

from __future__ import annotations

import numpy as np

from fastxent.kernels.jit import inline, jit
from fastxent.kernels.simd.words import load_word, move_bytes, move_words, store_word

_MOST = 64  # bytes of a copy
_ROOM = _MOST + 15  # that its moves may touch


@jit
def snappy_size(body):  # type: ignore[no-untyped-def]
    """(bytes that ``body`` says it decompresses to, where its elements begin); (-1, 0) if it does not say it."""
    size = np.int64(0)
    for k in range(min(body.size, 5)):
        size |= np.int64(body[k] & 127) << (7 * k)
        if body[k] < 128:
            return size, k + 1
    return np.int64(-1), 0


@jit
def decompress_snappy(body, out):  # type: ignore[no-untyped-def]
    """Decompress ``body`` to all of ``out``. False: it is damaged, or of another size."""
    size, pos = snappy_size(body)
    if size != out.size:
        return False
    end, done, source, target = body.size, np.int64(0), body.ctypes.data, out.ctypes.data
    while pos < end:
        tag = np.int64(body[pos])
        pos += 1
        kind, more = tag & 3, np.int64(0)
        if kind == 0:
            n = tag >> 2
            if n >= 60:
                more = n - 59
                if more > end - pos:
                    return False
                n = _number(body, pos, more)
                pos += more
            n += 1
            if n > end - pos or n > size - done:
                return False
            if n <= _MOST and end - pos >= _ROOM and size - done >= _ROOM:
                for k in range(0, n, 16):
                    move_words(target + done + k, source + pos + k)
            else:
                move_bytes(target + done, source + pos, n)
            pos += n
        else:
            more = np.int64(1) if kind == 1 else 2 * kind - 2
            if more > end - pos:
                return False
            offset, n = _number(body, pos, more), (tag >> 2) + 1
            if kind == 1:
                offset, n = offset | (tag >> 5) << 8, ((tag >> 2) & 7) + 4
            pos += more
            if offset == 0 or offset > done or n > size - done:
                return False
            if size - done >= _ROOM:
                _repeat(target + done, offset, n)
            else:
                for k in range(np.uint64(done), np.uint64(done + n)):
                    out[k] = out[k - np.uint64(offset)]
        done += n
    return done == size


@inline
def _number(body, pos, n):  # type: ignore[no-untyped-def]
    number = np.int64(0)
    for k in range(n):
        number |= np.int64(body[pos + k]) << (8 * k)
    return number


@inline
def _repeat(to, offset, n):  # type: ignore[no-untyped-def]
    """Copy ``n`` bytes from ``offset`` before ``to``, which they may overlap."""
    source, end = to - offset, to + n
    if offset >= 16:
        for k in range(0, n, 16):
            move_words(to + k, source + k)
    else:
        while to - source < 8 and to < end:  # each move doubles what is repeated
            distance = to - source
            store_word(to, load_word(source))
            to += distance
        while to < end:
            store_word(to, load_word(source))
            to += 8
            source += 8
