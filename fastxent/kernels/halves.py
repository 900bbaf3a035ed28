"""Half precision widened to float32, as many numbers as there are."""

from __future__ import annotations

from fastxent.kernels.jit import jit
from fastxent.kernels.simd.memory import load, load_scalar, store

_LANES = 16


@jit
def widen_halves(bits, tag, out):  # type: ignore[no-untyped-def]
    """Write numbers of half precision to float32 ``out``, (n,).

    bits: uint16 (n,). tag: as in `simd.types`; the numbers are float16 or bfloat16.
    """
    whole, source, place = bits.size // _LANES * _LANES, bits.ctypes.data, out.ctypes.data
    for i in range(0, whole, _LANES):
        store(place + 4 * i, load(source + 2 * i, tag), out[0])
    for i in range(whole, bits.size):
        out[i] = load_scalar(source + 2 * i, tag)
