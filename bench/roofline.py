"""What this machine's memory allows: the ceilings that every figure is a fraction of.

read: the sum of a large float32 array, in slices over a thread pool.
copy: array to array, bytes read + bytes written; the better of NumPy's own copy and of one with streaming stores, so
that the ceiling does not depend on what the C library's memcpy thinks of the size.

    python -m bench.roofline
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np

from bench.cpus import available_cpus
from fastxent.kernels.jit import jit
from fastxent.kernels.simd.memory import load, store_streaming
from fastxent.kernels.simd.prefetch import fence

BYTES = 400 << 20  # an array: far beyond any cache
_FLOAT32 = np.float32(0)  # the tag of float32 in memory
_VECTOR = 64  # bytes


@jit
def _stream_copy(source, target, nbytes, tag):
    """``nbytes``, a multiple of 64, between aligned addresses, past the cache."""
    for i in range(0, nbytes, 64):
        store_streaming(target + i, load(source + i, tag), tag)
    fence()


class Roofline:
    """Two arrays, and a pool for each number of threads; measure in turn with what is compared."""

    def __init__(self, nbytes: int = BYTES) -> None:
        self._source, self._target = (_aligned(nbytes) for _ in range(2))
        self._pools: dict[int, ThreadPoolExecutor] = {}
        self.copy_stream(1)  # compiled now

    def _each(self, threads: int, work: Callable[[int, int], object]) -> float:
        """Bytes a second of ``work(begin, end)`` over slices of the arrays' elements, four to a thread."""
        pool = self._pools.setdefault(threads, ThreadPoolExecutor(threads))
        parts = threads * 4
        edges = [self._source.size * k // parts // 16 * 16 for k in range(parts + 1)]
        start = time.perf_counter()
        if threads == 1:
            work(0, self._source.size)
        else:
            list(pool.map(work, edges[:-1], edges[1:]))
        return self._source.nbytes / (time.perf_counter() - start)

    def read(self, threads: int) -> float:
        return self._each(threads, lambda a, b: self._source[a:b].sum())

    def copy_numpy(self, threads: int) -> float:
        return 2 * self._each(threads, lambda a, b: np.copyto(self._target[a:b], self._source[a:b]))

    def copy_stream(self, threads: int) -> float:
        source, target = (a.__array_interface__["data"][0] for a in (self._source, self._target))
        return 2 * self._each(threads, lambda a, b: _stream_copy(source + 4 * a, target + 4 * a, 4 * (b - a), _FLOAT32))

    def kinds(self, bound: str) -> tuple[Callable[[int], float], ...]:
        """What to measure for "read" or "copy": the ceiling is the best of them."""
        return (self.read,) if bound == "read" else (self.copy_numpy, self.copy_stream)


def _aligned(nbytes: int) -> np.ndarray:
    """Ones, so that every page is there; starts at a multiple of a vector's size, as streaming stores need."""
    raw = np.ones(nbytes // 4 + 16, np.float32)
    skip = -raw.__array_interface__["data"][0] % _VECTOR // 4
    return raw[skip : skip + nbytes // 4]


@cache
def roofline() -> Roofline:
    """The one pair of arrays of this process."""
    return Roofline()


def ceilings(rounds: int = 7) -> dict[str, float]:
    """{"read 1t": bytes a second, ...}: the best of some rounds taken in turn."""
    roof, best = roofline(), {}
    for _ in range(rounds):
        for threads in sorted({1, available_cpus()}):
            for kind in (roof.read, roof.copy_numpy, roof.copy_stream):
                name = f"{kind.__name__} {threads}t"
                best[name] = max(best.get(name, 0.0), kind(threads))
    return best


if __name__ == "__main__":
    for name_, value in ceilings().items():
        print(f"{name_:16} {value / 1e9:6.1f} GB/s")
