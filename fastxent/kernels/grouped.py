"""Exact sums of float64 by group, and exact sums of products: see `exact` for how one sum is held.

A window of limbs is kept for each sum, only as wide as the values need. A product x·y is added as two doubles, whose
sum is exactly the product.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numba import types
from numba.extending import intrinsic

from fastxent.kernels.cuts import END, FIRST, MIDDLE, MOST_ROWS, WIDTH, Cuts, add_cuts, cut_column, room
from fastxent.kernels.exact import (
    EVERY, LIMBS, MASK, SCALE, carry, integer_of, special_flag, split,
)  # fmt: skip
from fastxent.kernels.fold import WORDS, Terms, fold_room, fold_rows, merge_words
from fastxent.kernels.grown import grown
from fastxent.kernels.jit import jit

_FIRST = 30  # where windows begin at first: numbers down to 2**-63 in magnitude, their last bits at 2**-115


@intrinsic  # type: ignore[untyped-decorator]
def _fma(_context: Any, a: Any, b: Any, c: Any) -> Any:
    """a * b + c rounded once: LLVM's fma, an instruction where there is one and libm elsewhere."""

    def build(_cgctx: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return builder.fma(*args)

    return types.float64(types.float64, types.float64, types.float64), build


@jit
def _expand(values, left, right, terms):  # type: ignore[no-untyped-def]
    """Lay out the terms of each row, products as hi + lo = x * y exactly.

    lo is exact unless it falls below the smallest normal double (factors under about 1e-146); such a rest is
    rounded, the same way wherever the row stands.
    """
    n, columns = values.shape
    for i in range(n):
        for k in range(columns):
            terms[i, k] = values[i, k]
        for p in range(left.size):
            x, y = values[i, left[p]], values[i, right[p]]
            hi = x * y
            terms[i, columns + 2 * p] = hi
            terms[i, columns + 2 * p + 1] = _fma(x, y, -hi) if abs(hi) < np.inf else 0.0


@jit
def _exponents(terms):  # type: ignore[no-untyped-def]
    """The lowest and the highest exponent of what is finite and not 0; the lowest is the larger where nothing is."""
    bits = terms.view(np.int64)
    lowest, highest = np.int64(2047), np.int64(0)
    for i in range(bits.shape[0]):
        for t in range(bits.shape[1]):
            b = bits[i, t]
            exponent = (b >> 52) & 0x7FF
            if exponent < 0x7FF and b & 0x7FFFFFFFFFFFFFFF != 0:
                lowest = min(lowest, exponent)
                highest = max(highest, exponent)
    return lowest, highest


@jit
def _add_rows(limbs, base, special, pending, terms, slots, codes):  # type: ignore[no-untyped-def]
    """limbs[codes[i], slots[t]] += terms[i, t]. Zeros may lie below the window: they are added where it begins.

    Words are addressed in the flat array by unsigned numbers: signed ones cost a test for negative indices each.
    """
    bits = terms.view(np.int64)
    flat = limbs.reshape(limbs.size)
    n, count = bits.shape
    sums, width = limbs.shape[1], limbs.shape[2]
    for i in range(n):
        g = codes[i]
        origin = g * sums * width
        for t in range(count):
            b = bits[i, t]
            if (b >> 52) & 0x7FF == 0x7FF:
                special[g, slots[t]] |= special_flag(b)
                continue
            limb, low, high = split(b)
            at = np.uint64(origin + slots[t] * width + max(np.int64(limb) - base, 0))
            flat[at] += low
            flat[at + np.uint64(1)] += high
        pending[g] += 1
        if pending[g] >= EVERY // 2:  # a product adds two terms to its sum
            pending[g] = 0
            for k in range(sums):
                carry(limbs[g, k], width)


@jit
def _carry_all(limbs, pending):  # type: ignore[no-untyped-def]
    for g in range(limbs.shape[0]):
        if pending[g]:
            pending[g] = 0
            for k in range(limbs.shape[1]):
                carry(limbs[g, k], limbs.shape[2])


class Words(NamedTuple):
    """Sums over the whole range of doubles, and their flags, on their way into `ExactSums`."""

    words: np.ndarray
    special: np.ndarray

    @classmethod
    def zeros(cls, sums: int) -> Words:
        return cls(np.zeros((sums, WORDS), np.int64), np.zeros(sums, np.uint8))


class ExactSums:
    """Exact sums by group: of ``columns`` values a row, then of the products of the named pairs of them.

    ``limbs`` is (groups, sums, window): the window starts at limb ``base`` and grows to hold the values that come,
    as does the number of groups. A sum takes some 60 to 100 bytes instead of 536.
    """

    _BLOCK = 2048  # rows expanded at a time: their terms stay in the cache

    def __init__(self, columns: int, products: Sequence[tuple[int, int]] = (), groups: int = 0) -> None:
        self.columns = columns
        self.products = tuple(products)
        self._pairs = np.array(self.products, np.int64).reshape(-1, 2)
        self._left, self._right = np.ascontiguousarray(self._pairs.T)
        double = np.repeat(np.arange(columns, columns + len(self.products)), 2)
        self._slots = np.concatenate([np.arange(columns), double]).astype(np.int64)
        self.base = _FIRST
        self.limbs = np.zeros((groups, columns + len(self.products), 6), np.int64)
        self.special = np.zeros(self.limbs.shape[:2], np.uint8)
        self._pending = np.zeros(groups, np.int64)
        self._used = groups

    @property
    def groups(self) -> int:
        return self._used

    def resize(self, groups: int) -> None:
        """Make room for groups 0 .. ``groups`` - 1; new ones are empty."""
        if groups > self.limbs.shape[0]:
            size = max(groups, self.limbs.shape[0] * 3 // 2)  # amortised growth
            self.limbs, self.special = grown(self.limbs, size), grown(self.special, size)
            self._pending = grown(self._pending, size)
        self._used = max(self._used, groups)

    def add(self, values: np.ndarray, codes: np.ndarray) -> None:
        """Add row i of ``values`` (n, columns) to the sums of group ``codes[i]`` < groups."""
        terms = np.empty((min(len(values), self._BLOCK), self._slots.size))
        for begin in range(0, len(values), self._BLOCK):
            block = values[begin : begin + self._BLOCK]
            part = terms[: len(block)]
            _expand(block, self._left, self._right, part)
            self._add_terms(part, self._slots, codes[begin : begin + self._BLOCK], *_exponents(part))

    def fold(self, terms: Terms, groups: np.ndarray, begins: np.ndarray) -> Words:
        """Add rows ``begins[g]`` .. ``begins[g + 1]`` to the sums of ``groups[g]``: `add`, many times faster. Returns
        their sums together."""
        sums, total = Words.zeros(self.limbs.shape[1]), Words.zeros(self.limbs.shape[1])
        needed = np.zeros(2, np.int64)
        room = (fold_room(self.columns), *sums, *total, needed)
        done = 0
        while True:
            done = fold_rows((terms.table, self._pairs), begins, groups, done, room, self._held())
            if done == len(groups):
                return total
            self._widen(*needed.tolist())

    def add_words(self, words: Words, group: int) -> None:
        """Add sums to those of a group; they are lost."""
        needed = np.zeros(2, np.int64)
        while not merge_words(*words, group, self._held(), needed):
            self._widen(*needed.tolist())

    def _held(self) -> tuple[np.ndarray, int, np.ndarray, np.ndarray]:
        return self.limbs, self.base, self.special, self._pending

    def add_column(self, column: int, values: np.ndarray, codes: np.ndarray) -> None:
        """Add ``values[i]`` to the sum of one column of group ``codes[i]``."""
        values = np.ascontiguousarray(values, np.float64)
        for begin in range(0, len(values), MOST_ROWS):
            part, places = values[begin : begin + MOST_ROWS], codes[begin : begin + MOST_ROWS]
            if self.groups <= len(part):
                cuts = Cuts.zeros(self.groups, WIDTH, len(part))
                cut_column(part, places, cuts.sums, cuts.left, room())
                self.add_cuts(cuts, 0, column)
            elif len(part):
                self._add_each(column, part, places)

    def _add_each(self, column: int, values: np.ndarray, codes: np.ndarray) -> None:
        terms = values[:, None]
        self._add_terms(terms, np.array([column]), codes, *_exponents(terms))

    def add_cuts(self, cuts: Cuts, first: int, column: int) -> None:
        """Add the sums that begin at integer ``first`` of each place to those of one column of each group."""
        sums = cuts.sums[:, first : first + WIDTH]
        self._widen(FIRST if sums[:, WIDTH - 1].any() else MIDDLE, END)
        add_cuts(np.ascontiguousarray(sums), column, self._held())
        values, at, count = cuts.left
        places, offsets = np.divmod(at[: count[0]], cuts.sums.shape[1])
        mine = offsets == first
        if mine.any():
            self._add_each(column, values[: count[0]][mine], places[mine])

    def _add_terms(self, terms: np.ndarray, slots: np.ndarray, codes: np.ndarray, lowest: int, highest: int) -> None:
        if lowest <= highest:
            self._widen(max(lowest, 1) >> 5, (highest >> 5) + 3)
        _add_rows(self.limbs, self.base, self.special, self._pending, terms, slots, codes)

    def _widen(self, first: int, stop: int) -> None:
        """Make the window reach over limbs ``first`` .. ``stop`` - 1."""
        end = self.base + self.limbs.shape[2]
        if first < self.base or stop > end:
            below, above = max(0, self.base - first), max(0, stop - end)
            self.limbs = np.pad(self.limbs, ((0, 0), (0, 0), (below, above)))
            self.base -= below
            self._pending[: self._used] = 1
            self.carry()

    def carry(self) -> None:
        """Hand on all carries: equal sums over equal windows then have equal limbs."""
        _carry_all(self.limbs, self._pending)

    def merge_into(self, other: ExactSums, codes: np.ndarray) -> None:
        """Add group g of ``other`` to group ``codes[g]`` here; no two g share a code."""
        self._widen(other.base, other.base + other.limbs.shape[2])
        other.carry()
        self.carry()
        at = other.base - self.base
        n = other.groups
        self.limbs[codes, :, at : at + other.limbs.shape[2]] += other.limbs[:n]
        self.special[codes] |= other.special[:n]
        self._pending[codes] = 1
        self.carry()

    @property
    def scale(self) -> int:
        """Integers below stand for multiples of 2**-scale."""
        return SCALE - 32 * self.base

    def totals(self, groups: np.ndarray) -> tuple[list[int], list[int]]:
        """Each sum over these groups together, as integers, and the flags of those that are not finite."""
        limbs = self.limbs[groups]
        words = (limbs & MASK).sum(axis=0), (limbs >> 32).sum(axis=0)  # in halves, for the sum not to overflow
        special = np.bitwise_or.reduce(self.special[groups], axis=0)
        return [integer_of(low) + (integer_of(high) << 32) for low, high in zip(*words, strict=True)], special.tolist()

    def each(self, groups: np.ndarray) -> list[list[int]]:
        """For every sum its integers, one a group."""
        self.carry()
        words = self.limbs[groups].astype("<i8")
        below = words[:, :, :-1].astype("<u4")  # all but the last are of 32 bits
        data = np.concatenate([below, words[:, :, -1:].view("<u4")], axis=2)
        size = 4 * data.shape[2]
        found = []
        for k in range(data.shape[1]):
            text = data[:, k].tobytes()
            ends = range(size, len(text) + 1, size)
            found.append([int.from_bytes(text[end - size : end], "little", signed=True) for end in ends])
        return found

    def arrays(self, order: np.ndarray) -> dict[str, np.ndarray]:
        """The groups in this order, for storage, over the least window: the bytes follow from the sums alone."""
        self.carry()
        limbs = self.limbs[order]
        # First one word more than needed, so that what follows depends on the numbers and not on the window.
        limbs = np.concatenate([limbs[:, :, :-1], limbs[:, :, -1:] & MASK, limbs[:, :, -1:] >> 32], axis=2)
        used = np.flatnonzero(limbs.any(axis=(0, 1)))
        if not used.size:
            return {"base": np.zeros(1, np.int64), "limbs": limbs[:, :, :1], "special": self.special[order]}
        limbs = limbs[:, :, used[0] :]
        while limbs.shape[2] > 1 and np.abs(limbs[:, :, -1]).max() <= 1 << 29:  # mostly a bare sign: 0 or -1
            limbs = np.concatenate([limbs[:, :, :-2], limbs[:, :, -2:-1] + (limbs[:, :, -1:] << 32)], axis=2)
        return {"base": self.base + used[:1], "limbs": limbs, "special": self.special[order]}

    @classmethod
    def of_limbs(cls, base: int, limbs: np.ndarray, special: np.ndarray) -> ExactSums:
        """Sums of these limbs, all but the last of each in 0 .. 2**32, and flags."""
        sums = cls(limbs.shape[1], groups=len(limbs))
        sums.base, sums.limbs, sums.special = base, limbs, special
        return sums

    @classmethod
    def restore(
        cls, columns: int, products: Sequence[tuple[int, int]], groups: int, arrays: dict[str, np.ndarray]
    ) -> ExactSums:
        """The inverse of `arrays`; ValueError if these cannot be the sums of that many groups."""
        sums = cls(columns, products)
        base, limbs, special = (arrays[name] for name in ("base", "limbs", "special"))
        shape = (groups, columns + len(sums.products))
        if not (base.shape == (1,) and limbs.ndim == 3 and limbs.shape[:2] == special.shape == shape):
            raise ValueError("exact sums of another shape")
        low = limbs[:, :, :-1]
        inside = 0 <= base[0] < base[0] + limbs.shape[2] <= LIMBS + 1
        if not (inside and np.all((low >= 0) & (low <= MASK)) and np.all(special < 8)):
            raise ValueError("exact sums out of range")
        sums.base, sums.limbs, sums.special = int(base[0]), limbs, special
        sums._used = groups
        sums._pending = np.zeros(groups, np.int64)
        sums._widen(_FIRST, sums.base + limbs.shape[2] + 1)  # the last word may be nearly full
        return sums
