"""Exact sums by place, each as a few integers: for many numbers of everyday size that go to few places.

A number below 2**16 is cut at four bits, and what lies between two of them is an integer of at most 41 bits, so that
2**22 of them may be added. What reaches further down, is larger or is not finite is handed back.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fastxent.kernels.exact import EVERY, SCALE, carry
from fastxent.kernels.fold import BLOCK
from fastxent.kernels.summed import add_integer
from fastxent.kernels.jit import jit
from fastxent.kernels.simd.words import whole, word_of

MOST_ROWS = 1 << 22
WIDTH = 5  # integers of a sum: ones, then multiples of each unit
_UNITS = (0, -24, -65, -106, -147)
_BITS = tuple(SCALE + unit for unit in _UNITS)
FIRST, MIDDLE, END = _BITS[4] >> 5, _BITS[3] >> 5, (_BITS[0] >> 5) + 3  # limbs that sums reach; few need the first
_S1, _S2, _S3, _S4 = (1.5 * 2.0 ** (unit + 52) for unit in _UNITS[1:])  # what cuts a number at a unit: see `fold`
_W1, _W2, _W3, _W4 = (int(np.float64(s).view(np.int64)) for s in (_S1, _S2, _S3, _S4))
_MOST, _SMALL = 65536.0, 2.0**-65  # of what is cut at the first unit, and at the third

ROWS = 3 * WIDTH  # in a place of calibration: its rows, behind three sums
PLACE = ROWS + 1


class Cuts(NamedTuple):
    """Sums of some places, and what is left of numbers: see `add_block`."""

    sums: np.ndarray
    left: tuple[np.ndarray, np.ndarray, np.ndarray]

    @classmethod
    def zeros(cls, places: int, width: int, numbers: int) -> Cuts:
        """No sums, and room for what is left of so many numbers."""
        left = np.empty(numbers), np.empty(numbers, np.int64), np.zeros(1, np.int64)
        return cls(np.zeros((places, width), np.int64), left)

    def together(self, places: int) -> Cuts:
        """The sums of every ``places``-th place together."""
        width = self.sums.shape[1]
        values, at, count = self.left
        at = at[: count[0]] % (places * width)
        return Cuts(self.sums.reshape(-1, places, width).sum(axis=0), (values, at, count))


def room() -> tuple[np.ndarray, np.ndarray]:
    """Room for a block: numbers and rests; places and what two cuts take."""
    return np.empty((2, BLOCK)), np.empty((3, BLOCK), np.int64)


def add_units(numbers: np.ndarray, bits: int, sums: np.ndarray) -> None:
    """Add whole numbers (places,), in units of 2**-``bits`` from 2**-24 to 2**-65, to the first sum of each place."""
    finer = bits + _UNITS[1]
    sums[:, 1] += numbers >> finer
    sums[:, 2] += (numbers & ((1 << finer) - 1)) << (-_UNITS[2] - bits)


@jit
def _cut_block(numbers, n, rests, first, second):  # type: ignore[no-untyped-def]
    """What two cuts take off each number, and the rest; whether there is any."""
    some = 0
    for i in range(n):
        x = numbers[i]
        fine = abs(x) < _MOST
        rest = x if fine else 0.0
        upper = rest + _S1
        first[i] = word_of(upper) - _W1
        rest = rest - (upper - _S1)
        upper = rest + _S2
        second[i] = word_of(upper) - _W2
        rest = rest - (upper - _S2)
        rest = rest if fine else x
        rests[i] = rest
        some += rest != 0.0
    return some > 0


@jit
def add_block(numbers, places, n, offset, sums, left, space):  # type: ignore[no-untyped-def]
    """Add each number to the sum that begins at ``offset`` of its place.

    sums: int64 (places, integers). left: a tuple of float64, int64 and int64 (1,): rests, the flat index of the sum of
    each, and their number. space: see `room`.
    """
    flat, step = sums.reshape(sums.size), sums.shape[1]
    rests, first, second = space[0][1], space[1][1], space[1][2]
    some = _cut_block(numbers, n, rests, first, second)
    for i in range(n):
        at = np.uint64(places[i] * step + offset)
        flat[at + np.uint64(1)] += first[i]
        flat[at + np.uint64(2)] += second[i]
    if not some:
        return
    for i in range(n):
        rest = rests[i]
        if rest == 0.0:
            continue
        at = np.uint64(places[i] * step + offset)
        if abs(rest) < _SMALL:
            upper = rest + _S3
            flat[at + np.uint64(3)] += word_of(upper) - _W3
            rest = rest - (upper - _S3)
            upper = rest + _S4
            flat[at + np.uint64(4)] += word_of(upper) - _W4
            rest = rest - (upper - _S4)
        if rest != 0.0:
            left[0][left[2][0]], left[1][left[2][0]] = rest, at
            left[2][0] += 1


@jit
def cut_column(values, codes, sums, left, space):  # type: ignore[no-untyped-def]
    """Add ``values[i]`` to the sum ``codes[i]`` of ``sums`` (places, WIDTH); ``left``, ``space``: see `add_block`."""
    for begin in range(0, values.size, BLOCK):
        n = min(BLOCK, values.size - begin)
        add_block(values[begin : begin + n], codes[begin : begin + n], n, 0, sums, left, space)


@jit
def find_bins(confidence, bins, places):  # type: ignore[no-untyped-def]
    """The bin k of each number, above k/bins and up to (k + 1)/bins; of what lies beyond, the first or the last, and of
    NaN the last. Bins are as wide as each other, so the place of a number follows from it, within one bin."""
    count = np.float64(bins)
    last = count - 1.0
    for i in range(confidence.size):
        x = confidence[i]
        k = np.floor(x * count)
        k = k if k < last else last
        k = k if k > 0.0 else 0.0
        k = k + 1.0 if (x > (k + 1.0) / count) & (k < last) else k
        k = k - 1.0 if (x <= k / count) & (k > 0.0) else k
        places[i] = whole(k)


@jit
def tally_calibration(rows, codes, bins, sums, left, space):  # type: ignore[no-untyped-def]
    """Count rows and sum w·confidence, w·right and w by group and bin of the confidence.

    rows: a tuple of confidence, float64 (n,); rank, int64, right is 0, or empty: none is; positive, float64, how much
        a row is right, or empty: its rank tells; weight, float64, or empty: 1.
    codes: int64 groups (n,), or empty: 0.
    sums: int64 (groups · bins, PLACE): three sums and the number of rows. Without weights the third sum is not made.
    left, space: see `add_block`.
    """
    confidence, rank, positive, weight = rows
    flat = sums.reshape(sums.size)
    numbers, places = space[0][0], space[1][0]
    for begin in range(0, confidence.size, BLOCK):
        n = min(BLOCK, confidence.size - begin)
        find_bins(confidence[begin : begin + n], bins, places)
        if codes.size:
            for i in range(n):
                places[i] += codes[begin + i] * bins
        for i in range(n):
            flat[np.uint64(places[i] * PLACE + ROWS)] += 1
        if not weight.size:
            add_block(confidence[begin : begin + n], places, n, 0, sums, left, space)
        else:
            for i in range(n):
                numbers[i] = confidence[begin + i] * weight[begin + i]
            add_block(numbers, places, n, 0, sums, left, space)
            add_block(weight[begin : begin + n], places, n, 2 * WIDTH, sums, left, space)
        if weight.size or positive.size:
            for i in range(n):
                right = positive[begin + i] if positive.size else 0.0
                if rank.size and not positive.size:
                    right = 1.0 if rank[begin + i] == 0 else 0.0
                numbers[i] = right * weight[begin + i] if weight.size else right
            add_block(numbers, places, n, WIDTH, sums, left, space)
        elif rank.size:
            for i in range(n):
                flat[np.uint64(places[i] * PLACE + WIDTH)] += rank[begin + i] == 0


@jit
def add_cuts(sums, slot, held):  # type: ignore[no-untyped-def]
    """Add the sum of each place (places, WIDTH) to one of those of a group: see `grouped.ExactSums`.

    held: a tuple (limbs, base, special, pending), whose window reaches over what the sums need.
    """
    limbs, base, _, pending = held
    for g in range(sums.shape[0]):
        some = False
        for k in range(WIDTH):
            if sums[g, k]:
                some = True
                add_integer(limbs[g, slot], sums[g, k], _BITS[k] - 32 * base)
        if some:
            pending[g] += 1
            if pending[g] >= EVERY // 2:
                pending[g] = 0
                for k in range(limbs.shape[1]):
                    carry(limbs[g, k], limbs.shape[2])
