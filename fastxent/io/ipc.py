"""Arrow IPC files and streams: their messages, and the rows of chosen columns, every buffer proven before it is read.

Nothing in the bytes is believed. Each message lies inside the file, each buffer inside its message, each offset, view
and dictionary index inside what it points to; then Arrow's own full validation follows. Bytes are read, never mapped:
a file that is cut short while it is read is an error, not a signal.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.types as pt

from fastxent.errors import ColumnError
from fastxent.io.flat import Table
from fastxent.io.stored import StoredBytes

FILE_MAGIC = b"ARROW1"
STREAM_MAGIC = b"\xff\xff\xff\xff"
_HEAD = 4096  # read at once: the metadata of most messages
_SCHEMA, _DICTIONARY, _BATCH = 1, 2, 3
_CODECS = ("lz4", "zstd")
_LZ4_RATIO = 256  # the most that one byte can become
_MOST_GAP = 64 << 20  # bytes searched for messages that a footer leaves out


# ---- messages --------------------------------------------------------------------------------------------------------


class Message(NamedTuple):
    """Where a message lies; ``header`` is the part of its metadata that depends on its kind."""

    kind: int
    begin: int
    body: int
    end: int
    header: Table
    metadata: bytes

    @property
    def batch(self) -> Table:
        """The record batch that the message is, or of a dictionary holds."""
        return self.header.table(1) if self.kind == _DICTIONARY else self.header


def read_message(source: StoredBytes, at: int) -> Message | None:
    """The message that begins at ``at``; None for the mark at the end of a stream."""
    head = source.take(at, min(_HEAD, source.size - at))
    prefix = 8 if head[:4] == STREAM_MAGIC else 4
    if len(head) < prefix:
        raise ValueError("it ends without the mark at the end of a stream")
    length = int.from_bytes(head[prefix - 4 : prefix], "little", signed=True)
    if length == 0:
        return None
    body = at + prefix + length
    if length < 0 or body > source.size:
        raise ValueError(f"a message at byte {at} reaches past the end of the file")
    metadata = head[prefix:][:length] if prefix + length <= len(head) else source.take(at + prefix, length)
    message = Table.root(metadata)
    size = message.int64(3)
    if size < 0 or body + size > source.size:
        raise ValueError(f"a message at byte {at} reaches past the end of the file")
    return Message(message.int8(1), at, body, body + size, message.table(2), metadata)


class Batch(NamedTuple):
    """A record batch: where its message begins, its rows, and how many dictionaries come before it."""

    begin: int
    rows: int
    dictionaries: int


class Values(NamedTuple):
    """A dictionary: where its message begins, its number, and whether it adds to an earlier one."""

    begin: int
    number: int
    delta: bool


@dataclass(frozen=True)
class Index:
    """What a file holds, without its rows."""

    schema: pa.Schema
    nodes: tuple[Node, ...]  # one per top-level column
    batches: tuple[Batch, ...]
    dictionaries: tuple[Values, ...]
    compressed: bool

    @property
    def rows(self) -> int:
        return sum(batch.rows for batch in self.batches)


def read_index(source: StoredBytes) -> Index:
    """Find every message of a file or stream. A file must list each of its batches once, a stream must be complete."""
    if source.take(0, min(len(FILE_MAGIC), source.size)) == FILE_MAGIC:
        return _file_index(source)
    first = read_message(source, 0)
    if first is None or first.kind != _SCHEMA:
        raise ValueError("it does not begin with a schema")
    size = len(first.metadata).to_bytes(4, "little")
    schema = pa.ipc.read_schema(pa.py_buffer(STREAM_MAGIC + size + first.metadata))
    messages, at = [], first.end
    while (message := read_message(source, at)) is not None:
        messages.append(message)
        at = message.end
    at += 8 if source.take(at, 4) == STREAM_MAGIC else 4
    if at != source.size:
        raise ValueError(f"{source.size - at} bytes follow the end of the stream; split streams that were joined")
    return _index(schema, first.header, messages, everywhere=False)


def _file_index(source: StoredBytes) -> Index:
    tail = source.take(max(0, source.size - 10), min(10, source.size))
    length = int.from_bytes(tail[:4], "little", signed=True)
    end = source.size - 10 - length
    if len(tail) < 10 or tail[4:] != FILE_MAGIC or length <= 0 or end < 8:
        raise ValueError("it has no footer")
    data = source.take(end, length)
    footer = Table.root(data)
    # the schema of the footer counts: some writers put another form of it before the first message
    schema = pa.ipc.open_file(pa.BufferReader(FILE_MAGIC + bytes(2) + data + tail)).schema
    blocks = [*footer.int64s(2, 3), *footer.int64s(3, 3)]  # of dictionaries, of record batches
    messages = [_block_message(source, int(begin), int(size), int(body)) for begin, size, body in blocks]
    at = 8
    for begin, stop in [*sorted((message.begin, message.end) for message in messages), (end, end)]:
        if begin < at:
            raise ValueError("its footer lists bytes twice")
        if (place := _unlisted(source, at, begin)) is not None:
            raise ValueError(f"its footer leaves out the message at byte {place}")
        at = stop
    return _index(schema, footer.table(1), messages, everywhere=True)


def _unlisted(source: StoredBytes, begin: int, end: int) -> int | None:
    """Where a record batch or dictionary begins among bytes that the footer does not list; None if there is none."""
    if end - begin < 16:
        return None
    gap = source.take(begin, min(end - begin, _MOST_GAP))
    words = np.frombuffer(gap, "<u4", len(gap) // 8 * 2)
    for k in np.flatnonzero((words[::2] == 0xFFFFFFFF) & (words[1::2] != 0)).tolist():
        try:
            message = read_message(source, begin + 8 * k)
        except ValueError:
            continue
        if message is not None and message.kind in (_DICTIONARY, _BATCH) and message.end <= end:
            return message.begin
    return None


def _index(schema: pa.Schema, flat: Table, messages: Sequence[Message], *, everywhere: bool) -> Index:
    """``everywhere``: all dictionaries hold for all batches, as in files; else for those that follow."""
    if flat.int8(0):
        raise ValueError("it is big-endian; write it again on a little-endian machine")
    nodes, empty = _nodes(schema, flat), all(map(pt.is_null, schema.types))
    compressed = any(message.batch.has(3) for message in messages if message.kind in (_DICTIONARY, _BATCH))
    batches: list[Batch] = []
    dictionaries: list[Values] = []
    for message in messages:
        if message.kind == _DICTIONARY:
            number, delta = message.header.int64(0), bool(message.header.int8(2))
            if everywhere and not delta and any(number == values.number for values in dictionaries):
                raise ValueError(f"its dictionary {number} is there twice")
            dictionaries.append(Values(message.begin, number, delta))
        elif message.kind == _BATCH:
            rows, body = message.header.int64(0), message.end - message.body
            if rows < 0 or (rows > 8 * body and not compressed and not empty):
                raise ValueError(f"a record batch of {rows} rows has {body} bytes")
            batches.append(Batch(message.begin, rows, len(dictionaries)))
        else:
            raise ValueError(f"the message at byte {message.begin} is neither a record batch nor a dictionary")
    if everywhere:
        batches = [batch._replace(dictionaries=len(dictionaries)) for batch in batches]
    return Index(schema, nodes, tuple(batches), tuple(dictionaries), compressed)


def _block_message(source: StoredBytes, begin: int, size: int, body: int) -> Message:
    message = read_message(source, begin) if 0 < begin < source.size else None
    if message is None or message.end - message.body != body or message.body - begin != size & 0xFFFFFFFF:
        raise ValueError(f"its footer points to byte {begin}, where no such message is")
    return message


# ---- columns ---------------------------------------------------------------------------------------------------------


class Node(NamedTuple):
    """A column, or a part of a nested one, and the numbers of its lengths and buffers in a record batch."""

    type: pa.DataType
    length: int
    buffer: int
    views: int  # columns of views before it, each of which has any number of buffers more
    children: tuple[Node, ...] = ()
    dictionary: int = -1
    values: Node | None = None  # of the dictionary, in the dictionary's own record batch


class _Counter:
    """Numbers lengths and buffers in the order of the fields."""

    def __init__(self) -> None:
        self.length = self.buffer = self.views = 0

    def node(self, kind: pa.DataType, field: Table) -> Node:
        if isinstance(kind, pa.BaseExtensionType):
            at = self.length, self.buffer, self.views
            return Node(kind, *at, (self.node(kind.storage_type, field),))
        at = self.length, self.buffer, self.views
        self.length += 1
        if pt.is_dictionary(kind):
            self.buffer += 2
            number = field.table(4).int64(0) if field.has(4) else -1
            return Node(kind, *at, dictionary=number, values=_Counter().node(kind.value_type, field))
        self.buffer += _buffers(kind)
        self.views += _is_view(kind)
        inner = _inner(kind)
        if not inner:
            return Node(kind, *at)
        fields = field.tables(5)
        if len(fields) != len(inner):
            raise ValueError("its schema contradicts itself")
        return Node(kind, *at, tuple(self.node(child, below) for child, below in zip(inner, fields, strict=True)))


def _nodes(schema: pa.Schema, flat: Table) -> tuple[Node, ...]:
    fields, counter = flat.tables(1), _Counter()
    if len(fields) != len(schema):
        raise ValueError("its schema contradicts itself")
    return tuple(counter.node(_type(column), field) for column, field in zip(schema, fields, strict=True))


def _is_view(kind: pa.DataType) -> bool:
    return bool(pt.is_string_view(kind) or pt.is_binary_view(kind))


def _is_list_view(kind: pa.DataType) -> bool:
    return bool(pt.is_list_view(kind) or pt.is_large_list_view(kind))


def _is_text(kind: pa.DataType) -> bool:
    return bool(pt.is_string(kind) or pt.is_binary(kind) or _is_large_text(kind))


def _is_large_text(kind: pa.DataType) -> bool:
    return bool(pt.is_large_string(kind) or pt.is_large_binary(kind))


def _buffers(kind: pa.DataType) -> int:
    if pt.is_null(kind) or pt.is_run_end_encoded(kind):
        return 0
    if pt.is_struct(kind) or pt.is_fixed_size_list(kind):
        return 1
    if pt.is_union(kind):
        return 2 if kind.mode == "dense" else 1
    return 3 if _is_text(kind) or _is_list_view(kind) else 2


def _inner(kind: pa.DataType) -> list[pa.DataType]:
    if pt.is_run_end_encoded(kind):
        return [kind.run_end_type, kind.value_type]
    if pt.is_map(kind):
        return [pa.struct([kind.key_field, kind.item_field])]
    if pt.is_struct(kind) or pt.is_union(kind):
        return [_type(kind.field(k)) for k in range(kind.num_fields)]
    return [kind.value_type] if hasattr(kind, "value_type") else []


def _type(field: pa.Field) -> pa.DataType:
    str(field.name)  # a name that is not UTF-8 raises here
    return field.type


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

    def same_length(self, node: Node, rows: int) -> None:
        if self._length(node)[0] != rows:
            raise ValueError(f"a column of {self._length(node)[0]} rows in a record batch of {rows}")

    def _length(self, node: Node) -> list[int]:
        """Rows and nulls of a node."""
        if node.length >= len(self._lengths):
            raise ValueError("a record batch lacks columns of its schema")
        return self._lengths[node.length]

    def nbytes(self, node: Node) -> int:
        """Bytes of the buffers of a column, as they are stored."""
        if isinstance(node.type, pa.BaseExtensionType):
            return self.nbytes(node.children[0])
        first = self._place(node, 0) if _buffers(node.type) else 0
        count = _buffers(node.type)
        if _is_view(node.type) and node.views + 1 < len(self._views):
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
            raise ValueError("a buffer reaches past the end of its record batch")
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
            raise ColumnError(f"a column of {kind} cannot be read; cast it to a plain type")
        if not 0 <= nulls <= length:
            raise ValueError(f"a column of {length} rows with {nulls} nulls")
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
        if _is_text(kind):
            offsets, first, last = self._offsets(node, _is_large_text(kind), begin, n)
            text = self._bytes(self._place(node, 2), first, last)
            return pa.Array.from_buffers(kind, n, [bitmap, offsets, pa.py_buffer(text)])
        if _is_view(kind):
            return pa.Array.from_buffers(kind, n, [bitmap, *self._view_buffers(node, begin, n, valid)])
        if _is_list_view(kind):
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
                raise ValueError(f"a column has {nulls} nulls and does not say where")
            return None
        valid = self._unpacked(number, begin, n)
        here = n - int(np.count_nonzero(valid))
        if here > nulls or n - here > length - nulls:
            raise ValueError(f"a column does not have the {nulls} nulls that it should")
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
            raise ValueError("the offsets of a column do not rise")
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
            self._bytes(self._place(node, k), begin * dtype.itemsize, (begin + n) * dtype.itemsize).view(dtype).copy()
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
        buffers = [bitmap, pa.py_buffer(starts), pa.py_buffer(sizes)]
        return pa.Array.from_buffers(node.type, n, buffers, children=[child])

    def _dictionary(self, node: Node) -> pa.Array:
        if node.dictionary not in self._dictionaries:
            raise ValueError(f"its dictionary {node.dictionary} is missing")
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
        raise ValueError(f"a compressed buffer of {found.size} bytes where {size} are due")
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
            except (ValueError, pa.ArrowException) as error:
                raise ValueError(f"column {name!r} of record batch {number} is damaged ({error})") from None
        return pa.RecordBatch.from_arrays(arrays, names=list(names))

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
            raise ValueError(f"dictionary {node.dictionary} is of two types")
        into[node.dictionary] = node.values
        _collect(node.values, into)
    for child in node.children:
        _collect(child, into)
