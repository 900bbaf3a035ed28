"""Arrow IPC files and streams: the places of their messages, and the numbers of the buffers of each column.

Each message lies inside the file. A file lists each of its record batches once; a stream ends with its mark.
`fastxent.io.arrow.batches` reads the rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.types as pt

from fastxent.io.arrow.flatbuffers import FlatTable
from fastxent.io.storage.stored import StoredBytes

FILE_MAGIC = b"ARROW1"
STREAM_MAGIC = b"\xff\xff\xff\xff"
_HEAD = 4096  # read at once: the metadata of most messages
_SCHEMA, _DICTIONARY, _BATCH = 1, 2, 3
_MOST_GAP = 64 << 20  # bytes searched for messages that a footer leaves out


# ---- messages --------------------------------------------------------------------------------------------------------


class Message(NamedTuple):
    """Where a message lies; ``header`` is the part of its metadata that depends on its kind."""

    kind: int
    begin: int
    body: int
    end: int
    header: FlatTable
    metadata: bytes

    @property
    def batch(self) -> FlatTable:
        """The record batch that the message is, or of a dictionary holds."""
        return self.header.table(1) if self.kind == _DICTIONARY else self.header


def read_message(source: StoredBytes, at: int) -> Message | None:
    """The message that begins at ``at``; None for the mark at the end of a stream."""
    head = source.take(at, min(_HEAD, source.size - at))
    prefix = 8 if head[:4] == STREAM_MAGIC else 4
    if len(head) < prefix:
        raise ValueError("the end-of-stream mark is missing")
    length = int.from_bytes(head[prefix - 4 : prefix], "little", signed=True)
    if length == 0:
        return None
    body = at + prefix + length
    if length < 0 or body > source.size:
        raise ValueError(f"the message at byte {at} extends past the end of the file")
    metadata = head[prefix:][:length] if prefix + length <= len(head) else source.take(at + prefix, length)
    message = FlatTable.root(metadata)
    size = message.int64(3)
    if size < 0 or body + size > source.size:
        raise ValueError(f"the message at byte {at} extends past the end of the file")
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
    """The messages of a file, without their rows."""

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
        raise ValueError("it does not start with a schema")
    size = len(first.metadata).to_bytes(4, "little")
    schema = pa.ipc.read_schema(pa.py_buffer(STREAM_MAGIC + size + first.metadata))
    messages, at = [], first.end
    while (message := read_message(source, at)) is not None:
        messages.append(message)
        at = message.end
    at += 8 if source.take(at, 4) == STREAM_MAGIC else 4
    if at != source.size:
        raise ValueError(f"{source.size - at} bytes follow the end of the stream; store each stream in its own file")
    return _index(schema, first.header, messages, everywhere=False)


def _file_index(source: StoredBytes) -> Index:
    tail = source.take(max(0, source.size - 10), min(10, source.size))
    length = int.from_bytes(tail[:4], "little", signed=True)
    end = source.size - 10 - length
    if len(tail) < 10 or tail[4:] != FILE_MAGIC or length <= 0 or end < 8:
        raise ValueError("it has no footer")
    data = source.take(end, length)
    footer = FlatTable.root(data)
    # the schema of the footer counts: some writers put another form of it before the first message
    schema = pa.ipc.open_file(pa.BufferReader(FILE_MAGIC + bytes(2) + data + tail)).schema
    blocks = [*footer.int64s(2, 3), *footer.int64s(3, 3)]  # of dictionaries, of record batches
    messages = [_block_message(source, int(begin), int(size), int(body)) for begin, size, body in blocks]
    at = 8
    for begin, stop in [*sorted((message.begin, message.end) for message in messages), (end, end)]:
        if begin < at:
            raise ValueError("its footer lists some bytes twice")
        if (place := _unlisted(source, at, begin)) is not None:
            raise ValueError(f"its footer does not list the message at byte {place}")
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


def _index(schema: pa.Schema, flat: FlatTable, messages: Sequence[Message], *, everywhere: bool) -> Index:
    """``everywhere``: all dictionaries hold for all batches, as in files; else for those that follow."""
    if flat.int8(0):
        raise ValueError("big-endian data is not supported; write the file on a little-endian machine")
    nodes, empty = _nodes(schema, flat), all(map(pt.is_null, schema.types))
    compressed = any(message.batch.has(3) for message in messages if message.kind in (_DICTIONARY, _BATCH))
    batches: list[Batch] = []
    dictionaries: list[Values] = []
    for message in messages:
        if message.kind == _DICTIONARY:
            number, delta = message.header.int64(0), bool(message.header.int8(2))
            if everywhere and not delta and any(number == values.number for values in dictionaries):
                raise ValueError(f"dictionary {number} occurs twice")
            dictionaries.append(Values(message.begin, number, delta))
        elif message.kind == _BATCH:
            rows, body = message.header.int64(0), message.end - message.body
            if rows < 0 or (rows > 8 * body and not compressed and not empty):
                raise ValueError(f"a record batch claims {rows} rows in {body} bytes")
            batches.append(Batch(message.begin, rows, len(dictionaries)))
        else:
            raise ValueError(f"the message at byte {message.begin} is neither a record batch nor a dictionary")
    if everywhere:
        batches = [batch._replace(dictionaries=len(dictionaries)) for batch in batches]
    return Index(schema, nodes, tuple(batches), tuple(dictionaries), compressed)


def _block_message(source: StoredBytes, begin: int, size: int, body: int) -> Message:
    message = read_message(source, begin) if 0 < begin < source.size else None
    if message is None or message.end - message.body != body or message.body - begin != size & 0xFFFFFFFF:
        raise ValueError(f"its footer lists a message at byte {begin}, but there is none")
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

    def node(self, kind: pa.DataType, field: FlatTable) -> Node:
        if isinstance(kind, pa.BaseExtensionType):
            at = self.length, self.buffer, self.views
            return Node(kind, *at, (self.node(kind.storage_type, field),))
        at = self.length, self.buffer, self.views
        self.length += 1
        if pt.is_dictionary(kind):
            self.buffer += 2
            number = field.table(4).int64(0) if field.has(4) else -1
            return Node(kind, *at, dictionary=number, values=_Counter().node(kind.value_type, field))
        self.buffer += buffers_of(kind)
        self.views += is_view(kind)
        inner = _inner(kind)
        if not inner:
            return Node(kind, *at)
        fields = field.tables(5)
        if len(fields) != len(inner):
            raise ValueError("its schema contradicts itself")
        return Node(kind, *at, tuple(self.node(child, below) for child, below in zip(inner, fields, strict=True)))


def _nodes(schema: pa.Schema, flat: FlatTable) -> tuple[Node, ...]:
    fields, counter = flat.tables(1), _Counter()
    if len(fields) != len(schema):
        raise ValueError("its schema contradicts itself")
    return tuple(counter.node(_type(column), field) for column, field in zip(schema, fields, strict=True))


def is_view(kind: pa.DataType) -> bool:
    return bool(pt.is_string_view(kind) or pt.is_binary_view(kind))


def is_list_view(kind: pa.DataType) -> bool:
    return bool(pt.is_list_view(kind) or pt.is_large_list_view(kind))


def is_text(kind: pa.DataType) -> bool:
    return bool(pt.is_string(kind) or pt.is_binary(kind) or is_large_text(kind))


def is_large_text(kind: pa.DataType) -> bool:
    return bool(pt.is_large_string(kind) or pt.is_large_binary(kind))


def buffers_of(kind: pa.DataType) -> int:
    if pt.is_null(kind) or pt.is_run_end_encoded(kind):
        return 0
    if pt.is_struct(kind) or pt.is_fixed_size_list(kind):
        return 1
    if pt.is_union(kind):
        return 2 if kind.mode == "dense" else 1
    return 3 if is_text(kind) or is_list_view(kind) else 2


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
