"""The numbers of a row as kernels see them: read, shaped by softcap and temperature, and prefetched."""

from __future__ import annotations

import numpy as np

from fastxent.kernels.jit import inline
from fastxent.kernels.rows.record import PROBS
from fastxent.kernels.simd.arithmetic import select_eq, select_gt, splat
from fastxent.kernels.simd.exponentials import log, tanh
from fastxent.kernels.simd.fields import load_flags
from fastxent.kernels.simd.memory import load_first
from fastxent.kernels.simd.prefetch import goes_on_in_page, prefetch, prefetch_far
from fastxent.kernels.simd.types import itemsize

VECTOR = 64  # bytes
NEAR, FAR, PAGE = 3 << 9, 1 << 13, 1 << 12  # bytes


@inline
def read(p, first, count, tag, mask_at):  # type: ignore[no-untyped-def]
    """Numbers ``first``.. of a row at ``p``; -inf where a class is masked and in lanes from ``count`` on."""
    x = load_first(p + first * itemsize(tag), count, tag)
    if mask_at != 0:
        off = splat(-np.inf, x)
        x = select_gt(load_flags(mask_at + first, count, x), splat(0.0, x), x, off)
    return x


@inline
def apply_shape(x, shape, mode):  # type: ignore[no-untyped-def]
    """Softcap, then temperature; probabilities become logarithms. Infinities stay: a masked class, a broken row."""
    if mode == PROBS:
        return log(x)
    z = x
    if shape.softcap > 0.0:
        cap = splat(shape.softcap, x)
        z = tanh(z / cap) * cap
    z = z / splat(shape.temperature, x)
    off = splat(-np.inf, x)
    broken = splat(np.inf, x)
    return select_eq(x, off, off, select_eq(x, broken, broken, z))


@inline
def fetch(front, nbytes):  # type: ignore[no-untyped-def]
    """Ask for the lines of ``nbytes`` beyond ``front``, where numbers are read for the first time.

    Near, into the first-level cache; and into the second what the processor does not ask for by itself: the first
    lines of the next page, from which its own prefetcher goes on, or all that is far. After the loads of the loop: in
    front of them it made a loop from memory a fifth slower.
    """
    for line in range(0, nbytes, 64):
        prefetch(front + NEAR + line)
        if not goes_on_in_page():
            prefetch_far(front + FAR + line)
    if goes_on_in_page() and front % PAGE < nbytes:
        for line in range(0, 256, 64):
            prefetch_far(front + PAGE + line)
