"""The bytes of a file, read and never mapped: a file that is cut short is an error, not a signal."""

from __future__ import annotations

import numpy as np

from fastxent.io.storage.files import File, reading
from fastxent.io.storage.local import LocalRanges
from fastxent.io.storage.remote import ReadRanges

_WHOLE = 1 << 62  # up to the end
_AHEAD = 8 << 20  # of a file elsewhere, where one read follows the other


class StoredBytes:
    """An open file. For one thread; `close` it. ``forward``: it will be read from front to back."""

    def __init__(self, file: File, *, forward: bool = False) -> None:
        self.name, self.local = file.name, file.local
        self._ranges: LocalRanges | ReadRanges
        with reading(file.name):
            if self.local:
                self._ranges = LocalRanges(file.path, ahead=_WHOLE if forward else 0)
            else:
                ahead = _AHEAD if forward else 0
                self._ranges = ReadRanges(file.remote.fetch, file.name, 0, file.remote.size, ahead, whole=False)
        self.size = self._ranges.end

    def read(self, offset: int, length: int) -> np.ndarray:
        """Return bytes in aligned memory, which is reused when no view of it is left."""
        if length == 0:
            return np.empty(0, np.uint8)
        if isinstance(self._ranges, LocalRanges):
            return self._ranges.read(offset, length)
        return self._ranges.take(offset, length)

    def take(self, offset: int, length: int) -> bytes:
        """A few bytes."""
        return self.read(offset, length).tobytes()

    def close(self) -> None:
        self._ranges.close()
