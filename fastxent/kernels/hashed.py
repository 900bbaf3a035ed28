"""Distinct whole numbers, numbered in the order of their first appearance: a table that is searched and filled in one
pass, four bytes for each of its slots."""

from __future__ import annotations

import numpy as np

from fastxent.kernels.jit import jit
from fastxent.kernels.simd.prefetch import prefetch

_SPREAD = np.uint64(0x9E3779B97F4A7C15)  # 2^64 over the golden ratio
_HALF = np.uint64(32)
_AHEAD = 12  # numbers whose slots are prefetched


@jit
def find_numbers(numbers, begin, slots, distinct, used, codes):  # type: ignore[no-untyped-def]
    """The code of each number from ``begin`` on, into ``codes``; numbers that are not there are entered.

    slots: int32, a power of two of them, -1 or a code. At least one stays -1.
    distinct: int64, the number of each code; ``used[0]`` of them.
    Returns the first number that there is no room for: all of ``distinct`` are in use.
    """
    mask = np.uint64(slots.size - 1)
    last, code = np.int64(0), np.int64(-1)
    address, known = slots.ctypes.data, distinct.ctypes.data
    for i in range(begin, numbers.size):
        number = numbers[i]
        if i + 2 * _AHEAD < numbers.size:  # the slot first, then the number of its code
            mixed = np.uint64(numbers[i + 2 * _AHEAD]) * _SPREAD
            prefetch(address + np.int64((mixed ^ (mixed >> _HALF)) & mask) * 4)
            mixed = np.uint64(numbers[i + _AHEAD]) * _SPREAD
            found = np.int64(slots[(mixed ^ (mixed >> _HALF)) & mask])
            prefetch(known + max(found, 0) * 8)
        if code >= 0 and number == last:  # runs cost next to nothing
            codes[i] = code
            continue
        last = number
        if 0 <= number < used[0] and distinct[np.uint64(number)] == number:
            code = number  # its own code: in no slot
            codes[i] = code
            continue
        mixed = np.uint64(number) * _SPREAD
        at = (mixed ^ (mixed >> _HALF)) & mask
        code = np.int64(slots[at])
        while code >= 0 and distinct[np.uint64(code)] != number:
            at = (at + np.uint64(1)) & mask
            code = np.int64(slots[at])
        if code < 0:
            if used[0] >= distinct.size:
                return i
            code = used[0]
            used[0] += 1
            if number != code:
                slots[at] = code
            distinct[code] = number
        codes[i] = code
    return numbers.size


@jit
def enter_numbers(distinct, count, slots):  # type: ignore[no-untyped-def]
    """Enter ``count`` distinct numbers into empty slots, of which there are more."""
    mask = np.uint64(slots.size - 1)
    for code in range(count):
        if distinct[code] == code:
            continue
        mixed = np.uint64(distinct[code]) * _SPREAD
        at = (mixed ^ (mixed >> _HALF)) & mask
        while slots[at] >= 0:
            at = (at + np.uint64(1)) & mask
        slots[at] = code


@jit
def find_near(numbers, least, codes_of, distinct, codes):  # type: ignore[no-untyped-def]
    """The code of each number by the order of first appearance, into ``codes``; how many are distinct.

    codes_of: int32, -1, for every number from ``least`` to the largest. distinct: int64, as long.
    """
    used = np.int64(0)
    for i in range(numbers.size):
        at = np.uint64(numbers[i] - least)
        code = np.int64(codes_of[at])
        if code < 0:
            code = used
            codes_of[at], distinct[np.uint64(used)] = code, numbers[i]
            used += 1
        codes[i] = code
    return used


def mixed(numbers: np.ndarray) -> np.ndarray:
    """Hashes of uint64 numbers: those of splitmix64 (G. Steele, D. Lea, C. Flood 2014)."""
    with np.errstate(over="ignore"):
        found = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        found = (found ^ (found >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    hashed: np.ndarray = found ^ (found >> np.uint64(31))
    return hashed


def encoded(numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(the distinct numbers in the order of their first appearance, (n,) the place of each number among them).

    numbers: int64 (n,), contiguous.
    """
    if len(numbers):
        least, largest = int(numbers.min()), int(numbers.max())
        if largest - least < max(len(numbers), 1024):
            distinct, codes = np.empty(largest - least + 1, np.int64), np.empty(len(numbers), np.int64)
            used = find_near(numbers, least, np.full(len(distinct), -1, np.int32), distinct, codes)
            return distinct[:used], codes
    table = Numbers()
    codes = table.codes(numbers)
    return table.distinct, codes


class Numbers:
    """Codes of int64 numbers."""

    def __init__(self) -> None:
        self._distinct = np.zeros(64, np.int64)
        self._slots = np.full(128, -1, np.int32)
        self._used = np.zeros(1, np.int64)

    def __len__(self) -> int:
        return int(self._used[0])

    @property
    def distinct(self) -> np.ndarray:
        """The number of each code."""
        return self._distinct[: len(self)]

    def codes(self, numbers: np.ndarray) -> np.ndarray:
        """(n,) the code of each of ``numbers`` (int64, contiguous); those that are new get the next ones."""
        found = np.empty(len(numbers), np.int64)
        done = 0
        while (done := find_numbers(numbers, done, self._slots, self._distinct, self._used, found)) < len(numbers):
            held, self._distinct = self.distinct, np.empty(2 * len(self), np.int64)
            self._distinct[: len(held)] = held
            size = 1 << len(self._distinct).bit_length()  # at most half full
            if size > len(self._slots):
                self._slots = np.full(size, -1, np.int32)
                enter_numbers(self._distinct, len(self), self._slots)
        return found
