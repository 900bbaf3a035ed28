"""The largest of many halves."""

from __future__ import annotations

import numpy as np
import pytest

import reference as ref
from fastxent.kernels.floats import FLOAT_TYPES
from fastxent.kernels.jit import jit
from fastxent.kernels.simd.peaks import no_peak, peak, peak_of
from fastxent.kernels.simd.types import itemsize, lanes


@jit
def _peak(x, tag):
    found = no_peak(tag)
    for i in range(0, x.size, 2 * lanes(tag)):
        found = peak(found, x.ctypes.data + itemsize(tag) * i, tag)
    return peak_of(found, tag)


@pytest.mark.parametrize("name", ["float16", "bfloat16"])
def test_the_largest_half_is_found_among_their_bits(name):
    rng = np.random.default_rng(8)
    inf = np.inf
    rows = [rng.normal(size=64), -np.abs(rng.normal(size=64)), np.full(64, -inf), np.full(64, -0.0)]
    rows += [
        np.where(np.arange(64) == k, v, -1.0) for k in (0, 31, 32, 63) for v in (inf, 0.0, -0.0, -inf, 1e-7, -1e-7)
    ]
    for row in rows:
        halves = row.astype(ref.DTYPES[name])
        assert _peak(halves.view(np.uint16), FLOAT_TYPES[name].tag) == halves.astype(np.float32).max()
    some = rng.normal(size=64).astype(ref.DTYPES[name])
    some[5] = -np.float32(np.nan)
    bits = some.view(np.uint16)
    bits[5] |= 0x8000  # a NaN with a sign is passed over, one without a sign tells
    assert _peak(bits, FLOAT_TYPES[name].tag) == np.nanmax(some.astype(np.float32))
    bits[5] &= 0x7FFF
    assert np.isnan(_peak(bits, FLOAT_TYPES[name].tag))
