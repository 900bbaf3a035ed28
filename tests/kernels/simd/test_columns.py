"""Tiles become columns and rows again, and never leave their memory."""

from __future__ import annotations

import numpy as np
import pytest

import reference as ref
from fastxent.kernels.floats import FLOAT_TYPES
from fastxent.kernels.jit import jit
from fastxent.kernels.simd.columns import load_columns, load_interleaved, store_columns, store_interleaved


@jit
def _turn(address, stride, last, count, scratch, out, out_stride, rows, tag):
    load_columns(address, stride, last, count, scratch.ctypes.data, tag)
    store_columns(out, out_stride, rows, count, scratch.ctypes.data, tag)


@pytest.mark.parametrize("dtype", ref.DTYPES)
def test_tiles_are_turned_and_turned_back(fenced, dtype):
    page, base = fenced
    kind, lanes = ref.DTYPES[dtype], 8 if dtype == "float64" else 16
    compute = np.float64 if dtype == "float64" else np.float32
    scratch = np.empty((lanes, lanes), compute)
    for count in range(1, lanes + 1):
        for rows in (1, 2, lanes - 1, lanes):
            values = (np.arange(rows * count) % 251).astype(kind).reshape(rows, count)
            start = page.size - values.nbytes
            page[start:] = values.reshape(-1).view(np.uint8)
            page[start - 64 : start] = 0xAB
            out = np.zeros((lanes, count), kind)
            stride = count * kind.itemsize
            _turn(base + start, stride, rows - 1, count, scratch, out.ctypes.data, stride, rows, FLOAT_TYPES[dtype].tag)
            wide = values.astype(compute)
            np.testing.assert_array_equal(scratch[:count, :rows].T, wide)
            np.testing.assert_array_equal(scratch[:count, rows:].T, np.repeat(wide[-1:], lanes - rows, axis=0))
            assert (scratch[count:] == -np.inf).all()
            np.testing.assert_array_equal(out[:rows], values)
            assert not out[rows:].astype(np.float32).any()
            page[start:] = 0  # write back at the fence
            _turn(out.ctypes.data, stride, rows - 1, count, scratch, base + start, stride, rows, FLOAT_TYPES[dtype].tag)
            assert (page[start:] == values.reshape(-1).view(np.uint8)).all()
            assert (page[start - 64 : start] == 0xAB).all()


@jit
def _part(address, n_classes, scratch, out, tag):
    load_interleaved(address, n_classes, scratch.ctypes.data, tag)
    store_interleaved(out, n_classes, scratch.ctypes.data, tag)


@pytest.mark.parametrize("dtype", ref.DTYPES)
def test_whole_tiles_of_few_columns_come_apart_and_together(fenced, dtype):
    page, base = fenced
    kind, lanes = ref.DTYPES[dtype], 8 if dtype == "float64" else 16
    for count in (1, 2, 3, 4):
        scratch = np.empty((count, lanes), np.float64 if dtype == "float64" else np.float32)
        values = (np.arange(lanes * count) % 251).astype(kind).reshape(lanes, count)
        start = page.size - values.nbytes
        page[start:] = values.reshape(-1).view(np.uint8)
        page[start - 64 : start] = 0xAB
        out = np.zeros((lanes, count), kind)
        _part(base + start, count, scratch, out.ctypes.data, FLOAT_TYPES[dtype].tag)
        np.testing.assert_array_equal(scratch.T, values.astype(scratch.dtype))
        np.testing.assert_array_equal(out, values)
        page[start:] = 0  # write back at the fence
        _part(out.ctypes.data, count, scratch, base + start, FLOAT_TYPES[dtype].tag)
        assert (page[start:] == values.reshape(-1).view(np.uint8)).all()
        assert (page[start - 64 : start] == 0xAB).all()
