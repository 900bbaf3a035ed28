"""Rows of chosen columns of Arrow IPC files and streams, every buffer proven before it is read.

Nothing in the bytes is believed. Each buffer lies inside its message, each offset, view and dictionary index inside
what it points to; then Arrow's own full validation follows. Bytes are read, never mapped: a file that is cut short
while it is read is an error, not a signal.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.types as pt

from fastxent.errors import ColumnError
from fastxent.io.arrow.ipc import (
    Index,
    Message,
    Node,
    Values,
    buffers_of,
    is_large_text,
    is_list_view,
    is_text,
    is_view,
    read_message,
)  # fmt: skip
from fastxent.io.storage.stored import StoredBytes

_CODECS = ("lz4", "zstd")
_MOST_OFFSETS = 8 << 20  # bytes of offsets that are compared at once
_LZ4_RATIO = 256  # the most that one byte can become


class Columns:
    """The columns of one record batch, or of a dictionary; any rows of them.

    Of a compressed batch, or of one that is read from afar, each buffer is kept once it has come.
    """

    def __init__(self, source: StoredBytes, message: Message, dictionaries: dict[int, pa.Array]) -> None:
        batch = message.batch
        self._source, self._message, self._dictionaries = source, message, dictionaries
        self._lengths: list[list[int]] = batch.int64s(1, 2).tolist()
        self._buffers: list[list[int]] = batch.int64s(2, 2).tolist()
        self._views: list[int] = list(itertools.accumulate(batch.int64s(4).tolist(), initial=0))
        self._codec = batch.table(3).int8(0) if batch.has(3) else None
        self._kept: dict[int, np.ndarray] = {}
        self.rows = batch.int64(0)

    def read(self, node: Node, begin: int, rows: int) -> pa.Array:
        """Rows of a top-level column."""
        self.same_length(node, self.rows)
        array = self._read(node, begin, rows)
        array.validate(full=True)
        return array

    def evenly(self, node: Node, width: int) -> int | None:
        """The place in the file of the first row of a column whose rows are all there, ``width`` bytes each, one behind
        the other. None for any other column."""
        if isinstance(node.type, pa.BaseExtensionType):
            return self.evenly(node.children[0], width)
        rows, nulls = self._length(node)
        if nulls or self._size(self._place(node, 0)):
            return None
        kind = node.type
        if pt.is_fixed_size_binary(kind):
            return self._values_at(node, 0, rows * width) if kind.byte_width == width else None
        if not (pt.is_fixed_size_list(kind) or pt.is_list(kind) or pt.is_large_list(kind)):
            return None
        child = node.children[0]
        if not (pt.is_floating(child.type) or pt.is_integer(child.type)):
            return None
        size = child.type.bit_width // 8
        length, child_nulls = self._length(child)
        if child_nulls or self._size(self._place(child, 0)) or width % size:
            return None
        each, first = width // size, 0
        if pt.is_fixed_size_list(kind):
            if kind.list_size != each:
                return None
        elif rows:
            offsets_bytes = (rows + 1) * (8 if pt.is_large_list(kind) else 4)
            if offsets_bytes > _MOST_OFFSETS:
                return None
            offsets = self._bytes(self._place(node, 1), 0, offsets_bytes).view(f"i{offsets_bytes // (rows + 1)}")
            first = int(offsets[0])
            if first < 0 or int(offsets[-1]) != first + rows * each or (np.diff(offsets) != each).any():
                return None
        if first + rows * each > length:
            return None
        return self._values_at(child, first * size, (first + rows * each) * size)

    def _values_at(self, node: Node, begin: int, end: int) -> int | None:
        """The place in the file of a byte of a node's values; None if they do not reach to byte ``end``."""
        at, size = self._extent(self._place(node, 1))
        return at + begin if end <= size else None

    def same_length(self, node: Node, rows: int) -> None:
        if self._length(node)[0] != rows:
            raise ValueError(f"it has {self._length(node)[0]} rows in a record batch of {rows}")

    def _length(self, node: Node) -> list[int]:
        """Rows and nulls of a node."""
        if node.length >= len(self._lengths):
            raise ValueError("a record batch lacks columns of its schema")
        return self._lengths[node.length]

    def nbytes(self, node: Node) -> int:
        """Bytes of the buffers of a column, as they are stored."""
        if isinstance(node.type, pa.BaseExtensionType):
            return self.nbytes(node.children[0])
        first = self._place(node, 0) if buffers_of(node.type) else 0
        count = buffers_of(node.type)
        if is_view(node.type) and node.views + 1 < len(self._views):
            count += self._views[node.views + 1] - self._views[node.views]
        own = sum(self._extent(number)[1] for number in range(first, min(first + count, len(self._buffers))))
        return own + sum(map(self.nbytes, node.children))

    # -- bytes

    def _place(self, node: Node, k: int) -> int:
        """The number of buffer ``k`` of a node."""
        if node.views >= len(self._views):
            raise ValueError("a record batch does not count the buffers of its views")
        number = node.buffer + self._views[node.views] + k
        if not 0 <= number < len(self._buffers):
            raise ValueError("a record batch lacks buffers of its columns")
        return number

    def _extent(self, number: int) -> tuple[int, int]:
        begin, size = self._buffers[number]
        if begin < 0 or size < 0 or begin + size > self._message.end - self._message.body:
            raise ValueError("a buffer extends past the end of its record batch")
        return self._message.body + begin, size

    def _whole(self, number: int) -> np.ndarray:
        """A buffer as a whole, kept for the rows that follow."""
        if number not in self._kept:
            begin, size = self._extent(number)
            data = self._source.read(begin, size)
            self._kept[number] = data if self._codec is None else _decompressed(data, self._codec)
        return self._kept[number]

    def _size(self, number: int) -> int:
        if self._codec is not None:
            return len(self._whole(number))
        return self._extent(number)[1]

    def _bytes(self, number: int, begin: int, end: int) -> np.ndarray:
        if not 0 <= begin <= end <= self._size(number):
            raise ValueError("a buffer is too short for the rows of its column")
        if self._codec is not None or not self._source.local:
            return self._whole(number)[begin:end]
        return self._source.read(self._extent(number)[0] + begin, end - begin)

    # -- arrays

    def _read(self, node: Node, begin: int, n: int) -> pa.Array:
        """Rows of a node, as an array that begins at offset 0."""
        kind = node.type
        if isinstance(kind, pa.BaseExtensionType):
            return kind.wrap_array(self._read(node.children[0], begin, n))
        length, nulls = self._length(node)
        if not 0 <= begin <= begin + n <= length:
            raise ValueError("the rows of a list lie outside its values")
        if pt.is_null(kind):
            return pa.nulls(n)
        if pt.is_union(kind) or pt.is_run_end_encoded(kind):
            raise ColumnError(f"cannot read a column of type {kind}; cast the column to a plain type")
        if not 0 <= nulls <= length:
            raise ValueError(f"{nulls} nulls in {length} rows")
        valid = self._valid(node, begin, n)
        bitmap = None if valid is None else _bits(valid)
        if n == 0:
            return pa.array([], kind)
        if pt.is_primitive(kind):
            return pa.Array.from_buffers(kind, n, [bitmap, self._fixed(node, kind, begin, n)])
        if pt.is_dictionary(kind):
            data = self._fixed(node, kind.index_type, begin, n)
            indices = pa.Array.from_buffers(kind.index_type, n, [bitmap, data])
            return pa.DictionaryArray.from_arrays(indices, self._dictionary(node), ordered=kind.ordered)
        if pt.is_struct(kind):
            for child in node.children:
                self.same_length(child, length)
            children = [self._read(child, begin, n) for child in node.children]
            return pa.Array.from_buffers(kind, n, [bitmap], children=children)
        if pt.is_fixed_size_list(kind):
            size = kind.list_size
            if self._length(node.children[0])[0] < length * size:
                raise ValueError("a list has fewer values than its rows need")
            child = self._read(node.children[0], begin * size, n * size)
            return pa.Array.from_buffers(kind, n, [bitmap], children=[child])
        if is_text(kind):
            offsets, first, last = self._offsets(node, is_large_text(kind), begin, n)
            text = self._bytes(self._place(node, 2), first, last)
            return pa.Array.from_buffers(kind, n, [bitmap, offsets, pa.py_buffer(text)])
        if is_view(kind):
            return pa.Array.from_buffers(kind, n, [bitmap, *self._view_buffers(node, begin, n, valid)])
        if is_list_view(kind):
            return self._list_view(node, begin, n, valid)
        if pt.is_list(kind) or pt.is_large_list(kind) or pt.is_map(kind):
            offsets, first, last = self._offsets(node, pt.is_large_list(kind), begin, n)
            child = self._read(node.children[0], first, last - first)
            return pa.Array.from_buffers(kind, n, [bitmap, offsets], children=[child])
        return pa.Array.from_buffers(kind, n, [bitmap, self._fixed(node, kind, begin, n)])

    def _valid(self, node: Node, begin: int, n: int) -> np.ndarray | None:
        """Which rows are valid, (n,) bool; None if all are."""
        length, nulls = self._length(node)
        number = self._place(node, 0)
        if self._size(number) == 0:
            if nulls:
                raise ValueError(f"{nulls} nulls without a validity bitmap")
            return None
        valid = self._unpacked(number, begin, n)
        here = n - int(np.count_nonzero(valid))
        if here > nulls or n - here > length - nulls:
            raise ValueError(f"the validity bitmap does not have {nulls} nulls")
        return valid if here else None

    def _unpacked(self, number: int, begin: int, n: int) -> np.ndarray:
        data = self._bytes(number, begin // 8, (begin + n + 7) // 8)
        return np.unpackbits(data, bitorder="little")[begin % 8 :][:n].view(bool)

    def _fixed(self, node: Node, kind: pa.DataType, begin: int, n: int) -> pa.Buffer:
        """Values of a fixed number of bits."""
        number = self._place(node, 1)
        if pt.is_boolean(kind):
            return _bits(self._unpacked(number, begin, n))
        width = kind.bit_width // 8
        return pa.py_buffer(self._bytes(number, begin * width, (begin + n) * width))

    def _offsets(self, node: Node, large: bool, begin: int, n: int) -> tuple[pa.Buffer, int, int]:
        """Offsets that begin with 0, and the first and last place that they stand for."""
        dtype = np.dtype(np.int64 if large else np.int32)
        data = self._bytes(self._place(node, 1), begin * dtype.itemsize, (begin + n + 1) * dtype.itemsize)
        offsets = data.view(dtype)
        if offsets[0] < 0 or (offsets[1:] < offsets[:-1]).any():
            raise ValueError("the offsets of a column are not ascending")
        return pa.py_buffer(offsets - offsets[0]), int(offsets[0]), int(offsets[-1])

    def _view_buffers(self, node: Node, begin: int, n: int, valid: np.ndarray | None) -> list[pa.Buffer]:
        """Views, (n, 4) int32: length, prefix, number and offset of the buffer; then the buffers they use."""
        data = self._bytes(self._place(node, 1), begin * 16, (begin + n) * 16)
        views = data.view(np.int32).reshape(n, 4).copy()
        if valid is not None:
            views[~valid] = 0
        far = np.flatnonzero(views[:, 0] > 12)
        sizes, numbers, starts = (views[far, k].astype(np.int64) for k in (0, 2, 3))
        if node.views + 1 >= len(self._views):
            raise ValueError("a record batch does not count the buffers of its views")
        count = self._views[node.views + 1] - self._views[node.views]
        if (views[:, 0] < 0).any() or (numbers < 0).any() or (numbers >= count).any() or (starts < 0).any():
            raise ValueError("a view points outside its buffers")
        buffers = []
        used, places = np.unique(numbers, return_inverse=True)
        for k, number in enumerate(used.tolist()):
            here = far[places == k]
            first, last = int(starts[places == k].min()), int((starts + sizes)[places == k].max())
            buffers.append(pa.py_buffer(self._bytes(self._place(node, 2 + number), first, last)))
            views[here, 2] = k
            views[here, 3] -= first
        return [pa.py_buffer(views), *buffers]

    def _list_view(self, node: Node, begin: int, n: int, valid: np.ndarray | None) -> pa.Array:
        dtype = np.dtype(np.int64 if pt.is_large_list_view(node.type) else np.int32)
        starts, sizes = (
            self._bytes(self._place(node, k), begin * dtype.itemsize, (begin + n) * dtype.itemsize)
            .view(dtype)
            .astype(np.int64)
            for k in (1, 2)
        )
        if valid is not None:
            sizes[~valid] = 0
        starts[sizes == 0] = 0
        length = self._length(node.children[0])[0]
        if (starts < 0).any() or (sizes < 0).any() or (sizes > length).any() or (starts > length - sizes).any():
            raise ValueError("the rows of a list lie outside its values")
        held = sizes > 0
        first = int(starts[held].min()) if held.any() else 0
        last = int((starts + sizes)[held].max()) if held.any() else 0
        starts[held] -= first
        child = self._read(node.children[0], first, last - first)
        bitmap = None if valid is None else _bits(valid)
        buffers = [bitmap, *(pa.py_buffer(numbers.astype(dtype)) for numbers in (starts, sizes))]
        return pa.Array.from_buffers(node.type, n, buffers, children=[child])

    def _dictionary(self, node: Node) -> pa.Array:
        if node.dictionary not in self._dictionaries:
            raise ValueError(f"dictionary {node.dictionary} is missing")
        return self._dictionaries[node.dictionary]


def _bits(valid: np.ndarray) -> pa.Buffer:
    return pa.py_buffer(np.packbits(valid, bitorder="little"))


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


# ---- rows ------------------------------------------------------------------------------------------------------------


class Batches:
    """The record batches of a file or stream that is open; of the columns ``names`` or some of them."""

    def __init__(self, source: StoredBytes, index: Index, names: Sequence[str]) -> None:
        self._source, self._index = source, index
        self._nodes = {name: index.nodes[index.schema.get_field_index(name)] for name in names}
        self._dictionaries: dict[int, pa.Array] = {}
        self._known = 0  # dictionaries that have been read
        self._opened: tuple[int, Columns] | None = None
        self._needed: dict[int, Node] = {}
        for node in self._nodes.values():
            _collect(node, self._needed)

    def read(self, number: int, begin: int, rows: int, names: Sequence[str]) -> pa.RecordBatch:
        """Rows of record batch ``number``."""
        columns = self._columns(number)
        if not names:  # the rows still count
            return pa.record_batch([pa.nulls(rows)], names=[""])
        arrays = []
        for name in names:
            try:
                arrays.append(columns.read(self._nodes[name], begin, rows))
            except (ValueError, OverflowError, pa.ArrowException) as error:  # a number may be too large for NumPy
                raise ValueError(f"column {name!r} of record batch {number} is damaged ({error})") from None
        return pa.RecordBatch.from_arrays(arrays, names=list(names))

    def evenly(self, number: int, name: str, width: int) -> int | None:
        """`Columns.evenly` of a column of record batch ``number``, which is not compressed."""
        columns = self._columns(number)
        return columns.evenly(self._nodes[name], width)

    def rows_in(self, number: int, nbytes: int, names: Sequence[str]) -> int:
        """Rows of a record batch whose columns take about ``nbytes``; one at the least."""
        columns = self._columns(number)
        each = sum(columns.nbytes(self._nodes[name]) for name in names) // max(1, columns.rows)
        return max(1, nbytes // max(1, each))

    def _columns(self, number: int) -> Columns:
        if self._opened is None or self._opened[0] != number:
            batch = self._index.batches[number]
            if batch.dictionaries < self._known:
                self._dictionaries, self._known = {}, 0
            for values in self._index.dictionaries[self._known : batch.dictionaries]:
                self._learn(values)
            self._known = batch.dictionaries
            self._opened = number, Columns(self._source, self._message(batch.begin), self._dictionaries)
            if self._opened[1].rows != batch.rows:
                raise ValueError("it changed while it was read")
            for node in self._nodes.values() or self._index.nodes:
                self._opened[1].same_length(node, batch.rows)
        return self._opened[1]

    def _message(self, at: int) -> Message:
        message = read_message(self._source, at)
        if message is None:
            raise ValueError("it changed while it was read")
        return message

    def _learn(self, values: Values) -> None:
        node = self._needed.get(values.number)
        if node is None:
            return
        columns = Columns(self._source, self._message(values.begin), self._dictionaries)
        found = columns.read(node, 0, columns.rows)
        if values.delta and values.number in self._dictionaries:
            found = pa.concat_arrays([self._dictionaries[values.number], found])
        self._dictionaries[values.number] = found


def _collect(node: Node, into: dict[int, Node]) -> None:
    """The dictionaries that a column needs, by number."""
    if node.values is not None:
        if node.dictionary in into and into[node.dictionary].type != node.values.type:
            raise ValueError(f"dictionary {node.dictionary} has two types")
        into[node.dictionary] = node.values
        _collect(node.values, into)
    for child in node.children:
        _collect(child, into)
