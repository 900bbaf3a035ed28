"""Memory that is reused for the next page and the next unit and, up to a limit, for the next run.

Fresh memory is brought in by a page fault for every 4 KiB when it is first written to, 0.1 to 0.5 ms for each MB: as
long as reading the bytes that go there, or five times as long. So memory is not cleared: what is never written to costs
nothing.
"""

from __future__ import annotations

import contextlib
import threading
import weakref
from collections.abc import Iterator

import numpy as np

MOST_KEPT = 8 << 20  # of one array: the memory of a larger one goes with it
_SPARE_BYTES, _MOST_SPARE = 8 << 20, 4  # what one thread leaves to the next run, and how many of them do


class Buffers:
    """Provides memory that no array uses. For one thread."""

    def __init__(self) -> None:
        self._all: list[tuple[memoryview, weakref.ref[np.ndarray]]] = []

    def take(self, size: int) -> np.ndarray:
        """``size`` bytes of anything, for as long as this array or a view of it is held."""
        free = [k for k, (_, user) in enumerate(self._all) if user() is None]
        fitting = [k for k in free if len(self._all[k][0]) >= size]
        if fitting:
            memory, _ = self._all.pop(min(fitting, key=lambda k: len(self._all[k][0])))
        else:
            if free:  # too small: what is asked for grows
                del self._all[max(free, key=lambda k: len(self._all[k][0]))]
            memory = np.empty(size + size // 8, np.uint8).data  # pages that grow a little need no new one
        array = np.frombuffer(memory, np.uint8, size)
        self._all.append((memory, weakref.ref(array)))  # every view of a view refers to this array
        return array

    def trim(self) -> Buffers:
        """Release memory, the largest first, until at most `_SPARE_BYTES` are left."""
        self._all.sort(key=lambda entry: len(entry[0]))
        while sum(len(memory) for memory, _ in self._all) > _SPARE_BYTES:
            self._all.pop()
        return self


class _Current(threading.local):
    buffers: Buffers | None = None


_CURRENT = _Current()
_SPARE: list[Buffers] = []  # that no thread uses now


@contextlib.contextmanager
def kept() -> Iterator[None]:
    """Keep the memory that this thread takes in the block until its end, and some of it for a later block."""
    mine = Buffers()
    with contextlib.suppress(IndexError):
        mine = _SPARE.pop()
    before, _CURRENT.buffers = _CURRENT.buffers, mine
    try:
        yield
    finally:
        _CURRENT.buffers = before
        if len(_SPARE) < _MOST_SPARE:
            _SPARE.append(mine.trim())


def buffers() -> Buffers:
    """Return the buffers that this thread keeps, or new ones."""
    return _CURRENT.buffers or Buffers()


def read_only(array: np.ndarray) -> np.ndarray:
    """A view like all bytes of files have: kernels are compiled for one kind of array."""
    view = array[:]
    view.flags.writeable = False
    return view
