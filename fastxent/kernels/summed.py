"""Exact sums of blocks of doubles and of their products, as integers: see `fold` for how a block is cut."""

from __future__ import annotations

import math

import numpy as np

from fastxent.kernels.exact import MASK, SCALE
from fastxent.kernels.jit import inline, jit
from fastxent.kernels.simd.arithmetic import absolute, fma, max_lanes, splat, sum_lanes, vmax
from fastxent.kernels.simd.fields import load_wide
from fastxent.kernels.simd.memory import load, store
from fastxent.kernels.simd.words import add_words, or_words, sum_words, union_words, word_of

_LEAST = -1022  # of the power that a block is cut at: its unit is a double too


@jit
def add_integer(words, integer, bit):  # type: ignore[no-untyped-def]
    """Add ``integer``·2**(bit - SCALE) to a sum."""
    limb, shift = bit >> 5, bit & 31
    low = (integer & MASK) << shift
    high = (integer >> 32) << shift
    words[limb] += low & MASK
    words[limb + 1] += (low >> 32) + (high & MASK)
    words[limb + 2] += high >> 32


@jit
def _fold_twice(at, n, power, words):  # type: ignore[no-untyped-def]
    """Do what `fold` does if two cuts leave no remainder. Else return False, and add nothing."""
    power = max(power, _LEAST)
    lower = max(power - 52, _LEAST)
    first, second = splat(math.ldexp(1.5, power), 0.0), splat(math.ldexp(1.5, lower), 0.0)
    total = splat(0.0, 0.0)
    more, left = total, total
    for i in range(0, n, 8):
        x = load(at + i * 8, 0.0)
        cut = x + first
        total = add_words(total, cut)
        x = x - (cut - first)
        cut = x + second
        more = add_words(more, cut)
        left = or_words(left, x - (cut - second))
    if union_words(left) << 1 != 0:  # without their signs
        return False
    add_integer(words, sum_words(total) - n * word_of(math.ldexp(1.5, power)), power - 52 + SCALE)
    add_integer(words, sum_words(more) - n * word_of(math.ldexp(1.5, lower)), lower - 52 + SCALE)
    return True


@jit
def fold_products(x_at, y_at, n, power, words):  # type: ignore[no-untyped-def]
    """Add the products of two blocks, at most 2**(power - 1), to a sum.

    Returns False, and adds nothing, if two cuts of each product and of its rounding error leave a remainder.
    """
    power = max(power, _LEAST)
    middle = max(power - 52, _LEAST)
    lower = max(middle - 52, _LEAST)
    first, second = splat(math.ldexp(1.5, power), 0.0), splat(math.ldexp(1.5, middle), 0.0)
    third, negative = splat(math.ldexp(1.5, lower), 0.0), splat(-1.0, 0.0)
    total = splat(0.0, 0.0)
    more, least, left = total, total, total
    for i in range(0, n, 8):
        x, y = load(x_at + i * 8, 0.0), load(y_at + i * 8, 0.0)
        high = x * y
        low = fma(x, y, high * negative)
        cut = high + first
        total = add_words(total, cut)
        high = high - (cut - first)
        cut = high + second
        more = add_words(more, cut)
        left = or_words(left, high - (cut - second))
        cut = low + second
        more = add_words(more, cut)
        low = low - (cut - second)
        cut = low + third
        least = add_words(least, cut)
        left = or_words(left, low - (cut - third))
    if union_words(left) << 1 != 0:
        return False
    add_integer(words, sum_words(total) - n * word_of(math.ldexp(1.5, power)), power - 52 + SCALE)
    add_integer(words, sum_words(more) - 2 * n * word_of(math.ldexp(1.5, middle)), middle - 52 + SCALE)
    add_integer(words, sum_words(least) - n * word_of(math.ldexp(1.5, lower)), lower - 52 + SCALE)
    return True


@jit
def fold(at, room_at, n, power, words):  # type: ignore[no-untyped-def]
    """Add the ``n`` doubles at ``at``, at most 2**(power - 1) and a multiple of 8 of them, to a sum.

    ``room_at``: where as many may be stored, maybe the same place.
    """
    if not _fold_twice(at, n, power, words):
        _fold_wholly(at, room_at, n, power, words)


@inline
def span_of(numbers):  # type: ignore[no-untyped-def]
    """Exponents of float32 numbers, as their patterns hold them: of the largest and of the least that is not 0."""
    top, low = np.uint32(0), np.uint32(0xFFFFFFFF)
    for i in range(numbers.size):
        bits = numbers[i] & np.uint32(0x7FFFFFFF)
        top, low = max(top, bits), min(low, np.uint32(bits - np.uint32(1)))
    return np.int64(top >> np.uint32(23)), np.int64((low + np.uint32(1)) >> np.uint32(23))


@jit
def fold_narrow(at, share_at, n, span, sums):  # type: ignore[no-untyped-def]
    """Add ``n`` float32 numbers, a multiple of 8 and not all 0, their shares and their squares to three sums.

    share_at: the address of float32 numbers 0 or 1 that shares are products with, or None: there are none.
    span: see `span_of`. Numbers have 24 bits: of those that are not too far apart, one cut leaves no remainder, and two
    of their squares.
    Returns False, and adds nothing, if they are too far apart.
    """
    top, low = span
    if max(low, 1) + 27 < top:
        return False
    power, tag = top - 125, np.float32(0.0)
    upper, lower = 2 * power - 1, 2 * power - 53
    first = splat(math.ldexp(1.5, power), 0.0)
    second, third = splat(math.ldexp(1.5, upper), 0.0), splat(math.ldexp(1.5, lower), 0.0)
    total = splat(0.0, 0.0)
    shares, high, rest = total, total, total
    for i in range(0, n, 8):
        x = load_wide(at + i * 4, tag)
        total = add_words(total, x + first)
        if share_at is not None:
            shares = add_words(shares, fma(x, load_wide(share_at + i * 4, tag), first))
        cut = fma(x, x, second)
        high = add_words(high, cut)
        rest = add_words(rest, fma(x, x, second - cut) + third)
    unit = n * word_of(math.ldexp(1.5, power))
    add_integer(sums[0], sum_words(total) - unit, power - 52 + SCALE)
    if share_at is not None:
        add_integer(sums[1], sum_words(shares) - unit, power - 52 + SCALE)
    add_integer(sums[2], sum_words(high) - n * word_of(math.ldexp(1.5, upper)), upper - 52 + SCALE)
    add_integer(sums[2], sum_words(rest) - n * word_of(math.ldexp(1.5, lower)), lower - 52 + SCALE)
    return True


@jit
def fold_apart(at, share_at, n, span, sums, room_at):  # type: ignore[no-untyped-def]
    """Do what `fold_narrow` does with any finite numbers. room_at: the address of ``n`` doubles."""
    power, tag = span[0] - 125, np.float32(0.0)
    for k in range(3):
        if k == 1 and share_at is None:
            continue
        for i in range(0, n, 8):
            x = load_wide(at + i * 4, tag)
            if k == 2:
                x = x * x
            if share_at is not None:
                if k == 1:
                    x = x * load_wide(share_at + i * 4, tag)
            store(room_at + i * 8, x, 0.0)
        fold(room_at, room_at, n, 2 * power - 1 if k == 2 else power, sums[k])


@jit
def _fold_wholly(at, room_at, n, power, words):  # type: ignore[no-untyped-def]
    """Do what `fold` does with as many cuts as it takes."""
    while True:
        power = max(power, _LEAST)
        top = math.ldexp(1.5, power)
        sigma = splat(top, 0.0)
        total = splat(0.0, 0.0)
        left = total
        for i in range(0, n, 8):
            x = load(at + i * 8, 0.0)
            cut = x + sigma
            rest = x - (cut - sigma)
            total = add_words(total, cut)
            left = or_words(left, rest)
            store(room_at + i * 8, rest, 0.0)
        add_integer(words, sum_words(total) - n * word_of(top), power - 52 + SCALE)
        if union_words(left) << 1 == 0:
            return
        at = room_at
        power -= 52


@jit
def height_of(at, n):  # type: ignore[no-untyped-def]
    """The least e for which ``n`` doubles are all below 2**e; -2000 of zeros, 2000 of what is not finite."""
    zero = splat(0.0, 0.0)
    top, probe = zero, zero
    for i in range(0, n, 8):
        x = load(at + i * 8, 0.0)
        top = vmax(absolute(x), top)
        probe = fma(x, zero, probe)
    if sum_lanes(probe) != 0.0:
        return 2000
    largest = max_lanes(top)
    return math.frexp(largest)[1] if largest > 0.0 else -2000


@inline
def multiply(x_at, y_at, n, high_at, low_at):  # type: ignore[no-untyped-def]
    """The products of two blocks, and what rounding them lost."""
    negative = splat(-1.0, 0.0)
    for i in range(0, n, 8):
        x, y = load(x_at + i * 8, 0.0), load(y_at + i * 8, 0.0)
        high = x * y
        store(high_at + i * 8, high, 0.0)
        store(low_at + i * 8, fma(x, y, high * negative), 0.0)
