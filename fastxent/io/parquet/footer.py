"""The footer of a Parquet file: its columns and row groups, checked, and small footers made from it.

Of a footer pyarrow believes counts and places that contradict each other, takes 4 kB of memory for each chunk of each
column, whether it is read or not, and aborts the process (an exception of C++ that nothing catches) when it is asked
for the codec of a damaged chunk. So pyarrow gets a footer for each row group that lists the columns to read alone.
"""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fastxent.errors import SourceError
from fastxent.io.parquet import metadata as md
from fastxent.io.parquet.thrift import BINARY, LIST, MISSING, STRUCT, new_header
from fastxent.io.storage.files import reading
from fastxent.io.storage.local import Ranges

_LEAST = 16  # bytes of a column chunk in the footer: no more memory is taken than its length can mean
_REPEATED = 2
_ORIGIN = b"ARROW:schema"
_ORDERS = 7  # the field of FileMetaData with the order of each column
_OF_TYPE = b"\x1c\0\0"  # that of its type
_OLD_HEADER = 100  # bytes of a dictionary page's header, at most

_CODECS = ("UNCOMPRESSED", "SNAPPY", "GZIP", "LZO", "BROTLI", "LZ4", "ZSTD", "LZ4_RAW")
_ENCODINGS = {
    0: "PLAIN", 2: "PLAIN_DICTIONARY", 3: "RLE", 4: "BIT_PACKED", 5: "DELTA_BINARY_PACKED",
    6: "DELTA_LENGTH_BYTE_ARRAY", 7: "DELTA_BYTE_ARRAY", 8: "RLE_DICTIONARY", 9: "BYTE_STREAM_SPLIT",
}  # fmt: skip


class ChunkInfo(NamedTuple):
    """One leaf column of one row group, as the footer has it: unchecked."""

    rows: int
    codec: str
    encodings: frozenset[str]
    entries: int
    decompressed: int  # bytes of its pages, decompressed
    size: int  # bytes of pages as they are stored
    data_offset: int
    dictionary_offset: int | None
    page_index: tuple[int, int] | None  # offset and size of the list of its pages
    elsewhere: bool  # in another file, or encrypted
    slack: int = 0  # bytes behind ``size`` that may belong to it as well


class Leaf(NamedTuple):
    """A column of numbers or of strings, as it is stored."""

    path: tuple[bytes, ...]
    kind: int
    repeated: bool

    @property
    def name(self) -> str:
        return b".".join(self.path).decode("utf-8", "replace")


class Column(NamedTuple):
    """A top-level column, its elements in the schema, and the numbers of its leaves."""

    name: str
    elements: range
    leaves: range


class Proven(NamedTuple):
    """Columns whose chunks contradict neither the schema nor each other."""

    columns: list[Column]
    leaves: list[Leaf]
    table: np.ndarray  # their `Footer.chunks`

    def only(self, columns: Sequence[Column]) -> Proven:
        """Some of the columns."""
        wanted = set(columns)
        kept = [column in wanted for column in self.columns for _ in column.leaves]
        return Proven(
            list(columns), [leaf for leaf, keep in zip(self.leaves, kept, strict=True) if keep], self.table[:, kept]
        )


class Footer:
    """The footer of the file that ``source`` spans from its first byte to its last."""

    def __init__(self, source: Ranges) -> None:
        self.source, self.name, size = source, source.name, source.end
        tail = source.view(size - 8, 8).tobytes() if size >= 12 else b""
        length = int.from_bytes(tail[:4], "little")
        if tail[4:] == b"PARE":
            raise SourceError(f"cannot read {self.name}: its footer is encrypted; write it without encryption")
        if tail[4:] != b"PAR1" or length > size - 12:
            raise SourceError(f"cannot read {self.name}: its footer is damaged or cut off; write the file again")
        self._end = size - 8 - length  # of the pages
        self._buf, self._scratch = source.view(self._end, length), new_header()
        self._fields = np.full((md.FIELDS, 3), MISSING, np.int64)
        if md.read_fields(self._buf, self._fields, self._scratch) < 0:
            raise self._damaged()
        self.rows = int(self._fields[md.NUM_ROWS, 2])
        self._groups = np.full((self._members(md.GROUPS), 2), MISSING, np.int64)
        self.chunks([])  # finds the rows of each row group
        self.group_rows: list[int] = self._groups[:, 0].tolist()

    def _damaged(self) -> SourceError:
        return SourceError(f"cannot read {self.name}: its footer is damaged; write the file again")

    def _members(self, field: int) -> int:
        begin, end, count = self._fields[field].tolist()
        if begin == MISSING:
            return 0
        if not 0 <= count <= end - begin:
            raise self._damaged()
        return int(count)

    # ---- columns -----------------------------------------------------------------------------------------------------

    @cached_property
    def _elements(self) -> list[list[int]]:
        table = np.full((self._members(md.SCHEMA), 7), MISSING, np.int64)
        if not len(table) or md.read_elements(self._buf, self._fields[md.SCHEMA, 0], table, self._scratch) < 0:
            raise self._damaged()
        return table.tolist()

    @cached_property
    def columns(self) -> list[Column]:
        """The top-level columns, in order."""
        elements, found, at, leaf = self._elements, [], 1, 0
        while at < len(elements):
            begin, first, due = at, leaf, 1  # elements still to come of this column
            while due:
                if at == len(elements) or elements[at][md.CHILDREN] > len(elements):
                    raise self._damaged()
                due += max(0, elements[at][md.CHILDREN]) - 1
                leaf += _is_leaf(elements[at])
                at += 1
            found.append(Column(self._named(begin).decode("utf-8", "replace"), range(begin, at), range(first, leaf)))
        if len(found) != max(0, elements[0][md.CHILDREN]):
            raise self._damaged()
        return found

    def _named(self, element: int) -> bytes:
        begin, size = self._elements[element][md.NAME : md.NAME_SIZE + 1]
        return self._buf[begin : begin + size].tobytes()

    def leaves(self, column: Column) -> list[Leaf]:
        """What is stored of a column."""
        found: list[Leaf] = []
        above: list[tuple[int, tuple[bytes, ...], bool]] = []  # children to come, path, whether repeated
        for number in column.elements:
            kind, repetition, children = self._elements[number][:3]
            while above and not above[-1][0]:
                above.pop()
            left, path, repeated = above.pop() if above else (1, (), False)
            above.append((left - 1, path, repeated))
            path, repeated = (*path, self._named(number)), repeated or repetition == _REPEATED
            if _is_leaf(self._elements[number]):
                found.append(Leaf(path, kind, repeated))
            elif children > 0:
                above.append((children, path, repeated))
        return found

    def called(self, name: str) -> Column | None:
        """The one top-level column of that name."""
        found = [column for column in self.columns if column.name == name]
        return found[0] if len(found) == 1 else None

    def holding(self, names: Sequence[str]) -> list[Column]:
        """The top-level columns that hold ``names``, in order."""
        parts = [name.split(".") for name in names]
        heads = {".".join(part[:k]) for part in parts for k in range(1, len(part) + 1)}
        return [column for column in self.columns if column.name in heads]

    # ---- row groups --------------------------------------------------------------------------------------------------

    def chunks(self, leaves: Sequence[int]) -> np.ndarray:
        """(row groups, leaves, `metadata.NUMBERS`): leaf columns, in ascending order, of each row group; unchecked."""
        if len(self._groups) * len(leaves) * _LEAST > len(self._buf):
            raise self._damaged()
        places = np.full(max(leaves, default=-1) + 1, -1, np.int64)
        places[list(leaves)] = np.arange(len(leaves))
        table = np.full((len(self._groups), len(leaves), md.NUMBERS), MISSING, np.int64)
        self._groups[:] = MISSING
        begin = self._fields[md.GROUPS, 0]
        if len(table) and md.read_chunks(self._buf, begin, places, self._groups, table, self._scratch) < 0:
            raise self._damaged()
        return table

    def infos(self, leaves: Sequence[int]) -> list[list[ChunkInfo]]:
        """The same as values."""
        return [[_info(chunk, self.slack) for chunk in line] for line in self.chunks(leaves).tolist()]

    @cached_property
    def slack(self) -> int:
        """Bytes that sizes of column chunks may leave out: parquet-mr before 1.2.9 forgot the header of the dictionary
        page (PARQUET-816)."""
        begin, end, _ = self._fields[md.CREATED].tolist()
        made = b"" if begin == MISSING else self._buf[begin:end].tobytes()
        found = re.search(rb"parquet-mr(?: version (\d+)\.(\d+)\.(\d+))?", made)
        return _OLD_HEADER if found and tuple(int(part or 0) for part in found.groups()) < (1, 2, 9) else 0

    def check_groups(self) -> None:
        """Prove that the row groups hold as many rows and columns as the footer says."""
        leaves = sum(len(column.leaves) for column in self.columns)
        for group, (rows, columns) in enumerate(self._groups.tolist()):
            what = f"{columns} columns, but the schema has {leaves}" if columns != leaves else f"{rows} rows"
            if columns != leaves or rows < 0:
                raise SourceError(f"cannot read {self.name}, row group {group}: it has {what}; the footer is damaged")
        if (total := sum(self.group_rows)) != self.rows:
            raise SourceError(
                f"cannot read {self.name}: its footer counts {self.rows} rows, and its row groups {total}; "
                "the footer is damaged"
            )

    def proven(self, columns: list[Column]) -> Proven:
        """Prove the chunks of some columns; `SourceError` for the first that contradicts something."""
        leaves = [leaf for column in columns for leaf in self.leaves(column)]
        table = self.chunks([number for column in columns for number in column.leaves])

        def refuse(wrong: np.ndarray, what: Callable[[int, int], str]) -> None:
            if wrong.any():
                group, k = (int(at) for at in np.argwhere(wrong)[0])
                place = f"{self.name}, row group {group}, column {leaves[k].name!r}"
                raise SourceError(f"cannot read {place}: {what(group, k)}; the footer is damaged")

        rows, entries, size = table[..., md.ROWS], table[..., md.ENTRIES], table[..., md.SIZE]
        begin, empty = begins(table), (rows == 0) & (entries == 0)  # writers of empty row groups leave any offset
        refuse(table[..., md.ELSEWHERE] >= md.ENCRYPTED, lambda *_: "it is encrypted")
        refuse(table[..., md.TYPE] != [leaf.kind for leaf in leaves], lambda *_: "its type is not that of the schema")
        refuse(self._misnamed(leaves, table[..., md.PATH]), lambda *_: "its chunk is that of another column")
        few = np.where([leaf.repeated for leaf in leaves], (entries < rows) | (rows == 0), entries != rows)
        refuse(few & ~empty, lambda *at: f"{entries[at]} values in {rows[at]} rows")
        outside = (begin < 4) | (size < 0) | (begin > self._end) | (size > self._end - begin)
        refuse(
            outside & ~empty, lambda *at: f"its {size[at]} bytes from {begin[at]} on lie outside the pages of the file"
        )
        used = np.flatnonzero(~empty.ravel())
        used = used[np.argsort(begin.ravel()[used], kind="stable")]
        shared = np.zeros(empty.size, bool)
        shared[used[1:]] = begin.ravel()[used[1:]] < (begin + size).ravel()[used[:-1]]
        refuse(shared.reshape(empty.shape), lambda *at: f"its bytes from {begin[at]} on are those of another chunk too")
        return Proven(columns, leaves, table)

    def _misnamed(self, leaves: list[Leaf], positions: np.ndarray) -> np.ndarray:
        """Whose chunks do not carry the path of their column."""
        wrong = np.zeros(positions.shape, bool)
        for k, leaf in enumerate(leaves):
            path = _list(BINARY, [_binary(part) for part in leaf.path])
            found = (self._buf[max(0, at) : max(0, at) + len(path)].tobytes() for at in positions[:, k].tolist())
            wrong[:, k] = [part != path for part in found]
        return wrong

    # ---- as pyarrow sees it ------------------------------------------------------------------------------------------

    @cached_property
    def _described(self) -> pq.FileMetaData:
        """The columns and the metadata of the file, without row groups."""
        begin, end = self._elements[0][md.FROM], self._elements[-1][md.TO]
        values = self._raw(md.KEY_VALUES, LIST) or _list(STRUCT, [])
        with reading(self.name):
            return parsed(self._footer(len(self._elements), self._buf[begin:end].tobytes(), values))

    @cached_property
    def arrow_schema(self) -> pa.Schema:
        """The columns as Arrow has them."""
        with reading(self.name):
            return self._described.schema.to_arrow_schema()

    def schema_of(self, column: Column) -> pq.ParquetSchema:
        """The schema of a file of this column alone."""
        with reading(self.name):
            return parsed(self._footer(*self._selected([column]))).schema

    def parts(self, proven: Proven) -> Iterator[bytes]:
        """For each row group the footer of a file of that and of some columns alone."""
        selected = self._selected(proven.columns)
        for rows, inside in zip(self.group_rows, self.encoded(proven), strict=True):
            group = b"\x19" + _list(STRUCT, inside) + b"\x16" + _signed(0) + b"\x16" + _signed(rows) + b"\0"
            yield self._footer(*selected, rows, [group])

    def encoded(self, proven: Proven) -> Iterator[list[bytes]]:
        """For each row group the metadata of the chunks of some columns, as they are stored."""
        for chunks in proven.table:
            yield [self._buf[begin:end].tobytes() for begin, end in chunks[:, [md.BEGIN, md.END]].tolist()]

    @property
    def ordered(self) -> bool:
        """Whether the values of every column are ordered as those of its type; if not, statistics mean nothing."""
        count = sum(len(column.leaves) for column in self.columns)
        return self._raw(_ORDERS, LIST) == _list(STRUCT, [_OF_TYPE] * count)

    def _selected(self, columns: Sequence[Column]) -> tuple[int, bytes, bytes]:
        """(number of elements, the elements, key-value metadata) of a schema of some columns."""
        spans = [(self._elements[c.elements[0]][md.FROM], self._elements[c.elements[-1]][md.TO]) for c in columns]
        root = b"\x48" + _binary(b"schema") + b"\x15" + _signed(len(columns)) + b"\0"
        elements = root + b"".join(self._buf[begin:end].tobytes() for begin, end in spans)
        values = []
        if self._origin is not None:
            places = {column.elements[0]: k for k, column in enumerate(self.columns)}
            origin = pa.schema([self._origin.field(places[column.elements[0]]) for column in columns])
            encoded = base64.b64encode(origin.serialize().to_pybytes())
            values = [b"\x18" + _binary(_ORIGIN) + b"\x18" + _binary(encoded) + b"\0"]
        return 1 + sum(len(column.elements) for column in columns), elements, _list(STRUCT, values)

    @cached_property
    def _origin(self) -> pa.Schema | None:
        """The Arrow schema that the writer had, from which pyarrow restores types."""
        encoded = (self._described.metadata or {}).get(_ORIGIN)
        if encoded is None:
            return None
        with reading(self.name):
            schema = pa.ipc.read_schema(pa.py_buffer(base64.b64decode(encoded)))
        return schema if len(schema) == len(self.columns) else None

    def _footer(self, count: int, elements: bytes, values: bytes, rows: int = 0, groups: Sequence[bytes] = ()) -> bytes:
        created = self._raw(md.CREATED, BINARY)
        return (
            b"\x15" + _signed(max(1, int(self._fields[md.VERSION, 2]))) + b"\x19" + _list_head(STRUCT, count) + elements
            + b"\x16" + _signed(rows) + b"\x19" + _list(STRUCT, groups) + b"\x19" + values
            + (b"\x18" + created if created else b"") + b"\0"
        )  # fmt: skip

    def _raw(self, field: int, kind: int) -> bytes:
        begin, end, found = self._fields[field].tolist()
        return self._buf[begin:end].tobytes() if found == kind else b""


def parsed(footer: bytes) -> pq.FileMetaData:
    """The bytes of a footer, parsed by pyarrow."""
    return pq.read_metadata(io.BytesIO(b"PAR1" + footer + len(footer).to_bytes(4, "little") + b"PAR1"))


def begins(table: np.ndarray) -> np.ndarray:
    """Where `Footer.chunks` begin in the file: with a dictionary page, if there is one."""
    data, dictionary = table[..., md.DATA_OFFSET], table[..., md.DICTIONARY_OFFSET]
    return np.where((dictionary > 0) & (dictionary < data), dictionary, data)


def column_chunks(source: Ranges, leaf: int) -> list[ChunkInfo]:
    """Leaf column ``leaf`` of each row group of the file that ``source`` spans."""
    return [chunks[0] for chunks in Footer(source).infos([leaf])]


def _is_leaf(element: list[int]) -> bool:
    return element[md.KIND] != MISSING and element[md.CHILDREN] <= 0


def _info(chunk: list[int], slack: int) -> ChunkInfo:
    codec, encodings, index = chunk[md.CODEC], chunk[md.ENCODINGS], (chunk[md.INDEX_OFFSET], chunk[md.INDEX_SIZE])
    return ChunkInfo(
        chunk[md.ROWS],
        _CODECS[codec] if 0 <= codec < len(_CODECS) else f"number {codec}",
        frozenset(_ENCODINGS.get(bit, f"number {bit}") for bit in range(32) if encodings >> bit & 1),
        chunk[md.ENTRIES],
        chunk[md.DECOMPRESSED],
        chunk[md.SIZE],
        chunk[md.DATA_OFFSET],
        None if chunk[md.DICTIONARY_OFFSET] == MISSING else chunk[md.DICTIONARY_OFFSET],
        None if MISSING in index else index,
        bool(chunk[md.ELSEWHERE]),
        slack,
    )


# ---- Thrift's compact protocol, written ------------------------------------------------------------------------------


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def _signed(value: int) -> bytes:
    return _varint(value << 1 if value >= 0 else ~value << 1 | 1)


def _binary(value: bytes) -> bytes:
    return _varint(len(value)) + value


def _list_head(kind: int, count: int) -> bytes:
    return bytes([count << 4 | kind]) if count < 15 else bytes([15 << 4 | kind]) + _varint(count)


def _list(kind: int, members: Sequence[bytes]) -> bytes:
    return _list_head(kind, len(members)) + b"".join(members)
