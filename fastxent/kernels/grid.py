"""Counts of rows and sums of their confidence on a fine grid: what calibration beyond a few bins is computed from.

A place of the grid is the part of a cell that lies in one bin: there are 2**bits equal cells of the confidence and some
equal bins, both (lower, upper]. Cell and bin of a number rise with it, so their sum is its place.

A word holds the rows of a place that are right, or those that are not: their number from bit `SHIFT` on, and below it
the sum of their offsets. An offset is how far the confidence lies above its cell, rounded up to 2**-`OFFSET_BITS` of a
cell. So one addition counts a row, and up to `MOST_ROWS` rows fit.
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import numpy as np

from fastxent.kernels.cuts import find_bins
from fastxent.kernels.fold import BLOCK
from fastxent.kernels.jit import jit
from fastxent.kernels.simd.arithmetic import count_ge, floor, splat, vmax
from fastxent.kernels.simd.fields import load_wide
from fastxent.kernels.simd.memory import load, store
from fastxent.kernels.simd.words import whole, whole_words

SHIFT, OFFSET_BITS, MOST_ROWS = 42, 21, 1 << 20
_TINY = 2.0**-60
WHOLE_BITS, SLICE_BITS = 12, 8  # 4,096 cells of all rows, 256 of a slice


def places_of(bits: int, bins: int) -> int:
    """Places of a grid."""
    return (1 << bits) + bins - 1


class Layout(NamedTuple):
    """What the places of a grid are.

    bins: int64 (bins,). The first place of each bin.
    cells: int64 (cells,). The first place of each cell.
    """

    bins: np.ndarray
    cells: np.ndarray


@functools.lru_cache(maxsize=16)
def layout_of(bits: int, bins: int) -> Layout:
    """The layout of a grid. A place is that of its cell and of its bin together, so each begins where the other is."""
    edges = np.arange(1 << bits) / (1 << bits), np.arange(bins) / bins
    cells, first = (np.arange(len(a)) + np.searchsorted(b[1:], a) for a, b in (edges, edges[::-1]))
    return Layout(first, cells)


def room() -> tuple[np.ndarray, np.ndarray]:
    """Room for a block of `tally_grid`: how far its rows are right; bins and what is added."""
    return np.empty(BLOCK), np.empty((2, BLOCK), np.int64)


@jit
def add_to_grid(confidence, right, places, bits, words, more):  # type: ignore[no-untyped-def]
    """Add rows to ``words`` (places · 2,).

    A number beyond 0..1 counts as 0 or 1. right: float64 (n,), 1 or 0. places: int64 bins; they are lost. more: room.
    """
    n, top = confidence.size, np.float64(1 << (bits + OFFSET_BITS))
    for i in range(n):  # whole numbers as floats: vectors convert them to integers by their bits alone
        x = confidence[i]
        x = x if x < 1.0 else 1.0
        x = x if x > 0.0 else 0.0
        number = -np.floor(-x * top)
        cell = np.floor((number - 1.0) * 2.0**-OFFSET_BITS)
        cell = cell if cell > 0.0 else 0.0
        more[i] = whole(number - cell * 2.0**OFFSET_BITS) + (1 << SHIFT)
        places[i] = 2 * (places[i] + whole(cell)) + whole(right[i])
    for i in range(n):
        words[np.uint64(places[i])] += more[i]


@jit
def add_singles(confidence, right, n, bins, bits, words, room):  # type: ignore[no-untyped-def]
    """Do what `add_to_grid` does with the first ``n`` of float32 numbers from 0 to 1.

    Their products with a number of bins are exact, so the bin of each is that of `cuts.find_bins`.
    confidence, right: float32, contiguous, a multiple of 8 numbers. room: int64 (2, as many).
    """
    zero, one, step = splat(0.0, 0.0), splat(1.0, 0.0), splat(2.0**OFFSET_BITS, 0.0)
    top, count = splat(-math.ldexp(1.0, bits + OFFSET_BITS), 0.0), splat(-np.float64(bins), 0.0)
    part, row, tag = splat(2.0**-OFFSET_BITS, 0.0), splat(2.0**SHIFT, 0.0), np.float32(0.0)
    places, more = room
    at, right_at, places_at, more_at = (
        confidence.ctypes.data,
        right.ctypes.data,
        places.ctypes.data,
        more.ctypes.data,
    )
    for i in range(0, n, 8):
        x = load_wide(at + 4 * i, tag)
        number = zero - floor(x * top)
        cell = vmax(floor((number - one) * part), zero)
        k = vmax((zero - floor(x * count)) - one, zero)
        place = (k + cell) + (k + cell)
        store(more_at + 8 * i, whole_words((number - cell * step) + row), 0.0)
        store(places_at + 8 * i, whole_words(place + load_wide(right_at + 4 * i, tag)), 0.0)
    for i in range(n):
        words[np.uint64(places[i])] += more[i]


@jit
def list_residues(confidence, n, bins, bits, numbers, places):  # type: ignore[no-untyped-def]
    """Numbers that, added to what `add_singles` sums by bin, make those sums exact; how many there are.

    confidence: float32, a multiple of 16 numbers from 0 to 1, of which ``n`` count. numbers, places: room for 2n
    numbers and their bins.
    """
    top, found = np.float64(1 << (bits + OFFSET_BITS)), 0
    exact = math.ldexp(1.0, 23 - bits - OFFSET_BITS)  # numbers from here on are multiples of 1 / top
    tag = np.float32(0.0)
    least = splat(exact, tag)
    for begin in range(0, n, 16):
        if count_ge(load(confidence.ctypes.data + 4 * begin, tag), least) == 16:
            continue
        for i in range(begin, min(begin + 16, n)):
            x = np.float64(confidence[i])
            if x >= exact:
                continue
            up = -np.floor(-x * top) / top
            k = max(-np.floor(-x * bins) - 1.0, 0.0)
            if x < _TINY:  # the difference may have too many bits for a double
                numbers[found], places[found] = x, k
                found += 1
                x = 0.0
            numbers[found], places[found] = x - up, k
            found += x != up
    return found


def by_bin(words: np.ndarray, bins: int) -> tuple[np.ndarray, np.ndarray]:
    """(rows by bin, wrong and right, int64 (bins, 2); their confidence, rounded up: see `_sum_bins`) of all rows.

    words: of `add_to_grid`, of `WHOLE_BITS`.
    """
    rows, numbers = np.zeros((bins, 2), np.int64), np.zeros(bins, np.int64)
    _sum_bins(words.reshape(-1, 2), layout_of(WHOLE_BITS, bins).bins, rows, numbers)
    return rows, numbers


@jit
def _sum_bins(words, firsts, rows, numbers):  # type: ignore[no-untyped-def]
    """Add up ``words`` (places, 2) by bin: rows into ``rows`` int64 (bins, 2), and their confidence, rounded up, in
    units of 2**-(bits + `OFFSET_BITS`), into ``numbers`` int64 (bins,). firsts: the bins of `layout_of`."""
    last = firsts.size - 1
    for k in range(firsts.size):
        for place in range(firsts[k], words.shape[0] if k == last else firsts[k + 1]):
            for side in range(2):
                word = words[place, side]
                count = word >> SHIFT
                rows[k, side] += count
                numbers[k] += (word & ((1 << SHIFT) - 1)) + ((count * (place - k)) << OFFSET_BITS)


@jit
def tally_grid(rows, codes, layout, words, space):  # type: ignore[no-untyped-def]
    """Add rows by group and place of the grid: see `add_to_grid`.

    rows: a tuple of confidence, rank and positive: see `cuts.tally_calibration`. Positive is 1 or 0.
    codes: int64 groups (n,), or empty: 0.
    layout: a tuple of the bits of a cell and the number of bins.
    words: int64 (groups · places · 2,). space: see `room`.
    """
    confidence, rank, positive = rows
    (bits, bins), (right, numbers) = layout, space
    width = (1 << bits) + bins - 1
    for begin in range(0, confidence.size, BLOCK):
        n = min(BLOCK, confidence.size - begin)
        some = confidence[begin : begin + n]
        find_bins(some, bins, numbers[0])
        if codes.size:
            groups = codes[begin : begin + n]
            for i in range(n):
                numbers[0, i] += groups[i] * width
        if positive.size:
            positives = positive[begin : begin + n]
            for i in range(n):  # an assignment of the slice compiles a message about shapes too: 5 s
                right[i] = positives[i]
        else:
            ranks = rank[begin : begin + n]
            for i in range(n):
                right[i] = 1.0 if ranks[i] == 0 else 0.0
        add_to_grid(some, right[:n], numbers[0, :n], bits, words, numbers[1])
