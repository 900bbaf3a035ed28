"""Exact sums of a great many groups, in little memory: integers of 64-bit words, two's complement.

They are what `exact` holds, with every carry handed on at once. A sum of numbers of everyday size takes 16 bytes: it
reaches from 2**-115 to 2**11, and takes numbers below 2**10.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

import numpy as np

from fastxent.kernels.dense_products import GROUPS, sum_products
from fastxent.kernels.dense_rows import FIRST, ROOM, ROWS, add_rows
from fastxent.kernels.exact import MASK, SCALE, integer_of
from fastxent.kernels.fold import Terms
from fastxent.kernels.grouped import ExactSums
from fastxent.kernels.jit import jit

_LEAST = 256  # groups that there is room for at first
_TOGETHER = 1 << 16  # groups that are merged before their memory is released
_SPENT = ContextVar("spent", default=False)
_ZERO = np.uint64(0)


@jit
def _merge(others, shift, codes, done, words):  # type: ignore[no-untyped-def]
    """words[codes[g]] += others[g], whose windows begin ``shift`` words later, for all but ``done`` sums. How many are
    in: see `dense_rows.add_rows`."""
    groups, sums, count = others.shape
    width = words.shape[2]
    for g in range(done // sums, groups):
        for k in range(done % sums if g == done // sums else 0, sums):
            there, here = others[g, k], words[codes[g], k]
            last, top = np.int64(there[count - 1]), np.int64(here[width - 1])
            if not (-ROOM <= last < ROOM and -ROOM <= top < ROOM):
                return g * sums + k
            carry = _ZERO
            for t in range(shift, width):
                more = there[t - shift] if t - shift < count else np.uint64(last >> 63)
                word = here[t] + more
                over = np.uint64(word < more)
                word += carry
                carry = over | np.uint64(word < carry)
                here[t] = word
    return groups * sums


@contextmanager
def spent() -> Iterator[None]:
    """Release the memory of sums that are merged into others here: they are not used again."""
    before = _SPENT.set(True)
    try:
        yield
    finally:
        _SPENT.reset(before)


def resized(array: np.ndarray, rows: int) -> np.ndarray:
    """``array`` with so many rows; new ones are 0. It is not used again, and no second one is held at any time: pages
    are moved by the system or, if there will be many new ones, released as they are copied."""
    if not (array.flags.owndata and array.flags.writeable):
        array = array.copy()
    if rows < len(array) * 5 // 4:  # new rows are written to
        array.resize((rows, *array.shape[1:]), refcheck=False)
        return array
    found = np.zeros((rows, *array.shape[1:]), array.dtype)
    for begin in reversed(range(0, len(array), _TOGETHER)):
        found[begin : len(array)] = array[begin:]
        array.resize((begin, *array.shape[1:]), refcheck=False)
    return found


class DenseSums:
    """Exact sums of ``columns`` numbers a row by group. ``words`` is (groups, columns, window)."""

    def __init__(self, columns: int) -> None:
        self.columns, self.groups, self._start = columns, 0, FIRST
        self.words = np.zeros((0, columns, 2), np.uint64)
        self.special = np.zeros((0, columns), np.uint8)

    @property
    def nbytes(self) -> int:
        """Bytes of memory."""
        return self.words.nbytes + self.special.nbytes

    def resize(self, groups: int) -> None:
        """Make room for groups 0 .. ``groups`` - 1; new ones are empty."""
        if groups > len(self.words):
            room = max(groups, len(self.words) * 9 // 8, _LEAST)
            self.words, self.special = resized(self.words, room), resized(self.special, room)
        self.groups = max(self.groups, groups)

    def add(self, terms: Terms, codes: np.ndarray) -> None:
        """Add row i to the sums of group ``codes[i]``."""
        done, count = 0, self.columns * len(codes)
        while (done := add_rows(terms.table, codes, done, self._space(), self._held())) < count:
            row, column = divmod(done, self.columns)
            self._fit(terms.block(row, 1)[column, 0])

    def _space(self) -> tuple[np.ndarray, ...]:
        """Room for a block: numbers, and those of one column; two parts of each; whether they are; sums of a run."""
        stride = ROWS + 8  # no power of two: columns would share few sets of the cache
        numbers, highs = np.empty((self.columns, stride)), np.empty((self.columns, stride), np.int64)
        lows, fine = np.empty(highs.shape, np.uint64), np.empty(ROWS, np.bool_)
        return numbers, np.empty(stride), highs, lows, fine, np.empty((3, self.columns), np.int64)

    def _held(self) -> tuple[np.ndarray, np.ndarray, tuple[int, int, int]]:
        return self.words.reshape(-1), self.special, (self.columns, self.words.shape[2], self._start)

    def _fit(self, value: float) -> None:
        """Widen the window for a number that did not fit."""
        word = max((int(np.float64(value).view(np.int64)) >> 52) & 0x7FF, 1) >> 6
        end = self._start + self.words.shape[2]
        inside = self._start <= word and word + 2 <= end
        self._widen(min(word, self._start), end + 1 if inside else max(end, word + 2))

    def _widen(self, first: int, end: int) -> None:
        """Make the window reach over words ``first`` .. ``end`` - 1 at least."""
        width = self.words.shape[2]
        below, above = max(self._start - first, 0), max(end - self._start - width, 0)
        if below or above:
            held, room = self.words[: self.groups], len(self.words)
            self.words = np.zeros((room, self.columns, below + width + above), np.uint64)
            self.words[: self.groups, :, below : below + width] = held
            if above:
                signs = (held[:, :, -1:].view(np.int64) >> 63).view(np.uint64)
                self.words[: self.groups, :, below + width :] = signs
            self._start -= below

    def merge_into(self, other: DenseSums, codes: np.ndarray) -> None:
        """Add group g of ``other`` to group ``codes[g]`` here; no two g share a code."""
        self._widen(other._start, other._start + other.words.shape[2])
        for begin in reversed(range(0, other.groups, _TOGETHER)):
            part = slice(begin, min(begin + _TOGETHER, other.groups))
            self._merge_words(other.words[part], other._start, codes[part])
            self.special[codes[part]] |= other.special[part]
            if _SPENT.get():
                other.groups = begin
                other.words, other.special = resized(other.words, begin), resized(other.special, begin)

    def _merge_words(self, words: np.ndarray, start: int, codes: np.ndarray) -> None:
        """Add words of groups, whose window is ``start``, to the groups ``codes`` here."""
        done, shift = 0, start - self._start
        while (done := _merge(words, shift, codes, done, self.words)) < len(words) * self.columns:
            if words.shape[2] + shift < self.words.shape[2]:  # a last word there may be full now
                words = np.concatenate([words, (words[:, :, -1:].view(np.int64) >> 63).view(np.uint64)], axis=2)
            else:
                self._widen(self._start, self._start + self.words.shape[2] + 1)

    @property
    def scale(self) -> int:
        """Integers below stand for multiples of 2**-scale."""
        return SCALE - 64 * self._start

    def totals(
        self, groups: np.ndarray, pairs: Sequence[tuple[int, int]] = ()
    ) -> tuple[list[int], list[int], list[int]]:
        """Each sum over these groups together, as integers; the flags of those that are not finite; and
        Σ_g S_a(g)·S_b(g) for each pair (a, b) of sums, as multiples of 2**(-2 scale)."""
        halves = 2 * self.words.shape[2]
        sums, products = np.zeros((self.columns, halves), np.int64), np.zeros((len(pairs), 2 * halves), np.int64)
        flags = np.zeros(self.columns, np.uint8)
        space = np.empty((self.columns, halves, GROUPS + 1), np.int64), np.empty((self.columns, GROUPS + 1), np.int64)
        of_pairs = np.array(pairs, np.int64).reshape(-1, 2)
        sum_products((self.words, self.special), groups, of_pairs, space, (sums, products, flags))
        return [integer_of(row) for row in sums], flags.tolist(), [integer_of(row) for row in products]

    def nonzero(self, groups: np.ndarray, column: int) -> int:
        """In how many of these groups the sum of a column is not 0."""
        return int(self.words[groups, column].any(axis=1).sum())

    def arrays(self, order: np.ndarray) -> dict[str, np.ndarray]:
        """The groups in this order, for storage: what `ExactSums.arrays` makes of equal sums."""
        halves = self.words.view(np.uint32)[order]  # the last of them is signed
        limbs = halves.astype(np.int64)
        limbs[:, :, -1] = halves[:, :, -1].view(np.int32)
        return ExactSums.of_limbs(2 * self._start, limbs, self.special[order]).arrays(np.arange(len(order)))

    @classmethod
    def restore(cls, columns: int, groups: int, arrays: dict[str, np.ndarray]) -> DenseSums:
        """The inverse of `arrays`; ValueError if these cannot be the sums of that many groups."""
        exact = ExactSums.restore(columns, (), groups, arrays)
        exact.carry()
        limbs = exact.limbs
        below, above = exact.base % 2, (exact.base + limbs.shape[2]) % 2
        limbs = np.pad(limbs, ((0, 0), (0, 0), (below, 0)))
        if above:
            limbs = np.concatenate([limbs, limbs[:, :, -1:] >> 63], axis=2)
        sums = cls(columns)
        sums.groups, sums._start = groups, (exact.base - below) // 2
        sums.words = np.ascontiguousarray((limbs & MASK).astype(np.uint32)).view(np.uint64)
        sums.special = exact.special
        sums._widen(FIRST, FIRST + 2)  # what numbers of everyday size are added to without a look at the window
        return sums
