"""Parquet files: logits through the native page reader, the columns beside them through pyarrow.

A unit is a row group, or a run of pages of a large one. What the native reader does not support (one column a class,
an encoding it has not met) is streamed through pyarrow in batches of bounded size, with the same answers. Within a row
group pyarrow decodes page after page, so a batch costs its own rows (about five times their logits, lists and levels
included), not the row group: files are read through a small buffer, and ``pre_buffer`` is off. `Dataset.to_batches`
would decode whole row groups ahead, and the pages of a mapping would stay with the process.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fastxent.errors import SourceError, Where
from fastxent.io import native
from fastxent.io.batch import Batch, Logits, LogitsStream
from fastxent.io.chunk import LogitsChunk, leaf_of, leaves_of, plan
from fastxent.io.files import File, reading
from fastxent.io.footer import ChunkInfo, chunks_of, column_chunks
from fastxent.io.layout import Layout, RowReader
from fastxent.io.ranges import LocalRanges, Ranges
from fastxent.io.remote import ReadRanges

MAGIC = (b"PAR1", b"PARE")
_PEEK_ROWS = 16
_BUFFER = 1 << 20  # read at a time: without it pyarrow fetches a whole column chunk
_LEAST_AHEAD = 1 << 20  # of a reader of a file elsewhere
# Of a part in the file: a row group of more than two of the least is shared out. Each part reads the other columns
# from the beginning of the row group on, so that there should not be too many of them.
_LEAST_PART, _MOST_PART, _PARTS = 48 << 20, 128 << 20, 16


def open_parquet(file: File, metadata: pq.FileMetaData | None = None) -> pq.ParquetFile:
    """The file as pyarrow reads it; a broken footer is a `SourceError`."""
    handle = file.open(mapped=False)
    with reading(file.name):
        return pq.ParquetFile(handle, metadata=metadata, pre_buffer=False, buffer_size=_BUFFER)


@dataclass(frozen=True)
class ParquetUnit:
    """A row group."""

    in_place: ClassVar[bool] = False
    file: File
    reader: RowReader
    where: Where
    rows: int
    metadata: pq.FileMetaData | None = field(default=None, repr=False, compare=False)

    @property
    def nbytes(self) -> int:
        return self.rows * self.reader.row_bytes

    def batches(self, max_bytes: int) -> Iterator[Batch]:
        group = self.where.row_group or 0
        step = self.reader.rows_in(max_bytes)
        first = self.where.first_row
        with open_parquet(self.file, self.metadata) as opened:
            stream = _stream(opened, [group], self.reader.stored, step)
            while True:
                with reading(self.file.name, f"row group {group}"):
                    batch = next(stream, None)
                if batch is None:
                    break
                yield from self.reader.cut(batch, Where(self.file.name, group, first), max_bytes)
                first += len(batch)
        if first != self.where.first_row + self.rows:
            raise SourceError(
                f"{self.file.name}, row group {group} holds {first - self.where.first_row} rows where its footer "
                f"says {self.rows}; the file is damaged"
            )

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "metadata": None}  # a worker elsewhere reads the footer itself


@dataclass(frozen=True)
class NativeUnit:
    """A row group or a run of its pages: logits by the native reader, the other columns of the same rows by pyarrow."""

    in_place: ClassVar[bool] = False
    file: File
    reader: RowReader
    where: Where
    rows: int
    chunk: LogitsChunk

    @property
    def nbytes(self) -> int:
        return self.rows * self.reader.row_bytes

    def batches(self, max_bytes: int) -> Iterator[Batch]:
        group, first = self.where.row_group, self.where.first_row - self.chunk.first_row
        step = self.reader.rows_in(max_bytes)
        with (
            closing(_ranges(self.file, self.chunk, max_bytes)) as source,
            closing(_Beside(self.file, self.reader, group or 0, step)) as beside,
        ):
            beside.take(self.chunk.first_row)
            for values, bad, row in native.read_rows(self.chunk, source, max_bytes):
                where = Where(self.file.name, group, first + row)
                columns = self.reader.beside(beside.take(len(values)), len(values), where)
                yield Batch(Logits(values, self.reader.layout.dtype), columns, where, bad)

    def streams(self, rows: int, max_bytes: int) -> Iterator[Batch]:
        """Batches of ``rows`` rows whose logits are read part by part, each of at most ``max_bytes``."""
        group, first = self.where.row_group, self.where.first_row - self.chunk.first_row
        rest: list[native.Rows] = []  # what was read past the end of a batch
        with (
            closing(_ranges(self.file, self.chunk, max_bytes)) as source,
            closing(_Beside(self.file, self.reader, group or 0, rows)) as beside,
        ):
            beside.take(self.chunk.first_row)
            reads = native.read_rows(self.chunk, source, max_bytes)

            def parts(begin: int, end: int, bad: dict[int, str]) -> Iterator[np.ndarray]:
                while begin < end:
                    values, odd, row = rest.pop() if rest else next(reads)
                    k = min(len(values), end - row)
                    if k < len(values):
                        rest.append(native.Rows(values[k:], {i - k: odd[i] for i in odd if i >= k}, row + k))
                    bad.update({i + row - at: odd[i] for i in odd if i < k})
                    yield values[:k]
                    begin = row + k

            for at in range(self.chunk.first_row, self.chunk.first_row + self.rows, rows):
                n = min(rows, self.chunk.first_row + self.rows - at)
                bad: dict[int, str] = {}
                logits = LogitsStream((n, self.reader.n_classes), self.reader.layout.dtype, parts(at, at + n, bad))
                where = Where(self.file.name, group, first + at)
                yield Batch(logits, self.reader.beside(beside.take(n), n, where), where, bad)
            next(reads, None)  # lets the reader see that nothing is left over


class _Beside:
    """The columns beside the logits of a row group, as many rows at a time as are asked for."""

    def __init__(self, file: File, reader: RowReader, group: int, step: int) -> None:
        self._name, self._group = file.name, group
        self._names = reader.stored_beside
        self._opened = open_parquet(file) if self._names else None
        self._stream = _stream(self._opened, [group], self._names, step) if self._opened else iter(())
        self._rest: pa.RecordBatch | None = None

    def take(self, rows: int) -> pa.RecordBatch | None:
        """The next ``rows`` rows; None where there are no columns."""
        if self._opened is None:
            return None
        parts: list[pa.RecordBatch] = []
        while rows or not parts:
            if self._rest is None or not len(self._rest):
                with reading(self._name, f"row group {self._group}"):
                    self._rest = next(self._stream, None)
                if self._rest is None:
                    if not rows:
                        return None
                    raise SourceError(
                        f"{self._name}, row group {self._group}: the columns beside the logits end {rows} rows early; "
                        "the file is damaged"
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
        if self._opened is not None:
            self._opened.close()


def _stream(opened: pq.ParquetFile, groups: list[int], columns: list[str], rows: int) -> Iterator[pa.RecordBatch]:
    # threads belong to the caller
    return iter(opened.iter_batches(rows, row_groups=groups, columns=columns, use_threads=False))


class ParquetPart:
    """One file of a source."""

    format = "parquet"

    def __init__(self, file: File) -> None:
        self.file = file
        self.inputs = (file,)
        self.name = file.name
        self.hive = file.hive
        self.fallback: str | None = None  # why the logits of some row group went through pyarrow
        with open_parquet(file) as opened:
            if opened.metadata.num_columns == 0:
                raise SourceError(f"{file.name} has no columns; write it again")
            with reading(file.name):
                self.schema: pa.Schema = opened.schema_arrow
            self.rows: int = opened.metadata.num_rows
            self.groups = opened.metadata.num_row_groups

    def width(self, layout: Layout, expected: int | None) -> int | None:
        """Classes in the first row that has any. Where the footer counts rows x ``expected`` values, that is taken
        as the answer without a read: rows of another length are found, one by one, when they are read."""
        name = layout.names[0]
        if expected is not None:
            groups = self.chunks([name])
            if all(len(chunks) == 1 for chunks in groups):
                if sum(chunks[0].entries for chunks in groups) == self.rows * expected:
                    return expected
        with open_parquet(self.file) as opened:
            stream = _stream(opened, list(range(self.groups)), [name], _PEEK_ROWS)
            while True:
                with reading(self.name):
                    batch = next(stream, None)
                if batch is None:
                    return None
                width = layout.width(batch, self.name)
                if width is not None:
                    return width

    def chunks(self, names: Sequence[str]) -> list[list[ChunkInfo]]:
        """What the footer says of the leaves of top-level columns, in each row group."""
        with open_parquet(self.file) as opened, closing(_ranges(self.file)) as source:
            return chunks_of(source, leaves_of(opened.schema, names))

    def units(self, reader: RowReader) -> Iterator[ParquetUnit | NativeUnit]:
        with open_parquet(self.file) as opened:
            metadata = opened.metadata
        chunks: list[LogitsChunk | str | None] = [None] * self.groups
        if not reader.blind:
            chunks[:] = self.plans(reader.layout, reader.n_classes)
            self.fallback = next((chunk for chunk in chunks if isinstance(chunk, str)), None)
        first = 0
        for group, chunk in enumerate(chunks):
            rows = metadata.row_group(group).num_rows
            where = Where(self.name, group, first)
            if rows and isinstance(chunk, LogitsChunk):
                yield from self._native_units(chunk, reader, where)
            elif rows:
                yield ParquetUnit(self.file, reader, where, rows, metadata)
            first += rows

    def plans(self, layout: Layout, n_classes: int) -> list[LogitsChunk | str]:
        """How the native reader reads the logits of each row group, or why pyarrow has to."""
        with open_parquet(self.file) as opened:
            schema = opened.schema
        leaf = None if layout.per_class else leaf_of(schema, layout.names[0])
        if leaf is None:
            return ["one column per class" if layout.per_class else "logits inside a struct"] * self.groups
        with closing(_ranges(self.file)) as source:
            infos = column_chunks(source, leaf)
            return [
                plan(schema, leaf, info, group, n_classes, layout.dtype, source) for group, info in enumerate(infos)
            ]

    def _native_units(self, chunk: LogitsChunk, reader: RowReader, where: Where) -> Iterator[NativeUnit]:
        parts, size = [chunk], chunk.end - chunk.begin
        if size >= 2 * _LEAST_PART and (self.file.local or chunk.page_index):
            with closing(_ranges(self.file)) as source:
                target = max(_LEAST_PART, min(_MOST_PART, size // _PARTS))
                parts = native.split(chunk, source, target, walk=self.file.local)
        for part in parts:
            place = Where(self.name, where.row_group, where.first_row + part.first_row)
            yield NativeUnit(self.file, reader, place, part.rows, part)


def _ranges(file: File, chunk: LogitsChunk | None = None, max_bytes: int = 0) -> Ranges:
    """The bytes of a file: read in place where it is on this machine, else of ``chunk`` alone, ahead of the reader."""
    with reading(file.name):
        if file.local:
            return LocalRanges(file.path, ahead=0 if chunk is None else chunk.end)
        if chunk is None:
            return ReadRanges(file.remote.fetch, file.name, 0, file.remote.size, whole=False)
        return ReadRanges(file.remote.fetch, file.name, chunk.begin, chunk.end, max(_LEAST_AHEAD, 4 * max_bytes))
