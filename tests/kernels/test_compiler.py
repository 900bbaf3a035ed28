"""The compiler's own steps leave results as Numba makes them."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import pytest
from numba.core.compiler import Compiler

from fastxent.kernels.jit import _POLICY, inline, jit


@inline
def twice(x):  # type: ignore[no-untyped-def]
    y = x
    for _ in range(2):
        y = y + x
    return y


@inline
def mixed(x, k):  # type: ignore[no-untyped-def]
    y = twice(x) if k else x
    return min(y, twice(k))


def total(values, k):  # type: ignore[no-untyped-def]
    s = 0.0
    for i in range(len(values)):
        s += mixed(values[i], k) + twice(s) * mixed(k, i)
    return s


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.int64])
def test_results_are_those_of_numba(dtype: Any) -> None:
    """Helpers in helpers, the same one at several places, for several types one after the other."""
    values = np.linspace(-3, 3, 17).astype(dtype)
    own, numbas = jit(total), numba.njit(**{**_POLICY, "pipeline_class": Compiler})(total)
    for k in (0, 2):
        assert own(values, k) == numbas(values, k)
        assert own(values, k) == pytest.approx(total(values, k), rel=1e-5)
    assert own.nopython_signatures == numbas.nopython_signatures
