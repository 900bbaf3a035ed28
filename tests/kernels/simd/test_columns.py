"""Tiles become columns and rows again, and never leave their memory."""

from __future__ import annotations

import numpy as np
import pytest

import reference as ref
from fastxent.kernels.floats import FLOAT_TYPES
from fastxent.kernels.jit import jit
from fastxent.kernels.simd.arithmetic import sum_lanes
from fastxent.kernels.simd.columns import (
    largest_of_rows,
    load_columns,
    load_interleaved,
    store_columns,
    store_interleaved,
    sums_of_rows,
)  # fmt: skip
from fastxent.kernels.simd.memory import load, store


@jit
def _turn(source, target, stride, rows, count, scratch, tag):
    load_columns(source, stride, rows - 1, count, scratch.ctypes.data, tag)
    store_columns(target, stride, rows, count, scratch.ctypes.data, tag)


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
            _turn(base + start, out.ctypes.data, stride, rows, count, scratch, FLOAT_TYPES[dtype].tag)
            wide = values.astype(compute)
            np.testing.assert_array_equal(scratch[:count, :rows].T, wide)
            np.testing.assert_array_equal(scratch[:count, rows:].T, np.repeat(wide[-1:], lanes - rows, axis=0))
            assert (scratch[count:] == -np.inf).all()
            np.testing.assert_array_equal(out[:rows], values)
            assert not out[rows:].astype(np.float32).any()
            page[start:] = 0  # write back at the fence
            _turn(out.ctypes.data, base + start, stride, rows, count, scratch, FLOAT_TYPES[dtype].tag)
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


@jit
def _fold(vectors, largest, sums, expected, tag):
    at = vectors.ctypes.data
    store(largest.ctypes.data, largest_of_rows(at, tag), tag)
    for h in range(0, largest.size, 8):
        store(sums.ctypes.data + h * 8, sums_of_rows(at + h * 64, tag), 0.0)
    for k in range(largest.size):
        expected[k] = sum_lanes(load(at + k * 64, tag))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_rows_of_a_tile_are_folded_into_lanes(dtype):
    lanes = 8 if dtype == "float64" else 16
    vectors = (np.random.default_rng(0).normal(size=(lanes, lanes)) * 10.0 ** np.arange(-4, lanes - 4)).astype(dtype)
    largest, sums, expected = np.empty(lanes, dtype), np.empty(lanes), np.empty(lanes)
    _fold(vectors, largest, sums, expected, FLOAT_TYPES[dtype].tag)
    np.testing.assert_array_equal(largest, vectors.max(axis=1))
    np.testing.assert_array_equal(sums, expected)
    np.testing.assert_allclose(sums, vectors.astype(np.float64).sum(axis=1), rtol=1e-12)
