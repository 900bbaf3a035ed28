"""Exponentials of differences, none of which is rounded first."""

from __future__ import annotations

import numpy as np
import pytest

import reference as ref
from fastxent.kernels.floats import FLOAT_TYPES
from fastxent.kernels.jit import jit
from fastxent.kernels.simd.arithmetic import fma
from fastxent.kernels.simd.exponentials import exp_framed, frames
from fastxent.kernels.simd.memory import load, store
from fastxent.kernels.simd.types import itemsize, lanes


@jit
def _framed(x, m, out, difference, tag):
    for i in range(0, x.size, lanes(tag)):
        at = i * itemsize(tag)
        frame = frames(load(m.ctypes.data + at, tag))
        d, power, u = exp_framed(load(x.ctypes.data + at, tag), frame)
        store(out.ctypes.data + at, fma(power, u, power), tag)
        store(difference.ctypes.data + at, d, tag)


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("around", [0.0, 1.0, 20.0, -249.9, 250.1, 1769.9, 1e4, 3e38])
def test_no_difference_is_rounded_before_its_exponential(kind, around):
    """Where x - m as it comes out in the dtype is off by a hundred units of the result."""
    rng = np.random.default_rng(int(abs(around)) % 1000)
    m = (around + rng.uniform(-1, 1, 4096)).astype(kind)
    x = (m - rng.uniform(0, 100, m.size)).astype(kind)
    x[:16] = m[:16]
    x[16:20] = np.array([-np.inf, np.nan, np.finfo(kind).min, np.nan], kind)
    out, difference = np.empty_like(x), np.empty_like(x)
    _framed(x, m, out, difference, FLOAT_TYPES[x.dtype.name].tag)
    assert np.isnan(out[[17, 19]]).all()
    assert (out[[16, 18]] >= 0).all()
    assert (out[[16, 18]] <= 2.0 ** ((56 - 170) if kind is np.float32 else (256 - 1200))).all()
    truth = np.exp(x.astype(ref.WIDE) - m.astype(ref.WIDE)) * 2.0 ** (56 if kind is np.float32 else 256)
    fine = np.r_[0:16, 20 : x.size]
    assert ref.ulp_error(out[fine], truth[fine], kind).max() <= 0.8
    assert (out[:16] == 2.0 ** (56 if kind is np.float32 else 256)).all()
    low = kind(-125 if kind is np.float32 else -885)
    np.testing.assert_array_equal(difference[fine], np.maximum(x[fine] - m[fine], low))
