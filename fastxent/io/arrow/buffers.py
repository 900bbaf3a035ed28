"""The buffers of a record batch of an Arrow IPC file or stream: their places, sizes and bytes.

Bytes are read, never mapped: a file that is cut short while it is read is an error, not a signal.
"""

from __future__ import annotations

import itertools

import numpy as np
import pyarrow as pa

from fastxent.io.arrow.ipc import Message, Node, buffers_of, is_view
from fastxent.io.storage.stored import StoredBytes

_CODECS = ("lz4", "zstd")
_LZ4_RATIO = 256  # the most that one byte can become


class BatchBuffers:
    """The buffers of one record batch, or of a dictionary.

    The buffers of a compressed or remote batch are kept after the first read.
    """

    def __init__(self, source: StoredBytes, message: Message) -> None:
        batch = message.batch
        self._source, self._message = source, message
        self._lengths: list[list[int]] = batch.int64s(1, 2).tolist()
        self._buffers: list[list[int]] = batch.int64s(2, 2).tolist()
        self._views: list[int] = list(itertools.accumulate(batch.int64s(4).tolist(), initial=0))
        self._codec = batch.table(3).int8(0) if batch.has(3) else None
        self._kept: dict[int, np.ndarray] = {}
        self.rows = batch.int64(0)

    def same_length(self, node: Node, rows: int) -> None:
        """ValueError if a node has another number of rows."""
        if self.length(node)[0] != rows:
            raise ValueError(f"it has {self.length(node)[0]} rows in a record batch of {rows}")

    def length(self, node: Node) -> list[int]:
        """Rows and nulls of a node."""
        if node.length >= len(self._lengths):
            raise ValueError("a record batch lacks columns of its schema")
        return self._lengths[node.length]

    def nbytes(self, node: Node) -> int:
        """Bytes of the buffers of a column, as they are stored."""
        if isinstance(node.type, pa.BaseExtensionType):
            return self.nbytes(node.children[0])
        first = self.place(node, 0) if buffers_of(node.type) else 0
        count = buffers_of(node.type)
        if is_view(node.type) and node.views + 1 < len(self._views):
            count += self.count_of_views(node)
        own = sum(self.extent(number)[1] for number in range(first, min(first + count, len(self._buffers))))
        return own + sum(map(self.nbytes, node.children))

    def place(self, node: Node, k: int) -> int:
        """The number of buffer ``k`` of a node."""
        if node.views >= len(self._views):
            raise ValueError("a record batch does not count the buffers of its views")
        number = node.buffer + self._views[node.views] + k
        if not 0 <= number < len(self._buffers):
            raise ValueError("a record batch lacks buffers of its columns")
        return number

    def count_of_views(self, node: Node) -> int:
        """How many buffers the views of a node point into."""
        if node.views + 1 >= len(self._views):
            raise ValueError("a record batch does not count the buffers of its views")
        return self._views[node.views + 1] - self._views[node.views]

    def extent(self, number: int) -> tuple[int, int]:
        """The place of a buffer in the file, and its bytes as they are stored."""
        begin, size = self._buffers[number]
        if begin < 0 or size < 0 or begin + size > self._message.end - self._message.body:
            raise ValueError("a buffer extends past the end of its record batch")
        return self._message.body + begin, size

    def _whole(self, number: int) -> np.ndarray:
        """A buffer as a whole, kept for the rows that follow."""
        if number not in self._kept:
            begin, size = self.extent(number)
            data = self._source.read(begin, size)
            self._kept[number] = data if self._codec is None else _decompressed(data, self._codec)
        return self._kept[number]

    def size(self, number: int) -> int:
        """Bytes of a buffer, decompressed."""
        if self._codec is not None:
            return len(self._whole(number))
        return self.extent(number)[1]

    def bytes(self, number: int, begin: int, end: int) -> np.ndarray:
        """Bytes ``begin`` to ``end`` of a buffer, decompressed."""
        if not 0 <= begin <= end <= self.size(number):
            raise ValueError("a buffer is too short for the rows of its column")
        if self._codec is not None or not self._source.local:
            return self._whole(number)[begin:end]
        return self._source.read(self.extent(number)[0] + begin, end - begin)


def _decompressed(data: np.ndarray, codec: int) -> np.ndarray:
    """A buffer of a compressed batch: its size as int64 (-1: not compressed), then its bytes."""
    if not len(data):
        return data
    if len(data) < 8 or not 0 <= codec < len(_CODECS):
        raise ValueError("a compressed buffer is damaged")
    size, body = int.from_bytes(data[:8].tobytes(), "little", signed=True), data[8:]
    if size == -1:
        return body
    if size < 0 or (codec == 0 and size > _LZ4_RATIO * (len(body) + 8)):
        raise ValueError("a compressed buffer is damaged")
    if size == 0:
        return body[:0]
    try:
        if codec == 0:  # `Codec.decompress` does not tell how many bytes of lz4 it wrote
            with pa.CompressedInputStream(pa.BufferReader(pa.py_buffer(body)), "lz4") as stream:
                found = stream.read_buffer(size + 1)
        else:
            found = pa.Codec("zstd").decompress(pa.py_buffer(body), size)
    except (OSError, MemoryError, pa.ArrowException) as error:
        raise ValueError(f"a compressed buffer is damaged ({error})") from None
    if found.size != size:
        raise ValueError(f"a compressed buffer has {found.size} bytes where {size} are expected")
    return np.frombuffer(found, np.uint8)
