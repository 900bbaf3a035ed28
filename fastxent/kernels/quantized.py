"""Rows of 16-bit codes back to float32: code · scale + floor, as llama.cpp reads its own files."""

from __future__ import annotations

import numpy as np

from fastxent.kernels.jit import jit


@jit
def dequantize(codes, scale, floor, out):  # type: ignore[no-untyped-def]
    """uint16 ``codes`` (n, at least C), float32 ``scale`` and ``floor`` (n,), float32 ``out`` (n, C). A product and a
    sum, each rounded: the same bits on every processor."""
    n, c = out.shape
    for i in range(n):
        a, b = scale[i], floor[i]
        for j in range(c):
            out[i, j] = np.float32(codes[i, j]) * a + b
