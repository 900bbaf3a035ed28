"""Pairs of rows through the kernels: proves that two passes fit together, and runs them over rows side by side."""

from __future__ import annotations

import functools

import numba
import numpy as np

from fastxent.kernels.floats import FLOAT_TYPES
from fastxent.kernels.launch import RowPass
from fastxent.kernels.rows import called
from fastxent.kernels.rows.divergences import FIELDS, divergences_kernel
from fastxent.kernels.rows.pair_sweep import pair_sweep
from fastxent.kernels.rows.record import LOG_PROBS

CHUNK_BYTES = 1 << 18  # of the logits of both: they stay in the second-level cache


def sweep_pairs(a: RowPass, b: RowPass, out: np.ndarray, column: int, *, floor: bool = False) -> None:
    """Fill the records of two passes, and ``out`` (`divergences.FIELDS`, rows) from ``column`` on, with all their rows.

    Both passes keep every row, read the same number of rows and classes, and shape them alike.

    floor: bool. KL without the classes that llama.cpp omits; for log-probabilities.
    """
    left, right = a.logits, b.logits
    if (left.n, left.n_classes) != (right.n, right.n_classes) or left.compute_dtype != right.compute_dtype:
        raise TypeError("the two are not of one shape and compute type")
    shapes = [(o.mode, o.softcap, o.temperature, o.class_mask is None) for o in (a.options, b.options)]
    if shapes[0] != shapes[1] or not np.array_equal(a.options.class_mask, b.options.class_mask):  # type: ignore[arg-type]
        raise TypeError("the two are shaped differently")
    if floor and a.options.mode != LOG_PROBS:
        raise TypeError("the floor is one of log-probabilities")
    for take in (a, b):
        take.check(0, left.n)
        if not (take.keeps and take.full and take.offset >= 0 and take.offset + left.n <= len(take.status)):
            raise IndexError("a pass has no room for the records of its rows")
    fits = out.dtype == np.float64 and out.flags.c_contiguous and out.ndim == 2 and out.shape[0] == FIELDS
    if not fits or not 0 <= column <= column + left.n <= out.shape[1]:
        raise IndexError("there is no room for the divergences")
    pair_bytes = left.n_classes * (left.values.itemsize + right.values.itemsize)
    chunk = max(1, min(a.chunk, b.chunk, CHUNK_BYTES // pair_bytes))
    _, shaped, mode = a.flags
    divergences = _divergences_at((shaped, mode, floor), left.dtype, right.dtype)
    kernels = a.kernel_at(), b.kernel_at(), divergences
    held = tuple(a.buffers()), tuple(b.buffers())
    pair_sweep((left.n, chunk), kernels, a.arguments(), held[0], b.arguments(), held[1], out, column)


@functools.cache
def _divergences_at(flags: tuple[bool, int, bool], dtype: str, dtype_b: str) -> int:
    """Address of the divergences kernel. flags: shaped, mode, floor."""
    shaped, mode, floor = flags
    types = [FLOAT_TYPES[name] for name in (dtype, dtype_b)]
    kernel = divergences_kernel(shaped, mode, types[0].compute == np.float64, floor)
    return called.address(kernel, called.divergence_types(*(numba.typeof(kind.tag) for kind in types)))
