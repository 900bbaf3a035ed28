"""Numbers of one float type as another, rounded once, to nearest even. bfloat16 is its bits, as uint16."""

from __future__ import annotations

import numpy as np

from fastxent.kernels.floats import FLOAT_TYPES


def round_to(values: np.ndarray, dtype: str) -> np.ndarray:
    """float16, float32 or float64 ``values`` as ``dtype``; what is too large becomes infinite, NaN stays NaN."""
    with np.errstate(over="ignore", invalid="ignore"):
        if dtype != "bfloat16":
            return values.astype(dtype, copy=False)
        bits = (_to_odd(values) if values.dtype == np.float64 else values.astype(np.float32)).view(np.uint32)
        rounded = (bits + (((bits >> 16) & 1) + np.uint32(0x7FFF))) >> 16
        return np.where(np.isnan(values), FLOAT_TYPES[dtype].nan, rounded).astype(np.uint16)


def _to_odd(values: np.ndarray) -> np.ndarray:
    """float64 as float32, of the two neighbours the odd one: a second rounding then goes where a single one would."""
    near = np.ascontiguousarray(values, np.float32)
    bits = near.view(np.uint32)
    inexact = near != values
    odd: np.ndarray = (bits - (inexact & (np.abs(near) > np.abs(values)))) | inexact
    return odd.view(np.float32)
