"""Columns that pyarrow reads: those beside the logits, and logits that the native reader does not take.

pyarrow follows the headers of pages without a doubt: a page that says 2^31 nulls is 2^31 nulls. So it reads through a
file that proves the headers as their bytes pass, with a footer that has been proven (`footer.Footer`).
"""

from __future__ import annotations

import io
import os
import time
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from fastxent.errors import SourceError
from fastxent.io.parquet import metadata as md, thrift
from fastxent.io.parquet.footer import Footer, Proven, begins, parsed
from fastxent.io.storage.files import File, reading
from fastxent.io.storage.remote import RemoteFile
from fastxent.io.storage.spent import SPENT

_BUFFER = 1 << 20  # read at a time: without it pyarrow fetches a whole column chunk
MOST_PAGE = 256 << 20  # bytes of a page decompressed: pyarrow holds it whole
_MOST_HEADER = 16 << 20
_WEIGHED = 16  # rows that are looked at to learn how long strings are
_BYTE_ARRAY, _DICTIONARIES = 6, 1 << 2 | 1 << 8  # a type and two encodings of the format
LEAST_BATCH = 2 << 20  # bytes beside the logits of a batch


class Place(NamedTuple):
    """Where the pages of a column chunk lie, and how many values they hold."""

    column: str
    begin: int
    end: int
    entries: int
    slack: int  # bytes behind ``end`` that may belong to it


@dataclass(frozen=True)
class Stored:
    """Columns of a row group, proven, for pyarrow to read. Plain values: picklable."""

    group: int
    names: tuple[str, ...]
    row_bytes: int  # of a row of those beside the logits in memory, on average
    unweighed: tuple[str, ...]  # those whose rows may take more than the footer tells: strings of a dictionary
    places: tuple[Place, ...] = field(repr=False)
    footer: bytes = field(repr=False)  # of a file of this row group and these columns alone

    def rows_in(self, max_bytes: int) -> int:
        """How many rows a batch may have whose logits take ``max_bytes``, for the sake of what is beside them."""
        return rows_in(max_bytes, self.row_bytes)

    def weighed(self, file: File) -> Stored:
        """The same with ``row_bytes`` of the first rows, where the footer does not tell."""
        if not self.unweighed:
            return self
        with closing(Rows(file, replace(self, names=self.unweighed), _WEIGHED)) as rows:
            batch = rows.next()
        row_bytes = self.row_bytes + (batch.nbytes // len(batch) if batch else 0)
        return replace(self, row_bytes=row_bytes, unweighed=())


def rows_in(max_bytes: int, row_bytes: int) -> int:
    """Rows of a batch whose logits take ``max_bytes``, if what is beside them takes ``row_bytes`` a row."""
    return max(1, max(max_bytes, LEAST_BATCH) // max(1, row_bytes))


def stored(footer: Footer, proven: Proven, names: Sequence[str], logits: Sequence[str] = ()) -> Iterator[Stored]:
    """The columns ``names`` of each row group. ``row_bytes`` leaves out the columns of ``logits``."""
    proven = proven.only(footer.holding(names))
    table, rows = proven.table, np.maximum(1, footer.group_rows)
    uncounted = set(footer.holding(logits))
    _, beside, weighed = proven.only([column for column in proven.columns if column not in uncounted])
    decompressed, text, entries = (weighed[..., slot] for slot in (md.DECOMPRESSED, md.TEXT, md.ENTRIES))
    weights = (np.maximum(np.maximum(decompressed, text), entries * 8).sum(axis=1) // rows).tolist()
    coded = (weighed[..., md.ENCODINGS] & _DICTIONARIES != 0) & np.array(
        [leaf.kind == _BYTE_ARRAY for leaf in beside], bool
    )
    unweighed = coded & (text == thrift.MISSING) & (decompressed * entries.astype(float) > LEAST_BATCH)
    sections = np.stack([begins(table), table[..., md.SIZE], table[..., md.ENTRIES]], axis=-1).tolist()
    paths = [leaf.name for leaf in proven.leaves]
    for group, small in enumerate(footer.parts(proven)):
        places = (
            Place(path, begin, begin + size, entries, footer.slack)
            for path, (begin, size, entries) in zip(paths, sections[group], strict=True)
        )
        unknown = tuple(beside[k].name for k in np.flatnonzero(unweighed[group]).tolist())
        yield Stored(group, tuple(names), weights[group], unknown, tuple(sorted(places, key=lambda p: p.begin)), small)


class Rows:
    """The rows of some columns of a row group, in batches of at most ``step`` rows or as many as are asked for."""

    def __init__(self, file: File, columns: Stored, step: int) -> None:
        self._where = f"row group {columns.group}"
        self._name = file.name
        self._rest: pa.RecordBatch | None = None
        self._names = columns.names
        self._coded: list[int] | None = None  # columns that hold dictionaries
        with reading(file.name, self._where):
            self._opened = opened(file, columns)
            # threads belong to the caller
            self._batches = self._opened.iter_batches(step, columns=list(columns.names), use_threads=False)

    def next(self) -> pa.RecordBatch | None:
        """The next rows; None behind the last."""
        with reading(self._name, self._where):
            batch = next(self._batches, None)
        if batch is None:
            return None
        if self._coded is None:
            for name in self._names:  # pyarrow leaves out what it does not find
                if not any(batch.schema.get_field_index(outer) >= 0 for outer in _outers(name)):
                    raise SourceError(
                        f"cannot read {self._name}, {self._where}: no values are stored in column {name!r}"
                    )
            self._coded = [k for k, field in enumerate(batch.schema) if _holds_dictionary(field.type)]
        for k in self._coded:
            if not _indices_are_sound(batch.column(k)):
                raise SourceError(
                    f"cannot read {self._name}, {self._where}, column {batch.schema.names[k]!r}: a dictionary index is "
                    "outside the dictionary; the file is damaged"
                )
        return batch

    def take(self, rows: int) -> pa.RecordBatch:
        """The next ``rows`` rows."""
        parts: list[pa.RecordBatch] = []
        while rows or not parts:
            if self._rest is None or not len(self._rest):
                self._rest = self.next()
                if self._rest is None:
                    raise SourceError(
                        f"cannot read {self._name}, {self._where}: the columns beside the logits end {rows} rows "
                        "early; the file is damaged"
                    )
            part = self._rest.slice(0, rows)
            parts.append(part)
            self._rest = self._rest.slice(len(part))
            rows -= len(part)
        if len(parts) == 1:
            return parts[0]
        table = pa.Table.from_batches(parts).combine_chunks()
        return table.to_batches()[0] if len(table) else parts[0]

    def close(self) -> None:
        self._opened.close(force=True)


def opened(file: File, columns: Stored) -> pq.ParquetFile:
    """Some columns of a row group as pyarrow reads them; to be closed by ``close(force=True)``."""
    handle = pa.PythonFile(_ProvenFile(file, columns), mode="r")
    return pq.ParquetFile(
        handle, metadata=parsed(columns.footer), pre_buffer=False, buffer_size=_BUFFER, page_checksum_verification=True
    )


def _outers(name: str) -> Iterator[str]:
    """``a.b.c``, ``a.b`` and ``a``: a field of that name is a column, or lies in one."""
    while name:
        yield name
        name = name.rpartition(".")[0]


def _holds_dictionary(kind: pa.DataType) -> bool:
    if isinstance(kind, pa.BaseExtensionType):
        return _holds_dictionary(kind.storage_type)
    if pa.types.is_nested(kind):
        return any(_holds_dictionary(kind.field(k).type) for k in range(kind.num_fields))
    return bool(pa.types.is_dictionary(kind))


def _indices_are_sound(array: pa.Array) -> bool:
    """Whether dictionary indices point into their dictionaries: pyarrow takes them as they come."""
    if isinstance(array, pa.ExtensionArray):
        return _indices_are_sound(array.storage)
    if pa.types.is_struct(array.type):
        return all(_indices_are_sound(array.field(k)) for k in range(array.type.num_fields))
    if pa.types.is_nested(array.type):
        return _indices_are_sound(array.values)
    if not pa.types.is_dictionary(array.type):
        return True
    found = pc.min_max(array.indices)
    low, high = found["min"].as_py(), found["max"].as_py()
    return low is None or (low >= 0 and high < len(array.dictionary))


class _ProvenFile(io.RawIOBase):
    """A file whose reader sees no page that has not been proven."""

    def __init__(self, file: File, columns: Stored) -> None:
        self._fd, self._at = -1, 0
        self._remote = None if file.local else RemoteFile(file.remote, file.name)
        if self._remote is None:
            self._fd = os.open(file.path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        self._begins = [place.begin for place in columns.places]
        self._pages = [_Pages(place, f"{file.name}, row group {columns.group}") for place in columns.places]

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence == io.SEEK_SET:
            self._at = offset
        else:
            self._at = self._remote.seek(offset, whence) if self._remote else os.lseek(self._fd, offset, whence)
        return self._at

    def tell(self) -> int:
        return self._at

    def read(self, size: int = -1) -> bytes:
        at = self._at
        if self._remote is None:
            start = time.perf_counter()
            data = os.pread(self._fd, size, at)
            SPENT.read += time.perf_counter() - start
        else:
            self._remote.seek(at)
            data = self._remote.read(size)
        self._at = at + len(data)
        chunk = bisect_right(self._begins, at) - 1
        if data and chunk >= 0:
            self._pages[chunk].prove(at, data)
        return data

    def close(self) -> None:
        if self._remote is not None:
            self._remote.close()
        elif self._fd >= 0:
            os.close(self._fd)
        self._fd = -1
        super().close()


class _Pages:
    """The page headers of a column chunk."""

    def __init__(self, place: Place, where: str) -> None:
        self._place, self._where = place, f"{where}, column {place.column!r}"
        self._slots = thrift.new_header()
        self._at = self._next = place.begin  # behind what has passed; of the next header
        self._left, self._number = place.entries, 0  # values to come, pages before
        self._rest = b""  # of a header that has passed in part

    def prove(self, at: int, data: bytes) -> None:
        """Prove what begins in the bytes ``data`` from ``at`` of the file on, which come one behind the other."""
        if at != self._at:
            raise self._broken("its pages were not read in order")
        self._at += len(data)
        if not self._left or self._next >= self._at:
            return
        buf = self._rest + data
        first, view = self._at - len(buf), np.frombuffer(buf, np.uint8)
        self._rest = b""
        while self._left and self._next < self._at:
            size = thrift.read_page_header(view[self._next - first :], self._slots)
            if size == thrift.NEED_MORE and self._at < self._place.end + self._place.slack:
                self._rest = buf[self._next - first :]
                if len(self._rest) > _MOST_HEADER:
                    raise self._broken("its header is malformed")
                return
            if size < 0:
                raise self._broken("its header is malformed")
            self._page(size)
        if self._left and self._next >= self._place.end:
            raise self._broken(f"the page is missing, and {self._left} values with it")

    def _page(self, header: int) -> None:
        kind, uncompressed, compressed, _, entries = self._slots[: thrift.NUM_VALUES + 1].tolist()
        self._next += header + compressed
        if self._next > self._place.end + self._place.slack:
            raise self._broken(f"its {compressed} bytes extend past the end of the column chunk")
        if uncompressed > MOST_PAGE:
            raise self._broken(
                f"its {uncompressed} bytes exceed the limit of {MOST_PAGE}; write the file with pages of about 1 MB"
            )
        if kind == thrift.DICTIONARY_PAGE:
            if entries > uncompressed:
                raise self._broken(f"{entries} values do not fit in a dictionary of {uncompressed} bytes")
        elif kind != thrift.INDEX_PAGE:
            if entries > self._left:
                raise self._broken(f"it has {entries} values where the footer leaves {self._left}")
            self._left -= entries
            self._number += 1

    def _broken(self, what: str) -> SourceError:
        return SourceError(f"cannot read {self._where}, page {self._number}: {what}")
