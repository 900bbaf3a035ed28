"""Rows of local files in another order, each read from the place where it lies: nothing is copied to a second file."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from fastxent.errors import SourceError
from fastxent.io.arranged import Array
from fastxent.io.storage.buffers import buffers
from fastxent.io.storage.files import File
from fastxent.io.storage.spent import SPENT
from fastxent.io.tensors import element_type, to_arrow
from fastxent.kernels.gather import Runs, gather_rows, pread

_SAMPLE, _SURE = 33, 50e-6  # rows that are tried, and the seconds that most of them take if the file is in memory


@dataclass(frozen=True)
class InPlace:
    """Rows of scores in files, in another order: an `io.arrays.Array`. Picklable.

    files: the files. first: int64 (runs + 1,). The first entry of each run of entries that lie one behind the other.
    offset, file: int64 (runs,). Where a run begins, and the number of its file.
    entry: (entries of a row, bytes of an entry). order: integers (rows,). The row at each place.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    files: tuple[File, ...]
    first: np.ndarray
    offset: np.ndarray
    file: np.ndarray
    entry: tuple[int, int]
    order: np.ndarray

    tag = None

    @property
    def type(self) -> pa.DataType:
        """Of one element."""
        return element_type(self.dtype)

    def part(self, begin: int, end: int) -> InPlace:
        """The rows of some places."""
        return replace(self, shape=(end - begin, *self.shape[1:]), order=self.order[begin:end])

    def read(self, begin: int, end: int, width: int | None) -> pa.Array:
        """The rows of some places, in their order."""
        rows = self.order[begin:end].astype(np.int64)
        memory = buffers().take(len(rows) * self.entry[0] * self.entry[1])
        with SPENT.reading(), self._opened(rows) as descriptors:
            self._read(rows, descriptors, memory)
        return to_arrow(memory.view(self.dtype).reshape(len(rows), *self.shape[1:]), width)

    def _runs(self, rows: np.ndarray) -> np.ndarray:
        """The number of the run in which each row begins."""
        found: np.ndarray = np.searchsorted(self.first, rows * self.entry[0], "right") - 1
        return found

    @contextmanager
    def _opened(self, rows: np.ndarray) -> Iterator[np.ndarray]:
        """Open the files of some rows: the descriptor of each file."""
        descriptors = np.full(len(self.files), -1, np.int64)
        try:
            for number in np.unique(self.file[self._runs(rows)]).tolist():
                name = self.files[number].name
                try:
                    descriptors[number] = os.open(self.files[number].path, os.O_RDONLY)
                except OSError as error:
                    raise SourceError(f"cannot read {name}: {error.strerror}; all workers must see it") from error
            yield descriptors
        finally:
            for descriptor in descriptors[descriptors >= 0].tolist():
                os.close(descriptor)

    def _read(self, rows: np.ndarray, descriptors: np.ndarray, memory: np.ndarray) -> None:
        address = pread()
        assert address is not None
        runs = Runs(self.first, self.offset, descriptors[self.file])
        failed = gather_rows(address, runs, self.entry, rows, memory.ctypes.data)
        if failed >= 0:
            name = self.files[self.file[self._runs(rows)[failed]]].name
            raise SourceError(f"cannot read {name}: the file changed while it was read")

    def is_near(self) -> bool:
        """Whether rows come at once, since the files are in memory."""
        sample = np.linspace(0, len(self.order) - 1, min(len(self.order), _SAMPLE), dtype=np.int64)
        some = self.order[sample].astype(np.int64)
        memory, seconds = np.zeros(self.entry[0] * self.entry[1], np.uint8), []
        with self._opened(some) as descriptors:
            self._read(some[:0], descriptors, memory)
            for k in range(len(some)):
                start = time.perf_counter()
                self._read(some[k : k + 1], descriptors, memory)
                seconds.append(time.perf_counter() - start)
        return not seconds or sorted(seconds)[len(seconds) // 2] < _SURE


@dataclass(frozen=True)
class Rows:
    """Some rows of an array under the numbers that they have in it. begin: int. The number of the first."""

    inner: Array
    begin: int

    @property
    def shape(self) -> tuple[int, ...]:
        return self.inner.shape

    @property
    def tag(self) -> str | None:
        return self.inner.tag

    @property
    def type(self) -> pa.DataType:
        return self.inner.type

    def read(self, begin: int, end: int, width: int | None) -> pa.Array:
        return self.inner.read(begin - self.begin, end - self.begin, width)
