"""The bytes of one version of a file, read and never mapped: a file that is cut short is an error, not a signal."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

import numpy as np

from fastxent.errors import SourceError
from fastxent.io.files import File, reading
from fastxent.io.ranges import LocalRanges
from fastxent.io.remote import ReadRanges

_AHEAD = 8 << 20  # of a file elsewhere, where one read follows the other


@dataclass(frozen=True)
class Version:
    """A file as it was when it was first looked at. Elsewhere, where it travels, it is looked at anew."""

    file: File
    seen: tuple[int, ...] | None = field(default=None, compare=False)

    @classmethod
    def of(cls, file: File) -> Version:
        return cls(file, _look(file))

    def check(self) -> None:
        """Raise `SourceError` if the file is another one now, or has been written to."""
        if self.seen is not None and self.seen != _look(self.file):
            raise SourceError(f"{self.file.name} changed while it was read; run again once it is complete")

    def here(self) -> Version:
        """The version to hold reads against, on this machine."""
        return self if self.seen is not None else Version.of(self.file)

    def __getstate__(self) -> dict[str, object]:
        return {"file": self.file, "seen": None}


def _look(file: File) -> tuple[int, ...] | None:
    if not file.local:
        return None
    with reading(file.name):
        found = os.stat(file.path)
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


class StoredBytes:
    """An open file. For one thread; `close` it."""

    def __init__(self, version: Version, ahead: int = 0) -> None:
        self.version = version.here()
        file = self.version.file
        self.name, self.local = file.name, file.local
        self._ranges: LocalRanges | ReadRanges
        with reading(file.name):
            if self.local:
                self._ranges = LocalRanges(file.path, ahead=ahead)
            else:
                remote = file.remote
                self._ranges = ReadRanges(remote.fetch, file.name, 0, remote.size, _AHEAD, whole=False)
        self.size = self._ranges.end
        self.version.check()

    def read(self, offset: int, length: int) -> np.ndarray:
        """Bytes in aligned memory, which is used again when no view of it is left."""
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
