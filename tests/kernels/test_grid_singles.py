"""The grid of float32 numbers has the places of other numbers, and gives exact sums by bin."""

from fractions import Fraction

import numpy as np
import pytest

from fastxent.kernels.cuts import find_bins
from fastxent.kernels.grid import (
    OFFSET_BITS,
    WHOLE_BITS,
    add_singles,
    add_to_grid,
    by_bin,
    list_residues,
    places_of,
)


def numbers(bins):
    """Float32 numbers around the edges of bins and cells, and from the whole range of the type."""
    rng = np.random.default_rng(bins)
    edges = np.concatenate([np.arange(bins + 1) / bins, np.arange(4097) / 4096]).astype(np.float32)
    rest = [rng.random(500), rng.random(500) * 2.0**-10, 2.0 ** rng.uniform(-149, 0, 500), [2.0**-149, 0.0, -0.0]]
    near = [np.nextafter(edges, np.float32(2)), edges, np.nextafter(edges, np.float32(-1))]
    found = np.concatenate([*near, *rest]).astype(np.float32)
    return np.clip(found, 0, 1)


def padded(x):
    """With zeros behind them, to whole vectors."""
    return np.pad(x.astype(np.float32), (0, -len(x) % 16))


@pytest.mark.parametrize("bins", [1, 7, 15, 100, 10_000])
def test_float32_numbers_have_the_places_of_others(bins):
    singles = padded(numbers(bins))
    x = numbers(bins).astype(np.float64)
    right = (np.arange(len(x)) % 3 == 0).astype(np.float64)
    found, expected = np.zeros((2, places_of(WHOLE_BITS, bins) * 2), np.int64)
    places = np.empty(len(x), np.int64)
    find_bins(x, bins, places)
    bin_of = places.copy()
    add_to_grid(x, right, places, WHOLE_BITS, expected, np.empty(len(x), np.int64))
    add_singles(singles, padded(right), len(x), bins, WHOLE_BITS, found, np.empty((2, len(singles)), np.int64))
    assert (found == expected).all()

    residues, at = np.empty(2 * len(x)), np.empty(2 * len(x), np.int64)
    count = list_residues(singles, len(x), bins, WHOLE_BITS, residues, at)
    rows, totals = by_bin(found, bins)
    assert (rows[:, 1] == np.bincount(bin_of[right == 1], minlength=bins)).all()
    assert rows.sum() == len(x)
    sums = [Fraction(int(total), 1 << (WHOLE_BITS + OFFSET_BITS)) for total in totals]
    for k, value in zip(at[:count].tolist(), residues[:count].tolist(), strict=True):
        sums[k] += Fraction(value)
    for k, value in zip(bin_of.tolist(), x.tolist(), strict=True):
        sums[k] -= Fraction(value)
    assert not any(sums)
