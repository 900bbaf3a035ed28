"""Distinct texts, numbered in the order of their first appearance: a table of their hashes, and their bytes one after
another."""

from __future__ import annotations

import os
from itertools import pairwise

import numpy as np

from fastxent.kernels.jit import inline, jit
from fastxent.kernels.simd.prefetch import prefetch
from fastxent.kernels.simd.words import load_word

_SPREAD = np.uint64(0x9E3779B97F4A7C15)  # 2^64 over the golden ratio
_HALF = np.uint64(32)
_FRONT = 8  # bytes in front of the first text, so that the last bytes of each can be read as a word
_BLOCK = 256  # texts that are hashed at a time: their slots and hashes are prefetched
_SEED = np.uint64(int.from_bytes(os.urandom(8), "little"))  # texts that collide cannot be prepared; codes do not change


@inline
def _mixed(found, word):  # type: ignore[no-untyped-def]
    found = (found ^ word) * _SPREAD
    return found ^ (found >> _HALF)


@inline
def _hash(begin, end, seed):  # type: ignore[no-untyped-def]
    """A hash of the bytes between two addresses; the eight before the end can be read."""
    size = end - begin
    found = seed ^ np.uint64(size)
    for at in range(begin, end - 7, 8):
        found = _mixed(found, np.uint64(load_word(at)))
    rest = size & 7
    if rest:
        found = _mixed(found, np.uint64(load_word(end - 8)) >> np.uint64(64 - 8 * rest))
    return _mixed(found, np.uint64(0))


@inline
def _equal(here, there, size):  # type: ignore[no-untyped-def]
    """Whether the bytes at two addresses are equal; the eight before their end can be read."""
    differs = np.uint64(0)
    for at in range(0, size - 7, 8):
        differs |= np.uint64(load_word(here + at) ^ load_word(there + at))
    rest = size & 7
    if rest:
        last = np.uint64(load_word(here + size - 8) ^ load_word(there + size - 8))
        differs |= last >> np.uint64(64 - 8 * rest)
    return differs == np.uint64(0)


@jit
def find_texts(texts, begin, table, used, codes, seed):  # type: ignore[no-untyped-def]
    """The code of each text from ``begin`` on, into ``codes``; texts that are not there are entered.

    texts: a tuple of int64 (n + 1,), where each begins in the bytes that follow, at `_FRONT` at least, and uint8.
    table: a tuple of int32 slots, see `hashed.find_numbers`; int64 (texts + 1, 2), the hash of each text there, and
        where it begins; uint8, their bytes. used: int64 (1,), the number of texts there.
    Returns the first text that there is no room for.
    """
    offsets, data = texts
    slots, entries, held = table
    mask, n = np.uint64(slots.size - 1), offsets.size - 1
    hashed, found = np.empty(_BLOCK, np.uint64), np.empty(_BLOCK, np.int64)
    here, there, of_slots, of_entries = data.ctypes.data, held.ctypes.data, slots.ctypes.data, entries.ctypes.data
    for first in range(begin, n, _BLOCK):
        count = min(_BLOCK, n - first)
        for i in range(count):
            hashed[i] = _hash(here + offsets[first + i], here + offsets[first + i + 1], seed)
            prefetch(of_slots + np.int64(hashed[i] & mask) * 4)
        for i in range(count):
            found[i] = max(np.int64(slots[hashed[i] & mask]), 0)
            prefetch(of_entries + found[i] * 16)
        for i in range(count):
            prefetch(there + entries[np.uint64(found[i]), 1])
        for i in range(count):
            start, mark = offsets[first + i], np.int64(hashed[i])
            size = offsets[first + i + 1] - start
            at = hashed[i] & mask
            code = np.int64(slots[at])
            while code >= 0:
                place = entries[np.uint64(code), 1]
                same = entries[np.uint64(code), 0] == mark and entries[np.uint64(code + 1), 1] - place == size
                if same and _equal(here + start, there + place, size):
                    break
                at = (at + np.uint64(1)) & mask
                code = np.int64(slots[at])
            if code < 0:
                code = used[0]
                place = entries[code, 1]
                if code + 1 >= entries.shape[0] or place + size > held.size:
                    return first + i
                for k in range(size):
                    held[place + k] = data[start + k]
                slots[at], entries[code, 0], entries[code + 1, 1] = code, mark, place + size
                used[0] += 1
            codes[first + i] = code
    return n


@jit
def hash_texts(offsets, data, seed, hashed):  # type: ignore[no-untyped-def]
    """Write a hash of each text to ``hashed``, uint64; ``offsets`` and ``data`` as in `find_texts`."""
    at = data.ctypes.data
    for i in range(hashed.size):
        hashed[i] = _hash(at + offsets[i], at + offsets[i + 1], seed)


@jit
def _enter_hashes(entries, count, slots):  # type: ignore[no-untyped-def]
    """Enter the hashes of ``count`` texts into empty slots, of which there are more."""
    mask = np.uint64(slots.size - 1)
    for code in range(count):
        at = np.uint64(entries[code, 0]) & mask
        while slots[at] >= 0:
            at = (at + np.uint64(1)) & mask
        slots[at] = code


class Texts:
    """Codes of texts, which are given and kept as Arrow does: offsets and bytes."""

    def __init__(self) -> None:
        self._slots = np.full(256, -1, np.int32)
        self._entries = np.full((65, 2), _FRONT)
        self._bytes, self._used = np.zeros(1024, np.uint8), np.zeros(1, np.int64)

    def __len__(self) -> int:
        return int(self._used[0])

    @property
    def distinct(self) -> tuple[np.ndarray, np.ndarray]:
        """Offsets and bytes of the text of each code."""
        offsets = np.ascontiguousarray(self._entries[: len(self) + 1, 1])
        return offsets, self._bytes[: offsets[-1]]

    def hashed(self, first: int) -> np.ndarray:
        """uint64 hashes of the texts of the codes from ``first`` on, the same in every process."""
        offsets, data = self.distinct
        found = np.empty(len(self) - first, np.uint64)
        if len(found):
            hash_texts(offsets[first:], data, np.uint64(0), found)
        return found

    def listed(self) -> list[bytes]:
        """The text of each code."""
        offsets, data = self.distinct
        ends, held = offsets.tolist(), data.tobytes()
        return [held[begin:end] for begin, end in pairwise(ends)]

    def codes(self, offsets: np.ndarray, data: np.ndarray) -> np.ndarray:
        """(n,) the code of each text; those that are new get the next ones.

        offsets: int64 (n + 1,), not falling, within ``data``. data: uint8, contiguous.
        """
        if len(offsets) == 1:  # nothing to compile for
            return np.zeros(0, np.int64)
        if offsets[0] < _FRONT:
            data = np.concatenate([np.zeros(_FRONT, np.uint8), data[offsets[0] : offsets[-1]]])
            offsets = offsets + (_FRONT - offsets[0])
        found, done = np.empty(len(offsets) - 1, np.int64), 0
        while True:
            table = self._slots, self._entries, self._bytes
            done = find_texts((offsets, data), done, table, self._used, found, _SEED)
            if done == len(found):
                return found
            self._grow(int(offsets[done + 1] - offsets[done]))

    def _grow(self, size: int) -> None:
        """Make room for one more text of so many bytes at least."""
        count, (_, data) = len(self), self.distinct
        if len(data) + size > len(self._bytes):
            self._bytes = np.empty(max(2 * len(self._bytes), len(data) + size), np.uint8)
            self._bytes[: len(data)] = data
        if count + 1 == len(self._entries):
            entries, self._entries = self._entries, np.empty((2 * count + 1, 2), np.int64)
            self._entries[: count + 1] = entries
            self._slots = np.full(8 * count, -1, np.int32)  # at most a quarter full
            _enter_hashes(self._entries, count, self._slots)
