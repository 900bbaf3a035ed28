"""A temporary file of rows that come in any order and are read in another, in large writes and reads.

A bucket is a range of places of the new order. Its rows lie in one range of the file, in the order in which they came.
It is read as a whole when the first of its rows is wanted, and rows are taken from it in the new order.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from fastxent.errors import OutputError
from fastxent.io.in_place import InPlace
from fastxent.io.storage.buffers import buffers
from fastxent.io.storage.files import File
from fastxent.io.tensors import element_type, to_arrow

_LEAST, _WRITES = 16 << 20, 64  # bytes of a bucket, and buckets that a block of rows is written to, if memory allows
_HELD = 4  # buckets that are kept, for readers of neighbouring rows


class Buckets:
    """Rows of scores in a file of a folder: an `io.arrays.Array` once all of them have been put.

    memory: int. Bytes for the buckets that are read.
    """

    tag = None

    def __init__(self, folder: str, shape: tuple[int, ...], dtype: np.dtype[Any], memory: int) -> None:
        self.shape, self._dtype = shape, dtype
        self._row_bytes = math.prod(shape[1:]) * dtype.itemsize
        size = min(max(_LEAST, math.ceil(shape[0] * self._row_bytes / _WRITES)), memory // (2 * _HELD))
        self._size = max(1, size // self._row_bytes)
        self._order = np.full(shape[0], -1, np.int64)  # the row of all buckets that each place has
        self._next = np.arange(0, shape[0], self._size)  # the first free row of each bucket
        self._path = os.path.join(folder, "rows")
        self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        self._lock = threading.Lock()
        self._held: dict[int, _Bucket] = {}  # the newest last
        self._free: list[np.ndarray] = []  # memory of buckets that are no longer held

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._file)

    # ---- in ----------------------------------------------------------------------------------------------------------

    def put(self, places: np.ndarray, rows: np.ndarray) -> None:
        """Write rows to the buckets of their places, each of which comes once. For several threads at once."""
        if not len(places):
            return
        buckets = places // self._size
        by_bucket = np.argsort(buckets, kind="stable")
        places, buckets = places[by_bucket], buckets[by_bucket]
        starts = np.flatnonzero(np.diff(buckets, prepend=-1))
        counts = np.diff(starts, append=len(places))
        with self._lock:
            firsts = self._next[buckets[starts]]
            self._next[buckets[starts]] += counts
        self._order[places] = np.repeat(firsts - starts, counts) + np.arange(len(places))
        room = buffers().take(rows.nbytes).view(self._dtype).reshape(rows.shape)
        data = np.take(rows, by_bucket, axis=0, out=room, mode="clip").reshape(-1).view(np.uint8).data
        for start, count, first in zip(starts.tolist(), counts.tolist(), firsts.tolist(), strict=True):
            self._write(data[start * self._row_bytes : (start + count) * self._row_bytes], first)

    def _write(self, data: memoryview, row: int) -> None:
        at = row * self._row_bytes
        while len(data):
            try:
                written = os.pwrite(self._file, data, at)
            except OSError as error:
                raise OutputError(
                    f"cannot put rows in order in the temporary file {self._path}: {error.strerror}; set TMPDIR to a "
                    "folder with more room, or sort the dumps by id"
                ) from error
            data, at = data[written:], at + written

    # ---- out ---------------------------------------------------------------------------------------------------------

    @property
    def type(self) -> pa.DataType:
        """Of one element."""
        return element_type(self._dtype)

    def read(self, begin: int, end: int, width: int | None) -> pa.Array:
        """The rows of some places, in their order."""
        rows = np.empty((end - begin, *self.shape[1:]), self._dtype)
        at = begin
        while at < end:
            number = at // self._size
            first = number * self._size
            last = min(first + self._size, end)
            with self._bucket(number) as stored:
                np.take(stored, self._order[at:last] - first, axis=0, out=rows[at - begin : last - begin], mode="clip")
            at = last
        return to_arrow(rows, width)

    def in_place(self) -> InPlace:
        """The same rows, for other processes."""
        first, offset, file = (np.array(numbers, np.int64) for numbers in ([0, self.shape[0]], [0], [0]))
        files = (File(self._path, self._path),)
        return InPlace(self.shape, self._dtype, files, first, offset, file, (1, self._row_bytes), self._order)

    @contextmanager
    def _bucket(self, number: int) -> Iterator[np.ndarray]:
        """The rows of a bucket as they lie in the file."""
        with self._lock:
            held = self._held.setdefault(number, _Bucket())
            held.readers += 1
        try:
            with held.loading:
                if held.rows is None:
                    held.rows = self._load(number)
            yield held.rows
        finally:
            with self._lock:
                held.readers -= 1
                unread = [n for n, other in self._held.items() if not other.readers]
                for n in unread[: max(0, len(self._held) - _HELD)]:  # the oldest
                    rows = self._held.pop(n).rows
                    self._free += [] if rows is None else [rows]

    def _load(self, number: int) -> np.ndarray:
        first = number * self._size
        count = min(self._size, self.shape[0] - first)
        with self._lock:
            room = self._free.pop() if self._free else np.empty((self._size, *self.shape[1:]), self._dtype)
        rows = room[:count] if len(room) >= count else np.empty((count, *self.shape[1:]), self._dtype)
        data, at = rows.reshape(-1).view(np.uint8).data, first * self._row_bytes
        while len(data):
            try:
                read = os.preadv(self._file, [data], at)
            except OSError as error:
                raise OutputError(f"cannot read the temporary file {self._path}: {error.strerror}") from error
            if read == 0:
                raise OutputError(f"cannot read the temporary file {self._path}: it became shorter")
            data, at = data[read:], at + read
        return rows


@dataclass
class _Bucket:
    rows: np.ndarray | None = None
    readers: int = 0
    loading: threading.Lock = field(default_factory=threading.Lock)
