"""Exact sums of a great many groups, in little memory: integers of 32-bit words, two's complement.

They are what `exact` holds, with every carry handed on at once. A sum of numbers of everyday size takes 12 to 20 bytes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fastxent.kernels.exact import MASK, SCALE, integer_of, special_flag, split
from fastxent.kernels.fold import BLOCK, Terms
from fastxent.kernels.grouped import ExactSums
from fastxent.kernels.jit import inline, jit

_FIRST = 31  # where windows begin at first
_CHUNK = 1 << 14  # groups whose sums are widened at a time


@inline
def _add(flat, origin, width, at, low, high):  # type: ignore[no-untyped-def]
    """Add ``low`` (0 .. 2**32) to word ``at`` of the sum at ``origin``, and ``high`` (signed) to the next. False if the
    sum does not fit, and is as it was."""
    end = width - 1
    word = np.int64(flat[origin + at]) + low
    over = high + (word >> 32)
    place = at + 1
    # what each word becomes is known before one is changed: the top word decides
    carry = over
    while place < end:
        carry = (np.int64(flat[origin + place]) + (carry & MASK) >> 32) + (carry >> 32)
        place += 1
    top = np.int64(np.int32(flat[origin + end])) + carry
    if not -(1 << 31) <= top < 1 << 31:
        return False
    flat[origin + at] = np.uint32(word & MASK)
    place = at + 1
    while place < end and over != 0:
        word = np.int64(flat[origin + place]) + (over & MASK)
        flat[origin + place] = np.uint32(word & MASK)
        over = (over >> 32) + (word >> 32)
        place += 1
    flat[origin + end] = np.uint32(top & MASK)
    return True


@jit
def _add_rows(values, codes, done, words, base, special):  # type: ignore[no-untyped-def]
    """words[codes[i]] += values[:, i]; the first ``done`` numbers are in. How many are: at less than all, the next one
    does not fit the window."""
    columns, n = values.shape
    bits = values.view(np.int64)
    flat, width = words.reshape(words.size), words.shape[2]
    first = done % columns
    for i in range(done // columns, n):
        for k in range(first, columns):
            b = bits[k, i]
            if (b >> 52) & 0x7FF == 0x7FF:
                special[codes[i], k] |= special_flag(b)
                continue
            if b << 1 == 0:
                continue
            limb, low, high = split(b)
            at = np.int64(limb) - base
            origin = (codes[i] * columns + k) * width
            if at < 0 or at + 2 > width or not _add(flat, origin, width, at, low, high):
                return i * columns + k
        first = 0
    return n * columns


@jit
def _merge(others, other_base, codes, done, words, base):  # type: ignore[no-untyped-def]
    """words[codes[g]] += others[g], whose window is inside, for all but ``done`` sums. How many are in: see
    `_add_rows`."""
    groups, sums, count = others.shape
    shift, width = other_base - base, words.shape[2]
    for p in range(done, groups * sums):
        g, k = p // sums, p % sums
        sign = np.int64(np.int32(others[g, k, count - 1])) >> 31
        for store in range(2):  # first see whether it fits
            carry = np.int64(0)
            for t in range(shift, width):
                there = np.int64(others[g, k, t - shift]) if t - shift < count else sign & MASK
                word = np.int64(words[codes[g], k, t]) + there + carry
                if t == width - 1:
                    top = np.int64(np.int32(words[codes[g], k, t])) + np.int64(np.int32(np.uint32(there))) + carry
                    if not -(1 << 31) <= top < 1 << 31:
                        return p
                if store:
                    words[codes[g], k, t] = np.uint32(word & MASK)
                carry = word >> 32
    return groups * sums


@jit
def _products(words, groups, pairs, sums):  # type: ignore[no-untyped-def]
    """Add the products of sums ``pairs`` of each group to ``sums`` (pairs, 2 · width + 1), words without carries."""
    top = words.shape[2] - 1
    for g in groups:
        for p in range(pairs.shape[0]):
            a, b = words[g, pairs[p, 0]], words[g, pairs[p, 1]]
            for i in range(top + 1):
                if not a[i]:
                    continue
                for j in range(top + 1):
                    if not b[j]:
                        continue
                    if i < top and j < top:
                        product = np.uint64(a[i]) * np.uint64(b[j])
                        sums[p, i + j] += np.int64(product & np.uint64(MASK))
                        sums[p, i + j + 1] += np.int64(product >> np.uint64(32))
                    else:
                        x = np.int64(np.int32(a[i])) if i == top else np.int64(a[i])
                        y = np.int64(np.int32(b[j])) if j == top else np.int64(b[j])
                        sums[p, i + j] += (x * y) & MASK
                        sums[p, i + j + 1] += (x * y) >> 32


class DenseSums:
    """Exact sums of ``columns`` numbers a row by group. ``words`` is uint32 (groups, columns, window)."""

    _ROWS = 8 * BLOCK  # laid out at a time

    def __init__(self, columns: int) -> None:
        self.columns, self.groups, self.base = columns, 0, _FIRST
        self.words = np.zeros((0, columns, 3), np.uint32)
        self.special = np.zeros((0, columns), np.uint8)

    def resize(self, groups: int) -> None:
        """Make room for groups 0 .. ``groups`` - 1; new ones are empty."""
        if groups > len(self.words):
            room = max(groups, len(self.words) * 5 // 4)
            self.words.resize((room, *self.words.shape[1:]), refcheck=False)  # in place, where the system can
            self.special.resize((room, self.columns), refcheck=False)
        self.groups = max(self.groups, groups)

    def add(self, terms: Terms, codes: np.ndarray) -> None:
        """Add row i to the sums of group ``codes[i]``."""
        for begin in range(0, len(codes), self._ROWS):
            part = codes[begin : begin + self._ROWS]
            values = terms.block(begin, len(part))
            done = 0
            while (done := _add_rows(values, part, done, self.words, self.base, self.special)) < values.size:
                row, column = divmod(done, self.columns)
                self._fit(values[column, row])

    def _fit(self, value: float) -> None:
        """Widen the window for a number that did not fit."""
        limb = max((int(np.float64(value).view(np.int64)) >> 52) & 0x7FF, 1) >> 5
        end = self.base + self.words.shape[2]
        inside = self.base <= limb and limb + 2 <= end
        self._widen(min(limb, self.base), end + 1 if inside else max(end, limb + 2))

    def _widen(self, first: int, end: int) -> None:
        """Make the window reach over words ``first`` .. ``end`` - 1."""
        below, width = self.base - first, self.words.shape[2]
        above = end - self.base - width
        if below <= 0 and above <= 0:
            return
        below, above = max(below, 0), max(above, 0)
        words = np.zeros((len(self.words), self.columns, below + width + above), np.uint32)
        words[:, :, below : below + width] = self.words
        if above:
            words[:, :, below + width :] = np.where(self.words[:, :, -1:] >> 31, np.uint32(MASK), np.uint32(0))
        self.words, self.base = words, self.base - below

    def merge_into(self, other: DenseSums, codes: np.ndarray) -> None:
        """Add group g of ``other`` to group ``codes[g]`` here; no two g share a code."""
        self._widen(other.base, other.base + other.words.shape[2])
        words, done = other.words[: other.groups], 0
        while (done := _merge(words, other.base, codes, done, self.words, self.base)) < len(words) * self.columns:
            self._widen(self.base, self.base + self.words.shape[2] + 1)
        self.special[codes] |= other.special[: other.groups]

    @property
    def scale(self) -> int:
        """Integers below stand for multiples of 2**-scale."""
        return SCALE - 32 * self.base

    def _exact(self, groups: np.ndarray) -> ExactSums:
        """Some of the sums in their wide form."""
        words = self.words[groups]
        limbs = words.astype(np.int64)
        limbs[:, :, -1] = words[:, :, -1].view(np.int32)
        return ExactSums.of_limbs(self.base, limbs, self.special[groups])

    def _chunks(self, groups: np.ndarray) -> list[ExactSums]:
        return [self._exact(groups[begin : begin + _CHUNK]) for begin in range(0, len(groups), _CHUNK)]

    def totals(self, groups: np.ndarray) -> tuple[list[int], list[int]]:
        """Each sum over these groups together, as integers, and the flags of those that are not finite."""
        found = [chunk.totals(np.arange(chunk.groups)) for chunk in self._chunks(groups)]
        totals = [sum(totals[k] for totals, _ in found) for k in range(self.columns)]
        return totals, np.bitwise_or.reduce(self.special[groups], axis=0).tolist()

    def nonzero(self, groups: np.ndarray, column: int) -> int:
        """In how many of these groups the sum of a column is not 0."""
        return int(self.words[groups, column].any(axis=1).sum())

    def sums_of_products(self, groups: np.ndarray, pairs: Sequence[tuple[int, int]]) -> list[int]:
        """Σ_g S_a(g)·S_b(g) over these groups for each pair (a, b) of sums, as multiples of 2**(-2 scale)."""
        sums = np.zeros((len(pairs), 2 * self.words.shape[2] + 1), np.int64)
        _products(self.words, groups, np.array(pairs, np.int64).reshape(-1, 2), sums)
        return [integer_of(row) for row in sums]

    def arrays(self, order: np.ndarray) -> dict[str, np.ndarray]:
        """The groups in this order, for storage: what `ExactSums.arrays` makes of equal sums."""
        return self._exact(order).arrays(np.arange(len(order)))

    @classmethod
    def restore(cls, columns: int, groups: int, arrays: dict[str, np.ndarray]) -> DenseSums:
        """The inverse of `arrays`; ValueError if these cannot be the sums of that many groups."""
        exact = ExactSums.restore(columns, (), groups, arrays)
        exact.carry()
        sums = cls(columns)
        sums.groups, sums.base = groups, exact.base
        sums.words, sums.special = (exact.limbs & MASK).astype(np.uint32), exact.special
        return sums
