"""Rows of numbers in memory, as kernels take them."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastxent.kernels.floats import FLOAT_TYPES


def address_of(array: np.ndarray | None) -> int:
    """Where an array's numbers begin in memory; 0 for None."""
    return 0 if array is None else array.__array_interface__["data"][0]


def like_any(array: np.ndarray) -> np.ndarray:
    """The same memory as an array that is not read-only, which kernels would be compiled for a second time.

    For what kernels only read. The caller keeps ``array``, which owns the memory.
    """
    if array.flags.writeable:
        return array
    if not array.size:
        return array.copy()
    memory: Any = (ctypes.c_char * array.nbytes).from_address(address_of(array))
    return np.frombuffer(memory, array.dtype).reshape(array.shape)


@dataclass(frozen=True)
class Matrix:
    """(n, C) numbers in memory: contiguous classes, rows ``stride`` bytes apart, any alignment."""

    values: np.ndarray  # keeps the memory alive; uint16 for bfloat16
    dtype: str

    @classmethod
    def of(cls, values: np.ndarray, dtype: str | None = None) -> Matrix:
        """From an (n, C) array of float32, float64, float16, or of 16-bit integers that hold bfloat16."""
        dtype = dtype or str(values.dtype)
        if values.ndim != 2 or dtype not in FLOAT_TYPES:
            raise TypeError(f"{values.ndim}-dimensional {dtype}; kernels take (n, C) of {', '.join(FLOAT_TYPES)}")
        if values.itemsize != FLOAT_TYPES[dtype].width:
            raise TypeError(f"{values.dtype} cannot hold {dtype}")
        if values.shape[1] > 1 and values.strides[1] != values.itemsize:
            values = np.ascontiguousarray(values)
        return cls(values, dtype)

    @property
    def n(self) -> int:
        return self.values.shape[0]

    @property
    def n_classes(self) -> int:
        return self.values.shape[1]

    @property
    def address(self) -> int:
        return address_of(self.values)

    @property
    def stride(self) -> int:
        return self.values.strides[0]

    @property
    def compute_dtype(self) -> np.dtype[Any]:
        return FLOAT_TYPES[self.dtype].compute
