"""Arrow IPC files and streams, local or remote, and tables, readers and streams in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import cached_property

import pyarrow as pa

from fastxent.errors import FastxentError, SourceError, Where
from fastxent.io.arrow.batches import Batches
from fastxent.io.arrow.ipc import Index, read_index
from fastxent.io.batch import Batch, Block, even
from fastxent.io.layout import Layout, RowReader
from fastxent.io.remarks import Remarks
from fastxent.io.storage.files import File, reading
from fastxent.io.storage.identity import VersionedFile, unchanged
from fastxent.io.storage.stored import StoredBytes
from fastxent.kernels.floats import FLOAT_TYPES

UNIT_BYTES = 64 << 20  # of logits: some milliseconds of work, against a millisecond for the state
_SMALL_UNIT_BYTES, _UNITS = 16 << 20, 8  # a source of fewer units has smaller ones, so that all workers get some
BLOCK_BYTES = 2 << 20  # of logits read at once: stays in the cache
_BESIDE_BYTES = 8 << 20  # of the columns beside them
_PEEK_ROWS = 1024


def roots(schema: pa.Schema, names: Sequence[str]) -> list[str]:
    """The top-level columns that hold ``names``, in the order of the schema."""
    found = set()
    for name in names:
        while name and schema.get_field_index(name) < 0:
            name = name.rpartition(".")[0]
        found.add(name)
    return sorted(found, key=schema.get_field_index)


# ---- IPC files and streams -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ipc(VersionedFile):
    """An IPC file or stream. Picklable: the receiver reads the index again."""

    @cached_property
    def index(self) -> Index:
        with self.opened() as source, reading(self.name):
            return read_index(source)

    @contextmanager
    def opened(self, *, forward: bool = False) -> Iterator[StoredBytes]:
        """The bytes of the file. `SourceError` if it changes before the block ends."""
        with unchanged(self.file, self.version), closing(StoredBytes(self.file, forward=forward)) as source:
            yield source

    @property
    def divisible(self) -> bool:
        """Whether some rows of a record batch can be read without the others."""
        return self.file.local and not self.index.compressed


@dataclass(frozen=True)
class IpcUnit:
    """Rows of consecutive record batches."""

    ipc: Ipc
    reader: RowReader
    where: Where
    rows: int
    first_batch: int
    skip: int  # rows of the first batch that belong to the unit before

    @property
    def nbytes(self) -> int:
        return self.rows * self.reader.row_bytes

    def slice(self, begin: int, end: int) -> IpcUnit:
        """Some rows of the unit."""
        number, skip = self.first_batch, self.skip + begin
        while skip and skip >= self.ipc.index.batches[number].rows:
            number, skip = number + 1, skip - self.ipc.index.batches[number].rows
        where = replace(self.where, first_row=self.where.first_row + begin)
        return replace(self, where=where, rows=end - begin, first_batch=number, skip=skip)

    def read(self, rows: int, block_bytes: int, whole: bool) -> Iterator[Batch]:
        reader = self.reader
        beside = self._roots(reader.stored_beside)
        divided = self.ipc.divisible and not whole
        rows = even(self.rows, rows) if divided else min(rows, reader.rows_in(block_bytes))
        logits = self._roots([name for name in reader.stored if name in reader.layout.names or not divided])
        step, stored = reader.rows_in(min(block_bytes, BLOCK_BYTES)), FLOAT_TYPES[reader.layout.dtype].stored
        with self.ipc.opened(forward=True) as source:
            opened = Batches(source, self.ipc.index, list(dict.fromkeys([*logits, *beside])))

            def blocks(number: int, begin: int, end: int) -> Iterator[Block]:
                place = self._place(opened, number, logits)
                for at in range(begin, end, step):
                    n = min(step, end - at)
                    if place is None:
                        yield reader.block(self._read(opened, number, at, n, logits))
                    else:  # as they lie in the file
                        data = source.read(place + at * reader.row_bytes, n * reader.row_bytes)
                        yield Block(data.view(stored).reshape(n, -1), reader.layout.dtype, {})

            for number, begin, n, first in self._steps(rows, opened, beside):
                where = Where(self.ipc.name, None, first)
                if divided:
                    columns = reader.beside(self._read(opened, number, begin, n, beside), n, where)
                    yield Batch(blocks(number, begin, begin + n), columns, where, n)
                else:
                    yield reader.batch(self._read(opened, number, begin, n, logits), where)

    def _place(self, opened: Batches, number: int, logits: list[str]) -> int | None:
        """Where the logits of a record batch begin in the file, if they are rows of C numbers one behind the other."""
        if logits != [*self.reader.layout.names]:
            return None  # one column per class, or a column within another
        with reading(self.ipc.name):
            return opened.evenly(number, logits[0], self.reader.row_bytes)

    def _roots(self, names: Sequence[str]) -> list[str]:
        return roots(self.ipc.index.schema, names)

    def _read(self, opened: Batches, number: int, begin: int, rows: int, names: list[str]) -> pa.RecordBatch:
        with reading(self.ipc.name):
            return opened.read(number, begin, rows, names)

    def _steps(self, most: int, opened: Batches, beside: list[str]) -> Iterator[tuple[int, int, int, int]]:
        """The unit's rows, at most so many at a time: record batch, first row in it, rows, first row in the file."""
        skip, left, first, batches = self.skip, self.rows, self.where.first_row, self.ipc.index.batches
        for number in range(self.first_batch, len(batches)):
            end = min(batches[number].rows, skip + left)
            with reading(self.ipc.name):
                step = min(most, opened.rows_in(number, _BESIDE_BYTES, beside))
            for begin in range(skip, end, step):
                yield number, begin, min(step, end - begin), first + begin - skip
            first, left, skip = first + end - skip, left - (end - skip), 0
            if not left:
                return
        if left:
            raise SourceError(f"cannot read {self.ipc.name}: it has fewer rows than when the plan was made; plan again")


class IpcPart(Remarks):
    """One IPC file or stream of a source."""

    def __init__(self, file: File, form: str) -> None:
        self.format = form
        self.file = file
        self.inputs = (file,)
        self.name = file.name
        self.hive = file.hive
        self.ipc = Ipc(file)
        self.schema: pa.Schema = self.ipc.index.schema
        self.rows: int | None = self.ipc.index.rows

    def row_bytes(self, names: Sequence[str]) -> int | None:
        with self.ipc.opened() as source:
            return source.size // self.rows if self.rows else None

    def width(self, layout: Layout, expected: int | None) -> int | None:
        index, step = self.ipc.index, 1  # a row that tells is mostly the first
        with self.ipc.opened() as source:
            names = roots(index.schema, layout.names)
            opened = Batches(source, index, names)
            for number, batch in enumerate(index.batches):
                begin = 0
                while begin < batch.rows:
                    with reading(self.name):
                        part = opened.read(number, begin, min(step, batch.rows - begin), names)
                    width = layout.width(part, self.name)
                    if width is not None:
                        return width
                    begin, step = begin + len(part), min(2 * step, _PEEK_ROWS)
        return None

    def units(self, reader: RowReader) -> Iterator[IpcUnit]:
        most, divisible = even(self.ipc.index.rows, unit_rows(reader, self.ipc.index.rows)), self.ipc.divisible
        row, taken, start = 0, 0, (0, 0)
        for number, batch in enumerate(self.ipc.index.batches):
            used = 0
            while batch.rows - used:
                if not taken:
                    start = (number, used)
                # a compressed batch is decompressed as a whole: it is not shared out
                step = min(batch.rows - used, most - taken) if divisible else batch.rows
                used, taken = used + step, taken + step
                if taken >= most:
                    yield IpcUnit(self.ipc, reader, Where(self.name, None, row), taken, *start)
                    row, taken = row + taken, 0
        if taken:
            yield IpcUnit(self.ipc, reader, Where(self.name, None, row), taken, *start)


# ---- in memory -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class MemoryUnit:
    """A slice of a record batch that is already in memory."""

    batch: pa.RecordBatch
    reader: RowReader
    where: Where

    @property
    def rows(self) -> int:
        return len(self.batch)

    @property
    def nbytes(self) -> int:
        return self.rows * self.reader.row_bytes

    def slice(self, begin: int, end: int) -> MemoryUnit:
        """Some rows of the unit."""
        where = replace(self.where, first_row=self.where.first_row + begin)
        return MemoryUnit(self.batch.slice(begin, end - begin), self.reader, where)

    def read(self, rows: int, block_bytes: int, whole: bool) -> Iterator[Batch]:
        step = min(rows, self.reader.rows_in(block_bytes)) if whole else rows
        yield from self.reader.cut(self.batch, self.where, step)


def unit_rows(reader: RowReader, rows: int) -> int:
    """Rows of a unit of a source of ``rows``."""
    small, large = (reader.unit_rows(nbytes) for nbytes in (_SMALL_UNIT_BYTES, UNIT_BYTES))
    return min(large, max(small, rows // _UNITS))


def _memory_units(
    batches: Iterator[pa.RecordBatch], reader: RowReader, name: str, rows: int = 0
) -> Iterator[MemoryUnit]:
    """rows: int. How many there are, if that is known."""
    row, most = 0, unit_rows(reader, rows)
    for batch in batches:
        for begin in range(0, len(batch), most):
            part = batch.slice(begin, most)
            yield MemoryUnit(part, reader, Where(name, None, row))
            row += len(part)


class TablePart(Remarks):
    """A table in memory."""

    format = "table"
    hive: tuple[tuple[str, str | None], ...] = ()
    inputs: tuple[File, ...] = ()

    def __init__(
        self, table: pa.Table, name: str = "<table>", refused: Mapping[str, FastxentError] | None = None
    ) -> None:
        self.name = name
        self.refused = dict(refused or {})  # columns that could not become a part of the table, and why
        self.table = table
        self.schema = table.schema
        self.rows: int | None = table.num_rows

    def row_bytes(self, names: Sequence[str]) -> int | None:
        return int(self.table.select(roots(self.schema, names)).nbytes) // self.rows if self.rows else None

    def width(self, layout: Layout, expected: int | None) -> int | None:
        for batch in self.table.select(roots(self.schema, list(layout.names))).to_batches():
            width = layout.width(batch, self.name)
            if width is not None:
                return width
        return None

    def units(self, reader: RowReader) -> Iterator[MemoryUnit]:
        # the columns first: chunks of a column that is not read would cut the batches short
        table = self.table.select(roots(self.schema, reader.stored))
        return _memory_units(iter(table.to_batches()), reader, self.name, len(table))


class StreamPart(Remarks):
    """A stream of record batches in memory. It can be read again only if it can be restarted."""

    format = "stream"
    hive: tuple[tuple[str, str | None], ...] = ()
    inputs: tuple[File, ...] = ()

    def __init__(self, start: Callable[[], pa.RecordBatchReader], name: str, *, once: bool = False) -> None:
        self.name = name
        self.rows: int | None = None
        self._start = start
        self._once = once
        with reading(name):
            self._stream = start()
        self._peeked: list[pa.RecordBatch] = []
        self._fresh = True
        self._seen: int | None = None
        self.schema: pa.Schema = self._stream.schema

    @property
    def consumed(self) -> pa.RecordBatchReader | None:
        """The object whose rows can be read once, by one reader; None if the stream can be restarted."""
        return self._stream if self._once else None

    def _next(self) -> pa.RecordBatch | None:
        with reading(self.name):
            batch = next(self._stream, None)
            if batch is not None:
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
                raise SourceError(f"cannot read {self.name} twice: it is a stream; pass a Table or a file instead")
            self._stream, self._peeked = self._start(), []
        self._fresh = False
        rows, columns = 0, roots(self.schema, reader.stored)
        try:
            while (batch := self._peeked.pop(0) if self._peeked else self._next()) is not None:
                rows += len(batch)
                yield batch.select(columns)
        finally:  # a connection may serve one stream at a time: an error that is kept must not keep this one
            self._stream.close()
        if self._seen not in (None, rows):
            raise SourceError(
                f"cannot read {self.name} twice: it had {self._seen} rows first and {rows} then; pass a Table or a file"
            )
        self._seen = rows
