"""Half precision over every bit pattern; loads and stores that never leave their memory."""

from __future__ import annotations

import numpy as np
import pytest

import reference as ref
from fastxent.kernels.floats import FLOAT_TYPES
from fastxent.kernels.jit import jit
from fastxent.kernels.simd.fields import store_wide
from fastxent.kernels.simd.memory import load, load_first, load_scalar, store, store_first
from fastxent.kernels.simd.types import lanes


@jit
def _widen(x, out, tag):
    for i in range(0, x.size, lanes(tag)):
        store(out.ctypes.data + i * 4, load(x.ctypes.data + i * 2, tag), np.float32(0))


@jit
def _round(x, out, tag):
    for i in range(0, x.size, lanes(tag)):
        store(out.ctypes.data + i * 2, load(x.ctypes.data + i * 4, np.float32(0)), tag)


@jit
def _scalars(x, out, tag):
    for i in range(x.size):
        out[i] = load_scalar(x.ctypes.data + i * 2, tag)


INFINITE = {"float16": 0x7C00, "bfloat16": 0x7F80}


def same_halves(bits: np.ndarray, truth: np.ndarray, nan: np.ndarray, name: str) -> None:
    """The same patterns; where NaN is due, any that is one."""
    np.testing.assert_array_equal(bits[~nan], truth[~nan])
    assert ((bits[nan] & 0x7FFF) > INFINITE[name]).all()


@pytest.mark.parametrize("name", INFINITE)
def test_every_half_is_widened_exactly(name):
    bits = np.arange(1 << 16, dtype=np.uint16)
    truth = bits.view(ref.DTYPES[name]).astype(np.float32)
    for kernel in (_widen, _scalars):
        out = np.empty(bits.size, np.float32)
        kernel(bits, out, FLOAT_TYPES[name].tag)
        np.testing.assert_array_equal(ref.bits_of(out), ref.bits_of(truth))
    back = np.empty_like(bits)
    _round(truth, back, FLOAT_TYPES[name].tag)
    same_halves(back, bits, np.isnan(truth), name)


@pytest.mark.parametrize("name", INFINITE)
def test_float32_is_rounded_to_the_nearest_half(name):
    """All upper halves of a float32, with every tail at which rounding to either type may turn."""
    tails = np.unique([0, 1, 2, 0xFFE, 0xFFF, 0x1000, 0x1001, 0x1FFF, 0x2000, 0x3000, 0x5000, 0x7000, 0x7FFF, 0x8000,
                       0x8001, 0x9000, 0xB000, 0xD000, 0xF000, 0xFFFF])  # fmt: skip
    upper = np.arange(1 << 16, dtype=np.uint32) << 16
    for tail in tails.astype(np.uint32):
        x = (upper | tail).view(np.float32)
        out = np.empty(x.size, np.uint16)
        _round(x, out, FLOAT_TYPES[name].tag)
        with np.errstate(all="ignore"):
            truth = x.astype(ref.DTYPES[name])
        same_halves(out, truth.view(np.uint16), np.isnan(x), name)


@jit
def _first(address, count, out, tag):
    y = load_first(address, count, tag)
    store_wide(out.ctypes.data, lanes(tag), y)
    store_first(address, count, y, tag)


@pytest.mark.parametrize("dtype", ref.DTYPES)
def test_partial_vectors_at_the_end_of_memory(fenced, dtype):
    page, base = fenced
    item = ref.DTYPES[dtype].itemsize
    lanes = 8 if dtype == "float64" else 16
    for count in range(lanes + 1):
        values = np.arange(1, count + 1).astype(ref.DTYPES[dtype])
        start = page.size - count * item
        page[start:] = values.view(np.uint8)
        page[start - 64 : start] = 0xAB
        out = np.zeros(lanes)
        _first(base + start, count, out, FLOAT_TYPES[dtype].tag)
        assert out.tolist() == [*range(1, count + 1), *[-np.inf] * (lanes - count)]
        assert (page[start:] == values.view(np.uint8)).all()
        assert (page[start - 64 : start] == 0xAB).all()
