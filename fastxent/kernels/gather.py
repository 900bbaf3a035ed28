"""Rows of a file that lie in any place, each read where it belongs: one call of the system per row, none of Python."""

from __future__ import annotations

import ctypes
import functools
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from fastxent.kernels.jit import jit

_FAILURES = 8  # of a read before it is given up: a signal interrupts reads of some file systems


class Runs(NamedTuple):
    """Entries that lie one behind the other: those of run k are ``first[k]`` to ``first[k + 1]``, and one more number
    ends the last.

    first: int64 (runs + 1,). offset: int64 (runs,). The byte where a run begins. file: int64 (runs,). Its descriptor.
    """

    first: np.ndarray
    offset: np.ndarray
    file: np.ndarray


@functools.cache
def pread() -> int | None:
    """The address of the function of the C library that reads at an offset; None on a system without one."""
    try:
        found = ctypes.cast(ctypes.CDLL(None).pread, ctypes.c_void_p).value
    except (AttributeError, OSError, TypeError):
        return None
    return found if ctypes.sizeof(ctypes.c_void_p) == 8 else None  # where offsets have 64 bits


@intrinsic  # type: ignore[untyped-decorator]
def _pread(typing_context: Any, address: Any, file: Any, to: Any, count: Any, offset: Any) -> Any:
    """pread(file, to, count, offset) by the function at ``address``."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        i32, i64 = ir.IntType(32), ir.IntType(64)
        function = builder.inttoptr(values[0], ir.FunctionType(i64, [i32, i64, i64, i64]).as_pointer())
        return builder.call(function, [builder.trunc(values[1], i32), *values[2:]])

    return types.int64(*[types.int64] * 5), generate


@jit
def gather_rows(address, runs, entry, rows, to):  # type: ignore[no-untyped-def]
    """Read rows into memory from address ``to`` on, one behind the other. Returns the first that could not be read, or
    -1.

    runs: `Runs`. entry: (entries of a row, bytes of an entry). rows: int64 (n,).
    """
    per_row, size = entry
    for i in range(rows.size):
        at, end = rows[i] * per_row, (rows[i] + 1) * per_row
        run = np.searchsorted(runs.first, at, side="right") - 1
        if run < 0 or end > runs.first[-1]:
            return i
        while at < end:
            if at == runs.first[run + 1]:
                run += 1
                continue
            begin = runs.offset[run] + (at - runs.first[run]) * size
            left = (min(end, runs.first[run + 1]) - at) * size
            at += left // size
            failures = 0
            while left > 0:
                got = _pread(address, runs.file[run], to, left, begin)
                if got < 0 and failures < _FAILURES:
                    failures += 1
                    continue
                if got <= 0:
                    return i
                to += got
                begin += got
                left -= got
    return -1
