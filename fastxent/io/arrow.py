"""Arrow: IPC files (mapped, not copied) and streams, and tables, readers and streams in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar

import pyarrow as pa
import pyarrow.types as pt

from fastxent.errors import SourceError, Where
from fastxent.io.batch import Batch
from fastxent.io.files import File, reading
from fastxent.io.layout import Layout, RowReader, pick

FILE_MAGIC = b"ARROW1"
STREAM_MAGIC = b"\xff\xff\xff\xff"
UNIT_BYTES = 32 << 20  # of logits: keeps a worker busy, and what a unit maps counts as memory until it is done


def roots(schema: pa.Schema, names: list[str]) -> list[str]:
    """The top-level columns that hold ``names``."""
    return list(dict.fromkeys(n if schema.get_field_index(n) >= 0 else n.partition(".")[0] for n in names))


def _check(batch: pa.RecordBatch, reader: RowReader) -> None:
    """Bytes from a file may claim anything: prove offsets and indices before they are followed.

    The logits' own offsets are proven where they are used, and their values need no proof.
    """
    batch.validate()
    for name in reader.stored:
        if name not in reader.layout.names:
            pick(batch, name).validate(full=True)


# ---- IPC files -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class IpcUnit:
    """Rows of consecutive record batches of an IPC file."""

    file: File
    reader: RowReader
    where: Where
    rows: int
    first_batch: int
    skip: int  # rows of the first batch that belong to the unit before
    in_place: bool

    @property
    def nbytes(self) -> int:
        return self.rows * self.reader.row_bytes

    def batches(self, max_bytes: int) -> Iterator[Batch]:
        skip, left, first = self.skip, self.rows, self.where.first_row
        columns = None if self.in_place else self.reader.stored
        batches = record_batches(self.file, columns, self.first_batch)
        while left:
            with reading(self.file.name):
                batch = next(batches, None)
                if batch is None:
                    raise SourceError(f"{self.file.name} ended early: it changed while it was read")
                part = batch.slice(skip, left)
                _check(part, self.reader)
            yield from self.reader.cut(part, Where(self.file.name, None, first), max_bytes)
            skip, left, first = 0, left - len(part), first + len(part)


def record_batches(file: File, columns: list[str] | None, start: int = 0) -> Iterator[pa.RecordBatch]:
    """Record batches of an IPC file from number ``start`` on, with the columns named (those that hold them).

    Leave ``columns`` out for a file that is read in place: choosing fields makes pyarrow copy whole bodies.
    """
    options = pa.ipc.IpcReadOptions()
    with file.open() as handle, reading(file.name):
        if columns is not None:
            schema = pa.ipc.open_file(handle).schema
            options.included_fields = sorted(schema.get_field_index(name) for name in roots(schema, columns))
        opened = pa.ipc.open_file(handle, options=options)
        for index in range(start, opened.num_record_batches):
            yield opened.get_batch(index)


def _in_place(file: File) -> bool:
    """Whether the record batches are views of the mapped file: it is on this machine and not compressed."""
    if not file.local:
        return False
    with file.open() as handle, reading(file.name):
        mapping = handle.read_buffer(handle.size())
        opened = pa.ipc.open_file(handle)
        if not opened.num_record_batches:
            return True
        buffers = [b for column in opened.get_batch(0).columns for b in column.buffers() if b is not None and b.size]
        return all(mapping.address <= b.address < mapping.address + mapping.size for b in buffers)


class IpcPart:
    """One IPC file of a source."""

    format = "arrow file"

    def __init__(self, file: File) -> None:
        self.file = file
        self.inputs = (file,)
        self.name = file.name
        self.hive = file.hive
        with file.open() as handle, reading(file.name):
            self.schema: pa.Schema = pa.ipc.open_file(handle).schema
        self.in_place = _in_place(file)
        # compressed bodies are decoded to count their rows: through a narrow column, if there is one
        single = [f for f in self.schema if len(self.schema.get_all_field_indices(f.name)) == 1]
        narrow = [f.name for f in single if pt.is_primitive(f.type)]
        columns = narrow[:1] if narrow and not self.in_place else None
        self.lengths = [len(batch) for batch in record_batches(file, columns)]
        self.rows: int | None = sum(self.lengths)

    def width(self, layout: Layout, expected: int | None) -> int | None:
        for batch in record_batches(self.file, None if self.in_place else list(layout.names)):
            with reading(self.name):
                batch.validate()
            width = layout.width(batch, self.name)
            if width is not None:
                return width
        return None

    def units(self, reader: RowReader) -> Iterator[IpcUnit]:
        most = reader.rows_in(UNIT_BYTES)
        row, taken, start = 0, 0, (0, 0)
        for index, length in enumerate(self.lengths):
            used = 0
            while length - used:
                if not taken:
                    start = (index, used)
                # a compressed batch is decoded as a whole: it is not shared out
                step = min(length - used, most - taken) if self.in_place else length
                used, taken = used + step, taken + step
                if taken >= most:
                    yield IpcUnit(self.file, reader, Where(self.name, None, row), taken, *start, self.in_place)
                    row, taken = row + taken, 0
        if taken:
            yield IpcUnit(self.file, reader, Where(self.name, None, row), taken, *start, self.in_place)


# ---- in memory -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class MemoryUnit:
    """A slice of a record batch that is already in memory."""

    in_place: ClassVar[bool] = True
    batch: pa.RecordBatch
    reader: RowReader
    where: Where

    @property
    def rows(self) -> int:
        return len(self.batch)

    @property
    def nbytes(self) -> int:
        return self.rows * self.reader.row_bytes

    def batches(self, max_bytes: int) -> Iterator[Batch]:
        yield from self.reader.cut(self.batch, self.where, max_bytes)


def _memory_units(batches: Iterator[pa.RecordBatch], reader: RowReader, name: str) -> Iterator[MemoryUnit]:
    row, most = 0, reader.rows_in(UNIT_BYTES)
    for batch in batches:
        for begin in range(0, len(batch), most):
            part = batch.slice(begin, most)
            yield MemoryUnit(part, reader, Where(name, None, row))
            row += len(part)


class TablePart:
    """A table in memory."""

    format = "table"
    hive: tuple[tuple[str, str | None], ...] = ()
    inputs: tuple[File, ...] = ()

    def __init__(self, table: pa.Table, name: str = "<table>") -> None:
        self.name = name
        self.table = table
        self.schema = table.schema
        self.rows: int | None = table.num_rows

    def width(self, layout: Layout, expected: int | None) -> int | None:
        for batch in self.table.select(roots(self.schema, list(layout.names))).to_batches():
            width = layout.width(batch, self.name)
            if width is not None:
                return width
        return None

    def units(self, reader: RowReader) -> Iterator[MemoryUnit]:
        # the columns first: chunks of a column that is not read would cut the batches short
        table = self.table.select(roots(self.schema, reader.stored))
        return _memory_units(iter(table.to_batches()), reader, self.name)


class StreamPart:
    """A stream of record batches; read again only where its maker can start it anew.

    IPC streams on disk come this way too: their batches are found only one after the other.
    """

    def __init__(
        self,
        start: Callable[[], pa.RecordBatchReader],
        name: str,
        *,
        once: bool = False,
        file: File | None = None,
    ) -> None:
        self.name = name
        self.format = "stream" if file is None else "arrow stream"
        self.rows: int | None = None
        self.hive = () if file is None else file.hive
        self.inputs: tuple[File, ...] = () if file is None else (file,)
        self._start = start
        self._once = once
        self._checked = file is not None
        with reading(name):
            self._stream = start()
        self._peeked: list[pa.RecordBatch] = []
        self._fresh = True
        self._seen: int | None = None
        self.schema: pa.Schema = self._stream.schema

    @classmethod
    def of_file(cls, file: File) -> StreamPart:
        """An IPC stream on disk."""
        return cls(lambda: pa.ipc.open_stream(file.open(mapped=False)), file.name, file=file)

    def _next(self) -> pa.RecordBatch | None:
        with reading(self.name):
            batch = next(self._stream, None)
            if batch is not None and self._checked:
                batch.validate()
            return batch

    def width(self, layout: Layout, expected: int | None) -> int | None:
        seen = 0
        while True:
            if seen == len(self._peeked):
                batch = self._next()
                if batch is None:
                    return None
                self._peeked.append(batch)
            width = layout.width(self._peeked[seen], self.name)
            if width is not None:
                return width
            seen += 1

    def units(self, reader: RowReader) -> Iterator[MemoryUnit]:
        return _memory_units(self._batches(reader), reader, self.name)

    def _batches(self, reader: RowReader) -> Iterator[pa.RecordBatch]:
        if not self._fresh:
            if self._once:
                raise SourceError(f"{self.name} can be read only once and has been; pass a Table or a file instead")
            self._stream, self._peeked = self._start(), []
        self._fresh = False
        rows, columns = 0, roots(self.schema, reader.stored)
        while True:
            batch = self._peeked.pop(0) if self._peeked else self._next()
            if batch is None:
                break
            rows += len(batch)
            batch = batch.select(columns)
            if self._checked:
                with reading(self.name):
                    _check(batch, reader)
            yield batch
        if self._seen not in (None, rows):
            raise SourceError(
                f"{self.name} gave {self._seen} rows at first and {rows} when read again; pass a Table or a file"
            )
        self._seen = rows


@dataclass(frozen=True)
class StreamUnit:
    """An IPC stream on disk from its beginning to its end: its batches are found only one after the other."""

    in_place: ClassVar[bool] = False
    file: File
    reader: RowReader
    rows: int | None = None
    nbytes: int | None = None

    @property
    def where(self) -> Where:
        return Where(self.file.name, None, 0)

    def batches(self, max_bytes: int) -> Iterator[Batch]:
        for unit in StreamPart.of_file(self.file).units(self.reader):
            yield from unit.batches(max_bytes)
