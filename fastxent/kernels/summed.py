"""Exact sums of blocks of doubles and of their products, as integers: see `fold` for how a block is cut."""

from __future__ import annotations

import math

from fastxent.kernels.exact import MASK, SCALE
from fastxent.kernels.jit import inline, jit
from fastxent.kernels.simd.arithmetic import absolute, fma, max_lanes, splat, sum_lanes, vmax
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
def _fold_once(at, other_at, n, power, words):  # type: ignore[no-untyped-def]
    """Do what `fold` does if one cut leaves no remainder. Else return False, and add nothing."""
    power = max(power, _LEAST)
    sigma = splat(math.ldexp(1.5, power), 0.0)
    total = splat(0.0, 0.0)
    left = total
    for i in range(0, n, 8):
        x = load(at + i * 8, 0.0)
        if other_at is not None:
            x = x * load(other_at + i * 8, 0.0)
        cut = x + sigma
        total = add_words(total, cut)
        left = or_words(left, x - (cut - sigma))
    if union_words(left) << 1 != 0:  # without their signs
        return False
    add_integer(words, sum_words(total) - n * word_of(math.ldexp(1.5, power)), power - 52 + SCALE)
    return True


@jit
def _fold_twice(at, other_at, n, power, words):  # type: ignore[no-untyped-def]
    """Do what `fold` does if two cuts leave no remainder. Else return False, and add nothing."""
    power = max(power, _LEAST)
    lower = max(power - 52, _LEAST)
    first, second = splat(math.ldexp(1.5, power), 0.0), splat(math.ldexp(1.5, lower), 0.0)
    total = splat(0.0, 0.0)
    more, left = total, total
    for i in range(0, n, 8):
        x = load(at + i * 8, 0.0)
        if other_at is not None:
            x = x * load(other_at + i * 8, 0.0)
        cut = x + first
        total = add_words(total, cut)
        x = x - (cut - first)
        cut = x + second
        more = add_words(more, cut)
        left = or_words(left, x - (cut - second))
    if union_words(left) << 1 != 0:
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
    if not _fold_twice(at, None, n, power, words):
        _fold_wholly(at, room_at, n, power, words)


@jit
def fold_singles(at, other_at, room_at, n, power, words):  # type: ignore[no-untyped-def]
    """Do what `fold` does with numbers, or with their products with others, that have few bits: one cut may be enough.

    ``other_at``: the other numbers, or None. Products must be exact.
    """
    if _fold_once(at, other_at, n, power, words):
        return
    fold_exact(at, other_at, room_at, n, power, words)


@jit
def fold_exact(at, other_at, room_at, n, power, words):  # type: ignore[no-untyped-def]
    """Do what `fold` does with products that are exact; ``other_at``: see `fold_singles`."""
    if _fold_twice(at, other_at, n, power, words):
        return
    if other_at is None:
        _fold_wholly(at, room_at, n, power, words)
        return
    for i in range(0, n, 8):
        store(room_at + 8 * i, load(at + 8 * i, 0.0) * load(other_at + 8 * i, 0.0), 0.0)
    _fold_wholly(room_at, room_at, n, power, words)


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
