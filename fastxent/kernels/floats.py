"""The float types that logits may have, in one table, and how half precision is widened.

NumPy and Numba have no bfloat16: it is held as its bits, in 16-bit integers. Nothing is imported here but NumPy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class FloatType:
    """One float type.

    name: str. As users write it.
    stored: dtype. The NumPy type that holds its numbers; uint16 for bfloat16.
    compute: dtype. The NumPy type that kernels compute in.
    epsilon: float. The distance from 1 to the next number.
    nan: int. The bits of a quiet NaN.
    tag: scalar. What tells kernels, by its Numba type, what lies in memory: see `simd.types`.
    arrow: str. Arrow's name of the element type.
    """

    name: str
    stored: np.dtype[Any]
    compute: np.dtype[Any]
    epsilon: float
    nan: int
    tag: Any
    arrow: str

    @property
    def width(self) -> int:
        """Bytes of one number."""
        return self.stored.itemsize

    @property
    def as_bits(self) -> bool:
        """Whether the numbers are held as integers, so that a column of them needs a tag."""
        return self.stored.kind == "u"

    @property
    def missing(self) -> Any:
        """NaN, as a scalar of the stored type."""
        return np.array(self.nan, f"u{self.width}").view(self.stored)[()]

    def widen(self, values: np.ndarray) -> np.ndarray:
        """``values`` of the stored type: half precision as float32, float32 and float64 as they are."""
        if self.as_bits:
            return (values.astype(np.uint32) << 16).view(np.float32)
        return values.astype(self.compute, copy=False)


_SINGLE, _DOUBLE = np.dtype(np.float32), np.dtype(np.float64)

FLOAT_TYPES = {
    kind.name: kind
    for kind in (
        FloatType("float16", np.dtype(np.float16), _SINGLE, 2.0**-10, 0x7E00, np.uint16(0), "float16"),
        FloatType("bfloat16", np.dtype(np.uint16), _SINGLE, 2.0**-7, 0x7FC0, np.int16(0), "uint16"),
        FloatType("float32", _SINGLE, _SINGLE, 2.0**-23, 0x7FC00000, np.float32(0), "float32"),
        FloatType("float64", _DOUBLE, _DOUBLE, 2.0**-52, 0x7FF8 << 48, np.float64(0), "float64"),
    )
}


def widened(values: np.ndarray, dtype: str) -> np.ndarray:
    """Half precision as float32; float32 and float64 as they are. ``dtype``: the name of the float type."""
    return FLOAT_TYPES[dtype].widen(values)
