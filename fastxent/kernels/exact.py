"""Exact sums of float64: the same bits for any order, grouping or number of workers.

A sum is a long fixed-point integer held in *limbs*: int64 words that carry 32 bits of payload each, so that
words may be added thousands of times before their carries are handed on, and two sums merge by adding their
words (R. Neal 2015, "Fast exact summation using small and large superaccumulators", arXiv 1505.05571).
Bit 0 of limb 0 stands for 2**-1075. A double reaches two neighbouring limbs: the low 32 bits of its shifted
mantissa, and the up to 52 bits above. One correct rounding, to nearest even, ends the sum; a sum that cancels
is +0.0. Infinities and NaN are kept beside: any NaN, or both infinities, makes NaN.

`exact_zeros`, `exact_add` and `exact_round` are one sum over the whole range of doubles, for kernels and reductions;
`grouped.ExactSums` holds many sums, over only as many limbs as the values need.
"""

from __future__ import annotations

import math

import numpy as np

from fastxent.kernels.jit import inline, jit
from fastxent.kernels.simd.arithmetic import absolute, max_lanes, splat, sum_lanes, vmax
from fastxent.kernels.simd.memory import load, store

SCALE = 1075  # a limb word w at index i stands for w * 2**(32 i - SCALE)
LIMBS = 67  # a double ends in limb 64 at most; two more take the carries
_LANES = 4  # interleaved sums: an addition to the word that was stored just before waits for that store
EVERY = 1024  # additions between carries: |word| < 2**32 + 1024 * 2**52 < 2**63
MASK = 0xFFFFFFFF
POS_INF, NEG_INF, NAN = 1, 2, 4
FOLD_BITS = 13  # at most 2**13 doubles are folded together: 8192 of them stay in the cache
LEAST, MOST = 1e-200, 1e200  # of numbers that are folded: no power of two taken with them is lost or infinite


@inline
def split(bits):  # type: ignore[no-untyped-def]
    """(limb, low word >= 0, signed high word) of the finite double that has these bits."""
    exponent = (bits >> 52) & 0x7FF
    normal = min(exponent, 1)
    mantissa = (bits & 0xFFFFFFFFFFFFF) | (normal << 52)
    sign = bits >> 63
    mantissa = (mantissa ^ sign) - sign
    exponent += 1 - normal
    shift = exponent & 31
    return np.uint64(exponent >> 5), (mantissa << shift) & MASK, mantissa >> (32 - shift)


@inline
def special_flag(bits):  # type: ignore[no-untyped-def]
    """Flag of a double whose exponent is all ones."""
    if bits & 0xFFFFFFFFFFFFF:
        return NAN
    return NEG_INF if bits < 0 else POS_INF


@inline
def carry(words, count):  # type: ignore[no-untyped-def]
    """Hand on what exceeds 32 bits: afterwards all words but the last lie in [0, 2**32)."""
    over = np.int64(0)
    for i in range(count - 1):
        word = words[i] + over
        words[i] = word & MASK
        over = word >> 32
    words[count - 1] += over


def exact_zeros() -> np.ndarray:
    """An empty sum for `exact_add`. Sums made by different threads merge with ``+``."""
    return np.zeros((_LANES, LIMBS + 3), np.int64)  # behind the limbs: counts of +inf, -inf, NaN


@inline
def upper_parts(at, n, top):  # type: ignore[no-untyped-def]
    """(the sum of the upper parts of the ``n`` doubles at ``at``, the largest of what is left of them in their place).

    Adding and taking off a large power of two leaves the upper part of each number, whose sums are exact; what remains
    is folded again until nothing does (S. Rump, T. Ogita, S. Oishi 2008, "Accurate floating-point summation I"). The
    order of these additions plays no part, so eight go side by side. ``top``: the largest of the numbers.
    """
    # above the sum of all, so that a sum has no bits that one of them could not have
    sigma = splat(math.ldexp(1.0, math.frexp(top)[1] + FOLD_BITS + 1), 0.0)
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
def finite(at, n):  # type: ignore[no-untyped-def]
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
    for begin in range(0, n, EVERY * _LANES):
        end = min(n, begin + EVERY * _LANES)
        for i in range(begin, end):
            lane = np.uint64(i & (_LANES - 1))
            b = bits[i]
            if (b >> 52) & 0x7FF == 0x7FF:
                flag = special_flag(b)
                acc[lane, LIMBS + (flag >> 1)] += 1
                continue
            limb, low, high = split(b)
            acc[lane, limb] += low
            acc[lane, limb + np.uint64(1)] += high
        for lane in range(_LANES):
            carry(acc[lane], LIMBS)


def _parts(acc: np.ndarray) -> tuple[int, int]:
    """(flags of what is not finite, the finite sum as an integer) of ``acc``."""
    words = acc.sum(axis=0)
    positive, negative, nan = (bool(count) for count in words[LIMBS:])
    return POS_INF * positive | NEG_INF * negative | NAN * nan, integer_of(words[:LIMBS])


@jit
def exact_fold(acc, values, parts):  # type: ignore[no-untyped-def]
    """`exact_add` of values that are lost, in half the time where there are at most 2**13: see `upper_parts`.

    ``parts``: room for some numbers.
    """
    n = values.size // 8 * 8
    at = values.ctypes.data
    count = 0
    if values.size <= 1 << FOLD_BITS and finite(at, n):
        tops = splat(0.0, 0.0)
        for i in range(0, n, 8):
            tops = vmax(absolute(load(at + i * 8, 0.0)), tops)
        top = max_lanes(tops)
        while LEAST < top < MOST and count < parts.size:
            parts[count], top = upper_parts(at, n, top)
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


def integer_of(words: np.ndarray) -> int:
    """The integer that these words of 32 bits spell; any of them may exceed that and be negative."""
    total = 0
    for word in reversed(words.tolist()):
        total = (total << 32) + word
    return total
