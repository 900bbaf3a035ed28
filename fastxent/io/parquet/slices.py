"""Rows of large pages and large dictionaries, read slice by slice from a local file.

A writer that cuts pages by rows makes pages of 200 MB of rows of 200 KB, or, where it tries a dictionary first, one
dictionary of them. A copy would be memory without bound, and a mapping of a file that somebody cuts short kills the
process. Here a buffer that stays in the cache is all they take.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from fastxent.io.parquet import assemble as asm
from fastxent.io.parquet.chunk import LogitsChunk
from fastxent.io.storage.local import LocalRanges

SLICE = 5 << 19  # bytes read at once; more would not stay in the cache until it is used
LARGE = SLICE  # a page or dictionary of more is read in slices
WIDE = 4 << 10  # bytes of a row that is worth a read of its own


class SliceReader:
    """Reads rows of a chunk by their place in the file."""

    def __init__(self, chunk: LogitsChunk, source: LocalRanges, max_bytes: int) -> None:
        self._chunk, self._source = chunk, source
        self._unit, self._stride = np.dtype(f"u{chunk.unit_bytes}"), chunk.row_bytes
        self._most = max(1, min(max_bytes, SLICE) // self._stride)

    def rows(self, offset: int, n: int) -> Iterator[np.ndarray]:
        """``n`` rows, each behind the other, from ``offset`` of the file on."""
        step = -(-n // -(-n // self._most))  # equal pieces
        prefix = 4 * self._chunk.byte_array  # the length of a row
        stride = prefix + self._stride
        for at in range(0, n, step):
            k = min(step, n - at)
            memory = self._source.read(offset + at * stride, k * stride)
            shape, strides = (k, self._chunk.n_classes), (stride, self._unit.itemsize)
            yield np.ndarray(shape, self._unit, memory, prefix, strides)

    def looked_up(
        self, offset: int, ids: np.ndarray, verdicts: np.ndarray, nan: int
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """(rows, verdicts) of those numbered ``ids`` behind ``offset``; ``nan`` where the verdict is not fine."""
        for at in range(0, len(ids), self._most):
            some, found = ids[at : at + self._most].astype(np.int64), verdicts[at : at + self._most]
            fine = found == asm.FINE
            memory = self._source.buffers.take(len(some) * self._stride)
            rooms = memory.data
            edges = np.flatnonzero((np.diff(some) != 1) | ~fine[1:] | ~fine[:-1]) + 1  # of rows that lie together
            for a, b in zip([0, *edges.tolist()], [*edges.tolist(), len(some)], strict=True):
                if fine[a]:
                    room = rooms[a * self._stride : b * self._stride]
                    self._source.scatter(offset + int(some[a]) * self._stride, [room])
            rows = self._shaped(memory, len(some))
            if not fine.all():
                rows[~fine] = nan
            yield rows, found

    def _shaped(self, memory: np.ndarray, n: int) -> np.ndarray:
        return np.ndarray((n, self._chunk.n_classes), self._unit, memory)
