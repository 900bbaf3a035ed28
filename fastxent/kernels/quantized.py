"""Rows of 16-bit codes back to float32: code · scale + floor, as llama.cpp reads its own files."""

from __future__ import annotations

import numpy as np

from fastxent.kernels.jit import jit


@jit
def dequantize(rows, first, scale, floor, out):  # type: ignore[no-untyped-def]
    """uint16 ``rows`` (n, at least first + C), whose codes begin at ``first``; float32 ``scale`` and ``floor`` (n,);
    float32 ``out`` (n, C). A product and a sum, each rounded: the same bits on every processor."""
    n, c = out.shape
    for i in range(n):
        a, b = scale[i], floor[i]
        codes, to = rows[i, first : first + c], out[i]  # as one array of two dimensions they would not be vectorised
        for j in range(c):
            to[j] = np.float32(codes[j]) * a + b
