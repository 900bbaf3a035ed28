"""Dense sums of groups, and their products, summed over groups: see `dense`."""

from __future__ import annotations

import numpy as np

from fastxent.kernels.exact import MASK
from fastxent.kernels.jit import jit
from fastxent.kernels.simd.prefetch import prefetch

GROUPS = 63  # groups whose sums are multiplied at a time
_AHEAD = 8  # groups whose sums are prefetched
_ZERO, _HALF, _MASK = np.uint64(0), np.uint64(32), np.uint64(MASK)


@jit
def _lay_out_groups(held, groups, begin, n, space, flags):  # type: ignore[no-untyped-def]
    """Write the sizes and the signs of the sums of ``n`` groups from ``begin`` on to ``space``: a tuple of

    halves: int64 (columns, 2 · words, GROUPS + 1). Halves of words; the last tells whether any is not 0.
    signs: int64 (columns, GROUPS + 1). -1 or 0; the last tells whether any is -1.
    """
    words, special = held
    halves, signs = space
    columns, width = words.shape[1], words.shape[2]
    address, row = words.ctypes.data, words.shape[1] * words.shape[2] * 8
    for i in range(n):
        g = groups[begin + i]
        if begin + i + _AHEAD < groups.size:
            ahead = address + groups[begin + i + _AHEAD] * row
            for line in range(0, row + 63, 64):
                prefetch(ahead + line)
        for k in range(columns):
            flags[k] |= special[g, k]
            sign = np.int64(words[g, k, width - 1]) >> 63
            signs[k, i] = sign
            carry = np.uint64(sign & 1)
            for t in range(width):
                word = (words[g, k, t] ^ np.uint64(sign)) + carry
                carry &= np.uint64(word == _ZERO)
                halves[k, 2 * t, i] = np.int64(word & _MASK)
                halves[k, 2 * t + 1, i] = np.int64(word >> _HALF)
    for k in range(columns):
        some = np.int64(0)
        for i in range(n):
            some |= signs[k, i]
        signs[k, -1] = some
        for t in range(2 * width):
            some = np.int64(0)
            for i in range(n):
                some |= halves[k, t, i]
            halves[k, t, -1] = some


@jit
def sum_products(held, groups, pairs, space, totals):  # type: ignore[no-untyped-def]
    """Add the sums of these groups, and the products of their sums ``pairs``, to words of 32 bits without carries.

    held: (words, special). space: see `_lay_out_groups`, for `GROUPS` groups.
    totals: int64 (columns, 2 · words), int64 (pairs, 4 · words), and flags, uint8 (columns,).
    """
    halves, signs = space
    sums, products, flags = totals
    columns, width = halves.shape[0], halves.shape[1]
    for begin in range(0, groups.size, GROUPS):
        n = min(GROUPS, groups.size - begin)
        _lay_out_groups(held, groups, begin, n, space, flags)
        for k in range(columns):
            for t in range(width):
                total = np.int64(0)
                for i in range(n):
                    total += (halves[k, t, i] ^ signs[k, i]) - signs[k, i]
                sums[k, t] += total
        for p in range(pairs.shape[0]):
            a, b = pairs[p, 0], pairs[p, 1]
            square, negative = a == b, signs[a, -1] | signs[b, -1]
            for s in range(width):
                for t in range(s if square else 0, width):
                    if not (halves[a, s, -1] and halves[b, t, -1]):
                        continue
                    low, high = np.int64(0), np.int64(0)
                    for i in range(n):
                        product = np.uint64(halves[a, s, i]) * np.uint64(halves[b, t, i])
                        if not negative:
                            low += np.int64(product & _MASK)
                            high += np.int64(product >> _HALF)
                        else:
                            sign = signs[a, i] ^ signs[b, i]
                            low += (np.int64(product & _MASK) ^ sign) - sign
                            high += (np.int64(product >> _HALF) ^ sign) - sign
                    times = 1 + (square and s < t)
                    products[p, s + t] += times * low
                    products[p, s + t + 1] += times * high
