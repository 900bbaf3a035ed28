"""Memory that is used again: page after page, and, while a worker is at it, unit after unit.

Fresh memory is brought in by a page fault for every 4 KiB when it is first written to, some 0.1 ms a MB: as long as
reading the bytes that go there.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np


class Buffers:
    """Hands out memory that nobody looks at. For one thread."""

    def __init__(self) -> None:
        self._all: list[tuple[bytearray, weakref.ref[np.ndarray]]] = []

    def take(self, size: int) -> np.ndarray:
        """``size`` bytes of anything, for as long as this array or a view of it is held."""
        free = [k for k, (_, user) in enumerate(self._all) if user() is None]
        fitting = [k for k in free if len(self._all[k][0]) >= size]
        if fitting:
            memory, _ = self._all.pop(min(fitting, key=lambda k: len(self._all[k][0])))
        else:
            if free:  # too small: what is asked for grows
                del self._all[max(free, key=lambda k: len(self._all[k][0]))]
            memory = bytearray(size + size // 8)  # pages that grow a little need no new one
        array = np.frombuffer(memory, np.uint8, size)
        self._all.append((memory, weakref.ref(array)))  # every view of a view refers to this array
        return array


class _Current(threading.local):
    buffers: Buffers | None = None


_CURRENT = _Current()


@contextmanager
def kept() -> Iterator[None]:
    """What this thread takes in the block stays at hand until its end."""
    before, _CURRENT.buffers = _CURRENT.buffers, Buffers()
    try:
        yield
    finally:
        _CURRENT.buffers = before


def buffers() -> Buffers:
    """Those this thread keeps, or new ones."""
    return _CURRENT.buffers or Buffers()


def read_only(array: np.ndarray) -> np.ndarray:
    """A view like all bytes of files have: kernels are compiled for one kind of array."""
    view = array[:]
    view.flags.writeable = False
    return view
