"""Exact sums of a great many groups, in little memory: integers of 64-bit words, two's complement.

They are what `exact` holds, with every carry handed on at once. A sum of numbers of everyday size takes 16 bytes: it
reaches from 2**-115 to 2**11, and takes numbers below 2**10.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fastxent.kernels.exact import MASK, SCALE, integer_of, special_flag
from fastxent.kernels.fold import BLOCK, Terms
from fastxent.kernels.grouped import ExactSums
from fastxent.kernels.jit import inline, jit
from fastxent.kernels.simd.prefetch import prefetch

_FIRST = 15  # where windows begin at first, in words of 64 bits
_LEAST = 256  # groups that there is room for at first
_ROOM = 1 << 62  # a last word beyond is widened before more is added
_LOW = 8  # shifts by which a mantissa stays within a word, and far below its end
_AHEAD = 8  # rows whose sums are prefetched
_ONE, _ZERO = np.uint64(1), np.uint64(0)


@inline
def _position(bits):  # type: ignore[no-untyped-def]
    """(bit of a sum at which the finite double with these bits begins, its signed mantissa)."""
    exponent = (bits >> 52) & 0x7FF
    normal = min(exponent, 1)
    mantissa = (bits & 0xFFFFFFFFFFFFF) | (normal << 52)
    sign = bits >> 63
    return exponent + 1 - normal, (mantissa ^ sign) - sign


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
    carry = np.int64(word < over) + (high >> 63)
    place = at + 2
    while carry != 0 and place < end:
        word = flat[place]
        flat[place] = word + np.uint64(carry)
        carry = np.int64(word == np.uint64(0xFFFFFFFFFFFFFFFF)) if carry > 0 else -np.int64(word == _ZERO)
        place += 1


@jit
def _add_rows(values, codes, done, words, start, special):  # type: ignore[no-untyped-def]
    """words[codes[i]] += values[:, i]; the first ``done`` numbers are in. How many are: if less than all, the next one
    does not fit the window."""
    columns, n = values.shape
    bits = values.view(np.int64)
    flat, width = words.reshape(words.size), words.shape[2]
    row = columns * width
    address = words.ctypes.data
    first = done % columns
    for i in range(done // columns, n):
        if i + _AHEAD < n:
            ahead = address + codes[i + _AHEAD] * row * 8
            for line in range(0, row * 8 + 63, 64):
                prefetch(ahead + line)
        for k in range(first, columns):
            b = bits[k, i]
            if (b >> 52) & 0x7FF == 0x7FF:
                special[codes[i], k] |= special_flag(b)
                continue
            position, mantissa = _position(b)
            position = position if mantissa else start << 6  # zeros fit anywhere: a branch would be mispredicted
            at = (position >> 6) - start
            origin = codes[i] * row + k * width
            top = np.int64(flat[np.uint64(origin + width - 1)])
            shift = position & 63
            if at < 0 or at + (1 if shift <= _LOW else 2) > width or not -_ROOM <= top < _ROOM:
                return i * columns + k
            if at + 1 == width:
                flat[np.uint64(origin + at)] = np.uint64(top + (mantissa << shift))
            else:
                _add(flat, np.uint64(origin + at), np.uint64(origin + width), mantissa, shift)
        first = 0
    return n * columns


@jit
def _merge(others, shift, codes, done, words):  # type: ignore[no-untyped-def]
    """words[codes[g]] += others[g], whose windows begin ``shift`` words later, for all but ``done`` sums. How many are
    in: see `_add_rows`."""
    groups, sums, count = others.shape
    width = words.shape[2]
    for g in range(done // sums, groups):
        for k in range(done % sums if g == done // sums else 0, sums):
            there, here = others[g, k], words[codes[g], k]
            last, top = np.int64(there[count - 1]), np.int64(here[width - 1])
            if not (-_ROOM <= last < _ROOM and -_ROOM <= top < _ROOM):
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


@jit
def _totals(halves, groups, sums):  # type: ignore[no-untyped-def]
    """Add the sums of these groups to ``sums`` (columns, words of 32 bits), without carries."""
    top = halves.shape[2] - 1
    for g in groups:
        for k in range(halves.shape[1]):
            for t in range(top):
                sums[k, t] += np.int64(halves[g, k, t])
            sums[k, top] += np.int64(np.int32(halves[g, k, top]))


@jit
def _products(halves, groups, pairs, sums):  # type: ignore[no-untyped-def]
    """Add the products of sums ``pairs`` of each group to ``sums`` (pairs, words of 32 bits), without carries."""
    top = halves.shape[2] - 1
    for g in groups:
        for p in range(pairs.shape[0]):
            square = pairs[p, 0] == pairs[p, 1]
            a, b = halves[g, pairs[p, 0]], halves[g, pairs[p, 1]]
            for i in range(top + 1):
                if not a[i]:
                    continue
                for j in range(i if square else 0, top + 1):
                    if not b[j]:
                        continue
                    times = 1 + (square and i < j)
                    if i < top and j < top:
                        product = np.uint64(a[i]) * np.uint64(b[j])
                        low, high = np.int64(product & np.uint64(MASK)), np.int64(product >> np.uint64(32))
                    else:
                        x = np.int64(np.int32(a[i])) if i == top else np.int64(a[i])
                        y = np.int64(np.int32(b[j])) if j == top else np.int64(b[j])
                        low, high = (x * y) & MASK, (x * y) >> 32
                    sums[p, i + j] += low * times
                    sums[p, i + j + 1] += high * times


class DenseSums:
    """Exact sums of ``columns`` numbers a row by group. ``words`` is (groups, columns, window)."""

    _ROWS = 8 * BLOCK  # laid out at a time

    def __init__(self, columns: int) -> None:
        self.columns, self.groups, self._start = columns, 0, _FIRST
        self.words = np.zeros((0, columns, 2), np.uint64)
        self.special = np.zeros((0, columns), np.uint8)

    def resize(self, groups: int) -> None:
        """Make room for groups 0 .. ``groups`` - 1; new ones are empty."""
        if groups > len(self.words):
            # what no group has used yet takes no memory
            room = max(groups, 2 * len(self.words), min(4 * len(self.words), 1 << 20), _LEAST)
            held, special = self.words[: self.groups], self.special[: self.groups]
            self.words = np.zeros((room, *held.shape[1:]), np.uint64)
            self.special = np.zeros((room, self.columns), np.uint8)
            self.words[: self.groups], self.special[: self.groups] = held, special
        self.groups = max(self.groups, groups)

    def add(self, terms: Terms, codes: np.ndarray) -> None:
        """Add row i to the sums of group ``codes[i]``."""
        for begin in range(0, len(codes), self._ROWS):
            part = codes[begin : begin + self._ROWS]
            values = terms.block(begin, len(part))
            done = 0
            while (done := _add_rows(values, part, done, self.words, self._start, self.special)) < values.size:
                row, column = divmod(done, self.columns)
                self._fit(values[column, row])

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
        words = other.words[: other.groups]
        self._widen(other._start, other._start + words.shape[2])
        done, shift = 0, other._start - self._start
        while (done := _merge(words, shift, codes, done, self.words)) < len(words) * self.columns:
            if words.shape[2] + shift < self.words.shape[2]:  # a last word there may be full now
                words = np.concatenate([words, (words[:, :, -1:].view(np.int64) >> 63).view(np.uint64)], axis=2)
            else:
                self._widen(self._start, self._start + self.words.shape[2] + 1)
        self.special[codes] |= other.special[: other.groups]

    @property
    def scale(self) -> int:
        """Integers below stand for multiples of 2**-scale."""
        return SCALE - 64 * self._start

    @property
    def _halves(self) -> np.ndarray:
        """The words in halves of 32 bits, of which the last is signed."""
        return self.words.view(np.uint32)

    def totals(self, groups: np.ndarray) -> tuple[list[int], list[int]]:
        """Each sum over these groups together, as integers, and the flags of those that are not finite."""
        sums = np.zeros((self.columns, 2 * self.words.shape[2]), np.int64)
        _totals(self._halves, groups, sums)
        special = np.bitwise_or.reduce(self.special[groups], axis=0)
        return [integer_of(row) for row in sums], special.tolist()

    def nonzero(self, groups: np.ndarray, column: int) -> int:
        """In how many of these groups the sum of a column is not 0."""
        return int(self.words[groups, column].any(axis=1).sum())

    def sums_of_products(self, groups: np.ndarray, pairs: Sequence[tuple[int, int]]) -> list[int]:
        """Σ_g S_a(g)·S_b(g) over these groups for each pair (a, b) of sums, as multiples of 2**(-2 scale)."""
        sums = np.zeros((len(pairs), 4 * self.words.shape[2] + 1), np.int64)
        _products(self._halves, groups, np.array(pairs, np.int64).reshape(-1, 2), sums)
        return [integer_of(row) for row in sums]

    def arrays(self, order: np.ndarray) -> dict[str, np.ndarray]:
        """The groups in this order, for storage: what `ExactSums.arrays` makes of equal sums."""
        halves = self._halves[order]
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
        return sums
