"""Bytes of a local file by range, without copies; `remote.ReadRanges` does the same for files elsewhere.

Both hand out read-only uint8 arrays that stay valid as long as they are held: a buffer is used anew when no view of it
is left. A file of any size takes a few MB.
"""

from __future__ import annotations

import contextlib
import os
from typing import Protocol

import numpy as np

from fastxent.errors import SourceError
from fastxent.io.storage.buffers import MOST_KEPT, buffers, read_only
from fastxent.io.storage.spent import SPENT

# Pages of a local file are read into buffers that stay in the cache; of larger ones the memory goes with the page. None
# is mapped: a file that is cut short would end the process.
_TOGETHER = 5 << 19  # pages read at once, as many as are this large together: every read gives up the interpreter lock
_LEAST = 256 << 10  # of one read
_SLACK = 8 << 10  # read with a page, for the header of the next
# Where a read had to wait for the disk, what comes next is asked for while this is worked on: a cold file takes half
# the time. Asking costs some 13 ms a GB, which files in memory are spared: they are told by how fast a copy is.
_AHEAD = 8 << 20
_ASKED = 128 << 10  # of one call: Linux takes no more than its read-ahead window, which is this unless somebody set it
_SURE, _COPIED = 50e-6, 0.5e-9  # seconds that a read of what is in memory takes at most, and for each byte
_NOTHING = np.frombuffer(b"", np.uint8)  # read-only like all views: kernels are compiled for one kind of array


class Ranges(Protocol):
    """The bytes [begin, end) of a file."""

    name: str
    begin: int
    end: int

    def view(self, offset: int, length: int) -> np.ndarray:
        """``length`` bytes from ``offset`` of the file; SourceError where there are none."""
        ...

    def passed(self, offset: int) -> None:
        """Allow the memory before ``offset`` to be released."""
        ...

    def close(self) -> None: ...


class LocalRanges:
    """A local file, read into a few buffers that are used again when no view of them is left.

    ``ahead``: the byte up to which it will be read from front to back, for the system to fetch before it is needed.
    """

    def __init__(self, path: str, begin: int = 0, end: int | None = None, ahead: int = 0) -> None:
        self.name = path
        self._cold, self._asked, self._ahead = False, 0, ahead if hasattr(os, "posix_fadvise") else 0
        self._array = _NOTHING
        self.buffers = buffers()
        try:
            self._fd = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        except OSError as error:
            raise SourceError(f"cannot read {path}: {error.strerror}") from error
        size = os.fstat(self._fd).st_size
        self.begin, self.end = begin, size if end is None else end
        self._low = self._high = begin
        if not 0 <= self.begin <= self.end <= size:
            self.close()
            raise SourceError(
                f"cannot read {path}: bytes {begin} to {self.end} lie outside the file of {size} bytes; "
                "it is incomplete or damaged"
            )

    def view(self, offset: int, length: int) -> np.ndarray:
        if not self.begin <= offset <= offset + length <= self.end:
            raise SourceError(
                f"cannot read {self.name}: bytes {offset} to {offset + length} lie outside the column chunk"
            )
        if not self._low <= offset <= offset + length <= self._high:
            if length == 0:
                return _NOTHING
            self._read_window(offset, length)
        return self._array[offset - self._low : offset - self._low + length]

    def _read_window(self, offset: int, length: int) -> None:
        # a header alone is often all that is wanted: pages are counted by hopping from one to the next
        page = length + _SLACK
        if page > _LEAST:
            page *= max(1, _TOGETHER // page)
        wanted = min(self.end - offset, max(page, _LEAST if length > _SLACK else 0))
        self._array = _NOTHING  # its buffer is free again, if nobody else looks at it
        if length > MOST_KEPT:
            array = np.empty(wanted, np.uint8)
            self.scatter(offset, [array.data])
            self._array = read_only(array)
        else:
            self._array = self.read(offset, wanted)
        self._low, self._high = offset, offset + wanted

    def read(self, offset: int, length: int) -> np.ndarray:
        """The same bytes as `view` gives, in memory that is aligned."""
        array = self.buffers.take(length)
        self.scatter(offset, [array.data])
        return read_only(array)

    def peek(self, offset: int, length: int) -> bytes:
        """At most ``length`` bytes from ``offset`` of the file on, a few: without what `view` does for many."""
        with contextlib.suppress(OSError):
            return os.pread(self._fd, length, offset)
        return b""

    def scatter(self, offset: int, rooms: list[memoryview]) -> None:
        """Read the bytes from ``offset`` on into ``rooms``, one behind the other: at most 1024 of them."""
        if not self.begin <= offset <= offset + sum(map(len, rooms)) <= self.end:
            raise SourceError(f"cannot read {self.name}: the bytes from {offset} on lie outside the column chunk")
        self._fill(offset, rooms)

    def _fill(self, offset: int, rooms: list[memoryview]) -> None:
        size, before = sum(map(len, rooms)), SPENT.read
        if self._cold:
            with SPENT.reading():
                self._ask(offset + size)
        self._read(offset, rooms)
        self._cold |= SPENT.read - before > _SURE + size * _COPIED

    def _ask(self, offset: int) -> None:
        """Ask the system to prefetch the bytes behind ``offset``, and return at once."""
        end = min(offset + _AHEAD, self._ahead)
        with contextlib.suppress(OSError):  # a file system that takes no advice
            for begin in range(max(offset, self._asked), end, _ASKED):
                os.posix_fadvise(self._fd, begin, min(_ASKED, end - begin), os.POSIX_FADV_WILLNEED)
        self._asked = max(end, self._asked)

    def _read(self, offset: int, rooms: list[memoryview]) -> None:
        at = 0
        while at < len(rooms):
            try:
                with SPENT.reading():
                    got = os.preadv(self._fd, rooms[at:], offset)
            except OSError as error:
                raise SourceError(f"cannot read {self.name} at byte {offset}: {error.strerror}") from error
            offset += got
            while at < len(rooms) and got >= len(rooms[at]):
                got -= len(rooms[at])
                at += 1
            if at < len(rooms):
                if got == 0 and os.fstat(self._fd).st_size <= offset:
                    raise SourceError(f"cannot read {self.name}: the file became shorter while it was read")
                rooms[at] = rooms[at][got:]

    def passed(self, offset: int) -> None:
        """Do nothing: a buffer is reused when no view of it is left."""

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1
        self._array = _NOTHING
