"""Rows of a column of an Arrow record batch, every buffer proven before it is read.

The bytes are not trusted. Each buffer must lie inside its message, each offset, view and dictionary index inside
the buffer that it points to. Arrow's own full validation follows.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.types as pt

from fastxent.errors import ColumnError
from fastxent.io.arrow.buffers import BatchBuffers
from fastxent.io.arrow.ipc import Message, Node, is_large_text, is_list_view, is_text, is_view
from fastxent.io.storage.stored import StoredBytes

_MOST_OFFSETS = 8 << 20  # bytes of offsets that are compared at once


class Columns:
    """The columns of one record batch, or of a dictionary; any rows of them."""

    def __init__(self, source: StoredBytes, message: Message, dictionaries: dict[int, pa.Array]) -> None:
        self.buffers, self._dictionaries = BatchBuffers(source, message), dictionaries
        self.rows = self.buffers.rows

    def read(self, node: Node, begin: int, rows: int) -> pa.Array:
        """Rows of a top-level column."""
        self.buffers.same_length(node, self.rows)
        array = self._read(node, begin, rows)
        array.validate(full=True)
        return array

    def evenly(self, node: Node, width: int) -> int | None:
        """The place in the file of the first row of a column whose rows are all there, ``width`` bytes each, one behind
        the other. None for any other column."""
        if isinstance(node.type, pa.BaseExtensionType):
            return self.evenly(node.children[0], width)
        rows, nulls = self.buffers.length(node)
        if nulls or self.buffers.size(self.buffers.place(node, 0)):
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
        length, child_nulls = self.buffers.length(child)
        if child_nulls or self.buffers.size(self.buffers.place(child, 0)) or width % size:
            return None
        each, first = width // size, 0
        if pt.is_fixed_size_list(kind):
            if kind.list_size != each:
                return None
        elif rows:
            offsets_bytes = (rows + 1) * (8 if pt.is_large_list(kind) else 4)
            if offsets_bytes > _MOST_OFFSETS:
                return None
            offsets = self.buffers.bytes(self.buffers.place(node, 1), 0, offsets_bytes).view(
                f"i{offsets_bytes // (rows + 1)}"
            )
            first = int(offsets[0])
            if first < 0 or int(offsets[-1]) != first + rows * each or (np.diff(offsets) != each).any():
                return None
        if first + rows * each > length:
            return None
        return self._values_at(child, first * size, (first + rows * each) * size)

    def _values_at(self, node: Node, begin: int, end: int) -> int | None:
        """The place in the file of a byte of a node's values; None if they do not reach to byte ``end``."""
        at, size = self.buffers.extent(self.buffers.place(node, 1))
        return at + begin if end <= size else None

    def _read(self, node: Node, begin: int, n: int) -> pa.Array:
        """Rows of a node, as an array that begins at offset 0."""
        kind = node.type
        if isinstance(kind, pa.BaseExtensionType):
            return kind.wrap_array(self._read(node.children[0], begin, n))
        length, nulls = self.buffers.length(node)
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
                self.buffers.same_length(child, length)
            children = [self._read(child, begin, n) for child in node.children]
            return pa.Array.from_buffers(kind, n, [bitmap], children=children)
        if pt.is_fixed_size_list(kind):
            size = kind.list_size
            if self.buffers.length(node.children[0])[0] < length * size:
                raise ValueError("a list has fewer values than its rows need")
            child = self._read(node.children[0], begin * size, n * size)
            return pa.Array.from_buffers(kind, n, [bitmap], children=[child])
        if is_text(kind):
            offsets, first, last = self._offsets(node, is_large_text(kind), begin, n)
            text = self.buffers.bytes(self.buffers.place(node, 2), first, last)
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
        """Return which rows are valid, (n,) bool; None if all are."""
        length, nulls = self.buffers.length(node)
        number = self.buffers.place(node, 0)
        if self.buffers.size(number) == 0:
            if nulls:
                raise ValueError(f"{nulls} nulls without a validity bitmap")
            return None
        valid = self._unpacked(number, begin, n)
        here = n - int(np.count_nonzero(valid))
        if here > nulls or n - here > length - nulls:
            raise ValueError(f"the validity bitmap does not have {nulls} nulls")
        return valid if here else None

    def _unpacked(self, number: int, begin: int, n: int) -> np.ndarray:
        data = self.buffers.bytes(number, begin // 8, (begin + n + 7) // 8)
        return np.unpackbits(data, bitorder="little")[begin % 8 :][:n].view(bool)

    def _fixed(self, node: Node, kind: pa.DataType, begin: int, n: int) -> pa.Buffer:
        """Values of a fixed number of bits."""
        number = self.buffers.place(node, 1)
        if pt.is_boolean(kind):
            return _bits(self._unpacked(number, begin, n))
        width = kind.bit_width // 8
        return pa.py_buffer(self.buffers.bytes(number, begin * width, (begin + n) * width))

    def _offsets(self, node: Node, large: bool, begin: int, n: int) -> tuple[pa.Buffer, int, int]:
        """Offsets that begin with 0, and the first and last place that they stand for."""
        dtype = np.dtype(np.int64 if large else np.int32)
        data = self.buffers.bytes(self.buffers.place(node, 1), begin * dtype.itemsize, (begin + n + 1) * dtype.itemsize)
        offsets = data.view(dtype)
        if offsets[0] < 0 or (offsets[1:] < offsets[:-1]).any():
            raise ValueError("the offsets of a column are not ascending")
        return pa.py_buffer(offsets - offsets[0]), int(offsets[0]), int(offsets[-1])

    def _view_buffers(self, node: Node, begin: int, n: int, valid: np.ndarray | None) -> list[pa.Buffer]:
        """Views, (n, 4) int32: length, prefix, number and offset of the buffer; then the buffers they use."""
        data = self.buffers.bytes(self.buffers.place(node, 1), begin * 16, (begin + n) * 16)
        views = data.view(np.int32).reshape(n, 4).copy()
        if valid is not None:
            views[~valid] = 0
        far = np.flatnonzero(views[:, 0] > 12)
        sizes, numbers, starts = (views[far, k].astype(np.int64) for k in (0, 2, 3))
        count = self.buffers.count_of_views(node)
        if (views[:, 0] < 0).any() or (numbers < 0).any() or (numbers >= count).any() or (starts < 0).any():
            raise ValueError("a view points outside its buffers")
        buffers = []
        used, places = np.unique(numbers, return_inverse=True)
        for k, number in enumerate(used.tolist()):
            here = far[places == k]
            first, last = int(starts[places == k].min()), int((starts + sizes)[places == k].max())
            buffers.append(pa.py_buffer(self.buffers.bytes(self.buffers.place(node, 2 + number), first, last)))
            views[here, 2] = k
            views[here, 3] -= first
        return [pa.py_buffer(views), *buffers]

    def _list_view(self, node: Node, begin: int, n: int, valid: np.ndarray | None) -> pa.Array:
        dtype = np.dtype(np.int64 if pt.is_large_list_view(node.type) else np.int32)
        starts, sizes = (
            self.buffers.bytes(self.buffers.place(node, k), begin * dtype.itemsize, (begin + n) * dtype.itemsize)
            .view(dtype)
            .astype(np.int64)
            for k in (1, 2)
        )
        if valid is not None:
            sizes[~valid] = 0
        starts[sizes == 0] = 0
        length = self.buffers.length(node.children[0])[0]
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
