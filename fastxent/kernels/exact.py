"""Exact sums of float64: the same bits for any order, grouping or number of workers.

A sum is a long fixed-point integer held in *limbs*: int64 words that carry 32 bits of payload each, so that
words may be added thousands of times before their carries are handed on, and two sums merge by adding their
words (R. Neal 2015, "Fast exact summation using small and large superaccumulators", arXiv 1505.05571).
Bit 0 of limb 0 stands for 2**-1075. A double reaches two neighbouring limbs: the low 32 bits of its shifted
mantissa, and the up to 52 bits above. One correct rounding, to nearest even, ends the sum; a sum that cancels
is +0.0. Infinities and NaN are kept beside: any NaN, or both infinities, makes NaN.

* `exact_zeros`, `exact_add`, `exact_round`: one sum over the whole range of doubles, for kernels and reductions;
* `ExactSums`: many sums by group, over only as many limbs as the values call for, with exact sums of products.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numba import types
from numba.extending import intrinsic

from fastxent.kernels.jit import inline, jit
from fastxent.kernels.simd.arithmetic import absolute, max_lanes, splat, sum_lanes, vmax
from fastxent.kernels.simd.memory import load, store

SCALE = 1075  # a limb word w at index i stands for w * 2**(32 i - SCALE)
_LIMBS = 67  # a double ends in limb 64 at most; two more take the carries
_LANES = 4  # interleaved sums: an addition to the word that was stored just before waits for that store
_EVERY = 1024  # additions between carries: |word| < 2**32 + 1024 * 2**52 < 2**63
_MASK = 0xFFFFFFFF
_FIRST = 30  # where windows begin at first: numbers down to 2**-63 in magnitude, their last bits at 2**-115
POS_INF, NEG_INF, NAN = 1, 2, 4
_FOLD_BITS = 13  # at most 2**13 doubles are folded together: 8192 of them stay in the cache
_LEAST, _MOST = 1e-200, 1e200  # of numbers that are folded: no power of two taken with them is lost or infinite
_FOLDS = 8


@intrinsic  # type: ignore[untyped-decorator]
def _fma(_context: Any, a: Any, b: Any, c: Any) -> Any:
    """a * b + c rounded once: LLVM's fma, an instruction where there is one and libm elsewhere."""

    def build(_cgctx: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return builder.fma(*args)

    return types.float64(types.float64, types.float64, types.float64), build


@inline
def _split(bits):  # type: ignore[no-untyped-def]
    """(limb, low word >= 0, signed high word) of the finite double that has these bits."""
    exponent = (bits >> 52) & 0x7FF
    normal = min(exponent, 1)
    mantissa = (bits & 0xFFFFFFFFFFFFF) | (normal << 52)
    sign = bits >> 63
    mantissa = (mantissa ^ sign) - sign
    exponent += 1 - normal
    shift = exponent & 31
    return np.uint64(exponent >> 5), (mantissa << shift) & _MASK, mantissa >> (32 - shift)


@inline
def _special(bits):  # type: ignore[no-untyped-def]
    """Flag of a double whose exponent is all ones."""
    if bits & 0xFFFFFFFFFFFFF:
        return NAN
    return NEG_INF if bits < 0 else POS_INF


@inline
def _carry(words, count):  # type: ignore[no-untyped-def]
    """Hand on what exceeds 32 bits: afterwards all words but the last lie in [0, 2**32)."""
    carry = np.int64(0)
    for i in range(count - 1):
        word = words[i] + carry
        words[i] = word & _MASK
        carry = word >> 32
    words[count - 1] += carry


def exact_zeros() -> np.ndarray:
    """An empty sum for `exact_add`. Sums made by different threads merge with ``+``."""
    return np.zeros((_LANES, _LIMBS + 3), np.int64)  # behind the limbs: counts of +inf, -inf, NaN


@inline
def _upper(at, n, top):  # type: ignore[no-untyped-def]
    """(the sum of the upper parts of the ``n`` doubles at ``at``, the largest of what is left of them in their place).

    Adding and taking off a large power of two leaves the upper part of each number, whose sums are exact; what remains
    is folded again until nothing does (S. Rump, T. Ogita, S. Oishi 2008, "Accurate floating-point summation I"). The
    order of these additions plays no part, so eight go side by side. ``top``: the largest of the numbers.
    """
    # above the sum of all, so that a sum has no bits that one of them could not have
    sigma = splat(math.ldexp(1.0, math.frexp(top)[1] + _FOLD_BITS + 1), 0.0)
    total = splat(0.0, 0.0)
    left = total
    for i in range(0, n, 8):
        x = load(at + i * 8, 0.0)
        upper = (sigma + x) - sigma
        rest = x - upper
        total = total + upper
        store(at + i * 8, rest, 0.0)
        left = vmax(absolute(rest), left)
    return sum_lanes(total), max_lanes(left)


@inline
def _finite(at, n):  # type: ignore[no-untyped-def]
    """Whether ``n`` doubles are all finite: 0·x is 0 then."""
    zero = splat(0.0, 0.0)
    total = zero
    for i in range(0, n, 8):
        total = total + load(at + i * 8, 0.0) * zero
    return sum_lanes(total) == 0.0


@jit
def exact_add(acc, values):  # type: ignore[no-untyped-def]
    """Add ``values`` (float64, contiguous) to ``acc`` (from `exact_zeros`), in place. Callable from kernels."""
    bits = values.view(np.int64)
    n = bits.size
    for begin in range(0, n, _EVERY * _LANES):
        end = min(n, begin + _EVERY * _LANES)
        for i in range(begin, end):
            lane = np.uint64(i & (_LANES - 1))
            b = bits[i]
            if (b >> 52) & 0x7FF == 0x7FF:
                flag = _special(b)
                acc[lane, _LIMBS + (flag >> 1)] += 1
                continue
            limb, low, high = _split(b)
            acc[lane, limb] += low
            acc[lane, limb + np.uint64(1)] += high
        for lane in range(_LANES):
            _carry(acc[lane], _LIMBS)


def _parts(acc: np.ndarray) -> tuple[int, int]:
    """(flags of what is not finite, the finite sum as an integer) of ``acc``."""
    words = acc.sum(axis=0)
    positive, negative, nan = (bool(count) for count in words[_LIMBS:])
    return POS_INF * positive | NEG_INF * negative | NAN * nan, _integer(words[:_LIMBS])


@jit
def exact_fold(acc, values, parts):  # type: ignore[no-untyped-def]
    """`exact_add` of values that are lost, in half the time where there are at most 2**13: see `_upper`. ``parts``:
    room for some numbers."""
    n = values.size // 8 * 8
    at = values.ctypes.data
    count = 0
    if values.size <= 1 << _FOLD_BITS and _finite(at, n):
        top = 0.0
        for i in range(n):
            top = max(top, abs(values[i]))
        while _LEAST < top < _MOST and count < parts.size:
            parts[count], top = _upper(at, n, top)
            count += 1
        exact_add(acc, parts[:count])
        if top == 0.0:
            values = values[n:]
    exact_add(acc, values)


def exact_round(acc: np.ndarray) -> float:
    """The sum in ``acc``, correctly rounded."""
    special, total = _parts(acc)
    return special_value(special) if special else rounded_ratio(total, 1 << SCALE)


def exact_ratio(acc: np.ndarray, over: np.ndarray) -> float:
    """One sum over another, rounded once; NaN over 0."""
    special, total = _parts(acc)
    over_special, divisor = _parts(over)
    if special or over_special:
        return exact_round(acc) / exact_round(over) if exact_round(over) else math.nan
    return rounded_ratio(total, divisor) if divisor > 0 else rounded_ratio(-total, -divisor)


def exact_sum(values: np.ndarray) -> float:
    """The correctly rounded sum of a float64 array: `math.fsum`, at array speed and with infinities."""
    acc = exact_zeros()
    exact_add(acc, np.ascontiguousarray(values, np.float64).ravel())
    return exact_round(acc)


def special_value(special: int) -> float:
    """What a sum with these flags is, whatever else was added."""
    return {POS_INF: math.inf, NEG_INF: -math.inf}.get(special, math.nan)


def rounded_ratio(numerator: int, denominator: int) -> float:
    """The double nearest to a ratio of integers, ties to even; beyond the largest, infinity; NaN over 0."""
    if not denominator:
        return math.nan
    try:
        return numerator / denominator  # Python rounds this correctly, subnormals included
    except OverflowError:
        return math.inf if (numerator > 0) == (denominator > 0) else -math.inf


def rounded_root(numerator: int, denominator: int) -> float:
    """The square root of a ratio of integers, neither negative, within one unit in the last place, at any size."""
    if not denominator:
        return math.nan
    shift = max(0, (130 + denominator.bit_length() - numerator.bit_length()) // 2)
    return rounded_ratio(math.isqrt((numerator << 2 * shift) // denominator), 1 << shift)


def _integer(words: np.ndarray) -> int:
    """The integer that these words of 32 bits spell; any of them may exceed that and be negative."""
    total = 0
    for word in reversed(words.tolist()):
        total = (total << 32) + word
    return total


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
                special[g, slots[t]] |= _special(b)
                continue
            limb, low, high = _split(b)
            at = np.uint64(origin + slots[t] * width + max(np.int64(limb) - base, 0))
            flat[at] += low
            flat[at + np.uint64(1)] += high
        pending[g] += 1
        if pending[g] >= _EVERY // 2:  # a product adds two terms to its sum
            pending[g] = 0
            for k in range(sums):
                _carry(limbs[g, k], width)


@jit
def _carry_all(limbs, pending):  # type: ignore[no-untyped-def]
    for g in range(limbs.shape[0]):
        if pending[g]:
            pending[g] = 0
            for k in range(limbs.shape[1]):
                _carry(limbs[g, k], limbs.shape[2])


@inline
def _fold(at, n, top, parts, slot):  # type: ignore[no-untyped-def]
    """Sum the ``n`` doubles at ``at``, which are lost, into ``parts[:, slot]``, doubles whose sum is exactly that.
    False where the numbers are too large or small for that, or too far apart for the room there is."""
    fold = 0
    while top > 0.0:
        if fold == parts.shape[0] or not _LEAST < top < _MOST:
            return False
        parts[fold, slot], top = _upper(at, n, top)
        fold += 1
    return True


@jit
def _fold_columns(values, begin, n, left, right, room, parts):  # type: ignore[no-untyped-def]
    """`_fold` of rows ``begin`` .. ``begin + n`` of each column of ``values`` (columns, rows), and of each product.

    ``room``: two arrays of at least n + 7 doubles. ``parts`` (folds, columns + 2·products).
    """
    columns = values.shape[0]
    wide = (n + 7) // 8 * 8
    for k in range(2):
        for i in range(n, wide):
            room[k, i] = 0.0
    high = room[0].ctypes.data
    low = room[1].ctypes.data
    fine = True
    for k in range(columns):
        top = splat(0.0, 0.0)
        for i in range(n):
            room[0, i] = values[k, begin + i]
        for i in range(0, wide, 8):
            top = vmax(absolute(load(high + i * 8, 0.0)), top)
        fine = fine and _finite(high, wide) and _fold(high, wide, max_lanes(top), parts, k)
    for p in range(left.size):
        for i in range(n):
            x, y = values[left[p], begin + i], values[right[p], begin + i]
            upper = x * y
            room[0, i] = upper
            room[1, i] = _fma(x, y, -upper)
        for k in range(2):
            at = low if k else high
            top = splat(0.0, 0.0)
            for i in range(0, wide, 8):
                top = vmax(absolute(load(at + i * 8, 0.0)), top)
            fine = fine and _finite(at, wide) and _fold(at, wide, max_lanes(top), parts, columns + 2 * p + k)
    return fine


class ExactSums:
    """Exact sums by group: of ``columns`` values a row, then of the products of the named pairs of them.

    ``limbs`` is (groups, sums, window): the window starts at limb ``base`` and grows to hold the values that come,
    as does the number of groups. A sum takes some 60 to 100 bytes instead of 536.
    """

    _BLOCK = 2048  # rows expanded at a time: their terms stay in the cache

    def __init__(self, columns: int, products: Sequence[tuple[int, int]] = (), groups: int = 0) -> None:
        self.columns = columns
        self.products = tuple(products)
        self._left = np.array([a for a, _ in self.products], np.int64)
        self._right = np.array([b for _, b in self.products], np.int64)
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
            more = max(groups, self.limbs.shape[0] * 3 // 2) - self.limbs.shape[0]  # amortised growth
            self.limbs = np.pad(self.limbs, ((0, more), (0, 0), (0, 0)))
            self.special = np.pad(self.special, ((0, more), (0, 0)))
            self._pending = np.pad(self._pending, (0, more))
        self._used = max(self._used, groups)

    def add(self, values: np.ndarray, codes: np.ndarray) -> None:
        """Add row i of ``values`` (n, columns) to the sums of group ``codes[i]`` < groups."""
        terms = np.empty((min(len(values), self._BLOCK), self._slots.size))
        for begin in range(0, len(values), self._BLOCK):
            block = values[begin : begin + self._BLOCK]
            part = terms[: len(block)]
            _expand(block, self._left, self._right, part)
            self._add_terms(part, self._slots, codes[begin : begin + self._BLOCK], *_exponents(part))

    def add_all(self, values: np.ndarray, group: int) -> None:
        """Add every row of ``values`` (columns, n), contiguous, to the sums of one group: `add`, several times faster.

        A block of rows is summed into a few doubles a column, exactly, which are then added in place of the rows.
        """
        n = values.shape[1]
        size = min(n, 1 << _FOLD_BITS)
        room = np.empty((2, size + 8))
        for begin in range(0, n, max(1, size)):
            count = min(size, n - begin)
            parts = np.zeros((_FOLDS, self._slots.size))
            if not _fold_columns(values, begin, count, self._left, self._right, room, parts):
                block = np.ascontiguousarray(values[:, begin : begin + count].T)
                self.add(block, np.full(count, group, np.int64))
                continue
            self._add_terms(parts, self._slots, np.full(_FOLDS, group, np.int64), *_exponents(parts))

    def add_column(self, column: int, values: np.ndarray, codes: np.ndarray) -> None:
        """Add ``values[i]`` to the sum of one column of group ``codes[i]``."""
        terms = np.ascontiguousarray(values, np.float64)[:, None]
        self._add_terms(terms, np.array([column]), codes, *_exponents(terms))

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
        words = (limbs & _MASK).sum(axis=0), (limbs >> 32).sum(axis=0)  # in halves, for the sum not to overflow
        special = np.bitwise_or.reduce(self.special[groups], axis=0)
        return [_integer(low) + (_integer(high) << 32) for low, high in zip(*words, strict=True)], special.tolist()

    def each(self, groups: np.ndarray) -> list[list[int]]:
        """For every sum its integers, one a group."""
        words = self.limbs[groups]
        return [[_integer(row) for row in words[:, k]] for k in range(words.shape[1])]

    def sums_of_products(self, groups: np.ndarray, pairs: Sequence[tuple[int, int]]) -> list[int]:
        """Σ_g S_a(g)·S_b(g) over these groups for each pair (a, b) of sums, as multiples of 2**(-2 scale).

        One matrix product for all pairs: limbs are cut into halves of 16 bits, whose products and the sums
        of 2**14 of them are integers that float64 holds exactly, in whatever order BLAS adds them.
        """
        self.carry()
        sums, width = self.limbs.shape[1], 2 * (self.limbs.shape[2] + 1)
        gram = np.zeros((sums * width, sums * width), np.int64)
        for begin in range(0, len(groups), 1 << 14):
            limbs = self.limbs[groups[begin : begin + (1 << 14)]]
            limbs = np.concatenate([limbs[:, :, :-1], limbs[:, :, -1:] & _MASK, limbs[:, :, -1:] >> 32], axis=2)
            halves = np.stack([limbs & 0xFFFF, limbs >> 16], axis=3).astype(np.float64).reshape(len(limbs), -1)
            # A copy, or NumPy calls syrk: 7 times slower than gemm where OpenBLAS shares its processors.
            gram += (halves.T @ halves.copy()).astype(np.int64)
        blocks = gram.reshape(sums, width, sums, width)
        totals = []
        for a, b in pairs:
            skewed = np.pad(blocks[a, :, b], ((0, 0), (0, width))).ravel()[:-width].reshape(width, -1)
            diagonals = skewed.sum(axis=0).tolist()  # of equal i + j, hence of equal power of two
            totals.append(sum(word << (16 * power) for power, word in enumerate(diagonals)))
        return totals

    def arrays(self, order: np.ndarray) -> dict[str, np.ndarray]:
        """The groups in this order, for storage, over the least window: the bytes follow from the sums alone."""
        self.carry()
        limbs = self.limbs[order]
        # First one word more than needed, so that what follows depends on the numbers and not on the window.
        limbs = np.concatenate([limbs[:, :, :-1], limbs[:, :, -1:] & _MASK, limbs[:, :, -1:] >> 32], axis=2)
        used = np.flatnonzero(limbs.any(axis=(0, 1)))
        if not used.size:
            return {"base": np.zeros(1, np.int64), "limbs": limbs[:, :, :1], "special": self.special[order]}
        limbs = limbs[:, :, used[0] :]
        while limbs.shape[2] > 1 and np.abs(limbs[:, :, -1]).max() <= 1 << 29:  # mostly a bare sign: 0 or -1
            limbs = np.concatenate([limbs[:, :, :-2], limbs[:, :, -2:-1] + (limbs[:, :, -1:] << 32)], axis=2)
        return {"base": self.base + used[:1], "limbs": limbs, "special": self.special[order]}

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
        inside = 0 <= base[0] < base[0] + limbs.shape[2] <= _LIMBS + 1
        if not (inside and np.all((low >= 0) & (low <= _MASK)) and np.all(special < 8)):
            raise ValueError("exact sums out of range")
        sums.base, sums.limbs, sums.special = int(base[0]), limbs, special
        sums._used = groups
        sums._pending = np.zeros(groups, np.int64)
        sums._widen(_FIRST, sums.base + limbs.shape[2] + 1)  # the last word may be nearly full
        return sums
